//! The bundle document and sets of bundles (SPIFFE Trust Domain and Bundle, section 4).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign_core::bundle::{Bundle, BundleError, BundleSet, DuplicateBundle, MAX_BUNDLE_LENGTH};
use countersign_core::jwt::{JwtAuthority, JwtKeyError};
use countersign_core::key::KeyType;
use countersign_core::x509::{CaCertificateError, X509Authority};
use serde_json::{Value, json};

use crate::fixtures::{DAY, authority, bundle, leaf_params, now, trust_domain};

#[test]
fn a_bundle_is_written_and_read_as_it_was() {
    let jwt = [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048].map(|kind| JwtAuthority::generate(kind).unwrap());
    let x509 = [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048]
        .map(|kind| X509Authority::generate(&trust_domain("example.org"), kind, DAY, now()).unwrap());
    let mut bundle = bundle("example.org", &x509.each_ref().map(X509Authority::certificate), &jwt.each_ref());
    bundle.sequence = u64::MAX;
    bundle.refresh_hint = Duration::from_secs(17);
    let json = bundle.to_json();
    assert_eq!(Bundle::parse(&trust_domain("example.org"), &json), Ok(bundle.clone()));
    assert_eq!(bundle.to_json(), json);
}

#[test]
fn an_x509_key_has_its_use_one_certificate_and_no_kid() {
    let authority = authority("example.org");
    let document = document(&bundle("example.org", &[authority.certificate()], &[]));
    let key = &document["keys"][0];
    assert_eq!((&key["use"], &key["kty"], &key["crv"]), (&json!("x509-svid"), &json!("EC"), &json!("P-256")));
    assert_eq!(key["x5c"], json!([STANDARD.encode(authority.certificate().der())]));
    assert!(key.get("kid").is_none());
}

#[test]
fn a_jwt_key_has_its_use_and_kid() {
    let authority = JwtAuthority::generate(KeyType::EcP256).unwrap();
    let document = document(&bundle("example.org", &[], &[&authority]));
    let key = &document["keys"][0];
    assert_eq!((&key["use"], &key["kid"]), (&json!("jwt-svid"), &json!(authority.kid())));
    assert!(key["x"].is_string() && key["y"].is_string() && key.get("d").is_none());
}

#[test]
fn sequence_and_refresh_hint_are_numbers() {
    let document = document(&bundle("example.org", &[], &[]));
    assert_eq!((&document["spiffe_sequence"], &document["spiffe_refresh_hint"]), (&json!(1), &json!(300)));
}

#[test]
fn without_a_hint_a_bundle_is_refreshed_every_five_minutes() {
    let bundle = parse(&json!({"keys": []})).unwrap();
    assert_eq!((bundle.sequence, bundle.refresh_hint), (0, Duration::from_secs(300)));
}

#[test]
fn an_empty_bundle_trusts_nothing_and_is_valid() {
    let bundle = parse(&json!({"keys": []})).unwrap();
    assert!(bundle.x509_authorities.is_empty() && bundle.jwt_authorities.is_empty());
}

#[test]
fn keys_of_an_unknown_or_missing_kind_or_use_are_ignored() {
    let (x509, jwt) = (x509_key(), jwt_key("k1"));
    let mut ignored = Vec::new();
    for (name, value) in [
        ("kty", json!("OKP")),
        ("kty", json!("oct")),
        ("kty", json!(7)),
        ("use", json!("ssh-svid")),
        ("use", json!("sig")),
        ("use", json!(["x509-svid"])),
    ] {
        for key in [&x509, &jwt] {
            let mut key = key.clone();
            key[name] = value.clone();
            ignored.push(key);
            let mut key = key_without(&x509, name);
            key["x5c"] = json!("not even a list");
            ignored.push(key);
        }
    }
    let mut curve = jwt;
    curve["crv"] = json!("secp256k1");
    ignored.push(curve);
    let bundle = parse(&json!({"keys": ignored})).unwrap();
    assert!(bundle.x509_authorities.is_empty() && bundle.jwt_authorities.is_empty());
}

