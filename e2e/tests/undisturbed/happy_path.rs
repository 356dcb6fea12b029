//! The happy path: ordinary pods get identities without any change to their applications.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    credential::{CREDENTIAL_BUNDLE, FOLDER, TRUST_BUNDLE_SUFFIX},
    fixture::{AUDIENCE, PodSpec},
    pods::{is_event, restarts},
    scenario, tokens,
    wait::{DEFAULT_TIMEOUT, gone},
};
use rustls::pki_types::CertificateDer;
use serde_json::Value;

/// A server, reachable as `server:8443`, and its objects.
fn server(world: &World) -> String {
    let serve = PodSpec::demo("server", &["serve", "--listen", "0.0.0.0:8443", "--allow", &world.id("client")]);
    format!(
        "{}{}---
apiVersion: v1
kind: Service
metadata: {{name: server, namespace: {}}}
spec:
  selector: {{app: server}}
  ports: [{{port: 8443}}]
",
        world.identity_yaml("server", ""),
        serve.deployment(&world.namespace, 1),
        world.namespace
    )
}

/// R14, R74.
#[tokio::test]
async fn two_ordinary_pods_hold_svids_nobody_handed_them_and_talk_mtls() {
    scenario("happy-path", async |world| {
        let jwt = format!("jwt: {{audiences: [{AUDIENCE}]}}");
        let call = [
            "call",
            "--target",
            "server:8443",
            "--expect",
            &world.id("server"),
            "--every",
            "100ms",
            "--count",
            "20",
            "--stay",
        ];
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&server(world)).await?;
        world.cluster.apply(&world.identity_yaml("client", &jwt)).await?;
        world.cluster.apply(&PodSpec::demo("client", &call).pod(&world.namespace)).await?;
        world.ready("client").await?;

        let sums = world
            .wait_for_output("client", "how its calls went", DEFAULT_TIMEOUT, |line| {
                is_event(line, "summary") && line["handshakes"] == 20
            })
            .await?;
        assert_eq!(sums["failed"], 0, "{sums}");
        let handshake =
            world.wait_for_output("client", "a handshake", DEFAULT_TIMEOUT, |line| is_event(line, "handshake")).await?;
        assert_eq!(handshake["local"], world.id("client"));
        assert_eq!(handshake["peer"], world.id("server"));

        // The same identity from every source: Workload API (above), files, and as a token.
        let credential = world.credential("client").await?;
        assert_eq!(credential.id, world.id("client"));
        openssl_accepts(world, "client", &credential.chain).await?;
        for token in [world.jwt("client", AUDIENCE).await?, world.jwt_file("client", AUDIENCE).await?] {
            let claims = tokens::claims(&token)?;
            assert_eq!(claims["sub"], world.id("client"));
            assert_eq!(claims["aud"], serde_json::json!([AUDIENCE]));
            assert!(claims["exp"].is_i64(), "a token ends");
        }
        Ok(())
    })
    .await;
}

/// `openssl verify`, strictly, for both usages.
async fn openssl_accepts(world: &World, pod: &str, chain: &[CertificateDer<'_>]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let (leaf, rest) = chain.split_first().context("an empty chain")?;
    std::fs::write(path("leaf.der"), leaf)?;
    std::fs::write(path("ca.crt"), world.file(pod, &format!("{FOLDER}/ca.crt")).await?)?;
    std::fs::write(path("chain.pem"), world.file(pod, &format!("{FOLDER}/tls.crt")).await?)?;
    for usage in ["sslclient", "sslserver"] {
        let mut verify = Command::new("openssl");
        verify.args(["verify", "-x509_strict", "-purpose", usage, "-CAfile"]).arg(path("ca.crt"));
        if !rest.is_empty() {
            verify.arg("-untrusted").arg(path("chain.pem"));
        }
        let output = verify.arg(path("leaf.der")).output().context("run openssl")?;
        ensure!(output.status.success(), "openssl verify: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[tokio::test]
async fn the_identity_is_there_before_the_first_instruction() {
    scenario("first", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("early", "")).await?;
        world.cluster.apply(&PodSpec::demo("early", &["first-instruction"]).pod(&world.namespace)).await?;
        let pod = world.ready("early").await?;
        let first = world
            .wait_for_output("early", "what was there", DEFAULT_TIMEOUT, |line| is_event(line, "first-instruction"))
            .await?;
        assert_eq!(first["present"], true, "{first}");
        assert_eq!(first["id"], world.id("early"));
        assert_eq!(restarts(&pod), 0);
        Ok(())
    })
    .await;
}

/// R2.
#[tokio::test]
async fn five_replicas_hold_one_id_and_five_keys() {
    scenario("five", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("many", "")).await?;
        world.cluster.apply(&PodSpec::hold("many").deployment(&world.namespace, 5)).await?;
        let mut keys = std::collections::BTreeSet::new();
        for pod in world.ready_pods("many", 5).await? {
            let credential = world.credential(&kube::ResourceExt::name_any(&pod)).await?;
            assert_eq!(credential.id, world.id("many"));
            keys.insert(credential.public_key);
        }
        assert_eq!(keys.len(), 5);
        Ok(())
    })
    .await;
}

