//! Workload Proof Tokens as they are made (wpt, section 2).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::wimse::wpt::{MakeWptError, WptRequest, make_wpt};
use serde_json::{Value, json};

use crate::fixtures::{CART, TARGET, World, at, hash, issue, now, wit_header, with};

fn ask(wit: &str) -> WptRequest<'_> {
    WptRequest {
        wit,
        audience: TARGET,
        txn_token: None,
        other_tokens: &[],
        life: Duration::from_secs(30),
        jti: [7; 16],
    }
}

fn part(value: &str, position: usize) -> Value {
    let part = value.strip_prefix("WPT ").unwrap().split('.').nth(position).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn what_is_made_is_verified() {
    let world = World::new();
    // Often enough that an ECDSA number with a leading zero turns up.
    for id in 0..300_u16 {
        let mut jti = [0; 16];
        jti[..2].copy_from_slice(&id.to_be_bytes());
        let replays = countersign_core::wimse::MemoryReplayCache::new(1, 1);
        let made = make_wpt(&world.key, &WptRequest { jti, ..ask(&world.wit) }, now()).unwrap();
        let fields = [("authorization", made.as_bytes()), ("workload-identity-token", world.wit.as_bytes())];
        let request = crate::fixtures::request(&fields);
        assert!(countersign_core::wimse::wpt::verify_wpt(&request, &world.policy(), &replays, now()).is_ok());
    }
}

// Wpt, section 2: what a proof contains, and neither `iat` nor `ath`.
#[test]
fn a_proof_says_what_the_draft_asks_for_and_no_more() {
    let world = World::new();
    let made = make_wpt(&world.key, &ask(&world.wit), now()).unwrap();
    assert_eq!(part(&made, 0), json!({"alg": "ES256", "typ": "wpt+jwt"}));
    let (exp, jti) = (now().as_second() + 30, URL_SAFE_NO_PAD.encode([7; 16]));
    let claims = json!({"aud": TARGET, "exp": exp, "jti": jti, "wth": hash(&world.wit)});
    assert_eq!(part(&made, 1), claims);

    let other_tokens = [("X-Context", " context token "), ("x-other", "other")];
    let request = WptRequest { txn_token: Some("txn.token.value"), other_tokens: &other_tokens, ..ask(&world.wit) };
    let claims = with(claims, "tth", json!(hash("txn.token.value")));
    let oth = json!({"x-context": hash("context token"), "x-other": hash("other")});
    assert_eq!(part(&make_wpt(&world.key, &request, now()).unwrap(), 1), with(claims, "oth", oth));
}

#[test]
fn a_proof_that_would_be_refused_is_not_made() {
    let world = World::new();
    let refused = |request: WptRequest<'_>| make_wpt(&world.key, &request, now()).unwrap_err();
    assert!(matches!(refused(ask("no wit")), MakeWptError::Wit(_)));
    for audience in ["", "https://a.example/?q", "https://a.example/#f"] {
        assert_eq!(refused(WptRequest { audience, ..ask(&world.wit) }), MakeWptError::Audience);
    }
    for life in [Duration::ZERO, Duration::MAX] {
        assert_eq!(refused(WptRequest { life, ..ask(&world.wit) }), MakeWptError::Lifetime);
    }
    let long = "a".repeat(16 * 1024);
    assert_eq!(refused(WptRequest { audience: &long, ..ask(&world.wit) }), MakeWptError::TooLong);
    let other_tokens = [("X-Context", "a"), ("x-context", "b")];
    assert_eq!(refused(WptRequest { other_tokens: &other_tokens, ..ask(&world.wit) }), MakeWptError::RepeatedField);
    // Creds, section 9.4: the key is not used once the credential has expired.
    let error = make_wpt(&world.key, &ask(&world.wit), at(3600)).unwrap_err();
    assert_eq!(error, MakeWptError::Expired(at(3600)));
}

#[test]
fn only_the_key_of_the_wit_makes_a_proof() {
    let world = World::new();
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let other = PrivateKey::generate(key_type).unwrap();
        assert_eq!(make_wpt(&other, &ask(&world.wit), now()).unwrap_err(), MakeWptError::KeyMismatch);
    }
}

#[test]
fn proofs_by_es384_and_rs256_are_verified_too() {
    let world = World::new();
    for (key_type, alg) in [(KeyType::EcP384, "ES384"), (KeyType::Rsa2048, "RS256")] {
        let key = PrivateKey::generate(key_type).unwrap();
        let authority = countersign_core::jwt::JwtAuthority::new("x", key.clone()).unwrap();
        let mut jwk = Value::Object(authority.verification_key().jwk());
        jwk["alg"] = json!(alg);
        let wit = world.forge_wit(&wit_header(), &with(world.wit_claims(), "cnf", json!({"jwk": jwk})));
        let made = make_wpt(&key, &WptRequest { jti: [key_type as u8; 16], ..ask(&wit) }, now()).unwrap();
        let proven = world.verify_fields(&[("authorization", &made), ("workload-identity-token", &wit)]).unwrap();
        assert_eq!(proven.wit.confirmation.algorithm(), alg);
        assert_eq!(part(&made, 0)["alg"], alg);
    }
}

#[test]
fn errors_hold_no_token() {
    let world = World::new();
    let other = issue(&world.authority, CART, &PrivateKey::generate(KeyType::EcP256).unwrap());
    let shown = format!("{:?}", make_wpt(&world.key, &ask(&other), now()).unwrap_err());
    assert!(other.split('.').all(|part| !shown.contains(part)), "{shown}");
}
