//! R87: no private key of a workload leaves its pod, and no token is anywhere it does not belong. Searched are the debug
//! logs of all containers that ran during the tests, all objects (including events), the API server's audit log, which
//! covers deleted objects, and the logs of the cluster's components. Searched for are all keys and tokens that a test
//! recorded, and the patterns of keys and tokens, which also find secrets that no test recorded.
//!
//! Runs after the tests whose keys and tokens it searches for.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use anyhow::{Context as _, Result, ensure};
use countersign_contract::objects::ENDPOINT_NAMESPACE;
use countersign_e2e::{
    Cluster, World,
    audit::{Audit, Named, lines, title},
    cli,
    cluster::{AUTHORITIES, SYSTEM},
    endpoint::WEB_SECRET,
    faults::report_counts,
    fixture::{AUDIENCE, PodSpec},
    log_capture::{LogCapture, MissingLogs},
    pods::{AGENT, APP},
    scenario, secret_patterns,
    secrets::{RecordedSecrets, Search, Secret},
    wait::{DEFAULT_TIMEOUT, gone, until},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Discovery, ResourceExt as _,
    api::{DynamicObject, ListParams},
    discovery::verbs,
};
use serde_json::{Value, json};

/// The prefix of the namespaces of the test that leaks a token on purpose.
const LOUD: &str = "e2e-found-";
/// One log may be missing for this many container runs: some pods are deleted the moment they start.
const MOST_UNREAD: usize = 20;

#[tokio::test]
async fn no_key_and_no_token_is_in_logs_events_or_objects() {
    scenario("secrets", async |world| {
        live(world).await?;
        look_everywhere(&world.cluster).await?;
        RecordedSecrets::of(&world.cluster).await?.clear()
    })
    .await;
}

/// The search works: a token in a log, one in an object, one in an event of a deleted namespace, and a key that no test
/// recorded are found.
#[tokio::test]
async fn what_is_there_is_found() {
    scenario("found", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("loud", &format!("jwt: {{audiences: [{AUDIENCE}]}}"))).await?;
        let loud = PodSpec { restart: "Never", ..PodSpec::demo("loud", &["token", "--audience", AUDIENCE]) };
        world.cluster.apply(&loud.pod(&world.namespace)).await?;
        world.succeeded("loud").await?;
        let token = world.logs("loud", APP).await?.trim().to_owned();
        let map = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: loud, namespace: {}}}\ndata: {{token: {token}}}\n",
            world.namespace
        );
        world.cluster.apply(&map).await?;

        let mut search = Search::new(&[Secret::token("the token".to_owned(), &token)])?;
        let mut found = Vec::new();
        objects(&world.cluster, &mut search, &mut found).await?;
        let map = format!("in ConfigMap {}/loud", world.namespace);
        for what in ["the token", "a token"] {
            assert!(found.contains(&format!("{what} {map}")), "{what} is not found {map}: {found:?}");
        }
        let capture = LogCapture::of(&world.cluster).await?;
        until("the token is found in the log", DEFAULT_TIMEOUT, async || {
            let mut found = Vec::new();
            logs(&capture, &mut search, &mut found)?;
            let log = format!("in the log {}_loud_{APP}_", world.namespace);
            let has = |what: &str| found.iter().any(|found| found.starts_with(&format!("{what} {log}")));
            Ok((has("the token") && has("a token")).then_some(()))
        })
        .await?;
        in_what_is_gone(&world.cluster, &token, &mut search).await
    })
    .await;
}

/// Creates an event with the token and deletes its namespace: the audit log still contains it.
async fn in_what_is_gone(cluster: &Cluster, token: &str, search: &mut Search) -> Result<()> {
    let Some(audit) = Audit::from_env("a token in an event that is gone is found") else { return Ok(()) };
    let past = World::new("found-gone").await?;
    past.create_namespace().await?;
    let namespace = &past.namespace;
    let event = format!(
        "apiVersion: v1
kind: Event
metadata: {{name: loud, namespace: {namespace}}}
involvedObject: {{apiVersion: v1, kind: Pod, name: loud, namespace: {namespace}}}
reason: Loud
message: it has {token}
type: Normal
"
    );
    let applied = cluster.apply(&event).await;
    past.end().await?;
    applied?;
    gone(&Api::<Namespace>::all(cluster.client.clone()), namespace, DEFAULT_TIMEOUT).await?;

    let mut found = Vec::new();
    // Only the log lines about this namespace: the other test reads the whole log.
    requests(&audit, |line| line.contains(namespace.as_str()), search, &mut found)?;
    for what in ["the token", "a token"] {
        let there = found.iter().any(|found| {
            found.starts_with(&format!("{what} in the audit log")) && found.contains(&format!("{namespace}/loud"))
        });
        ensure!(there, "{what} is not found in the event of {namespace}, which is gone: {found:?}");
    }
    Ok(())
}

