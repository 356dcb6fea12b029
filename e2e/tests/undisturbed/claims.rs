//! R32: of two namespaces that claim one name, the first to claim it keeps it, whatever the other does later.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use anyhow::{Result, ensure};
use countersign_e2e::{
    World,
    fixture::PodSpec,
    pods::lines,
    scenario,
    wait::{DEFAULT_TIMEOUT, until, watch},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

/// Two namespaces, `shop` and `bank`, in the trust domain of the first.
async fn two_namespaces(name: &str, test: impl AsyncFnOnce(&World, &World) -> Result<()>) {
    scenario(&format!("{name}-shop"), async |shop| {
        let mut outcome = Ok(());
        scenario(&format!("{name}-bank"), async |own| {
            let bank = World {
                cluster: own.cluster.clone(),
                namespace: own.namespace.clone(),
                trust_domain: shop.trust_domain.clone(),
            };
            outcome = test(shop, &bank).await;
            Ok(())
        })
        .await;
        outcome
    })
    .await;
}

/// A TrustDomain that shares `/svc/*` and names below `claims.test` between the selected namespaces.
fn shared_domain(shop: &World, namespaces: &str) -> String {
    format!(
        "---
apiVersion: countersign.dev/v1alpha1
kind: TrustDomain
metadata: {{name: {}}}
spec:
  authority: {{}}
  grants:
  - namespaces: {{{namespaces}}}
    shared: true
    paths: ['/svc/*', '/parked/*']
    dnsNames: ['*.claims.test']
",
        shop.trust_domain
    )
}

fn both(shop: &World, bank: &World) -> String {
    format!("matchNames: [{}, {}]", shop.namespace, bank.namespace)
}

/// A condition's status and message.
fn condition<'a>(object: &'a DynamicObject, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = object.data["status"]["conditions"].as_array()?;
    let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
    Some((condition["status"].as_str()?, condition["message"].as_str()?))
}

/// Waits until the status is of the newest generation and satisfies `wanted`.
async fn status_of(
    world: &World,
    name: &str,
    what: &str,
    wanted: impl Fn(&DynamicObject) -> bool,
) -> Result<DynamicObject> {
    let is_so = |object: &DynamicObject| {
        object.data["status"]["observedGeneration"].as_i64() == object.metadata.generation && wanted(object)
    };
    watch(&world.cluster.workload_identities(&world.namespace).await?, name, what, is_so).await
}

/// Waits until an identity is ready and the age of its claims is recorded.
async fn holds(world: &World, name: &str) -> Result<DynamicObject> {
    let is_so = |object: &DynamicObject| {
        let recorded = object.data["status"]["claims"].as_array().is_some_and(|claims| !claims.is_empty());
        recorded && condition(object, "Ready").is_some_and(|(status, _)| status == "True")
    };
    status_of(world, name, "ready, with its claims recorded", is_so).await
}

/// Waits until an identity is refused because another holds its id, with a message that names the other.
async fn loses_to(world: &World, name: &str, holder: &str) -> Result<DynamicObject> {
    let names_it = |object: &DynamicObject| {
        condition(object, "Stalled").is_some_and(|(status, message)| status == "True" && message.contains(holder))
    };
    status_of(world, name, &format!("in conflict, naming {holder}"), names_it).await
}

/// The gRPC status code of the Workload API's answer to a pod.
async fn answer(world: &World, pod: &str) -> Result<String> {
    let said = world.demo(pod, &["workload-api"]).await?;
    let said = lines(&String::from_utf8(said)?).pop().unwrap_or_default();
    Ok(said["code"].as_str().unwrap_or_default().to_owned())
}

/// Checks that the pod has this id, also from the Workload API.
async fn keeps(world: &World, pod: &str, path: &str) -> Result<()> {
    let credential = world.credential(pod).await?;
    ensure!(credential.id == format!("spiffe://{}{path}", world.trust_domain), "{pod} has {}", credential.id);
    let code = answer(world, pod).await?;
    ensure!(code == "Ok", "the Workload API answers {pod} with {code}");
    Ok(())
}

/// Creates bank's identity `payments`, which holds `/svc/payments`, and a pod with it.
async fn bank_holds_payments(bank: &World) -> Result<String> {
    bank.cluster.apply(&bank.identity_yaml("payments", "path: /svc/payments")).await?;
    holds(bank, "payments").await?;
    bank.cluster.apply(&PodSpec::hold("payments").pod(&bank.namespace)).await?;
    bank.ready("payments").await?;
    keeps(bank, "payments", "/svc/payments").await?;
    Ok(format!("{}/payments", bank.namespace))
}

/// Checks that bank's identity is ready and its pod has it.
async fn bank_keeps_payments(bank: &World) -> Result<()> {
    holds(bank, "payments").await?;
    keeps(bank, "payments", "/svc/payments").await
}

/// Creates shop's identity `parked` for the account `thief`, older than any of bank's.
async fn shop_parks(shop: &World, path: &str) -> Result<()> {
    shop.cluster.apply(&shop.named_identity_yaml("parked", "thief", &format!("path: '{path}'"))).await?;
    holds(shop, "parked").await.map(drop)
}

