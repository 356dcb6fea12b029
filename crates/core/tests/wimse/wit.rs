//! WIT-SVIDs as a relying party verifies them (WIT-SVID, sections 2 to 4; creds, sections 3 to 5).

use std::time::Duration;

use countersign_core::bundle::{Bundle, BundleSet};
use countersign_core::jwt::{JwtAuthority, JwtSvidError, verify_jwt_svid};
use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::wit::{
    ConfirmationError, WitAuthority, WitClaims, WitSvidError, read_wit_svid, verify_wit_svid, wit_svid_faults,
};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::fixtures::{CART, HOUR, World, at, bundle, issue, now, part, token_by, wit_header, with};

fn verify(world: &World, token: &str) -> Result<WitClaims, WitSvidError> {
    verify_wit_svid(token, &world.bundles, HOUR, now())
}

fn refused_with(name: &str, value: Value) -> WitSvidError {
    verify_with(name, value).unwrap_err()
}

fn verify_with(name: &str, value: Value) -> Result<WitClaims, WitSvidError> {
    let world = World::new();
    let claims = with(world.wit_claims(), name, value);
    verify(&world, &world.forge_wit(&wit_header(), &claims))
}

fn refused_header(header: &Value) -> WitSvidError {
    let world = World::new();
    verify(&world, &world.forge_wit(header, &world.wit_claims())).unwrap_err()
}

#[test]
fn a_wit_that_keeps_every_rule_is_accepted() {
    let world = World::new();
    let claims = verify(&world, &world.wit).unwrap();
    assert_eq!((claims.id.to_string().as_str(), claims.expires_at), (CART, at(3600)));
    assert_eq!((claims.key_id.as_str(), claims.confirmation.algorithm()), ("w1", "ES256"));
    assert!(claims.jti.is_some() && claims.confirmation.is_of(&world.key));
    assert_eq!(Value::Object(claims.raw.clone()), world.wit_claims());
    assert_eq!(read_wit_svid(&world.wit).unwrap(), claims);
    assert_eq!(claims.confirmation.jwk()["alg"], "ES256");
}

/// R28
#[test]
fn every_rule_that_a_wit_breaks_is_named_the_first_one_first() {
    let world = World::new();
    let mut claims = with(world.wit_claims(), "aud", json!("orders"));
    claims["sub"] = json!("spiffe://example.org");
    claims["exp"] = json!(now().as_second());
    claims["cnf"]["jwk"]["d"] = json!("x");
    let token = world.forge_wit(&json!({"alg": "ES256", "typ": "JWT"}), &claims);
    let faults = wit_svid_faults(&token, now());
    assert!(
        matches!(
            faults.as_slice(),
            [
                WitSvidError::Type { .. },
                WitSvidError::NoKeyId,
                WitSvidError::Audience,
                WitSvidError::IdWithoutPath,
                WitSvidError::Confirmation(ConfirmationError::Private),
                WitSvidError::Expired(_),
            ]
        ),
        "{faults:?}"
    );
    assert_eq!(read_wit_svid(&token).unwrap_err(), faults[0]);
    assert_eq!(wit_svid_faults(&world.wit, now()), []);
}

// WIT-SVID, section 3.8: claims that are not known are ignored.
#[test]
fn additional_claims_are_ignored() {
    assert!(verify_with("example.com/team", json!("checkout")).is_ok());
}

// Creds, section 3.
#[test]
fn exactly_one_jws_in_compact_form_is_accepted() {
    let world = World::new();
    let json = json!({"payload": "e30", "signatures": []}).to_string();
    let two = format!("{},{}", world.wit, world.wit);
    for text in ["", "a.b", "a.b.c.d", &json, &two, &format!(" {}", world.wit)] {
        assert!(matches!(verify(&world, text), Err(WitSvidError::NotCompact)), "{text}");
    }
    assert_eq!(verify(&world, &format!("{}=", world.wit)).unwrap_err(), WitSvidError::Signature);
    let long = "a".repeat(16 * 1024 + 1);
    assert_eq!(verify(&world, &long).unwrap_err(), WitSvidError::TooLong { length: 16 * 1024 + 1 });
}

// WIT-SVID, section 2.
#[test]
fn the_header_holds_alg_kid_and_typ_alone() {
    for (name, value) in [("jwk", json!({})), ("crit", json!(["b64"])), ("x5c", json!([])), ("jku", json!("https://a"))]
    {
        assert_eq!(refused_header(&with(wit_header(), name, value)), WitSvidError::Header, "{name}");
    }
    assert_eq!(refused_header(&json!("[]")), WitSvidError::Header);
    assert_eq!(refused_header(&with(wit_header(), "alg", Value::Null)), WitSvidError::Header);
}

// WIT-SVID, section 2.1.
#[test]
fn kid_is_required() {
    assert_eq!(refused_header(&with(wit_header(), "kid", Value::Null)), WitSvidError::NoKeyId);
}

