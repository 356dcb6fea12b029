//! What ends trust that nobody withdrew, and what brings it back.

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    credential::{FOLDER, TRUST_BUNDLE_SUFFIX},
    endpoint::WEB_PORT,
    faults::{Fault, Faults},
    federation::{RemoteYaml, federated},
    fixture::PodSpec,
    replicas::{OPERATOR, address},
    wait::{DEFAULT_TIMEOUT, until},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    consents::{accepted, authorities, call, flows, grant, introduce, name, refused},
    polled::{Profile, polling},
};

/// The shortest lives that a trust domain may have with this hint.
const SHORT_LIVED: &str = "bundleRefreshHint: 1s, x509: {caTTL: 1m, svidTTL: 20s}, jwt: {svidTTL: 20s}";

/// Cuts the operator of `world` off the endpoint of `other`.
async fn cut_off(world: &World, other: &World, faults: &Faults) -> Result<Fault> {
    let mut cut = vec!["block".to_owned(), "--to".to_owned(), format!("{}:{WEB_PORT}", other.node_address().await?)];
    for pod in world.product(OPERATOR).await? {
        cut.extend(["--pod".to_owned(), address(&pod)?.to_owned()]);
    }
    faults.begin(&cut.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// R26, R34, R50: a peer replaces its authorities while its endpoint cannot be reached: what they sign is refused, until the first
/// poll after. Of a peer that stays away, the bundle is trusted for `maxStale`, and again as soon as it is back.
#[tokio::test]
#[ignore = "soak"]
async fn soak_a_peer_that_rotates_unreachable_is_caught_up_with_and_one_that_stays_away_ends() {
    let name = "soak_a_peer_that_rotates_unreachable_is_caught_up_with_and_one_that_stays_away_ends";
    let Some(faults) = Faults::from_env(name) else { return };
    federated("away", async |here, there| {
        polling(here, there, &["client", "server"], [Profile::Web, Profile::Spiffe]).await?;
        let endpoint = there.web_endpoint().await?;
        let namespaces = vec![here.namespace.as_str()];
        let stale_after = async |more: &'static str| {
            let remote = RemoteYaml {
                endpoint: endpoint.clone(),
                namespaces: namespaces.clone(),
                more,
                ..RemoteYaml::default()
            };
            here.cluster.apply(&here.remote_yaml(there, &remote)).await.map(drop)
        };
        // The server's SVID is of the new authority soon after the switch, and the bundle does not go stale before that.
        let authority = "bundleRefreshHint: 1s, x509: {svidTTL: 1m}, jwt: {svidTTL: 5m}";
        let grant = format!("federatesWith: [{}]", here.trust_domain);
        there.cluster.apply(&there.granting_yaml(authority, &grant)).await?;
        stale_after("maxStale: 20m").await?;
        call(here, there).await?;
        flows(here).await?;

        let fault = cut_off(here, there, &faults).await?;
        let rotation = format!("{authority}, rotation: {{after: '{}'}}", Timestamp::now());
        there.cluster.apply(&there.granting_yaml(&rotation, &grant)).await?;
        refused(here).await?;
        here.domain_condition(&there.trust_domain, "PollFailing", "True", "").await?;
        here.domain_condition(&there.trust_domain, "Ready", "True", "Polled").await?;
        fault.end().await?;
        accepted(here).await?;

        stale_after("maxStale: 2m").await?;
        let fault = cut_off(here, there, &faults).await?;
        refused(here).await?;
        let (_, message) = here.domain_condition(&there.trust_domain, "Ready", "False", "Stale").await?;
        ensure!(message.contains("maxStale"), "{message}");
        here.identity_condition("client", "Federated", "False", "NoBundle").await?;
        fault.end().await?;
        accepted(here).await
    })
    .await;
}

/// R34, R50: a bundle of the TrustDomain alone is announced to end before its last CA does, and is gone from the pod when it has.
#[tokio::test]
#[ignore = "soak"]
async fn soak_a_bundle_in_the_spec_ends_with_its_last_ca() {
    federated("ending", async |here, there| {
        grant(here, &[&there.trust_domain]).await?;
        name(here, "holder", &[&there.trust_domain]).await?;
        there.cluster.apply(&there.trust_domain_yaml(SHORT_LIVED)).await?;
        introduce(here, there, &[&here.namespace], "").await?;
        here.cluster.apply(&PodSpec::hold("holder").pod(&here.namespace)).await?;
        here.ready("holder").await?;
        let file = format!("{FOLDER}/{}{TRUST_BUNDLE_SUFFIX}", there.trust_domain);
        here.file("holder", &file).await?;

        here.domain_condition(&there.trust_domain, "BootstrapExpiring", "True", "").await?;
        here.domain_condition(&there.trust_domain, "Ready", "False", "BootstrapExpired").await?;
        until("the bundle is gone", DEFAULT_TIMEOUT, async || {
            Ok((!here.exec("holder", &["/countersign-demo", "cat", &file]).await?.success).then_some(()))
        })
        .await?;
        // What is the workload's own is not touched.
        ensure!(here.credential("holder").await?.id == here.id("holder"));
        Ok(())
    })
    .await;
}

/// R48: whoever reverts a commit does not bring back keys that the peer has revoked: an older bundle in the TrustDomain takes
/// effect by `replace` alone.
#[tokio::test]
async fn an_older_bundle_in_the_spec_takes_effect_by_replace_alone() {
    federated("revert", async |here, there| {
        authorities(here, there, &[]).await?;
        let older = there.bundle_document().await?;
        let mut newer: Value = serde_json::from_str(&older)?;
        let sequence = newer.get("spiffe_sequence").and_then(Value::as_u64).context("no sequence")?;
        newer.as_object_mut().context("no object")?.insert("spiffe_sequence".to_owned(), json!(sequence + 10));
        // One key less: it was revoked since.
        newer.get_mut("keys").and_then(Value::as_array_mut).context("no keys")?.pop();
        let shown = async |wanted: u64| {
            until(&format!("sequence {wanted}"), DEFAULT_TIMEOUT, async || {
                let object = here.cluster.trust_domains().await?.get(&there.trust_domain).await?;
                let shown = object.data.pointer("/status/bundle/sequence").and_then(Value::as_u64);
                Ok((shown == Some(wanted)).then_some(()))
            })
            .await
        };
        let give = async |bundle: &str, replace: bool| {
            let remote =
                RemoteYaml { bundle: bundle.to_owned(), namespaces: vec![&here.namespace], ..RemoteYaml::default() };
            let yaml = here.remote_yaml(there, &remote);
            let yaml = yaml.replace("bootstrap: {", &format!("bootstrap: {{replace: {replace}, "));
            here.cluster.apply(&yaml).await.map(drop)
        };
        give(&newer.to_string(), false).await?;
        shown(sequence + 10).await?;

        give(&older, false).await?;
        let (_, message) = here.domain_condition(&there.trust_domain, "BootstrapNotNewer", "True", "").await?;
        ensure!(message.contains(&sequence.to_string()), "{message}");
        shown(sequence + 10).await?;

        give(&older, true).await?;
        shown(sequence).await?;
        here.domain_condition(&there.trust_domain, "BootstrapReplaceSet", "True", "").await.map(drop)
    })
    .await;
}
