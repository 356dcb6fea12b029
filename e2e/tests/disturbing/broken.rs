//! `kubectl countersign check` on an installation that is broken: what is wrong is named with what mends it, and `check --wait` ends
//! once it is mended.

#![allow(clippy::indexing_slicing, reason = "a JSON value that is missing is null")]

use std::fmt::Debug;

use anyhow::{Context as _, Result, ensure};
use countersign_contract::objects::{LEASE, WEBHOOK_CONFIGURATION as CONFIGURATION};
use countersign_e2e::{
    World,
    cli::{self, Running},
    cluster::SYSTEM,
    faults::alone,
    kubectl::on_manifests,
    replicas::{OPERATOR, WEBHOOK, WEBHOOK_CA},
    wait::{DEFAULT_TIMEOUT, until},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    apps::v1::Deployment,
    coordination::v1::Lease,
    rbac::v1::ClusterRole,
};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// A check that must fail.
struct Failure {
    category: &'static str,
    check: &'static str,
    reason: &'static str,
    /// Words of the message.
    says: &'static str,
    /// Words of what mends it.
    mend: &'static str,
}

#[tokio::test]
async fn a_lost_ca_bundle_and_an_absent_webhook_are_named_until_they_are_mended() {
    alone("cli-no-webhook", async |world| {
        let wanted = [(WEBHOOK, world.replicas(WEBHOOK).await?), (WEBHOOK_CA, world.replicas(WEBHOOK_CA).await?)];
        let waiting = async {
            // It would write the bundles back.
            world.scale(WEBHOOK_CA, 0).await?;
            set_ca_bundles::<MutatingWebhookConfiguration>(world, &Value::Null).await?;
            set_ca_bundles::<ValidatingWebhookConfiguration>(world, &of_another_ca()?).await?;
            names(
                world,
                &[
                    Failure {
                        category: "components",
                        check: "webhook CA",
                        reason: "ComponentNotReady",
                        says: "scaled to 0",
                        mend: "kubectl scale -n countersign-system deployment/countersign-webhook-ca --replicas=2",
                    },
                    Failure {
                        category: "webhook",
                        check: "mutating",
                        reason: "CABundleMissing",
                        says: "pod.inject.countersign.dev has no caBundle",
                        mend: "deployment/countersign-webhook-ca",
                    },
                    Failure {
                        category: "webhook",
                        check: "injection",
                        reason: "WebhookUnreachable",
                        says: "certificate signed by unknown authority",
                        mend: "deployment/countersign-webhook-ca",
                    },
                    Failure {
                        category: "webhook",
                        check: "validation",
                        reason: "WebhookUnreachable",
                        says: "certificate signed by unknown authority",
                        mend: "deployment/countersign-webhook-ca",
                    },
                ],
            )
            .await?;
            world.scale(WEBHOOK, 0).await?;
            let absent = |check, reason, says, mend| Failure { category: "webhook", check, reason, says, mend };
            names(
                world,
                &[
                    Failure {
                        category: "components",
                        check: "webhook",
                        reason: "ComponentNotReady",
                        says: "scaled to 0",
                        mend: "kubectl scale -n countersign-system deployment/countersign-webhook --replicas=2",
                    },
                    absent("injection", "WebhookUnreachable", "failed calling webhook", "kubectl get pods"),
                    absent("validation", "WebhookUnreachable", "failed calling webhook", "kubectl get pods"),
                ],
            )
            .await?;
            wait(world).await
        };
        let waiting = waiting.await;
        start(world, &wanted).await?;
        ends_well(waiting?).await
    })
    .await;
}

#[tokio::test]
async fn an_absent_operator_a_stale_lease_and_a_lost_right_are_named_until_they_are_mended() {
    alone("cli-no-operator", async |world| {
        let wanted = [(OPERATOR, world.replicas(OPERATOR).await?)];
        let waiting = async {
            world.scale(OPERATOR, 0).await?;
            let component = |check, reason, says, mend| Failure { category: "components", check, reason, says, mend };
            names(
                world,
                &[
                    component(
                        "operator",
                        "ComponentNotReady",
                        "scaled to 0",
                        "kubectl scale -n countersign-system deployment/countersign-operator --replicas=2",
                    ),
                    // A replica that ends gives the Lease back.
                    component("leader", "NoLeader", "no replica of the operator leads", "countersign-operator"),
                    component("issuer", "IssuerUnreachable", "has no endpoint", "kubectl get endpointslices"),
                ],
            )
            .await?;
            // One that is killed does not.
            let renewed = Timestamp::now() - SignedDuration::from_mins(1);
            hold_lease(world, "countersign-operator-killed_1", renewed).await?;
            without_events(world).await?;
            names(
                world,
                &[
                    component("leader", "LeaseStale", "countersign-operator-killed renewed the Lease", "kubectl logs"),
                    Failure {
                        category: "rights",
                        check: "components",
                        reason: "ComponentRightMissing",
                        says: "countersign-system/countersign-operator may not: create events.events.k8s.io",
                        mend: "kubectl apply --server-side -k manifests/base",
                    },
                ],
            )
            .await?;
            wait(world).await
        };
        let waiting = waiting.await;
        // The Lease of a replica that was killed is taken when it has expired for those that see it, half a minute later.
        let mended = async {
            hold_lease(world, "", Timestamp::now()).await?;
            on_manifests(&["apply", "--server-side", "--force-conflicts", "-f"], "base/operator/rbac.yaml")?;
            start(world, &wanted).await
        };
        mended.await?;
        ends_well(waiting?).await
    })
    .await;
}

