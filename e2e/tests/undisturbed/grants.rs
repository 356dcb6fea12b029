//! Grants of a TrustDomain: which are refused, which cause a warning, and how `kubectl get` shows them.

#![allow(clippy::expect_used, reason = "a value that is missing fails the test")]

use countersign_e2e::{
    World,
    fixture::PodSpec,
    kubectl::{columns, warnings},
    scenario,
    wait::{DEFAULT_TIMEOUT, until, watch},
};
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;

/// The test's TrustDomain with these grants: the content of a YAML flow sequence.
fn domain(world: &World, grants: &str) -> String {
    format!(
        "---
apiVersion: countersign.dev/v1alpha1
kind: TrustDomain
metadata: {{name: {}}}
spec: {{authority: {{}}, grants: [{grants}]}}
",
        world.trust_domain
    )
}

fn condition<'a>(object: &'a DynamicObject, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    let says = |condition: &'a serde_json::Value, field: &str| condition.get(field)?.as_str();
    let condition = conditions.iter().find(|condition| says(condition, "type") == Some(kind))?;
    Some((says(condition, "status")?, says(condition, "reason")?))
}

const LABELLED: &str = "namespaces: {matchLabels: {team: shop}}";

/// R32, R48: `{namespace}` at different positions does not separate namespaces, nor does a DNS name without it.
#[tokio::test]
async fn grants_by_which_namespaces_can_claim_each_others_names_are_refused() {
    scenario("grants-apart", async |world| {
        let below = format!("{{{LABELLED}, paths: ['/{{namespace}}/**']}}");
        let below_ns = format!("{{{LABELLED}, paths: ['/ns/{{namespace}}/**']}}");
        let denied = world.cluster.refusal(&domain(world, &format!("{below}, {below_ns}"))).await?;
        for part in [
            "spec.grants[0].paths[0] (/{namespace}/**) and spec.grants[1].paths[0] (/ns/{namespace}/**)",
            "namespace ns can claim \"/ns/shop/x\"",
            "put {namespace} at the same position of both",
        ] {
            assert!(denied.contains(part), "{part}: {denied}");
        }

        // A change of a stored TrustDomain is refused as well, and the stored one stays usable.
        world.cluster.apply(&domain(world, &below_ns)).await?;
        let denied = world.cluster.refusal(&domain(world, &format!("{below_ns}, {below}"))).await?;
        assert!(denied.contains("do not keep namespaces apart"), "{denied}");
        let named = format!("{{{LABELLED}, paths: ['/ns/{{namespace}}/**'], dnsNames: ['*.shop.example.org']}}");
        let denied = world.cluster.refusal(&domain(world, &named)).await?;
        assert!(
            denied.contains("spec.grants[0].dnsNames[0] (*.shop.example.org) has no label {namespace}"),
            "{denied}"
        );

        // Grants that separate namespaces, are for one namespace alone, or are explicitly shared, are accepted.
        for grants in [
            format!("{below_ns}, {{namespaces: {{matchNames: [bank]}}, paths: ['/{{namespace}}/**']}}"),
            format!("{below_ns}, {{{LABELLED}, paths: ['/{{namespace}}/**'], shared: true}}"),
            format!("{{{LABELLED}, paths: ['/{{namespace}}/*'], dnsNames: ['*.shop.example.org'], shared: true}}"),
            "{namespaces: {matchNames: [bank]}, paths: ['/{namespace}/*'], dnsNames: ['*.shop.example.org']}"
                .to_owned(),
        ] {
            world.cluster.apply(&domain(world, &grants)).await?;
        }
        let domains = world.cluster.trust_domains().await?;
        let separated =
            |domain: &DynamicObject| condition(domain, "NamespacesSeparated") == Some(("True", "Separated"));
        watch(&domains, &world.trust_domain, "separated", separated).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn grants_that_cover_more_than_is_perhaps_meant_are_warned_of() {
    scenario("grants-warned", async |world| {
        let of = |audience: &str| {
            domain(world, &format!("{{{LABELLED}, paths: ['/ns/{{namespace}}/**'], audiences: ['{audience}']}}"))
        };
        let told = warnings(&of("https://a.org*"))?;
        assert!(
            told.contains("Warning: spec.grants[0].audiences[0]: the prefix https://a.org* does not end at a"),
            "{told}"
        );
        assert!(!warnings(&of("https://a.org/*"))?.contains("Warning:"));

        // Whatever depends on the TrustDomain would be warned of as well.
        let granted = format!(
            "{{namespaces: {{matchNames: [{}]}}, paths: ['/ns/{{namespace}}/**'], audiences: ['*']}}",
            world.namespace
        );
        world.cluster.apply(&domain(world, &granted)).await?;
        let identity = |audience: &str| world.identity_yaml("warned", &format!("jwt: {{audiences: ['{audience}']}}"));
        let told = warnings(&identity("https://a.org*"))?;
        assert!(told.contains("Warning: spec.jwt.audiences[0]: the prefix https://a.org* does not end at a"), "{told}");
        until("no warning", DEFAULT_TIMEOUT, async || {
            Ok((!warnings(&identity("https://a.org/*"))?.contains("Warning:")).then_some(()))
        })
        .await?;

        let shared = format!("{{{LABELLED}, paths: ['/ns/*/web'], shared: true}}");
        let told = warnings(&domain(world, &format!("{{{LABELLED}, paths: ['/ns/{{namespace}}/**']}}, {shared}")))?;
        assert!(
            told.contains("one of the two grants is shared and covers ids of the other, such as \"/ns/shop/web\""),
            "{told}"
        );
        Ok(())
    })
    .await;
}

/// A workload's own choice for the `*` of an audience has plain characters only.
#[tokio::test]
async fn grants_of_audience_prefixes_give_no_tokens_for_odd_audiences() {
    scenario("grants-audience", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        let prefix = "jwt: {audiences: ['https://api.example.org/*']}";
        world.cluster.apply(&world.identity_yaml("caller", prefix)).await?;
        world.cluster.apply(&PodSpec::hold("caller").pod(&world.namespace)).await?;
        world.ready("caller").await?;
        let token = async |audience: &str| world.demo("caller", &["token", "--audience", audience]).await.map(drop);
        token("https://api.example.org/orders?for=a%20b").await?;
        for odd in ["https://api.example.org/a b", "https://api.example.org/*", "https://api.example.org/\u{202e}gro"] {
            let refused = format!("{:#}", token(odd).await.expect_err(odd));
            assert!(refused.contains("is not acceptable") && refused.contains("has the character"), "{refused}");
        }
        let refused = format!("{:#}", token("https://api.example.org.evil.com/").await.expect_err("another host"));
        assert!(refused.contains("may not ask for audience"), "{refused}");
        Ok(())
    })
    .await;
}

/// A column of type `date` is printed as an age, so a future time would be `<invalid>`.
#[tokio::test]
async fn grants_and_identities_are_printed_by_kubectl_as_their_columns_say() {
    scenario("grants-columns", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("shown", "")).await?;
        let is_age = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_digit())
                && text.chars().all(|c| c.is_ascii_digit() || "dhms".contains(c))
        };
        // Without a pod, no column can be invalid.
        let before = columns(&world.namespace, "wid", "shown")?;
        assert!(before.iter().all(|(_, value)| value != "<invalid>"), "{before:?}");

        world.cluster.apply(&PodSpec::hold("shown").pod(&world.namespace)).await?;
        world.ready("shown").await?;
        let counted = |object: &DynamicObject| {
            let count =
                |name: &str| object.data.pointer(&format!("/status/pods/{name}")).and_then(serde_json::Value::as_i64);
            count("served") == Some(1)
                && count("held") == Some(1)
                && object.data.pointer("/status/nextExpiry").is_some()
        };
        let identities = world.cluster.workload_identities(&world.namespace).await?;
        watch(&identities, "shown", "counted", counted).await?;
        let shown = columns(&world.namespace, "wid", "shown")?;
        let names: Vec<_> = shown.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "NAME",
                "TRUST DOMAIN",
                "PATH",
                "READY",
                "REASON",
                "PODS",
                "SERVED",
                "HELD",
                "NOT INJECTED",
                "OUTDATED AGENTS",
                "NEXT EXPIRY",
                "AGE"
            ]
        );
        for (name, value) in &shown {
            let fits = match name.as_str() {
                "NAME" => value == "shown",
                "TRUST DOMAIN" => *value == world.trust_domain,
                "PATH" => value == "/ns/{namespace}/sa/{serviceAccount}",
                "READY" => value == "True",
                "REASON" => value == "Admitted",
                "PODS" | "SERVED" | "HELD" => value == "1",
                "NOT INJECTED" | "OUTDATED AGENTS" => value == "0",
                "NEXT EXPIRY" => value.parse::<Timestamp>().is_ok_and(|at| at > Timestamp::now()),
                _ => is_age(value),
            };
            assert!(fits, "{name}: {value}");
        }

        let shown = columns(&world.namespace, "td", &world.trust_domain)?;
        let names: Vec<_> = shown.iter().map(|(name, _)| name.as_str()).collect();
        let of_all = ["NAME", "TRUST DOMAIN", "READY", "REASON", "NEXT SWITCH"];
        let of_remote = ["CONFIRMED", "NEXT POLL", "LAST ERROR"];
        assert_eq!(names, [&of_all[..], &of_remote, &["SEQUENCE", "USED BY", "AGE"]].concat());
        for (name, value) in &shown {
            let fits = match name.as_str() {
                "NAME" | "TRUST DOMAIN" => *value == world.trust_domain,
                "READY" => value == "True",
                "REASON" => value == "Signing",
                "NEXT SWITCH" => value.parse::<Timestamp>().is_ok_and(|at| at > Timestamp::now()),
                "CONFIRMED" | "NEXT POLL" | "LAST ERROR" | "USED BY" => value.is_empty(),
                "SEQUENCE" => value.parse::<u64>().is_ok(),
                _ => is_age(value),
            };
            assert!(fits, "{name}: {value}");
        }
        Ok(())
    })
    .await;
}
