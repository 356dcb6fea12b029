//! Uninstalling leaves nothing but the authorities, and a new installation uses them again. Runs last.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use anyhow::{Context as _, Result, ensure};
use countersign_contract::{
    API_GROUP,
    metadata::annotation::{ADOPT_AUTHORITIES, TRUST_DOMAIN_UID},
    objects::{OPERATOR, WEBHOOK, WEBHOOK_CA, journal::trust_domain_secret},
};
use countersign_e2e::{
    Cluster,
    cluster::{AUTHORITIES, SYSTEM},
    credential::FOLDER,
    fixture::PodSpec,
    kubectl::on_manifests,
    scenario,
    wait::{DEFAULT_TIMEOUT, gone, until, watch},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Secret},
};
use kube::{
    Api, Discovery, ResourceExt as _,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    discovery::verbs,
};
use serde_json::json;

/// The namespace of the demonstration, if there is one.
const DEMO: &str = "countersign-demo";

#[tokio::test]
async fn uninstalled_only_the_authorities_stay_and_they_are_taken_up_again() {
    scenario("uninstall", async |world| {
        let cluster = &world.cluster;
        let resources = format!("{}{}", world.trust_domain_yaml(""), world.identity_yaml("lasting", ""));
        cluster.apply(&resources).await?;
        cluster.apply(&PodSpec::hold("before").account("lasting").pod(&world.namespace)).await?;
        world.ready("before").await?;
        let root = world.file("before", &format!("{FOLDER}/ca.crt")).await?;
        let journals = journals(cluster).await?;

        on_manifests(&["delete", "--ignore-not-found", "--timeout=120s", "-k"], "uninstall")?;
        let outcome = gone_but_the_authorities(cluster, &world.namespace).await;
        on_manifests(&["apply", "--server-side", "--force-conflicts", "-k"], "base")?;
        outcome?;
        ensure!(journals == self::journals(cluster).await?, "the journals have changed");

        serves(cluster).await?;
        until("our kinds are served", DEFAULT_TIMEOUT, async || Ok(cluster.apply(&resources).await.ok())).await?;
        // A new TrustDomain of the same name gets neither a new root nor the old one without consent.
        let domains = cluster.trust_domains().await?;
        let asks = |domain: &DynamicObject| stalled(domain).is_some_and(|message| message.contains(ADOPT_AUTHORITIES));
        watch(&domains, &world.trust_domain, "stalled, asking for consent", asks).await?;
        let owner = owner(cluster, &world.trust_domain).await?;
        // A value that names no journal, or another one, adopts none: the operator has processed it once the status is of
        // that generation.
        for other in ["true", "0b5d6a39-0000-4000-8000-000000000000"] {
            adopt(&domains, &world.trust_domain, other).await?;
            until("the operator has looked at the annotation", DEFAULT_TIMEOUT, async || {
                let domain = domains.get(&world.trust_domain).await?;
                let message = stalled(&domain).context("it adopted what was not named")?;
                Ok(message.contains(other).then_some(()))
            })
            .await?;
        }
        let domain = domains.get(&world.trust_domain).await?;
        let message = stalled(&domain).context("it is stalled")?;
        let command =
            format!("kubectl annotate --overwrite trustdomain {} {ADOPT_AUTHORITIES}={owner}", world.trust_domain);
        ensure!(message.contains(&command), "{command:?} is not in {message:?}");
        adopt(&domains, &world.trust_domain, &owner).await?;
        // Until webhook and policy both know the issuer's new address, a pod is refused and says to make it again.
        let after = PodSpec::hold("after").account("lasting").pod(&world.namespace);
        until("a new pod is admitted", DEFAULT_TIMEOUT, async || Ok(cluster.apply(&after).await.ok())).await?;
        world.ready("after").await?;
        assert_eq!(world.file("after", &format!("{FOLDER}/ca.crt")).await?, root, "the same root");
        Ok(())
    })
    .await;
}

/// The uid of the TrustDomain that owns the journal.
async fn owner(cluster: &Cluster, trust_domain: &str) -> Result<String> {
    let secret = cluster.api::<Secret>(AUTHORITIES).get(&trust_domain_secret(trust_domain)).await?;
    secret.annotations().get(TRUST_DOMAIN_UID).cloned().context("the journal names no owner")
}

async fn adopt(domains: &Api<DynamicObject>, trust_domain: &str, journal: &str) -> Result<()> {
    let consent = json!({ "metadata": { "annotations": { ADOPT_AUTHORITIES: journal } } });
    domains.patch(trust_domain, &PatchParams::default(), &Patch::Merge(consent)).await?;
    Ok(())
}

/// Why a TrustDomain is stalled, if it is.
fn stalled(domain: &DynamicObject) -> Option<&str> {
    let conditions = domain.data["status"]["conditions"].as_array()?;
    let stalled =
        conditions.iter().find(|condition| condition["type"] == "Stalled" && condition["status"] == "True")?;
    stalled["message"].as_str()
}

/// The names and uids of the journals.
async fn journals(cluster: &Cluster) -> Result<Vec<(String, Option<String>)>> {
    let secrets = cluster.api::<Secret>(AUTHORITIES).list(&ListParams::default()).await?;
    Ok(secrets.items.iter().map(|secret| (secret.name_any(), secret.uid())).collect())
}

/// Fails if anything of the product is left, except the authorities, the demonstration and the pods of this test.
async fn gone_but_the_authorities(cluster: &Cluster, own: &str) -> Result<()> {
    gone(&Api::<Namespace>::all(cluster.client.clone()), SYSTEM, DEFAULT_TIMEOUT).await?;
    let mut left = Vec::new();
    for group in Discovery::new(cluster.client.clone()).run().await?.groups() {
        ensure!(group.name() != API_GROUP, "our kinds are still served");
        for (resource, capabilities) in group.recommended_resources() {
            if !capabilities.supports_operation(verbs::LIST) {
                continue;
            }
            let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
            for object in api.list(&ListParams::default()).await? {
                let namespace = object.namespace().unwrap_or_default();
                let ours = object.name_any().contains("countersign")
                    || object.labels().values().any(|value| value == "countersign");
                let stays = match (resource.kind.as_str(), namespace.as_str()) {
                    // The demonstration is not part of the product.
                    ("Namespace", _) => [AUTHORITIES, own, DEMO].contains(&object.name_any().as_str()),
                    // The objects of every namespace, and the journals.
                    ("Secret" | "ConfigMap" | "ServiceAccount", AUTHORITIES) => true,
                    // Events outlive the objects that they are about.
                    ("Event", _) => true,
                    // Without them the API server judges pods by the settings of this installation after the next one.
                    ("ValidatingAdmissionPolicy" | "ValidatingAdmissionPolicyBinding", _) => {
                        object.name_any() == "countersign-parameter-cache"
                    }
                    (_, namespace) => [own, DEMO].contains(&namespace),
                };
                if (ours || namespace == AUTHORITIES) && !stays {
                    left.push(format!("{} {namespace}/{}", resource.kind, object.name_any()));
                }
            }
        }
    }
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(())
}

/// Waits until the product serves again.
async fn serves(cluster: &Cluster) -> Result<()> {
    let deployments = cluster.api::<Deployment>(SYSTEM);
    for name in [OPERATOR, WEBHOOK, WEBHOOK_CA] {
        let available = |deployment: &Deployment| {
            deployment.status.as_ref().is_some_and(|status| status.available_replicas >= Some(1))
        };
        watch(&deployments, name, "available", available).await?;
    }
    Ok(())
}
