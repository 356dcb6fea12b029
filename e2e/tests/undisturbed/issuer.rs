//! The issuer is the security boundary: whatever a client sends, a pod gets what its service account is granted and nothing
//! else.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use std::time::Duration;

use anyhow::Result;
use countersign_e2e::{
    World,
    apply::delete,
    faults::report_counts,
    issuer::{Issuer, csr, csr_of},
    scenario, tokens,
    wait::{DEFAULT_TIMEOUT, gone, until},
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use rcgen::{KeyPair, PKCS_ECDSA_P521_SHA512, PKCS_ED25519};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio::time::timeout;
use tonic::Code;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

async fn installed(world: &World) -> Result<String> {
    world.cluster.apply(&world.trust_domain_yaml("")).await?;
    world.cluster.apply(&world.identity_yaml("account", "")).await?;
    world.cluster.apply(&world.identity_yaml("another", "")).await?;
    Ok(world.cluster.control_plane().await?.audience)
}

/// Waits until the issuer knows the pod and its identity, and accepts a valid token.
async fn accepted(issuer: &Issuer, token: &str) -> Result<()> {
    until("the issuer accepts a good token", DEFAULT_TIMEOUT, async || {
        let state = issuer.open(token).await?.state().await?;
        Ok((!state.identities.is_empty()).then_some(()))
    })
    .await
}

/// R70: a handmade pod gets exactly what its account is granted, whatever it requests.
#[tokio::test]
async fn a_handmade_pod_gets_what_its_account_is_granted() {
    scenario("by-hand", async |world| {
        let audience = installed(world).await?;
        let pod = world.never_runs("handmade", "account").await?;
        let token = world.service_account_token("account", &[&audience], Some(&pod)).await?;
        let issuer = Issuer::connect(&world.cluster).await?;
        accepted(&issuer, &token).await?;

        let mut session = issuer.open(&token).await?;
        let state = session.state().await?;
        let ids: Vec<_> = state.identities.iter().map(|identity| identity.spiffe_id.as_str()).collect();
        assert_eq!(ids, [world.id("account")]);

        // Names in the CSR are never copied.
        let (request, _) = csr(&[&world.id("another")], &["kubernetes.default.svc"])?;
        let answer = session.certificate(request, "").await?;
        assert_eq!(answer.refusal, None);
        let leaf = CertificateDer::from(answer.certificates[0].clone());
        let (_, leaf) = X509Certificate::from_der(&leaf)?;
        let names = leaf.subject_alternative_name()?.expect("names");
        let id = world.id("account");
        assert_eq!(names.value.general_names, [GeneralName::URI(&id)]);

        // The id of another account is refused.
        let (request, _) = csr(&[], &[])?;
        let answer = session.certificate(request, &world.id("another")).await?;
        assert!(answer.certificates.is_empty());
        let refusal = answer.refusal.expect("a refusal");
        assert_eq!(Code::from(refusal.code), Code::PermissionDenied, "{}", refusal.message);

        // So is a CSR with an invalid signature, and one of a key type that is not allowed.
        let (mut altered, _) = csr(&[], &[])?;
        let last = altered.len() - 1;
        altered[last] ^= 1;
        let ed25519 = csr_of(&KeyPair::generate_for(&PKCS_ED25519)?, &[], &[])?;
        let p521 = csr_of(&KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512)?, &[], &[])?;
        for (request, named) in
            [(altered, "signature"), (ed25519, "P-256"), (p521, "P-256"), (vec![0x30; 9 * 1024], "8192")]
        {
            let answer = session.certificate(request, "").await?;
            let refusal = answer.refusal.expect("a refusal");
            assert_eq!(Code::from(refusal.code), Code::InvalidArgument, "{}", refusal.message);
            assert!(refusal.message.contains(named), "{named} is not in: {}", refusal.message);
        }

        // The stream still serves after all that; a message over the limit ends it, with a reason.
        let (request, _) = csr(&[], &[])?;
        assert_eq!(session.certificate(request, "").await?.refusal, None);
        let ended = session.certificate(vec![0; 70 * 1024], "").await.expect_err("the stream ends");
        assert_eq!(ended.code(), Code::InvalidArgument, "{}", ended.message());
        assert!(ended.message().contains("size limit"), "{}", ended.message());
        Ok(())
    })
    .await;
}