// WIT-SVID, section 2.2; creds, section 5.1.
#[test]
fn typ_is_required_and_wit_jwt() {
    for typ in [json!("JWT"), json!("wpt+jwt"), json!("WIT+JWT"), json!("application/wit+jwt"), Value::Null] {
        assert!(matches!(refused_header(&with(wit_header(), "typ", typ.clone())), WitSvidError::Type { .. }), "{typ}");
    }
}

// WIT-SVID, section 2.3.
#[test]
fn algorithms_outside_the_list_are_refused() {
    for alg in ["none", "HS256", "EdDSA", "Ed25519", "ES256K", "es256", ""] {
        assert!(
            matches!(refused_header(&with(wit_header(), "alg", json!(alg))), WitSvidError::Algorithm { .. }),
            "{alg}"
        );
    }
}

#[test]
fn every_algorithm_of_rsa_keys_is_accepted() {
    let world = World::new();
    let key = PrivateKey::generate(KeyType::Rsa2048).unwrap();
    let authority = WitAuthority::new("w1", key.clone()).unwrap();
    let bundles = BundleSet::new([bundle("example.org", &[&authority])]).unwrap();
    let signer = EncodingKey::from_rsa_pem(key.pkcs8_pem().as_bytes()).unwrap();
    for algorithm in
        [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512]
    {
        let header = with(wit_header(), "alg", json!(algorithm));
        let token = token_by(&header, &world.wit_claims(), &signer, algorithm);
        assert!(verify_wit_svid(&token, &bundles, HOUR, now()).is_ok(), "{algorithm:?}");
    }
    // An algorithm that does not fit the key that is named.
    let header = with(wit_header(), "alg", json!("RS256"));
    let token = world.forge_wit(&header, &world.wit_claims());
    assert_eq!(verify(&world, &token).unwrap_err(), WitSvidError::Signature);
}

// WIT-SVID, section 3.1.
#[test]
fn sub_is_required_and_the_id_of_a_workload() {
    assert_eq!(refused_with("sub", Value::Null), WitSvidError::Claims);
    assert_eq!(refused_with("sub", json!([CART])), WitSvidError::Claims);
    for sub in ["wimse://example.org/cart", "https://example.org/cart", "spiffe://example.org/a/../b", "cart"] {
        assert!(matches!(refused_with("sub", json!(sub)), WitSvidError::Id(_)), "{sub}");
    }
    assert_eq!(refused_with("sub", json!("spiffe://example.org")), WitSvidError::IdWithoutPath);
}

