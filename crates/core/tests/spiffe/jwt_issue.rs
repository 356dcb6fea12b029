//! JWT-SVIDs as an authority issues them (JWT-SVID, sections 2 and 3).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::jwt::{IssuedJwt, JwtAuthority, JwtIssueError, JwtKeyError, JwtRequest, verify_jwt_svid};
use countersign_core::key::{KeyType, PrivateKey};
use serde_json::{Value, json};

use crate::fixtures::{at, bundle, id, now, trusting};

const CART: &str = "spiffe://example.org/ns/shop/sa/cart";

// R74, R11: JWT, by ES256 unless another key type is asked for.
#[test]
fn what_is_issued_is_verified_for_every_kind_of_key() {
    assert_eq!(KeyType::default(), KeyType::EcP256);
    for (key_type, alg) in [(KeyType::EcP256, "ES256"), (KeyType::EcP384, "ES384"), (KeyType::Rsa2048, "RS256")] {
        let authority = JwtAuthority::generate(key_type).unwrap();
        let bundles = trusting([bundle("example.org", &[], &[&authority])]);
        // Often enough that an ECDSA number with a leading zero turns up.
        for _ in 0..if key_type == KeyType::EcP256 { 600 } else { 2 } {
            let issued = issue(&authority, &["orders"], 300).unwrap();
            let claims = verify_jwt_svid(&issued.token, "orders", &bundles, now()).unwrap();
            assert_eq!(
                (claims.id, claims.audiences, claims.expires_at),
                (id(CART), vec!["orders".to_owned()], at(300))
            );
            assert_eq!(header(&issued)["alg"], alg);
        }
    }
}

#[test]
fn the_header_holds_alg_kid_and_typ_alone() {
    let authority = JwtAuthority::generate(KeyType::EcP256).unwrap();
    let issued = issue(&authority, &["orders"], 300).unwrap();
    assert_eq!(header(&issued), json!({"alg": "ES256", "kid": authority.kid(), "typ": "JWT"}));
}

#[test]
fn the_claims_are_the_registered_ones() {
    let authority = JwtAuthority::generate(KeyType::EcP256).unwrap();
    let issued = issue(&authority, &["orders", "stock"], 300).unwrap();
    let mut claims = part(&issued, 1);
    assert!(claims.as_object_mut().unwrap().remove("jti").unwrap().as_str().is_some_and(|jti| jti.len() == 22));
    let (iat, exp) = (now().as_second(), now().as_second() + 300);
    assert_eq!(claims, json!({"sub": CART, "aud": ["orders", "stock"], "iat": iat, "exp": exp}));
    assert_eq!(issued.expires_at, at(300));
}

#[test]
fn an_issuer_is_named_where_there_is_one() {
    let authority = JwtAuthority::generate(KeyType::EcP256).unwrap();
    let audiences = ["orders".to_owned()];
    let request = JwtRequest {
        id: &id(CART),
        audiences: &audiences,
        ttl: Duration::from_secs(300),
        issuer: Some("https://oidc.example.org"),
    };
    assert_eq!(part(&authority.issue(&request, now()).unwrap(), 1)["iss"], "https://oidc.example.org");
}

#[test]
fn two_tokens_have_different_ids() {
    let authority = JwtAuthority::generate(KeyType::EcP256).unwrap();
    let ids = [(); 2].map(|()| part(&issue(&authority, &["orders"], 300).unwrap(), 1)["jti"].clone());
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn key_ids_are_random() {
    let authorities = [(); 2].map(|()| JwtAuthority::generate(KeyType::EcP256).unwrap());
    assert_ne!(authorities[0].kid(), authorities[1].kid());
}

#[test]
fn an_authority_without_key_id_is_not_made() {
    let made = JwtAuthority::new("", PrivateKey::generate(KeyType::EcP256).unwrap());
    assert_eq!(made.unwrap_err(), JwtIssueError::VerificationKey(JwtKeyError::NoKeyId));
}

#[test]
fn a_token_without_audience_or_with_an_empty_one_is_not_issued() {
    let authority = JwtAuthority::generate(KeyType::EcP256).unwrap();
    for audiences in [&[][..], &[""], &["orders", ""]] {
        assert_eq!(issue(&authority, audiences, 300).unwrap_err(), JwtIssueError::Audience);
    }
}

#[test]
fn a_token_without_life_or_beyond_time_is_not_issued() {
    let authority = JwtAuthority::generate(KeyType::EcP256).unwrap();
    for ttl in [0, u64::MAX, 1 << 60] {
        assert_eq!(issue(&authority, &["orders"], ttl).unwrap_err(), JwtIssueError::Lifetime);
    }
}

#[test]
fn a_token_that_verifiers_would_not_read_is_not_issued() {
    let authority = JwtAuthority::generate(KeyType::EcP256).unwrap();
    let long = "a".repeat(16 * 1024);
    assert_eq!(issue(&authority, &[&long], 300).unwrap_err(), JwtIssueError::TooLong);
}

#[test]
fn a_trust_domain_has_no_token() {
    let authority = JwtAuthority::generate(KeyType::EcP256).unwrap();
    let audiences = ["orders".to_owned()];
    let domain = id("spiffe://example.org");
    let request = JwtRequest { id: &domain, audiences: &audiences, ttl: Duration::from_secs(300), issuer: None };
    assert_eq!(authority.issue(&request, now()).unwrap_err(), JwtIssueError::IdWithoutPath { id: domain.clone() });
}

#[test]
fn neither_token_nor_key_shows_in_debugging_output() {
    let authority = JwtAuthority::generate(KeyType::EcP256).unwrap();
    let issued = issue(&authority, &["orders"], 300).unwrap();
    let shown = format!("{issued:?} {authority:?}");
    assert!(issued.token.split('.').all(|part| !shown.contains(part)), "{shown}");
    assert!(shown.contains("redacted"), "{shown}");
}

fn issue(authority: &JwtAuthority, audiences: &[&str], ttl: u64) -> Result<IssuedJwt, JwtIssueError> {
    let audiences: Vec<String> = audiences.iter().map(|audience| (*audience).to_owned()).collect();
    let request = JwtRequest { id: &id(CART), audiences: &audiences, ttl: Duration::from_secs(ttl), issuer: None };
    authority.issue(&request, now())
}

fn header(issued: &IssuedJwt) -> Value {
    part(issued, 0)
}

fn part(issued: &IssuedJwt, position: usize) -> Value {
    let part = issued.token.split('.').nth(position).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}
