//! JB: JWT bundles and their updates. What an update brings beside what it takes away shows when it has taken effect.

use serde_json::{Value, json};

use crate::support::env::{Env, FEDERATED, OWN, case};
use crate::support::failure::{Verdict, control};
use crate::support::tokens::{JwtKey, jwks};

#[tokio::test]
async fn jb_1_a_key_that_was_added_is_used() -> Verdict {
    case(async |env| {
        env.jwt_control().await?;
        let added = JwtKey::generate("ES256");
        env.serve_keys(&[(OWN, &[&env.key, &added])]);
        accepts(env, &added).await
    })
    .await
}

#[tokio::test]
async fn jb_2_a_key_that_was_removed_is_not_used() -> Verdict {
    case(async |env| {
        let (goes, comes) = (JwtKey::generate("ES256"), JwtKey::generate("ES256"));
        env.serve_keys(&[(OWN, &[&env.key, &goes])]);
        control(accepts(env, &goes).await)?;
        env.serve_keys(&[(OWN, &[&env.key, &comes])]);
        control(accepts(env, &comes).await)?;
        env.rejects_now(&goes.token(&env.own.id("/jb"))).await
    })
    .await
}

#[tokio::test]
async fn jb_3_a_trust_domain_whose_bundle_was_removed_is_not_trusted() -> Verdict {
    case(async |env| {
        let (theirs, comes) = (JwtKey::generate("ES256"), JwtKey::generate("ES256"));
        env.serve_keys(&[(OWN, &[&env.key]), (FEDERATED, &[&theirs])]);
        control(accepts_federated(env, &theirs).await)?;
        env.serve_keys(&[(OWN, &[&env.key, &comes])]);
        control(accepts(env, &comes).await)?;
        env.rejects_now(&theirs.token(&federated_id())).await
    })
    .await
}

#[tokio::test]
async fn jb_4_the_key_is_selected_by_kid() -> Verdict {
    case(async |env| {
        let keys = ["ES256"; 3].map(JwtKey::generate);
        env.serve_keys(&[(OWN, &keys.each_ref())]);
        control(accepts(env, &keys[2]).await)?;
        accepts(env, &keys[1]).await
    })
    .await
}

#[tokio::test]
async fn jb_5_a_key_of_another_use_is_ignored() -> Verdict {
    ignores_key_with(|jwk| jwk["use"] = json!("x509-svid")).await
}

#[tokio::test]
async fn jb_5_a_key_without_use_is_used() -> Verdict {
    case(async |env| {
        env.jwt_control().await?;
        let other = JwtKey::generate("ES256");
        let mut jwk = other.jwk();
        jwk.as_object_mut().unwrap().remove("use").unwrap();
        env.mock.push_jwt_bundles([(OWN, jwks([env.key.jwk(), jwk]))]);
        accepts(env, &other).await
    })
    .await
}

async fn ignores_key_with(change: impl FnOnce(&mut Value)) -> Verdict {
    case(async |env| {
        env.jwt_control().await?;
        let (other, marker) = (JwtKey::generate("ES256"), JwtKey::generate("ES256"));
        let mut jwk = other.jwk();
        change(&mut jwk);
        env.mock.push_jwt_bundles([(OWN, jwks([env.key.jwk(), jwk, marker.jwk()]))]);
        control(accepts(env, &marker).await)?;
        env.rejects_now(&other.token(&env.own.id("/jb"))).await
    })
    .await
}

#[tokio::test]
async fn jb_6_a_key_of_unknown_type_does_not_discard_the_others() -> Verdict {
    case(async |env| {
        env.jwt_control().await?;
        let unknown = json!({"kty": "EXAMPLE", "use": "jwt-svid", "kid": "unknown", "k": "AQAB"});
        let after = JwtKey::generate("ES256");
        env.mock.push_jwt_bundles([(OWN, jwks([env.key.jwk(), unknown, after.jwk()]))]);
        accepts(env, &after).await?;
        accepts(env, &env.key).await
    })
    .await
}

#[tokio::test]
async fn jb_7_a_bundle_without_keys_trusts_nothing() -> Verdict {
    case(async |env| {
        env.jwt_control().await?;
        let theirs = JwtKey::generate("ES256");
        env.serve_keys(&[(OWN, &[]), (FEDERATED, &[&theirs])]);
        control(accepts_federated(env, &theirs).await)?;
        env.rejects_now(&env.key.token(&env.own.id("/jb"))).await
    })
    .await
}

#[tokio::test]
async fn jb_8_a_token_of_a_federated_trust_domain_is_accepted() -> Verdict {
    case(async |env| {
        let theirs = JwtKey::generate("ES256");
        env.serve_keys(&[(OWN, &[&env.key]), (FEDERATED, &[&theirs])]);
        accepts_federated(env, &theirs).await
    })
    .await
}

async fn accepts(env: &Env, key: &JwtKey) -> Verdict {
    let id = env.own.id("/jb");
    env.accepts_soon(&key.token(&id), &id).await
}

async fn accepts_federated(env: &Env, key: &JwtKey) -> Verdict {
    env.accepts_soon(&key.token(&federated_id()), &federated_id()).await
}

fn federated_id() -> String {
    format!("spiffe://{FEDERATED}/jb")
}
