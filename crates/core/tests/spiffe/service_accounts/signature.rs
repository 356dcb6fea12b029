//! Keys, algorithms and the form of a token.

use countersign_core::key::KeyType;
use countersign_core::service_account::{ClusterJwks, JwksError, MAX_JWKS_LENGTH, TokenError};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::{Cluster, claims, header, jwk};
use crate::fixtures::{part, token};

#[test]
fn a_token_of_rs256_es256_or_es384_is_accepted() {
    for (key_type, algorithm) in
        [(KeyType::Rsa2048, Algorithm::RS256), (KeyType::EcP256, Algorithm::ES256), (KeyType::EcP384, Algorithm::ES384)]
    {
        let cluster = Cluster::of(key_type);
        let token = token(&json!({"alg": algorithm, "kid": "k8s"}), &claims(), &cluster.signing_key(), algorithm);
        assert!(cluster.verify_token(&token).is_ok(), "{algorithm:?}");
    }
}

// R11.
#[test]
fn every_other_algorithm_is_refused() {
    let cluster = Cluster::of(KeyType::Rsa2048);
    for alg in ["none", "HS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES512", "EdDSA", ""] {
        let unsigned = format!("{}.{}.", part(&json!({"alg": alg, "kid": "k8s"})), part(&claims()));
        assert!(matches!(cluster.verify_token(&unsigned), Err(TokenError::Algorithm { .. })), "{alg}");
    }
    let secret = EncodingKey::from_secret(cluster.key.public_key_spki_der());
    let shared = token(&json!({"alg": "HS256", "kid": "k8s"}), &claims(), &secret, Algorithm::HS256);
    assert!(matches!(cluster.verify_token(&shared), Err(TokenError::Algorithm { .. })));
    let ps = token(&json!({"alg": "PS256", "kid": "k8s"}), &claims(), &cluster.signing_key(), Algorithm::PS256);
    assert!(matches!(cluster.verify_token(&ps), Err(TokenError::Algorithm { .. })));
}

#[test]
fn an_unsigned_token_and_one_of_another_key_are_refused() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let unsigned = format!("{}.{}.", part(&header()), part(&claims()));
    assert_eq!(cluster.verify_token(&unsigned), Err(TokenError::Signature));
    assert_eq!(cluster.verify_token(&other.token(&header(), &claims())), Err(TokenError::Signature));
    let es384 = cluster.token(&json!({"alg": "ES384", "kid": "k8s"}), &claims());
    assert_eq!(cluster.verify_token(&es384), Err(TokenError::Signature));
}

#[test]
fn a_changed_token_is_refused() {
    let cluster = Cluster::new();
    let good = cluster.token(&header(), &claims());
    let mut other = claims();
    other["kubernetes.io"]["pod"]["uid"] = json!("another");
    let changed = part(&other);
    let mut parts: Vec<&str> = good.split('.').collect();
    parts[1] = &changed;
    assert_eq!(cluster.verify_token(&parts.join(".")), Err(TokenError::Signature));
}

#[test]
fn a_key_that_is_unknown_is_told_apart_so_that_keys_are_fetched_again() {
    let cluster = Cluster::new();
    let token = cluster.token(&json!({"alg": "ES256", "kid": "rotated"}), &claims());
    assert_eq!(cluster.verify_token(&token), Err(TokenError::UnknownKey { kid: "\"rotated\"".to_owned() }));
    for header in [json!({"alg": "ES256"}), json!({"alg": "ES256", "kid": ""})] {
        assert_eq!(cluster.verify_token(&cluster.token(&header, &claims())), Err(TokenError::NoKeyId));
    }
}

#[test]
fn a_header_that_holds_more_is_refused() {
    let cluster = Cluster::new();
    for (name, value) in
        [("crit", json!(["b64"])), ("jku", json!("https://evil")), ("jwk", json!({})), ("typ", json!("at+jwt"))]
    {
        let mut header = header();
        header[name] = value;
        assert_eq!(cluster.verify_token(&cluster.token(&header, &claims())), Err(TokenError::Malformed), "{name}");
    }
    let members = json!(["ES256", "k8s", null]);
    assert_eq!(cluster.verify_token(&cluster.token(&members, &claims())), Err(TokenError::Malformed));
    let mut typed = header();
    typed["typ"] = json!("JWT");
    assert!(cluster.verify_token(&cluster.token(&typed, &claims())).is_ok());
}

#[test]
fn a_token_that_is_too_long_is_not_read() {
    let length = 16 * 1024 + 1;
    assert_eq!(Cluster::new().verify_token(&"a".repeat(length)), Err(TokenError::TooLong { length }));
}

#[test]
fn texts_that_are_no_token_are_refused() {
    let good = Cluster::new().token(&header(), &claims());
    for text in ["", "token", "a.b", "a.b.c.d", "....", &format!("{good}\n"), &format!("Bearer {good}")] {
        let error = Cluster::new().verify_token(text).unwrap_err();
        assert!(matches!(error, TokenError::Malformed | TokenError::Signature), "{text}");
    }
}

#[test]
fn an_error_holds_nothing_of_the_token() {
    let token = Cluster::new().token(&header(), &claims());
    let error = Cluster::new().verify_token(&token).unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(token.split('.').all(|part| !shown.contains(part)), "{shown}");
}

#[test]
fn keys_that_verify_no_token_are_left_out() {
    let good = jwk(KeyType::EcP256, "good");
    let mut keys = vec![good];
    for (name, value) in [
        ("use", json!("enc")),
        ("use", json!("jwt-svid")),
        ("kty", json!("OKP")),
        ("kid", json!("")),
        ("kid", json!(7)),
        ("alg", json!("HS256")),
        ("x", json!("AAAA")),
        ("crv", json!("secp256k1")),
    ] {
        let mut key = jwk(KeyType::EcP256, "left-out");
        key[name] = value;
        keys.push(key);
    }
    let jwks = ClusterJwks::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap();
    assert!(jwks.contains("good") && !jwks.contains("left-out") && !jwks.contains(""));
}

#[test]
fn a_key_set_without_a_key_that_verifies_is_refused() {
    let parse = |document: Value| ClusterJwks::parse(document.to_string().as_bytes()).map(|_| ()).unwrap_err();
    assert_eq!(parse(json!({"keys": []})), JwksError::NoKey);
    assert_eq!(parse(json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "k"}]})), JwksError::NoKey);
    assert_eq!(parse(json!({})), JwksError::Malformed);
    assert_eq!(parse(json!({"keys": [7]})), JwksError::Malformed);
    assert_eq!(parse(json!([[jwk(KeyType::EcP256, "a")]])), JwksError::Malformed);
    let not_utf_8 =
        [b"{\"keys\":[".as_slice(), jwk(KeyType::EcP256, "a").to_string().as_bytes(), b"],\"o\":\"\xc3\"}"].concat();
    assert_eq!(ClusterJwks::parse(&not_utf_8).unwrap_err(), JwksError::Malformed);
    let key = jwk(KeyType::EcP256, "twice");
    assert_eq!(parse(json!({"keys": [key, key]})), JwksError::DuplicateKeyId);
    let length = MAX_JWKS_LENGTH + 1;
    assert_eq!(ClusterJwks::parse(&vec![b' '; length]).unwrap_err(), JwksError::TooLong { length });
}
