//! ID: SPIFFE IDs, as the subject of tokens that are right otherwise; some also as the name in a peer's certificate. A trust
//! domain whose name is invalid can have no bundle, so such a token may be rejected for that instead (catalogue, section 10).

use crate::support::env::{OWN, case};
use crate::support::failure::Verdict;
use crate::support::role::Role;
use crate::support::tokens::JwtKey;

macro_rules! rejected {
    ($($name:ident: $id:literal;)*) => {$(
        #[tokio::test]
        async fn $name() -> Verdict {
            case(async |env| env.rejects_token(&env.key.token($id)).await).await
        }
    )*};
}

rejected! {
    id_1_an_empty_trust_domain_is_rejected: "spiffe:///a";
    id_1_a_port_is_rejected: "spiffe://example.org:8080/a";
    id_1_user_information_is_rejected: "spiffe://user@example.org/a";
    id_1_a_query_is_rejected: "spiffe://example.org/a?x=1";
    id_1_a_fragment_is_rejected: "spiffe://example.org/a#f";
    id_1_percent_encoding_is_rejected: "spiffe://example.org/%41";
    id_1_an_empty_segment_is_rejected: "spiffe://example.org/a//b";
    id_1_a_dot_segment_is_rejected: "spiffe://example.org/a/./b";
    id_1_a_double_dot_segment_is_rejected: "spiffe://example.org/a/../b";
    id_1_a_trailing_slash_is_rejected: "spiffe://example.org/a/";
    id_1_an_invalid_character_in_the_path_is_rejected: "spiffe://example.org/a!b";
    id_1_an_invalid_character_in_the_trust_domain_is_rejected: "spiffe://exa$mple/a";
}

macro_rules! rejected_in_certificates {
    ($($name:ident: $id:literal;)*) => {$(
        #[tokio::test]
        async fn $name() -> Verdict {
            case(async |env| {
                Role::Server.control(env).await?;
                Role::Server.rejects(env, &env.own.issue($id)).await
            })
            .await
        }
    )*};
}

rejected_in_certificates! {
    id_1_a_port_in_a_certificate_is_rejected: "spiffe://example.org:8080/a";
    id_1_a_query_in_a_certificate_is_rejected: "spiffe://example.org/a?x=1";
    id_1_percent_encoding_in_a_certificate_is_rejected: "spiffe://example.org/%41";
    id_1_a_double_dot_segment_in_a_certificate_is_rejected: "spiffe://example.org/a/../b";
    id_1_a_trailing_slash_in_a_certificate_is_rejected: "spiffe://example.org/a/";
}

#[tokio::test]
async fn id_2_every_character_of_a_path_is_accepted() -> Verdict {
    accepts(OWN, "/Az.09-_/a.b-c_D/...x/x..").await
}

#[tokio::test]
async fn id_2_every_character_of_a_trust_domain_is_accepted() -> Verdict {
    accepts("td_1.example-2.org", "/a").await
}

#[tokio::test]
async fn id_2_a_trust_domain_like_an_ipv4_address_is_accepted() -> Verdict {
    accepts("192.168.1.1", "/a").await
}

#[tokio::test]
async fn id_2_2048_bytes_are_accepted() -> Verdict {
    let prefix = "spiffe://example.org".len();
    let path = format!("/{}", "a".repeat(99)).repeat(20);
    let rest = 2048 - prefix - path.len() - 1;
    accepts(OWN, &format!("{path}/{}", "b".repeat(rest))).await
}

async fn accepts(trust_domain: &str, path: &str) -> Verdict {
    case(async |env| {
        let key = JwtKey::generate("ES256");
        if trust_domain == OWN {
            env.serve_keys(&[(OWN, &[&env.key, &key])]);
        } else {
            env.serve_keys(&[(OWN, &[&env.key]), (trust_domain, &[&key])]);
        }
        let id = format!("spiffe://{trust_domain}{path}");
        env.accepts_soon(&key.token(&id), &id).await
    })
    .await
}
