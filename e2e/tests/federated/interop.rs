//! Other implementations across the boundary: go-spiffe's client and server of bundle endpoints, relying parties that know OIDC
//! alone, and mTLS in Go, Rust and Python.

#![allow(clippy::indexing_slicing, reason = "a JSON value that is missing is null")]

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use countersign_contract::environment::test::{AUTHLIB, JOSE};
use countersign_e2e::{
    World,
    credential::FOLDER,
    federation::{RemoteYaml, federated},
    fixture::{AUDIENCE, INPUT, Image, PodSpec},
    pods::is_event,
    replicas::address,
    stolen_credential::Answer,
    tokens::{altered, signed_by_another_key, unsigned},
    wait::{DEFAULT_TIMEOUT, until},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use crate::{
    consents::{AUTHORITY, authorities, introduce},
    polled::install,
};

/// Where the endpoint of go-spiffe is in its pod, by the profile `https_spiffe` and by `https_web`.
const SPIFFE: &str = "0.0.0.0:8443";
const WEB: &str = "0.0.0.0:9443";

/// A request to replace all authorities now.
fn rotation() -> String {
    format!("{AUTHORITY}, rotation: {{after: '{}'}}", Timestamp::now())
}

fn sequence(bundle: &Value) -> Result<u64> {
    bundle["spiffe_sequence"].as_u64().context("a bundle without sequence")
}

/// R6, R16: go-spiffe's federation client sees the first bundle, and the one after a rotation, which it authenticates by the bundle
/// that it has by then.
#[tokio::test]
async fn the_go_spiffe_federation_client_watches_our_endpoint_in_both_profiles() {
    federated("go-watch", async |here, there| {
        install(here, there).await?;
        authorities(here, there, &["web", "spiffe"]).await?;
        there.endpoint_serves().await?;
        let first: Value = serde_json::from_str(&there.bundle_document().await?)?;
        let files = json!({ "bundle.json": first.to_string(), "ca.crt": there.web_authority().await? });
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": files,
            "metadata": { "name": "peer", "namespace": here.namespace },
        });
        here.cluster.apply(&map.to_string()).await?;
        let (bundle, ca) = (format!("{INPUT}/bundle.json"), format!("{INPUT}/ca.crt"));
        let (web, spiffe, id) = (there.web_url().await?, there.spiffe_url().await?, there.endpoint_id());
        for (name, url, more) in
            [("web", &web, vec!["-ca", &ca]), ("spiffe", &spiffe, vec!["-bundle", &bundle, "-spiffe-id", &id])]
        {
            let watch = ["-watch", url, "-profile", name, "-trust-domain", &there.trust_domain];
            let input = "configMap: {name: peer}";
            let pod = PodSpec { input, ..PodSpec::client(name, Image::ClientGo, &[&watch[..], &more].concat()) };
            here.cluster.apply(&pod.pod(&here.namespace)).await?;
        }
        let sequence = sequence(&first)?;
        for name in ["web", "spiffe"] {
            let what = "the bundle as it is published";
            let update = here.wait_for_output(name, what, DEFAULT_TIMEOUT, |line| is_event(line, "update")).await?;
            let seen = [&update["sequence"], &update["x509_authorities"], &update["jwt_authorities"]];
            ensure!(seen == [sequence, 2, 2], "one signs, one is its spare: {update}, published {first}");
            ensure!(update["refresh_hint"] == 1.0, "{update}");
        }
        let grant = format!("federatesWith: [{}]", here.trust_domain);
        there.cluster.apply(&there.granting_yaml(&rotation(), &grant)).await?;
        for name in ["web", "spiffe"] {
            let newer = |line: &Value| is_event(line, "update") && line["sequence"].as_u64() > Some(sequence);
            here.wait_for_output(name, "a newer bundle", DEFAULT_TIMEOUT, newer).await?;
        }
        Ok(())
    })
    .await;
}

/// R6, R16, R50: each cluster polls an endpoint of go-spiffe in the other one, which serves the other's trust domain: one by
/// `https_spiffe`, one by `https_web`. Of the first, the authorities are then replaced.
#[tokio::test]
async fn an_endpoint_of_go_spiffe_is_polled_in_both_profiles() {
    federated("go-endpoint", async |here, there| {
        // Endpoints at private addresses may be polled.
        install(here, there).await?;
        authorities(here, there, &["endpoint"]).await?;
        let (first, second) = (GoEndpoint::start(there).await?, GoEndpoint::start(here).await?);
        let (endpoint, bundle) = (first.spiffe(there), there.bundle_document().await?);
        let spiffe = RemoteYaml { endpoint, bundle, namespaces: vec![&here.namespace], ..RemoteYaml::default() };
        here.cluster.apply(&here.remote_yaml(there, &spiffe)).await?;
        let web = RemoteYaml { endpoint: second.web(), namespaces: vec![&there.namespace], ..RemoteYaml::default() };
        there.cluster.apply(&there.remote_yaml(here, &web)).await?;
        for (world, other, sequence) in [(here, there, first.sequence), (there, here, second.sequence)] {
            let status = polled(world, other, sequence).await?;
            let remote = &status["remote"];
            ensure!((&remote["x509Authorities"], &remote["jwtAuthorities"]) == (&2.into(), &2.into()), "{status}");
        }
        let grant = format!("federatesWith: [{}]", here.trust_domain);
        there.cluster.apply(&there.granting_yaml(&rotation(), &grant)).await?;
        let status = polled(here, there, first.sequence + 1).await?;
        ensure!(status["remote"]["lastError"].is_null(), "{status}");
        Ok(())
    })
    .await;
}