async fn shop_moves_to(shop: &World, path: &str) -> Result<()> {
    shop.cluster.apply(&shop.named_identity_yaml("parked", "thief", &format!("path: '{path}'"))).await.map(drop)
}

#[tokio::test]
async fn claims_an_update_does_not_take_another_namespaces_id() {
    two_namespaces("claims-update", async |shop, bank| {
        shop.cluster.apply(&shared_domain(shop, &both(shop, bank))).await?;
        shop_parks(shop, "/svc/parked").await?;
        let holder = bank_holds_payments(bank).await?;
        shop_moves_to(shop, "/svc/payments").await?;
        loses_to(shop, "parked", &holder).await?;
        bank_keeps_payments(bank).await
    })
    .await;
}

#[tokio::test]
async fn claims_a_path_for_every_pod_does_not_take_another_namespaces_id() {
    two_namespaces("claims-pods", async |shop, bank| {
        shop.cluster.apply(&shared_domain(shop, &both(shop, bank))).await?;
        shop_parks(shop, "/svc/parked").await?;
        let holder = bank_holds_payments(bank).await?;
        shop_moves_to(shop, "/svc/{podName}").await?;
        loses_to(shop, "parked", &holder).await?;
        bank_keeps_payments(bank).await
    })
    .await;
}

/// Accounts that the identity selected before keep their credentials.
#[tokio::test]
async fn claims_an_account_added_later_does_not_take_another_namespaces_id() {
    two_namespaces("claims-account", async |shop, bank| {
        shop.cluster.apply(&shared_domain(shop, &both(shop, bank))).await?;
        let accounts = |accounts: &str| {
            let identity = shop.named_identity_yaml("every", "orders", "path: '/svc/{serviceAccount}'");
            identity.replace("[orders]", &format!("[{accounts}]"))
        };
        shop.cluster.apply(&accounts("orders")).await?;
        holds(shop, "every").await?;
        shop.cluster.apply(&PodSpec::hold("orders").pod(&shop.namespace)).await?;
        shop.ready("orders").await?;
        let holder = bank_holds_payments(bank).await?;

        shop.cluster.apply(&accounts("orders, payments")).await?;
        let names_it = |object: &DynamicObject| {
            condition(object, "Conflicting")
                .is_some_and(|(status, message)| status == "True" && message.contains(&holder))
        };
        status_of(shop, "every", "in conflict for one account", names_it).await?;
        holds(shop, "every").await?;
        let pod = PodSpec { annotations: "countersign.dev/hold: 'false'", ..PodSpec::hold("payments") };
        shop.cluster.apply(&pod.pod(&shop.namespace)).await?;
        shop.ready("payments").await?;
        until("the pod of the account is denied", DEFAULT_TIMEOUT, async || {
            let code = answer(shop, "payments").await?;
            ensure!(code == "PermissionDenied", "it answers {code}");
            Ok(Some(()))
        })
        .await?;
        keeps(shop, "orders", "/svc/orders").await?;
        bank_keeps_payments(bank).await
    })
    .await;
}

#[tokio::test]
async fn claims_parked_outside_the_grants_gain_no_age_until_these_widen() {
    two_namespaces("claims-parked", async |shop, bank| {
        shop.cluster.apply(&shared_domain(shop, &format!("matchNames: [{}]", bank.namespace))).await?;
        shop_moves_to(shop, "/svc/payments").await?;
        let looked_at = |object: &DynamicObject| object.data["status"]["claims"] == json!([]);
        status_of(shop, "parked", "looked at, with nothing granted", looked_at).await?;
        let holder = bank_holds_payments(bank).await?;
        shop.cluster.apply(&shared_domain(shop, &both(shop, bank))).await?;
        loses_to(shop, "parked", &holder).await?;
        bank_keeps_payments(bank).await
    })
    .await;
}

/// The recorded age of the only claim of an identity.
fn since(object: &DynamicObject) -> Value {
    object.data["status"]["claims"][0]["since"].clone()
}

#[tokio::test]
async fn claims_of_a_holder_that_edits_something_else_keep_their_age_while_a_rival_waits() {
    two_namespaces("claims-edit", async |shop, bank| {
        shop.cluster.apply(&shared_domain(shop, &both(shop, bank))).await?;
        shop_parks(shop, "/svc/parked").await?;
        let holder = bank_holds_payments(bank).await?;
        shop_moves_to(shop, "/svc/payments").await?;
        loses_to(shop, "parked", &holder).await?;
        let before = since(&holds(bank, "payments").await?);
        for edit in ["x509: {ttl: 30m}", "hint: internal", "x509: {dnsNames: [pay.claims.test]}"] {
            bank.cluster.apply(&bank.identity_yaml("payments", &format!("path: /svc/payments\n{edit}"))).await?;
            let after = holds(bank, "payments").await?;
            let claims = after.data["status"]["claims"].as_array().expect("claims");
            let path = claims.iter().find(|claim| claim["kind"] == "Path").expect("the path");
            assert_eq!(path["since"], before, "{edit}");
        }
        loses_to(shop, "parked", &holder).await?;
        bank_keeps_payments(bank).await
    })
    .await;
}

