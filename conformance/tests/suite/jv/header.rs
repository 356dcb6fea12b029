//! JV-20 to JV-23: the members of the header.

use serde_json::json;

use super::{accepts, rejects, remove};
use crate::support::failure::Verdict;

#[tokio::test]
async fn jv_20_typ_jwt_is_accepted() -> Verdict {
    accepts(|header, _| header["typ"] = json!("JWT")).await
}

#[tokio::test]
async fn jv_20_typ_jose_is_accepted() -> Verdict {
    accepts(|header, _| header["typ"] = json!("JOSE")).await
}

#[tokio::test]
async fn jv_20_no_typ_is_accepted() -> Verdict {
    accepts(|header, _| remove(header, "typ")).await
}

#[tokio::test]
async fn jv_21_any_other_typ_is_rejected() -> Verdict {
    rejects(|header, _| header["typ"] = json!("at+jwt")).await
}

#[tokio::test]
async fn jv_22_a_token_without_kid_is_accepted() -> Verdict {
    accepts(|header, _| remove(header, "kid")).await
}

#[tokio::test]
async fn jv_23_an_unknown_crit_is_rejected() -> Verdict {
    rejects(|header, _| {
        header["crit"] = json!(["urn:example:unknown"]);
        header["urn:example:unknown"] = json!(true);
    })
    .await
}