/// Waits until one check names all of these, and fails for them.
async fn names(world: &World, failures: &[Failure]) -> Result<()> {
    // Endpoints, roles and configurations of webhooks reach the API server's caches a moment later.
    until("the check names what is wrong", DEFAULT_TIMEOUT, async || {
        let (code, report) = cli::json(&["check", "--namespace", &world.namespace])?;
        for Failure { category, check, reason, says, mend } in failures {
            let found = checks(&report, category).find(|found| found["name"] == *check && found["reason"] == *reason);
            let found = found.with_context(|| format!("{category}, {check}: no {reason}: {report:#}"))?;
            ensure!(found["mark"] == "failed" && code == 1, "exit code {code}: {found:#}");
            let has = |field: &str, words: &str| found[field].as_str().is_some_and(|text| text.contains(words));
            ensure!(has("message", says) && has("hint", mend), "expected {says:?} and {mend:?}: {found:#}");
        }
        Ok(Some(()))
    })
    .await
}

fn checks<'a>(report: &'a Value, category: &str) -> impl Iterator<Item = &'a Value> {
    let categories = report["categories"].as_array().into_iter().flatten();
    let of_it = categories.filter(move |found| found["name"] == category);
    of_it.flat_map(|found| found["checks"].as_array().into_iter().flatten())
}

/// Starts to wait for an installation that is well, and returns when the first look has found that it is not.
async fn wait(world: &World) -> Result<Running> {
    let mut waiting = Running::start(&["check", "--wait", "--timeout", "3m", "--namespace", &world.namespace])?;
    waiting.says("what it waits for", |line| line.starts_with("waiting: ")).await?;
    Ok(waiting)
}

async fn ends_well(waiting: Running) -> Result<()> {
    let (code, said) = waiting.end().await?;
    ensure!(code == 0, "exit code {code}:\n{said}");
    Ok(())
}

/// Gives Deployments of the product their replicas back, and waits until these are ready.
async fn start(world: &World, wanted: &[(&str, i32)]) -> Result<()> {
    let deployments = world.cluster.api::<Deployment>(SYSTEM);
    for (name, replicas) in wanted {
        let patch = json!({ "spec": { "replicas": replicas } });
        deployments.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    world.settled().await
}

/// Replaces `caBundle` of every webhook of a configuration.
async fn set_ca_bundles<K>(world: &World, bundle: &Value) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let configurations = Api::<K>::all(world.cluster.client.clone());
    let webhooks = serde_json::to_value(configurations.get(CONFIGURATION).await?)?["webhooks"].clone();
    let replace = |number| {
        let path = format!("/webhooks/{number}/clientConfig/caBundle");
        if bundle.is_null() {
            json!({ "op": "remove", "path": path })
        } else {
            json!({ "op": "replace", "path": path, "value": bundle })
        }
    };
    let patch: Value = (0..webhooks.as_array().map_or(0, Vec::len)).map(replace).collect();
    let patch: Patch<()> = Patch::Json(serde_json::from_value(patch)?);
    configurations.patch(CONFIGURATION, &PatchParams::default(), &patch).await.context("replace caBundle")?;
    Ok(())
}

/// A `caBundle` with the certificate of a CA that has signed nothing.
fn of_another_ca() -> Result<Value> {
    let mut parameters = rcgen::CertificateParams::new(Vec::new())?;
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&rcgen::KeyPair::generate()?)?;
    Ok(serde_json::to_value(k8s_openapi::ByteString(certificate.pem().into_bytes()))?)
}

/// Lets nobody else lead than this holder; an empty one has given the Lease back.
async fn hold_lease(world: &World, holder: &str, renewed: Timestamp) -> Result<()> {
    let leases = world.cluster.api::<Lease>(SYSTEM);
    let renewed = renewed.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let patch = json!({ "spec": { "holderIdentity": holder, "renewTime": renewed } });
    leases.patch(LEASE, &PatchParams::default(), &Patch::Merge(patch)).await.context("change the Lease")?;
    Ok(())
}

/// Takes the right to write events from the operator.
async fn without_events(world: &World) -> Result<()> {
    let roles = Api::<ClusterRole>::all(world.cluster.client.clone());
    let mut rules = roles.get(OPERATOR).await?.rules.context("a role without rules")?;
    let all = rules.len();
    rules.retain(|rule| rule.resources.as_ref().is_none_or(|resources| !resources.contains(&"events".to_owned())));
    ensure!(rules.len() + 1 == all, "of {all} rules {} are about other resources", rules.len());
    roles.patch(OPERATOR, &PatchParams::default(), &Patch::Merge(json!({ "rules": rules }))).await?;
    Ok(())
}