/// Waits until the bundle of the other's trust domain was polled with at least this sequence, and returns the status.
async fn polled(world: &World, other: &World, sequence: u64) -> Result<Value> {
    let name = &other.trust_domain;
    until(&format!("sequence {sequence} of {name} was polled"), DEFAULT_TIMEOUT, async || {
        let status = world.cluster.trust_domains().await?.get(name).await?.data["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().find(|one| one["type"] == "Ready").cloned().unwrap_or_default();
        let is_there = status["bundle"]["sequence"].as_u64() >= Some(sequence);
        ensure!(is_there && ready["status"] == "True" && ready["reason"] == "Polled", "{status}");
        Ok(Some(status))
    })
    .await
}

/// A pod that serves the bundle of its trust domain with go-spiffe, and is at a port of the node too.
struct GoEndpoint {
    pod: String,
    node: String,
    port: i32,
    /// Of the first bundle that it serves.
    sequence: u64,
    /// The authority of the web certificate, PEM.
    authority: String,
}

impl GoEndpoint {
    async fn start(world: &World) -> Result<Self> {
        let authority = world.create_web_certificate(&world.namespace, "web").await?;
        let (certificate, key) = (format!("{INPUT}/tls.crt"), format!("{INPUT}/tls.key"));
        // Who begins with the bundle as it is published refuses one with a lower sequence.
        let sequence = sequence(&serde_json::from_str(&world.bundle_document().await?)?)? + 1;
        let number = sequence.to_string();
        let serve = ["-serve-bundle", SPIFFE, "-serve-web", WEB, "-certificate", &certificate, "-key", &key];
        let numbers = ["-sequence", &number, "-refresh-hint", "1s"];
        let client = PodSpec::client("endpoint", Image::ClientGo, &[&serve[..], &numbers].concat());
        world.cluster.apply(&PodSpec { input: "secret: {secretName: web}", ..client }.pod(&world.namespace)).await?;
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "endpoint", "namespace": world.namespace },
            "spec": { "type": "NodePort", "selector": { "app": "endpoint" }, "ports": [{ "port": 443, "targetPort": 9443 }] },
        });
        world.cluster.apply(&service.to_string()).await?;
        let listening = |line: &Value| is_event(line, "listening");
        world.wait_for_output("endpoint", "that it listens", DEFAULT_TIMEOUT, listening).await?;
        let service = world.cluster.api::<Service>(&world.namespace).get("endpoint").await?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let port = ports.first().and_then(|port| port.node_port).context("the Service has no port of the node")?;
        let pod = address(&world.ready("endpoint").await?)?;
        let node = world.node_address().await?;
        // A poll that fails is repeated after half a minute.
        until("the Service leads to the pod", DEFAULT_TIMEOUT, async || {
            Ok(tokio::net::TcpStream::connect((node.as_str(), u16::try_from(port)?)).await.ok().map(drop))
        })
        .await?;
        Ok(Self { pod, node, port, sequence, authority })
    }

    fn spiffe(&self, world: &World) -> String {
        format!("url: 'https://{}:8443/', profile: https_spiffe, spiffeID: '{}'", self.pod, world.id("endpoint"))
    }

    fn web(&self) -> String {
        let Self { node, port, authority, .. } = self;
        format!("url: 'https://{node}:{port}/', profile: https_web, caBundle: {}", json!(authority))
    }
}

/// R16, R74: what knows OIDC and not SPIFFE validates a JWT-SVID by the URL of its issuer alone, and refuses what it should.
#[tokio::test]
async fn a_jwt_svid_is_validated_by_jose_and_authlib_from_the_discovery_document_alone() {
    let programs = [JOSE, AUTHLIB].map(|variable| std::env::var(variable).map_err(|_| variable));
    if let Some(Err(variable)) = programs.iter().find(|program| program.is_err()) {
        not_run(variable);
        return;
    }
    federated("oidc", async |here, there| {
        install(here, there).await?;
        let issuer = here.web_url().await?;
        here.cluster.apply(&here.trust_domain_yaml(&format!("{AUTHORITY}, jwt: {{issuer: '{issuer}'}}"))).await?;
        here.cluster.apply(&here.identity_yaml("client", &format!("jwt: {{audiences: [{AUDIENCE}]}}"))).await?;
        here.cluster.apply(&PodSpec::hold("client").pod(&here.namespace)).await?;
        here.ready("client").await?;
        let token = here.jwt("client", AUDIENCE).await?;
        let mut authority = tempfile::NamedTempFile::new()?;
        authority.write_all(here.web_authority().await?.as_bytes())?;
        for program in programs.iter().flatten() {
            let validate = |token: &str, audience: &str| {
                let mut command = Command::new(program);
                command.args([&issuer, audience]);
                command.envs([("NODE_EXTRA_CA_CERTS", authority.path()), ("SSL_CERT_FILE", authority.path())]);
                run(command, token)
            };
            let accepted = until("the discovery document is served", DEFAULT_TIMEOUT, async || {
                validate(&token, AUDIENCE).map(Some)
            })
            .await?;
            ensure!(accepted == json!({ "event": "accepted", "id": here.id("client") }), "{program}: {accepted}");

            let another = validate(&token, "another.example")?;
            ensure!(is_event(&another, "refused") && another["claim"] == "aud", "{program}: {another}");
            let other_subject = altered(&token, "sub", json!(here.id("another")))?;
            for (what, token) in [
                ("an altered token", other_subject),
                ("a token of another key", signed_by_another_key(&token)?),
                ("a token without signature", unsigned(&token)?),
            ] {
                let answer = validate(&token, AUDIENCE)?;
                ensure!(is_event(&answer, "refused") && answer["claim"].is_null(), "{program}: {what}: {answer}");
            }
        }
        Ok(())
    })
    .await;
}