#[test]
fn a_claim_that_is_there_twice_is_refused() {
    let world = World::new();
    let claims = world.wit_claims().to_string().replacen('{', r#"{"sub":"spiffe://example.org/admin","#, 1);
    let token = world.forge_wit(&wit_header(), &json!(claims));
    assert_eq!(verify(&world, &token).unwrap_err(), WitSvidError::Claims);
}

// WIT-SVID, section 3.3.
#[test]
fn exp_is_required_and_to_come() {
    for exp in [Value::Null, json!("tomorrow"), json!(1e300)] {
        assert_eq!(refused_with("exp", exp), WitSvidError::Claims);
    }
    assert_eq!(refused_with("exp", json!(now().as_second())), WitSvidError::Expired(now()));
    assert!(verify_with("exp", json!(now().as_second() + 1)).is_ok());
}

// Creds, section 9.2.1: a limited lifetime.
#[test]
fn a_wit_that_lives_too_long_is_refused() {
    let world = World::new();
    let verify = |claims: &Value, max: Duration| {
        verify_wit_svid(&world.forge_wit(&wit_header(), claims), &world.bundles, max, now())
    };
    let claims = world.wit_claims();
    assert!(verify(&claims, HOUR).is_ok());
    let too_long = |max_life| WitSvidError::TooLongLived { expires_at: at(3600), max_life };
    let shorter = Duration::from_secs(3599);
    assert_eq!(verify(&claims, shorter).unwrap_err(), too_long(shorter));
    // Without `iat`, what is left counts, with the leeway of clocks.
    let claims = with(claims, "iat", Value::Null);
    assert!(verify(&claims, Duration::from_secs(3590)).is_ok());
    let shorter = Duration::from_secs(3589);
    assert_eq!(verify(&claims, shorter).unwrap_err(), too_long(shorter));
    // One that claims to be issued in the future is not younger for it.
    let claims = with(claims, "iat", json!(now().as_second() + 3000));
    assert_eq!(verify(&claims, shorter).unwrap_err(), too_long(shorter));
}

// WIT-SVID, section 3.5.
#[test]
fn nbf_is_honoured_with_a_small_leeway() {
    assert_eq!(refused_with("nbf", json!(now().as_second() + 11)), WitSvidError::NotYetValid(at(11)));
    assert!(verify_with("nbf", json!(now().as_second() + 10)).is_ok());
    assert!(verify_with("nbf", Value::Null).is_ok());
    assert_eq!(refused_with("nbf", json!("now")), WitSvidError::Claims);
}

// WIT-SVID, section 3.6.
#[test]
fn iat_does_not_limit_the_earliest_validity() {
    assert!(verify_with("iat", json!(now().as_second() + 1000)).is_ok());
}

// Creds, section 3: keys are not found through `iss`.
#[test]
fn iss_selects_no_key() {
    for iss in [Value::Null, json!("https://elsewhere.example")] {
        assert!(verify_with("iss", iss).is_ok());
    }
    assert_eq!(refused_with("iss", json!(7)), WitSvidError::Claims);
}

// WIT-SVID, section 7.1: never accepted as a token for somebody.
#[test]
fn aud_is_refused() {
    for aud in [json!("orders"), json!(["orders"]), json!([])] {
        assert_eq!(refused_with("aud", aud), WitSvidError::Audience);
    }
}

// Creds, section 5.1; WIT-SVID, section 3.2.
#[test]
fn cnf_jwk_is_required_with_an_alg_of_the_list() {
    assert_eq!(refused_with("cnf", Value::Null), WitSvidError::Claims);
    let world = World::new();
    let jwk = world.wit_claims()["cnf"]["jwk"].clone();
    let refused = |name: &str, value: Value| refused_with("cnf", json!({"jwk": with(jwk.clone(), name, value)}));
    assert_eq!(refused_with("cnf", json!({"jkt": "x"})), WitSvidError::Claims);
    assert_eq!(refused_with("cnf", json!([jwk])), WitSvidError::Confirmation(ConfirmationError::Malformed));
    assert_eq!(refused("alg", Value::Null), WitSvidError::Confirmation(ConfirmationError::NoAlgorithm));
    for alg in ["EdDSA", "none", "HS256", "ECDH-ES", "RSA-OAEP", "es256"] {
        let expected = ConfirmationError::Algorithm { alg: format!("{alg:?}") };
        assert_eq!(refused("alg", json!(alg)), WitSvidError::Confirmation(expected));
    }
    for (name, value) in [
        ("alg", json!("ES384")),
        ("kty", json!("OKP")),
        ("crv", json!("Ed25519")),
        ("y", json!("AA")),
        ("x", Value::Null),
    ] {
        assert_eq!(refused(name, value), WitSvidError::Confirmation(ConfirmationError::Key), "{name}");
    }
    assert_eq!(refused("d", json!("AA")), WitSvidError::Confirmation(ConfirmationError::Private));
}

// WIT-SVID, section 6.2; creds, section 3.
#[test]
fn the_wit_keys_of_the_trust_domain_of_sub_alone_are_tried() {
    let world = World::new();
    let refused = |bundles: &[Bundle]| {
        let bundles = BundleSet::new(bundles.iter().cloned()).unwrap();
        verify_wit_svid(&world.wit, &bundles, HOUR, now()).unwrap_err()
    };
    assert_eq!(refused(&[]), WitSvidError::UntrustedDomain("example.org".parse().unwrap()));
    let unknown = WitSvidError::UnknownKey { trust_domain: "example.org".parse().unwrap(), kid: "\"w1\"".to_owned() };
    assert_eq!(refused(&[bundle("example.org", &[]), bundle("other.org", &[&world.authority])]), unknown);
    // The same key under the use of JWT-SVIDs.
    let jwt = JwtAuthority::new("w1", world.authority_key.clone()).unwrap();
    let mut of_jwt = bundle("example.org", &[]);
    of_jwt.jwt_authorities.push(jwt.verification_key().clone());
    assert_eq!(refused(&[of_jwt]), unknown);
    let other = WitAuthority::new("w1", PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap();
    assert_eq!(refused(&[bundle("example.org", &[&other])]), WitSvidError::Signature);
}

#[test]
fn a_changed_wit_is_refused() {
    let world = World::new();
    let changed = part(&with(world.wit_claims(), "sub", json!("spiffe://example.org/admin")));
    let mut parts: Vec<&str> = world.wit.split('.').collect();
    parts[1] = &changed;
    assert_eq!(verify(&world, &parts.join(".")).unwrap_err(), WitSvidError::Signature);
}

// WIT-SVID, sections 5 and 7.1.
#[test]
fn a_wit_is_no_jwt_svid_even_under_the_same_key() {
    let world = World::new();
    let jwt = JwtAuthority::new("w1", world.authority_key.clone()).unwrap();
    let mut bundle = bundle("example.org", &[]);
    bundle.jwt_authorities.push(jwt.verification_key().clone());
    let bundles = BundleSet::new([bundle]).unwrap();
    let error = verify_jwt_svid(&world.wit, "orders", &bundles, now()).unwrap_err();
    assert!(matches!(error, JwtSvidError::Type { .. }), "{error}");
}

#[test]
fn errors_and_debugging_output_hold_no_token() {
    let world = World::new();
    let other = World::new();
    let shown = format!("{:?} {:?}", verify(&other, &world.wit).unwrap_err(), verify(&world, &world.wit).unwrap());
    assert!(world.wit.split('.').all(|part| !shown.contains(part)), "{shown}");
    let strange = issue(&WitAuthority::new(&"k".repeat(1000), world.authority_key.clone()).unwrap(), CART, &world.key);
    assert!(verify(&world, &strange).unwrap_err().to_string().len() < 300);
}
