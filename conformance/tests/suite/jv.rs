//! JV: JWT-SVIDs that a client validates.

mod algorithms;
mod claims;
mod encoding;
mod header;
mod signature;

use serde_json::Value;

use crate::support::env::case;
use crate::support::failure::Verdict;
use crate::support::tokens;

#[tokio::test]
async fn jv_1_a_valid_token_is_accepted() -> Verdict {
    accepts(|_, _| {}).await
}

/// A token of header and claims that `change` made of right ones, rightly signed, is accepted.
async fn accepts(change: impl FnOnce(&mut Value, &mut Value)) -> Verdict {
    case(async |env| {
        let id = env.own.id("/accepted");
        let (mut header, mut claims) = (env.key.header(), tokens::claims(&id));
        change(&mut header, &mut claims);
        env.accepts_soon(&env.key.sign(&header, &claims), &id).await
    })
    .await
}

/// A token of header and claims that `change` made of right ones, rightly signed, is rejected.
async fn rejects(change: impl FnOnce(&mut Value, &mut Value)) -> Verdict {
    case(async |env| {
        let (mut header, mut claims) = (env.key.header(), tokens::claims(&env.own.id("/rejected")));
        change(&mut header, &mut claims);
        env.rejects_token(&env.key.sign(&header, &claims)).await
    })
    .await
}

fn remove(object: &mut Value, name: &str) {
    object.as_object_mut().unwrap().remove(name).unwrap();
}