/// A pod with several renewals, which uses each kind of secret.
async fn live(world: &World) -> Result<()> {
    world.cluster.apply(&world.trust_domain_yaml("x509: {svidTTL: 20s}, jwt: {svidTTL: 20s}")).await?;
    world.cluster.apply(&world.identity_yaml("keeper", &format!("jwt: {{audiences: [{AUDIENCE}]}}"))).await?;
    world.cluster.apply(&PodSpec::hold("keeper").pod(&world.namespace)).await?;
    world.ready("keeper").await?;

    let mut serials = std::collections::BTreeSet::new();
    until("the identity was renewed twice", DEFAULT_TIMEOUT, async || {
        serials.insert(world.credential("keeper").await?.serial);
        world.jwt_file("keeper", AUDIENCE).await?;
        Ok((serials.len() >= 3).then_some(()))
    })
    .await?;
    world.jwt("keeper", AUDIENCE).await?;
    let audience = world.cluster.control_plane().await?.audience;
    let pod = countersign_e2e::pods::identity_of(&world.ready("keeper").await?)?;
    let token = world.service_account_token("keeper", &[&audience], Some(&pod)).await?;
    let issuer = countersign_e2e::issuer::Issuer::connect(&world.cluster).await?;
    issuer.open(&token).await?.state().await?;
    issuer.refusal(&countersign_e2e::tokens::signed_by_another_key(&token)?).await?;
    // The capture is that of this run, and at debug level: of operator, webhook and agent.
    let capture = LogCapture::of(&world.cluster).await?;
    let writers = ["_operator_".to_owned(), "_webhook_".to_owned(), format!("{}_keeper_{AGENT}_", world.namespace)];
    for writer in writers {
        until(&format!("{writer} has logged at debug level"), DEFAULT_TIMEOUT, async || {
            let logs = capture.logs()?;
            let of_it = logs.iter().filter(|(name, _)| name.starts_with(SYSTEM) || name.starts_with(&world.namespace));
            let mut of_it = of_it.filter(|(name, _)| name.contains(&writer));
            Ok(of_it.any(|(_, text)| text.contains("DEBUG")).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Searches everything for all recorded secrets, and for the patterns of secrets.
async fn look_everywhere(cluster: &Cluster) -> Result<()> {
    let secrets = RecordedSecrets::of(cluster).await?.secrets()?;
    ensure!(!secrets.is_empty(), "no test has seen a secret");
    let mut search = Search::new(&secrets)?;
    let mut found = Vec::new();
    let capture = LogCapture::of(cluster).await?;
    let read = logs(&capture, &mut search, &mut found)?;
    objects(cluster, &mut search, &mut found).await?;
    sysdump(&mut search, &mut found)?;
    let mut places = vec!["logs", "objects", "sysdump"];
    if let Some(audit) = Audit::from_env("the search for secrets in what is gone by now") {
        places.extend(["audit log", "components"]);
        requests(&audit, |_| true, &mut search, &mut found)?;
        for file in audit.components()? {
            component(file, &mut search, &mut found)?;
        }
    }
    found.retain(|found| !found.contains(LOUD));
    // This test cannot distinguish pods that were deleted on purpose, nor agents that had not logged anything yet.
    let MissingLogs { unread, truncated } = capture.missing()?;
    report_counts(
        "search for secrets",
        &json!({
            "secrets": secrets.len(), "bytes_searched": search.searched, "logs": read, "logs_unread": unread.len(), "logs_truncated": truncated.len(),
        }),
    )?;
    ensure!(found.is_empty(), "{} secrets were looked for; found: {found:#?}", secrets.len());
    for place in places {
        ensure!(search.searched.get(place) > Some(&0), "nothing was searched in {place}");
    }
    ensure!(unread.len() * MOST_UNREAD <= read, "of {read} logs {} more are missing: {unread:?}", unread.len());
    Ok(())
}

/// Searches a text for all recorded secrets, and for the patterns of secrets.
fn look(place: &str, text: &str, say: impl Fn() -> String, search: &mut Search, found: &mut Vec<String>) {
    found.extend(search.find(place, text).iter().map(|secret| format!("{secret} {}", say())));
    found.extend(secret_patterns::find(text).iter().map(|pattern| format!("{pattern} {}", say())));
}

/// Searches the selected lines of the audit log, each with the bodies of request and response. Dry runs (`dryRun`) were
/// never stored.
fn requests(audit: &Audit, wanted: impl Fn(&str) -> bool, search: &mut Search, found: &mut Vec<String>) -> Result<()> {
    audit.requests(|line| {
        if wanted(line) && !line.contains("dryRun=All") {
            look("audit log", line, || format!("in the audit log: {}", title(line)), search, found);
        }
        Ok(())
    })
}

/// Searches every file of `kubectl countersign sysdump`, which people hand to others.
fn sysdump(search: &mut Search, found: &mut Vec<String>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dump = folder.path().join("dump");
    let path = dump.to_str().context("the path of a temporary folder")?;
    let (code, report) = cli::json(&["sysdump", "--agents", "200", "--output-file", path])?;
    ensure!(code == 0 && !report["gaps"].to_string().contains("you may not"), "the dump is not complete: {report:#}");
    let mut folders = vec![dump];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path)?;
                look("sysdump", &text, || format!("in the dump: {}", path.display()), search, found);
            }
        }
    }
    Ok(())
}

/// Searches the log of a component of the cluster.
fn component(file: Named, search: &mut Search, found: &mut Vec<String>) -> Result<()> {
    let name = file.0.clone();
    lines(file, |line| {
        look("components", line, || format!("in the cluster's {name}"), search, found);
        Ok(())
    })
}

/// Searches the logs of all containers; returns their number.
fn logs(capture: &LogCapture, search: &mut Search, found: &mut Vec<String>) -> Result<usize> {
    let logs = capture.logs()?;
    for (name, text) in &logs {
        look("logs", text, || format!("in the log {name}"), search, found);
    }
    Ok(logs.len())
}

/// Searches all objects of all kinds, with the values of Secrets decoded.
async fn objects(cluster: &Cluster, search: &mut Search, found: &mut Vec<String>) -> Result<()> {
    for group in Discovery::new(cluster.client.clone()).run().await?.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if !capabilities.supports_operation(verbs::LIST) {
                continue;
            }
            let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
            let listed = api.list(&ListParams::default()).await.with_context(|| format!("list {}", resource.plural))?;
            for object in listed {
                let mut text = serde_json::to_string(&object)?;
                text.extend(decoded(&object.data["data"]));
                let place =
                    format!("{} {}/{}", resource.kind, object.namespace().unwrap_or_default(), object.name_any());
                found.extend(search.find("objects", &text).iter().map(|secret| format!("{secret} in {place}")));
                if !may_hold_keys(&resource.kind, &object) {
                    found.extend(secret_patterns::find(&text).iter().map(|pattern| format!("{pattern} in {place}")));
                }
            }
        }
    }
    Ok(())
}

/// The values of a Secret, as text.
fn decoded(data: &Value) -> impl Iterator<Item = String> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    data.as_object().into_iter().flatten().filter_map(|(_, value)| {
        let bytes = STANDARD.decode(value.as_str()?).ok()?;
        Some(format!(" {}", String::from_utf8_lossy(&bytes)))
    })
}

/// Keys are allowed only in the authorities' journals, the webhook's CA, the Secrets of Kubernetes itself, and the web
/// certificate that whoever installs the bundle endpoint gives it.
fn may_hold_keys(kind: &str, object: &DynamicObject) -> bool {
    let namespace = object.namespace();
    kind == "Secret"
        && ([AUTHORITIES, SYSTEM, "kube-system"].map(Some).contains(&namespace.as_deref())
            || (namespace.as_deref() == Some(ENDPOINT_NAMESPACE) && object.name_any() == WEB_SECRET))
}
