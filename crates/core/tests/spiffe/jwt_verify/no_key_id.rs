//! `kid` is optional (JWT-SVID, section 2.2): without it every key that fits is tried.

use countersign_core::bundle::Bundle;
use countersign_core::jwt::{JwtAuthority, JwtSvidError, verify_jwt_svid};
use countersign_core::key::{KeyType, PrivateKey};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::{CART, Domain, claims};
use crate::fixtures::{bundle, ec_key, now, rsa_key, token, trust_domain, trusting};

fn without_kid(alg: &str) -> Value {
    json!({"alg": alg})
}

#[test]
fn a_token_without_key_id_is_accepted() {
    let domain = Domain::new();
    let verified = domain.verify(&without_kid("ES256"), &claims()).unwrap();
    assert_eq!(verified.id.to_string(), CART);
    assert!(domain.verify(&json!({"alg": "ES256", "typ": "JWT"}), &claims()).is_ok());
}

#[test]
fn every_key_that_fits_is_tried() {
    let keys = [KeyType::EcP384, KeyType::EcP256, KeyType::Rsa2048, KeyType::EcP256]
        .map(|kind| PrivateKey::generate(kind).unwrap());
    let authorities: Vec<_> =
        (0..).zip(&keys).map(|(i, key)| JwtAuthority::new(&format!("k{i}"), key.clone()).unwrap()).collect();
    let bundles = trusting([bundle("example.org", &[], &authorities.iter().collect::<Vec<_>>())]);
    let signed = [
        token(&without_kid("ES384"), &claims(), &ec_key(&keys[0]), Algorithm::ES384),
        token(&without_kid("ES256"), &claims(), &ec_key(&keys[1]), Algorithm::ES256),
        token(&without_kid("RS256"), &claims(), &rsa_key(&keys[2]), Algorithm::RS256),
        token(&without_kid("PS512"), &claims(), &rsa_key(&keys[2]), Algorithm::PS512),
        token(&without_kid("ES256"), &claims(), &ec_key(&keys[3]), Algorithm::ES256),
    ];
    for token in &signed {
        assert!(verify_jwt_svid(token, "orders", &bundles, now()).is_ok());
    }
}

#[test]
fn a_token_without_key_id_by_another_key_is_refused() {
    let domain = Domain::new();
    let stranger = Domain::new().token(&without_kid("ES256"), &claims());
    assert_eq!(domain.verify_token(&stranger).unwrap_err(), JwtSvidError::Signature);
    let changed = json!({"sub": "spiffe://example.org/admin", "aud": ["orders"], "exp": now().as_second() + 300});
    let (good, other) = (domain.token(&without_kid("ES256"), &claims()), domain.token(&without_kid("ES256"), &changed));
    let [header, _, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let forged = format!("{header}.{}.{signature}", other.split('.').nth(1).unwrap());
    assert_eq!(domain.verify_token(&forged).unwrap_err(), JwtSvidError::Signature);
}

#[test]
fn a_token_without_key_id_that_no_key_fits_is_refused() {
    let domain = Domain::new();
    let token = domain.token(&without_kid("ES384"), &claims());
    let error = domain.verify_token(&token).unwrap_err();
    let expected = JwtSvidError::NoKeyFits { trust_domain: trust_domain("example.org"), alg: "\"ES384\"".to_owned() };
    assert_eq!(error, expected);

    // A key is for the algorithm alone that its JWK names.
    let key = PrivateKey::generate(KeyType::Rsa2048).unwrap();
    let mut jwk = JwtAuthority::new("k1", key.clone()).unwrap().verification_key().jwk();
    jwk.insert("alg".to_owned(), json!("PS256"));
    let document = json!({"keys": [jwk]}).to_string();
    let bundles = trusting([Bundle::parse(&trust_domain("example.org"), document.as_bytes()).unwrap()]);
    for (alg, algorithm, accepted) in [("PS256", Algorithm::PS256, true), ("RS256", Algorithm::RS256, false)] {
        let token = super::token(&without_kid(alg), &claims(), &rsa_key(&key), algorithm);
        assert_eq!(verify_jwt_svid(&token, "orders", &bundles, now()).is_ok(), accepted, "{alg}");
    }
}

// What names a key is by that key: others are not tried.
#[test]
fn a_key_id_that_is_unknown_or_empty_is_refused_although_a_key_fits() {
    let domain = Domain::new();
    for kid in ["k2", "", "K1"] {
        let error = domain.verify(&json!({"alg": "ES256", "kid": kid}), &claims()).unwrap_err();
        let expected = JwtSvidError::UnknownKey { trust_domain: trust_domain("example.org"), kid: format!("{kid:?}") };
        assert_eq!(error, expected);
    }
}

#[test]
fn the_keys_that_are_tried_are_bounded() {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let bundles = |others: usize| {
        let others = (0..others)
            .map(|i| JwtAuthority::new(&format!("o{i}"), PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap());
        let mut all: Vec<_> = others.collect();
        all.push(JwtAuthority::new("k1", key.clone()).unwrap());
        trusting([bundle("example.org", &[], &all.iter().collect::<Vec<_>>())])
    };
    let unnamed = token(&without_kid("ES256"), &claims(), &ec_key(&key), Algorithm::ES256);
    let named = token(&json!({"alg": "ES256", "kid": "k1"}), &claims(), &ec_key(&key), Algorithm::ES256);
    assert!(verify_jwt_svid(&unnamed, "orders", &bundles(31), now()).is_ok());
    let many = bundles(32);
    let error = verify_jwt_svid(&unnamed, "orders", &many, now()).unwrap_err();
    assert_eq!(error, JwtSvidError::TooManyKeysFit { trust_domain: trust_domain("example.org"), found: 33 });
    assert!(verify_jwt_svid(&named, "orders", &many, now()).is_ok(), "a named key is found among any number");
}