/// R10, R11: a token is no longer valid after its expiry. The API server issues none with a shorter lifetime than ten
/// minutes.
#[tokio::test]
#[ignore = "soak: a token lives for ten minutes"]
async fn an_expired_token_is_refused() {
    scenario("expired", async |world| {
        let audience = installed(world).await?;
        let pod = world.never_runs("patient", "account").await?;
        let token = world.service_account_token("account", &[&audience], Some(&pod)).await?;
        let issuer = Issuer::connect(&world.cluster).await?;
        accepted(&issuer, &token).await?;
        let mut open = issuer.open(&token).await?;
        open.state().await?;

        let expiry = tokens::claims(&token)?["exp"].as_i64().expect("an expiry");
        let left = Duration::from_secs(u64::try_from(expiry - Timestamp::now().as_second())?);
        // The session ends with the token that opened it.
        let ended = timeout(left + DEFAULT_TIMEOUT, open.end()).await?;
        assert_eq!(ended.code(), Code::Unauthenticated, "{}", ended.message());
        let (code, message) =
            until("the token is refused", DEFAULT_TIMEOUT, async || issuer.refusal(&token).await.map(Some)).await?;
        assert_eq!(code, Code::Unauthenticated, "{message}");
        assert!(message.contains("expired"), "{message}");
        report_counts(
            "a token after its `exp`, new and on an open stream",
            &json!({ "streams_ended": 1, "refused": 1 }),
        )
    })
    .await;
}

/// R11.
#[tokio::test]
async fn tokens_that_are_not_for_us_are_refused() {
    scenario("tokens", async |world| {
        let audience = installed(world).await?;
        let pod = world.never_runs("owner", "account").await?;
        let good = world.service_account_token("account", &[&audience], Some(&pod)).await?;
        let issuer = Issuer::connect(&world.cluster).await?;
        accepted(&issuer, &good).await?;

        let expiry = tokens::claims(&good)?["exp"].as_i64().expect("an expiry");
        for (what, token) in [
            (
                "another audience",
                world.service_account_token("account", &["https://kubernetes.default.svc"], Some(&pod)).await?,
            ),
            ("two audiences", world.service_account_token("account", &[&audience, "other"], Some(&pod)).await?),
            ("not bound to a pod", world.service_account_token("account", &[&audience], None).await?),
            ("unsigned", tokens::unsigned(&good)?),
            ("another key", tokens::signed_by_another_key(&good)?),
            ("a longer life", tokens::altered(&good, "exp", json!(expiry + 3600))?),
            ("no token", "a.b.c".to_owned()),
            ("a huge token", "a".repeat(20 * 1024)),
            ("nothing", String::new()),
        ] {
            // On a new connection: the issuer closes one with repeated failures of authentication.
            let (code, message) = Issuer::connect(&world.cluster).await?.refusal(&token).await?;
            assert_eq!(code, Code::Unauthenticated, "{what}: {message}");
            assert!(token.is_empty() || !message.contains(&token), "{what}: the message holds the token");
        }
        accepted(&issuer, &good).await
    })
    .await;
}

#[tokio::test]
async fn the_token_of_a_pod_that_is_gone_is_refused_and_so_is_it_for_its_namesake() {
    scenario("gone", async |world| {
        let audience = installed(world).await?;
        let first = world.never_runs("phoenix", "account").await?;
        let token = world.service_account_token("account", &[&audience], Some(&first)).await?;
        let issuer = Issuer::connect(&world.cluster).await?;
        accepted(&issuer, &token).await?;

        delete(&world.pods(), "phoenix").await?;
        gone(&world.pods(), "phoenix", DEFAULT_TIMEOUT).await?;
        let refused = async || {
            until("the issuer refuses the token", DEFAULT_TIMEOUT, async || issuer.refusal(&token).await.map(Some))
                .await
        };
        let (code, message) = refused().await?;
        assert_eq!(code, Code::Unauthenticated, "{message}");

        let second = world.never_runs("phoenix", "account").await?;
        assert_ne!(first.1, second.1);
        let fresh = world.service_account_token("account", &[&audience], Some(&second)).await?;
        accepted(&issuer, &fresh).await?;
        let (code, message) = refused().await?;
        assert_eq!(code, Code::Unauthenticated, "{message}");
        assert!(world.pods().get("phoenix").await?.uid().is_some());
        Ok(())
    })
    .await;
}