/// R33: only attested facts determine the id; a pod with the same facts gets the same id again, for a new key.
#[tokio::test]
async fn the_same_facts_give_the_same_id() {
    scenario("facts", async |world| {
        let path = "path: '/ns/{namespace}/pod/{podName}/of/{serviceAccount}'\nx509: {dnsNames: ['{serviceAccount}.{namespace}.svc']}";
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("account", path)).await?;
        let pod = PodSpec::hold("fact").account("account").pod(&world.namespace);
        let mut keys = Vec::new();
        for _ in 0..2 {
            world.cluster.apply(&pod).await?;
            world.ready("fact").await?;
            let credential = world.credential("fact").await?;
            assert_eq!(credential.id, format!("spiffe://{}/ns/{}/pod/fact/of/account", world.trust_domain, world.namespace));
            assert_eq!(credential.dns_names, [format!("account.{}.svc", world.namespace)]);
            keys.push(credential.public_key);
            countersign_e2e::apply::delete(&world.pods(), "fact").await?;
            gone(&world.pods(), "fact", DEFAULT_TIMEOUT).await?;
        }
        assert_ne!(keys[0], keys[1]);
        Ok(())
    })
    .await;
}

/// R69.
#[tokio::test]
async fn a_job_that_ends_at_once_gets_its_identity() {
    scenario("job", async |world| {
        let job = PodSpec { restart: "Never", ..PodSpec::demo("brief", &["first-instruction", "--exit"]) };
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("brief", "")).await?;
        world.cluster.apply(&job.job(&world.namespace, 1)).await?;
        let name = countersign_e2e::wait::until("the Job has a pod", DEFAULT_TIMEOUT, async || {
            let pods = world.pods().list(&kube::api::ListParams::default().labels("app=brief")).await?;
            Ok(pods.items.first().map(kube::ResourceExt::name_any))
        })
        .await?;
        world.succeeded(&name).await?;
        let first = world
            .wait_for_output(&name, "what was there", Duration::from_secs(10), |line| {
                is_event(line, "first-instruction")
            })
            .await?;
        assert_eq!(first["id"], world.id("brief"), "{first}");
        Ok(())
    })
    .await;
}

/// R71, R105: all files exist, in one directory that is swapped atomically.
#[tokio::test]
async fn the_files_lie_where_the_environment_says() {
    scenario("files", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("filed", &format!("jwt: {{audiences: [{AUDIENCE}]}}"))).await?;
        world.cluster.apply(&PodSpec::hold("filed").pod(&world.namespace)).await?;
        world.ready("filed").await?;
        let listed = String::from_utf8(world.demo("filed", &["ls", FOLDER]).await?)?;
        let listed: Vec<_> = listed.lines().collect();
        let trust_bundle = format!("{}{TRUST_BUNDLE_SUFFIX}", world.trust_domain);
        let token = format!("jwt/{AUDIENCE}.token");
        for file in [CREDENTIAL_BUNDLE, "tls.crt", "tls.key", "ca.crt", &trust_bundle, &token] {
            assert!(listed.contains(&file), "{file} is not among {listed:?}");
        }
        // The names of the release before lead to the same files.
        let former_trust_bundle = format!("{}.trust-bundle.pem", world.trust_domain);
        for (former, file) in
            [("credential-bundle.pem", CREDENTIAL_BUNDLE), (former_trust_bundle.as_str(), trust_bundle.as_str())]
        {
            let said = world.demo("filed", &["stat", &format!("{FOLDER}/{former}")]).await?;
            assert_eq!(countersign_e2e::pods::lines(&String::from_utf8(said)?)[0]["link"], file, "{former}");
            let read = world.file("filed", &format!("{FOLDER}/{former}")).await?;
            assert_eq!(read, world.file("filed", &format!("{FOLDER}/{file}")).await?, "{former}");
        }

        let said = world.demo("filed", &["stat", FOLDER, "/run/countersign/workload.sock"]).await?;
        let said = countersign_e2e::pods::lines(&String::from_utf8(said)?);
        assert_eq!(said[0]["kind"], "directory");
        assert_ne!(said[0]["link"], Value::Null, "the folder is swapped as one, so it is a link");
        assert_eq!(said[1]["kind"], "socket");
        assert_eq!(said[1]["mode"], "0666");
        Ok(())
    })
    .await;
}

/// R3: containers of one pod with their own identities.
#[tokio::test]
async fn each_container_can_have_its_own_identity() {
    scenario("each", async |world| {
        let second = "- name: second
  image: countersign.local/demo:dev
  imagePullPolicy: IfNotPresent
  args: [first-instruction]
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}";
        let pod = PodSpec {
            annotations: "countersign.dev/per-container: 'true'",
            more: second,
            ..PodSpec::demo("pair", &["first-instruction"])
        };
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        for container in ["app", "second"] {
            let path = format!("path: '/ns/{{namespace}}/container/{container}'");
            let selected = world
                .named_identity_yaml(container, "pair", &path)
                .replace("serviceAccounts: [pair]", &format!("serviceAccounts: [pair], containers: [{container}]"));
            world.cluster.apply(&selected).await?;
        }
        world.cluster.apply(&pod.pod(&world.namespace)).await?;
        world.ready("pair").await?;
        for container in ["app", "second"] {
            let said = countersign_e2e::wait::until("the container has spoken", DEFAULT_TIMEOUT, async || {
                let said = countersign_e2e::pods::lines(&world.logs("pair", container).await?);
                Ok(said.into_iter().find(|line| is_event(line, "first-instruction")))
            })
            .await?;
            assert_eq!(
                said["id"],
                format!("spiffe://{}/ns/{}/container/{container}", world.trust_domain, world.namespace)
            );
        }
        Ok(())
    })
    .await;
}
