//! Other accounts cannot write objects that the product relies on, unless they have the verb `override`.

use std::fmt::Debug;

use anyhow::{Context as _, Result};
use countersign_contract::objects::FEDERATION_NAMESPACE;
use countersign_e2e::{
    Cluster, World,
    apply::documents,
    cluster::{AUTHORITIES, SYSTEM},
    replicas::{OPERATOR, WEBHOOK_CA},
    scenario,
    wait::{DEFAULT_TIMEOUT, until},
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        coordination::v1::Lease,
        core::v1::{ConfigMap, Secret},
    },
};
use kube::{
    Api, Resource,
    api::{DeleteParams, ListParams, Patch},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{CERTIFICATE, SETTINGS, account, create, dry, passes, refused, secret};

/// Roles of a user of this test in the product's namespaces: all rights of `admin` of a namespace, and the status of our
/// resources. They are deleted afterwards.
struct Roles {
    user: String,
    made: String,
}

impl Roles {
    fn new(world: &World, name: &str, more: &str) -> Self {
        let (user, role) = (format!("{name}@{}", world.namespace), format!("{name}-{}", world.namespace));
        let subject = format!("[{{apiGroup: rbac.authorization.k8s.io, kind: User, name: '{user}'}}]");
        let binding = |scope: &str, at: &str, role_kind: &str, to: &str, suffix: &str| {
            format!(
                "---
apiVersion: rbac.authorization.k8s.io/v1
kind: {scope}
metadata: {{name: {role}{suffix}{at}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {role_kind}, name: {to}}}
subjects: {subject}
"
            )
        };
        let mut made = format!(
            "---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {role}}}
rules:
- apiGroups: [countersign.dev]
  resources: [trustdomains, trustdomains/status, workloadidentities, workloadidentities/status]
  verbs: [get, list, watch, create, update, patch, delete]
{more}"
        );
        made += &binding("ClusterRoleBinding", "", "ClusterRole", &role, "");
        for namespace in [SYSTEM, AUTHORITIES, FEDERATION_NAMESPACE, &world.namespace] {
            made += &binding("RoleBinding", &format!(", namespace: {namespace}"), "ClusterRole", "admin", "-admin");
            // An administrator of a namespace may have every verb in it, which is not the cluster-wide verb.
            made += &format!(
                "---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {role}, namespace: {namespace}}}
rules: [{{apiGroups: ['*'], resources: ['*'], verbs: ['*']}}]
"
            );
            made += &binding("RoleBinding", &format!(", namespace: {namespace}"), "Role", &role, "-all");
        }
        Self { user, made }
    }

    /// Runs `test` as the user, once it has its roles.
    async fn run(&self, world: &World, test: impl AsyncFnOnce(&Cluster) -> Result<()>) -> Result<()> {
        let outcome = async {
            world.cluster.apply(&self.made).await?;
            let user = Cluster::impersonating(&self.user, &[]).await?;
            let may = async || -> Result<()> {
                for namespace in [SYSTEM, AUTHORITIES, FEDERATION_NAMESPACE, &world.namespace] {
                    user.api::<ConfigMap>(namespace).create(&create(), &map("mine")?).await?;
                    user.api::<Lease>(namespace).list(&ListParams::default()).await?;
                }
                user.trust_domains().await?.list(&ListParams::default()).await?;
                Ok(())
            };
            until("the user has its roles", DEFAULT_TIMEOUT, async || may().await.map(Some)).await?;
            test(&user).await
        };
        let outcome = outcome.await;
        for object in documents(&self.made)? {
            world.cluster.delete(&object).await?;
        }
        outcome
    }
}

fn map(name: &str) -> Result<ConfigMap> {
    Ok(serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "issuer": "192.0.2.1:8443" } }))?)
}

/// The results of a user's requests for each write that affects the product.
async fn writes(world: &World, user: &Cluster, judge: impl Fn(&str, kube::Result<()>) -> Result<()>) -> Result<()> {
    let maps = user.api::<ConfigMap>(SYSTEM);
    let leases = user.api::<Lease>(SYSTEM);
    let (journals, secrets) = (user.api::<Secret>(AUTHORITIES), user.api::<Secret>(SYSTEM));
    judge("where tokens are sent", patched(&maps, SETTINGS, json!({ "data": { "issuer": "192.0.2.1:8443" } })).await)?;
    judge("which agent pods get", patched(&maps, "countersign-agent", json!({ "data": { "image": "other" } })).await)?;
    judge("the deletion of the agent's image", deleted(&maps, "countersign-agent").await)?;
    judge("a label of it", patched(&maps, SETTINGS, json!({ "metadata": { "labels": { "a": "b" } } })).await)?;
    judge("an owner of it", patched(&maps, SETTINGS, owned()).await)?;
    judge("its deletion", deleted(&maps, SETTINGS).await)?;
    judge("the deletion of all of its name", all_deleted(&maps, SETTINGS).await)?;
    judge("who leads", patched(&leases, OPERATOR, json!({ "spec": { "holderIdentity": "me" } })).await)?;
    judge("the Lease's deletion", deleted(&leases, OPERATOR).await)?;
    judge("a journal", patched(&journals, "control-plane", json!({ "data": { "journal": "" } })).await)?;
    judge(
        "a journal's annotation",
        patched(&journals, "control-plane", json!({ "metadata": { "annotations": { "a": "b" } } })).await,
    )?;
    judge("a journal's deletion", deleted(&journals, "control-plane").await)?;
    judge("the deletion of all journals", all_deleted(&journals, "control-plane").await)?;
    judge(
        "a new journal",
        journals.create(&create(), &secret("trust-domain.new", "countersign.dev/journal")?).await.map(drop),
    )?;
    judge(
        "a Secret in a journal's place",
        journals.create(&create(), &secret("trust-domain.new", "Opaque")?).await.map(drop),
    )?;
    let kept = user.api::<ConfigMap>(FEDERATION_NAMESPACE);
    judge("what is kept of a remote", kept.create(&create(), &map("remote.new")?).await.map(drop))?;
    judge("a bundle that others are given", kept.create(&create(), &map("bundle.new")?).await.map(drop))?;
    let elsewhere = user.api::<Secret>(&world.namespace);
    judge(
        "a journal elsewhere",
        elsewhere.create(&create(), &secret("mine", "countersign.dev/journal")?).await.map(drop),
    )?;
    judge("the webhook's CA", patched(&secrets, WEBHOOK_CA, json!({ "data": { "ca": "" } })).await)?;
    judge("the webhook's certificate", patched(&secrets, CERTIFICATE, json!({ "data": { "tls.crt": "" } })).await)?;
    judge("its deletion", deleted(&secrets, CERTIFICATE).await)?;
    let status = Patch::Merge(json!({ "status": { "observedGeneration": 99 } }));
    let (domains, identities) = (user.trust_domains().await?, user.workload_identities(&world.namespace).await?);
    judge("a domain's status", domains.patch_status(&world.trust_domain, &dry(), &status).await.map(drop))?;
    judge("an identity's status", identities.patch_status("mine", &dry(), &status).await.map(drop))
}