#[expect(clippy::print_stderr, reason = "it is shown in the output of the tests")]
fn not_run(variable: &str) {
    eprintln!("NOT RUN: {variable} names no program: see `cargo xtask clients`");
}

/// Gives a token to a program, and returns the object that it prints.
fn run(mut command: Command, token: &str) -> Result<Value> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = piped.spawn().with_context(|| format!("run {command:?}"))?;
    program.stdin.take().context("no standard input")?.write_all(token.as_bytes())?;
    let output = program.wait_with_output()?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("the output is no JSON")
}

/// R6: in each language a client and a server, each with another language on the other side of the boundary.
#[tokio::test]
async fn go_and_python_talk_mtls_across_the_boundary() {
    federated("languages", async |here, there| {
        authorities(here, there, &["go", "rust", "python"]).await?;
        for (world, other) in [(here, there), (there, here)] {
            introduce(world, other, &[&world.namespace], "").await?;
            world.domain_condition(&other.trust_domain, "Ready", "True", "Bootstrapped").await?;
        }
        let domain = here.trust_domain.as_str();
        let (go, rust, python) = (here.id("go"), here.id("rust"), here.id("python"));
        let files = ["--folder", FOLDER, "--trust-domain", domain];
        let servers = [
            ("rust", Image::Demo, vec!["serve", "--listen", "0.0.0.0:8443", "--allow", &go, "--allow", &python]),
            ("go", Image::ClientGo, vec!["-listen", "0.0.0.0:8443", "-allow", &rust]),
            ("python", Image::ClientPython, [&["--serve", "8443", "--allow", &rust], &files[..]].concat()),
        ];
        for (name, image, arguments) in &servers {
            let server = PodSpec { image: *image, ..PodSpec::demo(name, arguments) };
            there.cluster.apply(&server.pod(&there.namespace)).await?;
        }
        let mut targets = Vec::new();
        for (name, ..) in &servers {
            let listening = |line: &Value| is_event(line, "listening");
            there.wait_for_output(name, "that it listens", DEFAULT_TIMEOUT, listening).await?;
            targets.push((format!("{}:8443", address(&there.ready(name).await?)?), there.id(name)));
        }
        let [(rust, rust_id), (go, go_id), (python, python_id)] = targets.as_slice() else { bail!("{targets:?}") };

        let there_files = ["--folder", FOLDER, "--trust-domain", &there.trust_domain];
        let call = |target, expect| vec!["call", "--target", target, "--expect", expect, "--every", "1s", "--stay"];
        let clients = [
            ("go-to-rust", "go", Image::ClientGo, vec!["-call", rust, "-expect", rust_id], rust_id),
            (
                "python-to-rust",
                "python",
                Image::ClientPython,
                [&["--call", rust, "--expect", rust_id], &there_files[..]].concat(),
                rust_id,
            ),
            ("rust-to-go", "rust", Image::Demo, call(go, go_id), go_id),
            ("rust-to-python", "rust", Image::Demo, call(python, python_id), python_id),
        ];
        for (name, account, image, arguments, _) in &clients {
            let client = PodSpec { image: *image, restart: "OnFailure", ..PodSpec::demo(name, arguments) };
            here.cluster.apply(&client.account(account).pod(&here.namespace)).await?;
        }
        for (name, account, _, _, peer) in &clients {
            let what = "that it has talked to the server";
            let handshake = |line: &Value| is_event(line, "handshake");
            let handshake = here.wait_for_output(name, what, DEFAULT_TIMEOUT, handshake).await?;
            ensure!(handshake["local"] == here.id(account) && handshake["peer"] == **peer, "{name}: {handshake}");
        }
        // The server trusts the authority of one trust domain, and not that of its own.
        let own = there.credential("rust").await?.present(python).await?;
        ensure!(own == Answer::Refused("UnknownCA".to_owned()), "{own:?}");
        Ok(())
    })
    .await;
}