#[test]
fn members_that_are_unknown_are_ignored() {
    let (mut x509, mut jwt) = (x509_key(), jwt_key("k1"));
    x509["x-vendor"] = json!({"a": 1});
    jwt["key_ops"] = json!(["verify"]);
    let bundle = parse(&json!({"keys": [x509, jwt], "spiffe_future": true})).unwrap();
    assert_eq!((bundle.x509_authorities.len(), bundle.jwt_authorities.len()), (1, 1));
}

#[test]
fn an_x509_key_has_exactly_one_certificate() {
    let key = x509_key();
    let certificate = key["x5c"][0].clone();
    for (x5c, count) in [(json!([]), 0), (json!([certificate, certificate]), 2)] {
        let mut key = key.clone();
        key["x5c"] = x5c;
        assert_eq!(parse(&json!({"keys": [key]})), Err(BundleError::Certificates { position: 0, count }));
    }
    let error = parse(&json!({"keys": [key_without(&key, "x5c")]}));
    assert_eq!(error, Err(BundleError::Certificates { position: 0, count: 0 }));
}

#[test]
fn an_x509_key_is_that_of_an_authority() {
    let leaf = leaf_params(|_| {}).self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let mut key = x509_key();
    key["x5c"] = json!([STANDARD.encode(leaf.der())]);
    let error = BundleError::Certificate { position: 0, source: CaCertificateError::NotCa };
    assert_eq!(parse(&json!({"keys": [key]})), Err(error));
}

#[test]
fn a_certificate_of_another_key_than_the_one_beside_it_is_refused() {
    let (mut key, other) = (x509_key(), x509_key());
    key["x5c"] = other["x5c"].clone();
    assert_eq!(parse(&json!({"keys": [key]})), Err(BundleError::CertificateMismatch { position: 0 }));
}

#[test]
fn a_certificate_in_base64url_or_pem_is_refused() {
    for text in ["MIIB_-", "-----BEGIN CERTIFICATE-----"] {
        let mut key = x509_key();
        key["x5c"] = json!([text]);
        assert_eq!(parse(&json!({"keys": [key]})), Err(BundleError::Key { position: 0 }));
    }
}

#[test]
fn a_jwt_key_without_kid_is_refused() {
    let error = BundleError::Jwt { position: 0, source: JwtKeyError::NoKeyId };
    assert_eq!(parse(&json!({"keys": [key_without(&jwt_key("k1"), "kid")]})), Err(error.clone()));
    let mut key = jwt_key("k1");
    key["kid"] = json!("");
    assert_eq!(parse(&json!({"keys": [key]})), Err(error));
}

#[test]
fn a_key_id_is_there_once() {
    let error = parse(&json!({"keys": [jwt_key("k1"), x509_key(), jwt_key("k1")]}));
    assert_eq!(error, Err(BundleError::DuplicateKeyId { position: 2 }));
}

#[test]
fn a_key_that_is_none_is_refused() {
    let point = json!({"x": "AAAA", "y": "AAAA"});
    let zero = "A".repeat(43);
    for (name, value) in [("x", point["x"].clone()), ("y", json!(7)), ("x", json!("===")), ("crv", json!(null))] {
        let mut key = jwt_key("k1");
        key[name] = value;
        assert_eq!(parse(&json!({"keys": [key]})), Err(BundleError::Key { position: 0 }), "{name}");
    }
    let mut off_curve = jwt_key("k1");
    off_curve["x"] = json!(zero);
    let malformed = BundleError::Jwt { position: 0, source: JwtKeyError::Malformed };
    assert_eq!(parse(&json!({"keys": [off_curve]})), Err(malformed.clone()));
    let small = json!({"use": "jwt-svid", "kty": "RSA", "kid": "k1", "n": "w".repeat(171), "e": "AQAB"});
    assert_eq!(parse(&json!({"keys": [small]})), Err(malformed.clone()));
    for empty in ["n", "e"] {
        let mut key = small.clone();
        key[empty] = json!("");
        assert_eq!(parse(&json!({"keys": [key]})), Err(BundleError::Key { position: 0 }), "{empty}");
    }
    let mut mac = jwt_key("k1");
    mac["alg"] = json!("HS256");
    assert_eq!(parse(&json!({"keys": [mac]})), Err(malformed));
}