async fn patched<K>(api: &Api<K>, name: &str, patch: Value) -> kube::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    api.patch(name, &dry(), &Patch::Merge(patch)).await.map(drop)
}

fn owned() -> Value {
    let owner = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "0" });
    json!({ "metadata": { "ownerReferences": [owner] } })
}

async fn deleted<K: Clone + Debug + DeserializeOwned>(api: &Api<K>, name: &str) -> kube::Result<()> {
    api.delete(name, &DeleteParams::default().dry_run()).await.map(drop)
}

/// The deletion of a whole collection, whose request names no object.
async fn all_deleted<K: Clone + Debug + DeserializeOwned>(api: &Api<K>, name: &str) -> kube::Result<()> {
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    api.delete_collection(&DeleteParams::default().dry_run(), &named).await.map(drop)
}

#[tokio::test]
async fn no_other_account_writes_what_the_product_relies_on_unless_it_may_override() {
    scenario("others-accounts", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("mine", "")).await?;
        let identities = world.cluster.workload_identities(&world.namespace).await?;
        until("the status is written", DEFAULT_TIMEOUT, async || {
            Ok((!identities.get("mine").await?.data["status"].is_null()).then_some(()))
        })
        .await?;

        // An administrator of the namespaces who may write any status by RBAC.
        Roles::new(world, "editor", "")
            .run(world, async |user| {
                writes(world, user, |what, result| refused(what, result, "the verb override")).await?;
                let maps = user.api::<ConfigMap>(SYSTEM);
                passes("what changes nothing", patched(&maps, SETTINGS, json!({ "metadata": {} })).await)?;
                let read = maps.get(SETTINGS).await?;
                passes("what changes nothing", maps.replace(SETTINGS, &create(), &read).await)?;
                passes("another ConfigMap", maps.create(&create(), &map("mine")?).await)?;
                let spec = Patch::Merge(json!({ "spec": { "hint": "mine" } }));
                let identities = user.workload_identities(&world.namespace).await?;
                passes("an identity's spec", identities.patch("mine", &dry(), &spec).await)
            })
            .await?;
        // As for restoring a backup.
        let may = "- {apiGroups: [countersign.dev], resources: [trustdomains], verbs: [override]}\n";
        Roles::new(world, "restorer", may).run(world, async |user| writes(world, user, passes).await).await?;
        writes(world, &world.cluster, passes).await.context("the cluster's admin")
    })
    .await;
}

#[tokio::test]
async fn the_operators_account_and_the_controllers_that_clean_up_are_let_through_and_no_further() {
    scenario("own-accounts", async |_| {
        let operator = Cluster::impersonating(&account(OPERATOR), &[]).await?;
        let settings = json!({ "data": { "issuer": "192.0.2.1:8443" } });
        passes("the settings", patched(&operator.api::<ConfigMap>(SYSTEM), SETTINGS, settings.clone()).await)?;
        let lease = operator.api::<Lease>(SYSTEM);
        passes("the Lease", lease.replace(OPERATOR, &create(), &lease.get(OPERATOR).await?).await)?;
        let journals = operator.api::<Secret>(AUTHORITIES);
        let mut journal = journals.get("control-plane").await?;
        journal.metadata.annotations.get_or_insert_default().insert("a".to_owned(), "b".to_owned());
        passes("a journal", journals.replace("control-plane", &create(), &journal).await)?;

        let controller =
            async |name: &str| Cluster::impersonating(&format!("system:serviceaccount:kube-system:{name}"), &[]).await;
        let namespaces = controller("namespace-controller").await?;
        let collector = controller("generic-garbage-collector").await?;
        for user in [&namespaces, &collector] {
            passes("a deletion", deleted(&user.api::<ConfigMap>(SYSTEM), SETTINGS).await)?;
            passes("a journal's deletion", deleted(&user.api::<Secret>(AUTHORITIES), "control-plane").await)?;
        }
        passes("a deletion of all", all_deleted(&namespaces.api::<Lease>(SYSTEM), OPERATOR).await)?;
        let maps = collector.api::<ConfigMap>(SYSTEM);
        passes("owners", patched(&maps, SETTINGS, owned()).await)?;
        refused("the settings", patched(&maps, SETTINGS, settings).await, "the verb override")
    })
    .await;
}
