//! Invalid input gets a clear answer: from the API server, the Workload API, a status or an event.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use anyhow::{Result, ensure};
use countersign_contract::objects::journal::trust_domain_secret;
use countersign_e2e::{
    World,
    cluster::AUTHORITIES,
    credential::FOLDER,
    fixture::PodSpec,
    pods::lines,
    scenario,
    wait::{DEFAULT_TIMEOUT, until, watch},
};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Event, Secret},
    jiff::Timestamp,
};
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::Value;

/// The Workload API's answer to a hand-written call from a pod: the gRPC status code and the message.
async fn workload_api(world: &World, pod: &str, arguments: &[&str]) -> Result<(String, String)> {
    let said = world.demo(pod, &[&["workload-api"], arguments].concat()).await?;
    let said = lines(&String::from_utf8(said)?).pop().unwrap_or_default();
    Ok((said["code"].as_str().unwrap_or_default().to_owned(), said["message"].as_str().unwrap_or_default().to_owned()))
}

/// Waits until the Workload API answers with this code a pod that does not wait for its identity; returns the message.
async fn answers(world: &World, pod: &str, wanted: &str) -> Result<String> {
    until(&format!("the Workload API answers {pod} with {wanted}"), DEFAULT_TIMEOUT, async || {
        let (code, message) = workload_api(world, pod, &[]).await?;
        ensure!(code == wanted, "it answers {code}: {message}");
        Ok(Some(message))
    })
    .await
}

/// A condition's status and message.
fn condition<'a>(object: &'a DynamicObject, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = object.data["status"]["conditions"].as_array()?;
    let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
    Some((condition["status"].as_str()?, condition["message"].as_str()?))
}

/// Waits until a WorkloadIdentity is stalled with a message that contains `named`; returns the message.
async fn stalled(world: &World, name: &str, named: &str) -> Result<String> {
    let is_so = |object: &DynamicObject| {
        condition(object, "Stalled").is_some_and(|(status, message)| status == "True" && message.contains(named))
    };
    let identities = world.cluster.workload_identities(&world.namespace).await?;
    let identity = watch(&identities, name, &format!("stalled, naming {named}"), is_so).await?;
    assert_eq!(condition(&identity, "Ready").map(|(status, _)| status), Some("False"));
    Ok(condition(&identity, "Stalled").map(|(_, message)| message.to_owned()).unwrap_or_default())
}

/// Waits until a WorkloadIdentity is ready.
async fn ready(world: &World, name: &str) -> Result<DynamicObject> {
    let is_so = |object: &DynamicObject| condition(object, "Ready").is_some_and(|(status, _)| status == "True");
    watch(&world.cluster.workload_identities(&world.namespace).await?, name, "ready", is_so).await
}

/// R72: the metadata that protects against SSRF is required.
#[tokio::test]
async fn a_call_without_metadata_is_an_invalid_argument() {
    scenario("metadata", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("caller", "")).await?;
        world.cluster.apply(&PodSpec::hold("caller").pod(&world.namespace)).await?;
        world.ready("caller").await?;
        for method in ["FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles", "ValidateJWTSVID"] {
            let (code, message) = workload_api(world, "caller", &["--method", method, "--without-metadata"]).await?;
            assert_eq!(code, "InvalidArgument", "{method}: {message}");
            assert!(message.contains("workload.spiffe.io"), "{method}: {message}");
        }
        let (code, message) = workload_api(world, "caller", &[]).await?;
        assert_eq!(code, "Ok", "{message}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_pod_without_identity_is_denied_and_an_event_says_why() {
    scenario("nobody", async |world| {
        let pod = PodSpec { annotations: "countersign.dev/hold: 'false'", ..PodSpec::hold("nobody") };
        world.cluster.apply(&pod.pod(&world.namespace)).await?;
        world.ready("nobody").await?;
        let because =
            |event: &Event| event.message.as_ref().is_some_and(|message| message.contains("WorkloadIdentity"));
        world.event("nobody", "that no WorkloadIdentity is about it", because).await?;
        let message = answers(world, "nobody", "PermissionDenied").await?;
        assert!(message.contains("WorkloadIdentity"), "{message}");

        // As soon as one exists, the pod has it, without a restart.
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("nobody", "")).await?;
        let credential =
            until("the pod has its identity", DEFAULT_TIMEOUT, async || world.credential("nobody").await.map(Some))
                .await?;
        assert_eq!(credential.id, world.id("nobody"));
        Ok(())
    })
    .await;
}

