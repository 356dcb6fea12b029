//! Keys and algorithms (JWT-SVID, sections 2.1 and 5).

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::bundle::Bundle;
use countersign_core::jwt::{JwtAuthority, JwtSvidError, verify_jwt_svid};
use countersign_core::key::{KeyType, PrivateKey};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;

use super::{Domain, claims, header};
use crate::fixtures::{bundle, ec_key, now, part, rsa_key, token, trust_domain, trusting};

// R11: `none`, HS256 and swapped algorithms are refused.
#[test]
fn algorithms_outside_the_list_are_refused() {
    let domain = Domain::new();
    for alg in ["none", "None", "HS256", "HS384", "HS512", "EdDSA", "ES256K", "es256", ""] {
        let header = json!({"alg": alg, "kid": "k1", "typ": "JWT"});
        let token = format!("{}.{}.", part(&header), part(&claims()));
        assert!(matches!(domain.verify_token(&token), Err(JwtSvidError::Algorithm { .. })), "{alg}");
    }
}

#[test]
fn the_public_key_is_no_shared_secret() {
    let domain = Domain::new();
    let header = json!({"alg": "HS256", "kid": "k1", "typ": "JWT"});
    for secret in [domain.key.public_key_spki_der(), domain.key.public_key().key_bits()] {
        let token = token(&header, &claims(), &EncodingKey::from_secret(secret), Algorithm::HS256);
        assert_eq!(domain.verify_token(&token).unwrap_err(), JwtSvidError::Algorithm { alg: "\"HS256\"".to_owned() });
    }
}

#[test]
fn an_algorithm_that_does_not_fit_the_key_is_refused() {
    let domain = Domain::new();
    for alg in ["ES384", "ES512", "RS256", "PS256"] {
        let header = json!({"alg": alg, "kid": "k1", "typ": "JWT"});
        assert_eq!(domain.verify(&header, &claims()).unwrap_err(), JwtSvidError::Signature, "{alg}");
    }
}

#[test]
fn every_rsa_algorithm_of_the_list_is_accepted() {
    let key = PrivateKey::generate(KeyType::Rsa2048).unwrap();
    let authority = JwtAuthority::new("k1", key.clone()).unwrap();
    let bundles = trusting([bundle("example.org", &[], &[&authority])]);
    for algorithm in
        [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512]
    {
        let header = json!({"alg": algorithm, "kid": "k1"});
        let good = token(&header, &claims(), &rsa_key(&key), algorithm);
        assert!(verify_jwt_svid(&good, "orders", &bundles, now()).is_ok(), "{algorithm:?}");
        let swapped = if algorithm == Algorithm::RS256 { Algorithm::PS256 } else { Algorithm::RS256 };
        let bad = token(&header, &claims(), &rsa_key(&key), swapped);
        assert_eq!(verify_jwt_svid(&bad, "orders", &bundles, now()).unwrap_err(), JwtSvidError::Signature);
    }
}

#[test]
fn es384_and_es512_are_accepted() {
    let key = PrivateKey::generate(KeyType::EcP384).unwrap();
    let authority = JwtAuthority::new("k1", key.clone()).unwrap();
    let bundles = trusting([bundle("example.org", &[], &[&authority])]);
    let good = token(&json!({"alg": "ES384", "kid": "k1"}), &claims(), &ec_key(&key), Algorithm::ES384);
    assert!(verify_jwt_svid(&good, "orders", &bundles, now()).is_ok());

    let key = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
    let (x, y) = key.public_key().as_ref()[1..].split_at(66);
    let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
    let jwk = json!({"use": "jwt-svid", "kty": "EC", "crv": "P-521", "kid": "k1", "x": x, "y": y});
    let document = json!({"keys": [jwk]}).to_string();
    let bundles = trusting([Bundle::parse(&trust_domain("example.org"), document.as_bytes()).unwrap()]);
    let input = format!("{}.{}", part(&json!({"alg": "ES512", "kid": "k1"})), part(&claims()));
    let signature = key.sign(&aws_lc_rs::rand::SystemRandom::new(), input.as_bytes()).unwrap();
    let good = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
    assert!(verify_jwt_svid(&good, "orders", &bundles, now()).is_ok());
    let mut changed = good.into_bytes();
    let last = changed.len() - 10;
    changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
    let error = verify_jwt_svid(std::str::from_utf8(&changed).unwrap(), "orders", &bundles, now()).unwrap_err();
    assert_eq!(error, JwtSvidError::Signature);
}

#[test]
fn a_key_whose_jwk_names_an_algorithm_is_for_that_alone() {
    let key = PrivateKey::generate(KeyType::Rsa2048).unwrap();
    let mut jwk = JwtAuthority::new("k1", key.clone()).unwrap().verification_key().jwk();
    jwk.insert("alg".to_owned(), json!("PS256"));
    let document = json!({"keys": [jwk]}).to_string();
    let bundles = trusting([Bundle::parse(&trust_domain("example.org"), document.as_bytes()).unwrap()]);
    for (algorithm, accepted) in [(Algorithm::PS256, true), (Algorithm::RS256, false)] {
        let token = token(&json!({"alg": algorithm, "kid": "k1"}), &claims(), &rsa_key(&key), algorithm);
        assert_eq!(verify_jwt_svid(&token, "orders", &bundles, now()).is_ok(), accepted, "{algorithm:?}");
    }
}

#[test]
fn an_unknown_key_id_is_refused_as_such() {
    let error = Domain::new().verify(&json!({"alg": "ES256", "kid": "k2"}), &claims()).unwrap_err();
    let expected = JwtSvidError::UnknownKey { trust_domain: trust_domain("example.org"), kid: "\"k2\"".to_owned() };
    assert_eq!(error, expected);
}

#[test]
fn a_token_of_another_key_is_refused() {
    let (domain, other) = (Domain::new(), Domain::new());
    let forged = token(&header(), &claims(), &ec_key(&other.key), Algorithm::ES256);
    assert_eq!(domain.verify_token(&forged).unwrap_err(), JwtSvidError::Signature);
}

#[test]
fn the_key_of_one_trust_domain_does_not_vouch_for_another() {
    let other = JwtAuthority::new("k1", Domain::new().key).unwrap();
    let mallory = PrivateKey::generate(KeyType::EcP256).unwrap();
    let theirs = JwtAuthority::new("k2", mallory.clone()).unwrap();
    let bundles = trusting([bundle("example.org", &[], &[&other]), bundle("other.org", &[], &[&theirs])]);
    let forged = token(&json!({"alg": "ES256", "kid": "k2"}), &claims(), &ec_key(&mallory), Algorithm::ES256);
    assert!(matches!(verify_jwt_svid(&forged, "orders", &bundles, now()), Err(JwtSvidError::UnknownKey { .. })));
}

#[test]
fn a_changed_token_is_refused() {
    let domain = Domain::new();
    let good = domain.token(&header(), &claims());
    let mut other = claims();
    other["sub"] = json!("spiffe://example.org/ns/shop/sa/admin");
    let mut parts: Vec<&str> = good.split('.').collect();
    let changed = part(&other);
    parts[1] = &changed;
    assert_eq!(domain.verify_token(&parts.join(".")).unwrap_err(), JwtSvidError::Signature);
}