#[tokio::test]
async fn claims_end_with_the_label_that_grants_them_and_begin_anew_with_it() {
    two_namespaces("claims-label", async |shop, bank| {
        let label = async |world: &World, team: Value| {
            let namespaces: Api<Namespace> = Api::all(world.cluster.client.clone());
            let patch = json!({"metadata": {"labels": {"claims.test/team": team}}});
            namespaces.patch(&world.namespace, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
        };
        let team = format!("matchLabels: {{claims.test/team: {}}}", shop.namespace);
        label(shop, json!(shop.namespace)).await?;
        label(bank, json!(shop.namespace)).await?;
        shop.cluster.apply(&shared_domain(shop, &team)).await?;
        let holder = bank_holds_payments(bank).await?;
        shop_moves_to(shop, "/svc/payments").await?;
        loses_to(shop, "parked", &holder).await?;

        label(bank, Value::Null).await?;
        holds(shop, "parked").await?;
        let ended = |object: &DynamicObject| object.data["status"]["claims"] == json!([]);
        status_of(bank, "payments", "granted nothing", ended).await?;
        label(bank, json!(shop.namespace)).await?;
        loses_to(bank, "payments", &format!("{}/parked", shop.namespace)).await?;
        holds(shop, "parked").await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn claims_whose_record_is_lost_in_a_restore_change_no_holder() {
    two_namespaces("claims-restore", async |shop, bank| {
        shop.cluster.apply(&shared_domain(shop, &both(shop, bank))).await?;
        shop_parks(shop, "/svc/parked").await?;
        let holder = bank_holds_payments(bank).await?;
        shop_moves_to(shop, "/svc/payments").await?;
        loses_to(shop, "parked", &holder).await?;
        for (world, name) in [(shop, "parked"), (bank, "payments"), (shop, "parked")] {
            let identities = world.cluster.workload_identities(&world.namespace).await?;
            let before = identities.get(name).await?.metadata.resource_version;
            let nothing = json!({"status": null});
            identities.patch_status(name, &PatchParams::default(), &Patch::Merge(nothing)).await?;
            let anew = |object: &DynamicObject| {
                object.metadata.resource_version != before && object.data["status"]["claims"].is_array()
            };
            status_of(world, name, "recorded anew", anew).await?;
            loses_to(shop, "parked", &holder).await?;
            bank_keeps_payments(bank).await?;
        }
        Ok(())
    })
    .await;
}

/// Finding 6: a DNS name belongs to one namespace. Only the name is refused, and its new holder gets it without a restart.
#[tokio::test]
async fn claims_to_one_dns_name_leave_it_to_the_namespace_that_had_it_first() {
    two_namespaces("claims-dns", async |shop, bank| {
        shop.cluster.apply(&shared_domain(shop, &both(shop, bank))).await?;
        let named = |world: &World, account: &str, names: &str| {
            world.identity_yaml(account, &format!("path: /svc/{account}\nx509: {{dnsNames: [{names}]}}"))
        };
        let (pay, orders) = ("pay.claims.test", "orders.claims.test");
        bank.cluster.apply(&named(bank, "payments", pay)).await?;
        holds(bank, "payments").await?;
        shop.cluster.apply(&named(shop, "orders", &format!("{pay}, {orders}"))).await?;
        let holder = format!("{}/payments", bank.namespace);
        let names_it = |object: &DynamicObject| {
            condition(object, "Conflicting")
                .is_some_and(|(status, message)| status == "True" && message.contains(&holder) && message.contains(pay))
        };
        status_of(shop, "orders", "without the name that bank has", names_it).await?;
        holds(shop, "orders").await?;

        for (world, pod) in [(bank, "payments"), (shop, "orders")] {
            world.cluster.apply(&PodSpec::hold(pod).pod(&world.namespace)).await?;
            world.ready(pod).await?;
        }
        let has = async |world: &World, pod: &str, names: &[&str]| {
            until(&format!("{pod} has the names {names:?}"), DEFAULT_TIMEOUT, async || {
                let mut found = world.credential(pod).await?.dns_names;
                found.sort();
                ensure!(found == names, "it has {found:?}");
                Ok(Some(()))
            })
            .await
        };
        has(bank, "payments", &[pay]).await?;
        has(shop, "orders", &[orders]).await?;

        bank.cluster.apply(&bank.identity_yaml("payments", "path: /svc/payments")).await?;
        has(shop, "orders", &[orders, pay]).await?;
        has(bank, "payments", &[]).await?;
        bank.cluster.apply(&named(bank, "payments", pay)).await?;
        let names_shop = |object: &DynamicObject| {
            condition(object, "Conflicting").is_some_and(|(_, message)| message.contains(&shop.namespace))
        };
        status_of(bank, "payments", "without the name that it gave away", names_shop).await?;
        has(shop, "orders", &[orders, pay]).await
    })
    .await;
}