/// An agent that reaches no trusted issuer cannot know whether there is an identity.
#[tokio::test]
async fn before_readiness_the_workload_api_is_unavailable() {
    scenario("early", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("early", "")).await?;
        let spec = PodSpec { annotations: "countersign.dev/hold: 'false'", ..PodSpec::hold("early") };
        // Roots that did not sign the issuer's certificate.
        let roots = rcgen::CertificateParams::new(Vec::new())?.self_signed(&rcgen::KeyPair::generate()?)?.pem();
        world.handmade_pod(&spec, &[("COUNTERSIGN_ROOTS", &roots)]).await?;
        world.ready("early").await?;
        answers(world, "early", "Unavailable").await.map(drop)
    })
    .await;
}

/// The API server refuses invalid single objects by the rules in the definitions, also while the webhook, which would
/// refuse them with another message, is unavailable.
#[tokio::test]
async fn malformed_identities_are_denied_with_a_clear_message() {
    scenario("denied", async |world| {
        let long = format!("/{}", "a".repeat(1024));
        for (path, message) in [
            ("/ns/../sa/x", "'..'"),
            ("/ns/./sa/x", "'..'"),
            ("/ns/{namespace}/app/{label}", "unknown placeholder: allowed are"),
            ("/ns/pre-{namespace}", "path is one or more segments"),
            ("ns/x", "path is one or more segments"),
            ("/ns//x", "path is one or more segments"),
            ("/ns/x/", "path is one or more segments"),
            ("/ns/a%20b", "path is one or more segments"),
            ("/", "spec.path"),
            (&long, "spec.path"),
        ] {
            let denied = world.cluster.refusal(&world.identity_yaml("denied", &format!("path: '{path}'"))).await?;
            assert!(denied.contains(message), "{path}: {denied}");
        }
        for (field, message) in [
            ("x509: {ttl: 5s}", ": an SVID lives at least 10s"),
            ("jwt: {ttl: 5s}", ": an SVID lives at least 10s"),
            ("x509: {ttl: soon}", "spec.x509.ttl"),
            ("hint: jwt", "hint 'jwt' is taken"),
            ("hint: '../x'", "spec.hint"),
            ("federatesWith: ['Example.org']", "spec.federatesWith"),
        ] {
            let denied = world.cluster.refusal(&world.identity_yaml("denied", field)).await?;
            assert!(denied.contains(message), "{field}: {denied}");
        }
        for (selector, message) in [
            ("", "say which pods"),
            ("matchExpressions: [{key: app, operator: In}]", "values go with the operators In and NotIn"),
            (
                "matchExpressions: [{key: app, operator: Exists, values: [x]}]",
                "values go with the operators In and NotIn",
            ),
        ] {
            let identity = world.identity_yaml("denied", "");
            let identity = identity.replace("{serviceAccounts: [denied]}", &format!("{{{selector}}}"));
            let denied = world.cluster.refusal(&identity).await?;
            assert!(denied.contains(message), "{selector}: {denied}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn malformed_trust_domains_are_denied_with_a_clear_message() {
    scenario("denied-td", async |world| {
        let good = world.trust_domain_yaml("");
        let long = "a".repeat(256);
        let namespaces = |selector: &str| {
            good.replace(&format!("{{matchNames: [{}]}}", world.namespace), &format!("{{{selector}}}"))
        };
        for (bad, message) in [
            (good.replace("  authority: {}", "  authority: {}\n  trustDomain: Example.org"), "spec.trustDomain"),
            (good.replace("  authority: {}", &format!("  authority: {{}}\n  trustDomain: {long}")), "spec.trustDomain"),
            (good.replace("  authority: {}\n", ""), "exactly one of these must be given"),
            (good.replace("/ns/{namespace}/**", "/shop/**"), "contains the segment {namespace}"),
            (
                world.trust_domain_yaml("x509: {svidTTL: 20h}"),
                "caTTL must be at least 2 × (the longest X.509 SVID life",
            ),
            (world.trust_domain_yaml("jwt: {svidTTL: 20h}"), "caTTL must be at least 2 × (the longest JWT-SVID life"),
            (world.trust_domain_yaml("bundleRefreshHint: 0s"), "the refresh hint is at least 1s"),
            (world.trust_domain_yaml("x509: {svidTTL: 10m, maxSVIDTTL: 5m}"), "maxSVIDTTL must not be below svidTTL"),
            (world.trust_domain_yaml("jwt: {svidTTL: 10m, maxSVIDTTL: 5m}"), "maxSVIDTTL must not be below svidTTL"),
            (world.trust_domain_yaml("x509: {caTTL: 87601h}"), "a CA lives at most 87600h"),
            (world.trust_domain_yaml("x509: {svidTTL: 9s}"), ": an SVID lives at least 10s"),
            (world.trust_domain_yaml("jwt: {svidTTL: 9s}"), ": an SVID lives at least 10s"),
            (
                good.replace(&format!("name: {}}}", world.trust_domain), &format!("name: {}}}", "a".repeat(241))),
                "at most 240",
            ),
            (namespaces(""), "say which namespaces"),
            (namespaces("matchExpressions: [{key: a, operator: In}]"), "values go with the operators In and NotIn"),
            (
                namespaces("matchExpressions: [{key: a, operator: Exists, values: [x]}]"),
                "values go with the operators In and NotIn",
            ),
        ] {
            let denied = world.cluster.refusal(&bad).await?;
            assert!(denied.contains(message), "{bad}: {denied}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn immutable_fields_stay() {
    scenario("immutable", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("same", "")).await?;
        let elsewhere = world.identity_yaml("same", "").replace(&world.trust_domain, "elsewhere.test");
        let denied = world.cluster.refusal(&elsewhere).await?;
        assert!(denied.contains("immutable"), "{denied}");
        let renamed =
            world.trust_domain_yaml("").replace("  authority: {}", "  authority: {}\n  trustDomain: elsewhere.test");
        let denied = world.cluster.refusal(&renamed).await?;
        assert!(denied.contains("immutable"), "{denied}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_claim_outside_the_grants_is_named_in_the_status() {
    scenario("grants", async |world| {
        let narrow = world.trust_domain_yaml("").replace("audiences: ['*']", "audiences: [orders]");
        world.cluster.apply(&narrow).await?;
        for (name, claim, named) in [
            ("path", "path: '/elsewhere/x'", "/elsewhere/x"),
            ("dns", "x509: {dnsNames: [www.example.com]}", "www.example.com"),
            ("audience", "jwt: {audiences: [payments]}", "payments"),
            ("life", "x509: {ttl: 2h}", "longer life"),
        ] {
            world.cluster.apply(&world.identity_yaml(name, claim)).await?;
            stalled(world, name, named).await?;
        }
        // A foreign trust domain that is not granted is named, and takes nothing else away.
        world.cluster.apply(&world.identity_yaml("federation", "federatesWith: [other.test]")).await?;
        ready(world, "federation").await?;
        let (reason, message) = world.identity_condition("federation", "Federated", "False", "").await?;
        assert!(reason == "FederationNotGranted" && message.contains("other.test"), "{reason}: {message}");
        // A TrustDomain that does not exist is named as well; only that prevents this identity from being ready.
        let orphan = world.identity_yaml("orphan", "").replace(&world.trust_domain, "nowhere.test");
        world.cluster.apply(&orphan).await?;
        let identities = world.cluster.workload_identities(&world.namespace).await?;
        let names_it = |object: &DynamicObject| {
            condition(object, "Ready")
                .is_some_and(|(status, message)| status == "False" && message.contains("nowhere.test"))
        };
        watch(&identities, "orphan", "not ready, naming nowhere.test", names_it).await?;
        // Once granted, it is ready.
        world.cluster.apply(&world.identity_yaml("audience", "jwt: {audiences: [orders]}")).await?;
        ready(world, "audience").await.map(drop)
    })
    .await;
}

/// R32: of two that claim one id the oldest holds it; when that is deleted, the other gets it.
#[tokio::test]
async fn of_two_that_claim_one_id_the_oldest_holds() {
    scenario("conflict", async |world| {
        let path = "path: '/ns/{namespace}/one'";
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        let oldest = world.cluster.apply(&world.named_identity_yaml("oldest", "first", path)).await?;
        // Creation times have a resolution of one second; within a second the uid decides, which a test cannot choose.
        let made = oldest[0].metadata.creation_timestamp.clone().expect("a creation time");
        until("a second has passed", DEFAULT_TIMEOUT, async || {
            Ok((Timestamp::now().as_second() > made.0.as_second()).then_some(()))
        })
        .await?;
        world.cluster.apply(&world.named_identity_yaml("other", "second", path)).await?;
        ready(world, "oldest").await?;
        let message = stalled(world, "other", "oldest").await?;
        assert!(message.contains("/ns/{namespace}/one"), "{message}");

        world.cluster.apply(&PodSpec::hold("first").pod(&world.namespace)).await?;
        world.ready("first").await?;
        assert!(world.credential("first").await?.id.ends_with("/one"));
        let second = PodSpec { annotations: "countersign.dev/hold: 'false'", ..PodSpec::hold("second") };
        world.cluster.apply(&second.pod(&world.namespace)).await?;
        world.ready("second").await?;
        // The issuer agrees.
        answers(world, "second", "PermissionDenied").await?;

        world.cluster.delete(&oldest[0]).await?;
        ready(world, "other").await?;
        let credential =
            until("the other has it", DEFAULT_TIMEOUT, async || world.credential("second").await.map(Some)).await?;
        assert!(credential.id.ends_with("/one"));
        Ok(())
    })
    .await;
}

/// A damaged journal is never replaced: it is reported, and issued credentials keep working. Once repaired, it is used
/// again.
#[tokio::test]
async fn a_damaged_authority_is_stalled_and_gets_no_new_root() {
    scenario("damaged", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("steady", "")).await?;
        world.cluster.apply(&PodSpec::hold("steady").pod(&world.namespace)).await?;
        world.ready("steady").await?;
        let roots = world.file("steady", &format!("{FOLDER}/ca.crt")).await?;
        let domains = world.cluster.trust_domains().await?;
        let sequence = |domain: &DynamicObject| domain.data["status"]["bundle"]["sequence"].clone();
        let before = sequence(&domains.get(&world.trust_domain).await?);
        assert_ne!(before, Value::Null);

        let secrets = world.cluster.api::<Secret>(AUTHORITIES);
        let name = trust_domain_secret(&world.trust_domain);
        let journal = secrets.get(&name).await?.data.unwrap_or_default().remove("journal").expect("a journal");
        let write = async |journal: &ByteString| {
            let patch = serde_json::json!({ "data": { "journal": journal } });
            secrets.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
        };
        let mut damaged = journal.clone();
        let middle = damaged.0.len() / 2;
        damaged.0[middle] ^= 1;
        write(&damaged).await?;
        let is_stalled =
            |domain: &DynamicObject| condition(domain, "Stalled").is_some_and(|(status, _)| status == "True");
        let domain = watch(&domains, &world.trust_domain, "stalled", is_stalled).await?;
        let (_, message) = condition(&domain, "Stalled").expect("stalled");
        assert!(message.contains(&name), "the message says where: {message}");
        assert_eq!(sequence(&domain), before, "no new bundle");
        let there = secrets.get(&name).await?.data.unwrap_or_default().remove("journal");
        assert_eq!(there, Some(damaged), "the Secret is not written over");
        assert_eq!(world.file("steady", &format!("{FOLDER}/ca.crt")).await?, roots, "no new root");
        assert!(world.credential("steady").await.is_ok(), "what was issued is there");

        write(&journal).await?;
        let is_ready = |domain: &DynamicObject| condition(domain, "Ready").is_some_and(|(status, _)| status == "True");
        let domain = watch(&domains, &world.trust_domain, "ready", is_ready).await?;
        assert_eq!(sequence(&domain), before, "the same bundle");
        world.cluster.apply(&PodSpec::hold("later").account("steady").pod(&world.namespace)).await?;
        world.ready("later").await?;
        assert_eq!(world.file("later", &format!("{FOLDER}/ca.crt")).await?, roots, "the same root");
        Ok(())
    })
    .await;
}
