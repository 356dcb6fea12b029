//! JV-14 to JV-18: who signed what.

use serde_json::{Value, json};

use crate::support::env::{FEDERATED, OWN, UNKNOWN, case};
use crate::support::failure::{Verdict, control};
use crate::support::tokens::{JwtKey, decode, encode};

#[tokio::test]
async fn jv_14_a_changed_signature_is_rejected() -> Verdict {
    case(async |env| {
        let token = env.key.token(&env.own.id("/jv-14"));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut signature = decode(signature);
        let middle = signature.len() / 2;
        signature[middle] ^= 1;
        env.rejects_token(&format!("{signed}.{}", encode(&signature))).await
    })
    .await
}

#[tokio::test]
async fn jv_15_a_changed_payload_is_rejected() -> Verdict {
    case(async |env| {
        let token = env.key.token(&env.own.id("/jv-15"));
        let parts: Vec<&str> = token.split('.').collect();
        let mut claims: Value = serde_json::from_slice(&decode(parts[1]))?;
        claims["sub"] = json!(env.own.id("/admin"));
        let changed = encode(claims.to_string().as_bytes());
        env.rejects_token(&[parts[0], &changed, parts[2]].join(".")).await
    })
    .await
}

#[tokio::test]
async fn jv_16_a_key_that_is_not_in_the_bundle_is_rejected() -> Verdict {
    case(async |env| env.rejects_token(&JwtKey::generate("ES256").token(&env.own.id("/jv-16"))).await).await
}

#[tokio::test]
async fn jv_17_the_key_of_another_trust_domain_is_rejected() -> Verdict {
    case(async |env| {
        let theirs = JwtKey::generate("ES256");
        env.serve_keys(&[(OWN, &[&env.key]), (FEDERATED, &[&theirs])]);
        let id = format!("spiffe://{FEDERATED}/jv-17");
        control(env.accepts_soon(&theirs.token(&id), &id).await)?;
        env.rejects_now(&env.key.token(&id)).await
    })
    .await
}

#[tokio::test]
async fn jv_18_a_trust_domain_without_bundle_is_rejected() -> Verdict {
    case(async |env| env.rejects_token(&env.key.token(&format!("spiffe://{UNKNOWN}/jv-18"))).await).await
}