#[test]
fn what_is_no_jwk_set_is_refused() {
    for document in [
        json!({}),
        json!([]),
        // Found by fuzzing: the members in their order, without names.
        json!([[], 2, 7]),
        json!({"keys": {}}),
        json!({"keys": null}),
        json!({"keys": [7]}),
        json!({"keys": [], "spiffe_sequence": -1}),
        json!({"keys": [], "spiffe_sequence": "1"}),
        json!({"keys": [], "spiffe_refresh_hint": 1.5}),
    ] {
        assert_eq!(parse(&document), Err(BundleError::Malformed), "{document}");
    }
    for text in ["", "{", "{\"keys\":[]}x", r#"{"keys":[],"keys":[]}"#] {
        assert_eq!(Bundle::parse(&trust_domain("td"), text.as_bytes()), Err(BundleError::Malformed), "{text}");
    }
}

// Found by fuzzing: the bytes of members that are skipped went unread.
#[test]
fn a_document_that_is_not_utf_8_throughout_is_refused() {
    let parse = |document: &[u8]| Bundle::parse(&trust_domain("example.org"), document);
    assert!(parse(b"{\"keys\":[],\"other\":\"\xc3\xa9\"}").is_ok());
    assert_eq!(parse(b"{\"keys\":[],\"other\":\"\xc3\"}"), Err(BundleError::Malformed));
}

#[test]
fn a_bundle_that_is_too_long_is_not_read() {
    let mut document = br#"{"keys": []}"#.to_vec();
    document.resize(MAX_BUNDLE_LENGTH, b' ');
    assert!(Bundle::parse(&trust_domain("td"), &document).is_ok());
    document.push(b' ');
    let error = Bundle::parse(&trust_domain("td"), &document);
    assert_eq!(error, Err(BundleError::TooLong { length: MAX_BUNDLE_LENGTH + 1 }));
}

#[test]
fn the_workload_api_has_certificates_and_keys_apart() {
    let (one, two) = (authority("example.org"), authority("example.org"));
    let jwt = JwtAuthority::generate(KeyType::EcP256).unwrap();
    let bundle = bundle("example.org", &[one.certificate(), two.certificate()], &[&jwt]);
    assert_eq!(bundle.x509_der_concatenated(), [one.certificate().der(), two.certificate().der()].concat());
    let blocks = pem::parse_many(bundle.x509_pem()).unwrap();
    assert!(blocks.iter().all(|block| block.tag() == "CERTIFICATE"));
    let contents: Vec<&[u8]> = blocks.iter().map(pem::Pem::contents).collect();
    assert_eq!(contents, [one.certificate().der(), two.certificate().der()]);
    let jwks: Value = serde_json::from_slice(&bundle.jwks_json()).unwrap();
    assert_eq!(jwks, json!({"keys": [jwt.verification_key().jwk()]}));
}

#[test]
fn a_trust_domain_has_one_bundle() {
    let mut set = BundleSet::new([bundle("a", &[], &[]), bundle("b", &[], &[])]).unwrap();
    let first = set.clone();
    assert_eq!(set.insert(bundle("a", &[authority("a").certificate()], &[])), Err(DuplicateBundle(trust_domain("a"))));
    assert_eq!(set, first);
    assert_eq!(BundleSet::new([bundle("a", &[], &[]), bundle("a", &[], &[])]), Err(DuplicateBundle(trust_domain("a"))));
    let names: Vec<&str> = set.iter().map(|bundle| bundle.trust_domain.as_str()).collect();
    assert_eq!((names, set.len(), set.is_empty()), (vec!["a", "b"], 2, false));
    assert!(BundleSet::new([]).unwrap().is_empty());
}

fn document(bundle: &Bundle) -> Value {
    serde_json::from_slice(&bundle.to_json()).unwrap()
}

fn parse(document: &Value) -> Result<Bundle, BundleError> {
    Bundle::parse(&trust_domain("example.org"), document.to_string().as_bytes())
}

fn x509_key() -> Value {
    document(&bundle("example.org", &[authority("example.org").certificate()], &[]))["keys"][0].clone()
}

fn jwt_key(kid: &str) -> Value {
    let key = countersign_core::key::PrivateKey::generate(KeyType::EcP256).unwrap();
    Value::Object(JwtAuthority::new(kid, key).unwrap().verification_key().jwk())
}

fn key_without(key: &Value, name: &str) -> Value {
    let mut key = key.clone();
    key.as_object_mut().unwrap().remove(name);
    key
}
