//! JV-7 to JV-13 and JV-19: audience, times and subject.

use serde_json::json;

use super::{accepts, rejects, remove};
use crate::support::failure::Verdict;
use crate::support::tokens::{AUDIENCE, seconds};

#[tokio::test]
async fn jv_7_a_token_without_aud_is_rejected() -> Verdict {
    rejects(|_, claims| remove(claims, "aud")).await
}

#[tokio::test]
async fn jv_8_another_audience_is_rejected() -> Verdict {
    rejects(|_, claims| claims["aud"] = json!(["other"])).await
}

#[tokio::test]
async fn jv_9_one_audience_among_others_is_accepted() -> Verdict {
    accepts(|_, claims| claims["aud"] = json!(["other", AUDIENCE])).await
}

#[tokio::test]
async fn jv_10_aud_as_a_string_is_accepted() -> Verdict {
    accepts(|_, claims| claims["aud"] = json!(AUDIENCE)).await
}

#[tokio::test]
async fn jv_11_a_token_without_exp_is_rejected() -> Verdict {
    rejects(|_, claims| remove(claims, "exp")).await
}

#[tokio::test]
async fn jv_12_an_expired_token_is_rejected() -> Verdict {
    rejects(|_, claims| {
        claims["iat"] = json!(seconds(-600));
        claims["exp"] = json!(seconds(-300));
    })
    .await
}

#[tokio::test]
async fn jv_13_a_token_that_is_not_valid_yet_is_rejected() -> Verdict {
    rejects(|_, claims| {
        claims["nbf"] = json!(seconds(300));
        claims["exp"] = json!(seconds(600));
    })
    .await
}

#[tokio::test]
async fn jv_19_a_subject_that_is_no_spiffe_id_is_rejected() -> Verdict {
    rejects(|_, claims| claims["sub"] = json!("https://example.org/jv-19")).await
}
