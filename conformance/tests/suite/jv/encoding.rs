//! JV-24 and JV-25: the compact serialization alone, and well formed. What is signed is what is sent: only its form is wrong.

use serde_json::json;

use crate::support::env::case;
use crate::support::failure::Verdict;
use crate::support::tokens::{self, encode};

#[tokio::test]
async fn jv_24_the_json_serialization_is_rejected() -> Verdict {
    case(async |env| {
        let token = env.key.token(&env.own.id("/jv-24"));
        let parts: Vec<&str> = token.split('.').collect();
        let flattened = json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]});
        env.rejects_token(&flattened.to_string()).await
    })
    .await
}

#[tokio::test]
async fn jv_25_two_parts_are_rejected() -> Verdict {
    case(async |env| {
        let token = env.key.token(&env.own.id("/jv-25"));
        env.rejects_token(token.rsplit_once('.').unwrap().0).await
    })
    .await
}

#[tokio::test]
async fn jv_25_invalid_base64url_is_rejected() -> Verdict {
    rejects_payload(|claims| {
        let mut part = encode(claims);
        part.insert(part.len() / 2, '!');
        part
    })
    .await
}

#[tokio::test]
async fn jv_25_invalid_json_is_rejected() -> Verdict {
    rejects_payload(|claims| encode(&claims[..claims.len() - 1])).await
}

async fn rejects_payload(encoded: impl FnOnce(&[u8]) -> String) -> Verdict {
    case(async |env| {
        let claims = tokens::claims(&env.own.id("/jv-25")).to_string();
        let input = format!("{}.{}", encode(env.key.header().to_string().as_bytes()), encoded(claims.as_bytes()));
        let signature = env.key.signature(input.as_bytes());
        env.rejects_token(&format!("{input}.{}", encode(&signature))).await
    })
    .await
}
