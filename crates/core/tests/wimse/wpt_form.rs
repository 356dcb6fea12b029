//! Workload Proof Tokens: where they are, and their form (wpt, section 2).

use std::time::Duration;

use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::wimse::WitFieldError;
use countersign_core::wimse::wpt::{WptError, verify_wpt};
use countersign_core::wit::WitSvidError;
use serde_json::{Value, json};

use crate::fixtures::{World, at, borrowed, hash, now, part, proof_header, request, token, with};

const WIT: &str = "Workload-Identity-Token";
const AUTHORIZATION: &str = "Authorization";

fn refused_with(name: &str, value: Value) -> WptError {
    let world = World::new();
    world.verify_claims(&with(world.proof_claims(), name, value)).unwrap_err()
}

fn refused_header(header: &Value) -> WptError {
    let world = World::new();
    let value = format!("WPT {}", token(header, &world.proof_claims(), &world.key));
    world.verify_fields(&[(AUTHORIZATION, &value), (WIT, &world.wit)]).unwrap_err()
}

#[test]
fn a_request_with_a_proof_that_keeps_every_rule_is_accepted() {
    let world = World::new();
    let proven = world.verify_claims(&world.proof_claims()).unwrap();
    assert_eq!(proven.wit.id.to_string(), "spiffe://example.org/ns/shop/sa/cart");
    assert_eq!(proven.audience.as_deref(), Some("https://orders.example.org/orders/7"));
    assert_eq!((proven.expires_at, proven.bound), (at(30), vec!["workload-identity-token".to_owned()]));
}

// Wpt, section 2: "exactly one Authorization header field in the request and it uses the WPT authentication scheme".
#[test]
fn exactly_one_authorization_of_the_scheme_wpt_is_accepted() {
    let world = World::new();
    let value = world.forge(&world.proof_claims());
    let jwt = value.strip_prefix("WPT ").unwrap();
    let refused = |fields: &[(&str, &str)]| world.verify_fields(fields).unwrap_err();
    assert_eq!(refused(&[(WIT, &world.wit)]), WptError::NoAuthorization);
    assert_eq!(refused(&[]), WptError::NoAuthorization);
    let twice = [(AUTHORIZATION, value.as_str()), ("authorization", &value), (WIT, &world.wit)];
    assert_eq!(refused(&twice), WptError::RepeatedAuthorization);
    for other in [
        format!("{value}, {value}"),
        format!("{value},{value}"),
        format!("{value}, Bearer x"),
        format!("Bearer {jwt}"),
        format!("DPoP {jwt}"),
        jwt.to_owned(),
        format!("WPT\t{jwt}"),
        format!("WPT {jwt} x"),
        format!("WPT=\"{jwt}\""),
        "WPT".to_owned(),
        "WPT ".to_owned(),
        String::new(),
    ] {
        assert_eq!(refused(&[(AUTHORIZATION, &other), (WIT, &world.wit)]), WptError::Scheme, "{other}");
    }
    let not_text = [("authorization", &b"WPT \xff"[..]), ("workload-identity-token", world.wit.as_bytes())];
    assert_eq!(world.verify(&request(&not_text)).unwrap_err(), WptError::Scheme);
}

// Wpt, section 2: the scheme name is case-insensitive, and 1*SP follows it. RFC 9110, section 5.1: so are names of fields.
#[test]
fn scheme_and_names_of_fields_are_accepted_in_any_case() {
    let world = World::new();
    for (name, scheme) in [("AUTHORIZATION", "wpt "), ("authorization", "Wpt   ")] {
        let claims = with(world.proof_claims(), "jti", json!(format!("{scheme:_>30}")));
        let value = world.forge(&claims).replacen("WPT ", scheme, 1);
        let padded = format!(" {value}\t");
        assert!(world.verify_fields(&[(name, &padded), ("WORKLOAD-IDENTITY-TOKEN", &world.wit)]).is_ok(), "{scheme}");
    }
}

// WIT-SVID, section 5: "MUST NOT be presented using the HTTP Authorization header".
#[test]
fn a_wit_as_bearer_or_as_its_own_proof_is_refused() {
    let world = World::new();
    let refused = |value: &str| world.verify_fields(&[(AUTHORIZATION, value), (WIT, &world.wit)]).unwrap_err();
    assert_eq!(refused(&format!("Bearer {}", world.wit)), WptError::Scheme);
    assert!(matches!(refused(&format!("WPT {}", world.wit)), WptError::Type { .. }));
}

// Creds, section 5.1.1.
#[test]
fn exactly_one_wit_is_accepted() {
    let world = World::new();
    let value = world.forge(&world.proof_claims());
    let refused = |fields: &[(&str, &str)]| {
        let fields = [&[(AUTHORIZATION, value.as_str())], fields].concat();
        world.verify_fields(&fields).unwrap_err()
    };
    assert_eq!(refused(&[]), WptError::Wit(WitFieldError::Missing));
    assert_eq!(refused(&[(WIT, &world.wit), (WIT, &world.wit)]), WptError::Wit(WitFieldError::Repeated));
    for joined in [format!("{0}, {0}", world.wit), format!("{0},{0}", world.wit), format!("{0} {0}", world.wit)] {
        assert_eq!(refused(&[(WIT, &joined)]), WptError::Wit(WitFieldError::NotOne));
    }
    let other = World::new();
    let error = refused(&[(WIT, &other.wit)]);
    assert_eq!(error, WptError::Wit(WitFieldError::Wit(WitSvidError::Signature)));
}

// Wpt, section 2: "a single and well-formed JWT".
#[test]
fn what_is_no_token_is_refused() {
    let world = World::new();
    for text in ["a", "a.b", "a.b.c.d", "e30.e30.====", "~.~.~"] {
        let value = format!("WPT {text}");
        let error = world.verify_fields(&[(AUTHORIZATION, &value), (WIT, &world.wit)]).unwrap_err();
        assert!(matches!(error, WptError::NotCompact | WptError::Header), "{text}: {error}");
    }
    let long = format!("WPT {}", "a".repeat(16 * 1024 + 1));
    let error = world.verify_fields(&[(AUTHORIZATION, &long), (WIT, &world.wit)]).unwrap_err();
    assert_eq!(error, WptError::TooLong { length: 16 * 1024 + 1 });
    assert_eq!(refused_header(&with(proof_header(), "jwk", json!({}))), WptError::Header);
    assert_eq!(refused_header(&with(proof_header(), "crit", json!(["exp"]))), WptError::Header);
}

// Wpt, section 2: "`alg` … string-equal matches the `alg` attribute of the `jwk`".
#[test]
fn alg_is_that_of_the_wit() {
    for alg in ["ES384", "EdDSA", "none", "HS256", "es256"] {
        let expected = WptError::Algorithm { alg: format!("{alg:?}"), expected: "ES256" };
        assert_eq!(refused_header(&with(proof_header(), "alg", json!(alg))), expected);
    }
}

// Wpt, section 2: "conveys a media type of `wpt+jwt`".
#[test]
fn typ_is_wpt_jwt() {
    for typ in [json!("wit+jwt"), json!("JWT"), json!("dpop+jwt"), Value::Null] {
        assert!(matches!(refused_header(&with(proof_header(), "typ", typ)), WptError::Type { .. }));
    }
}

// Wpt, section 2: "valid using the public key from the confirmation claim of the WIT".
#[test]
fn a_key_that_is_not_of_cnf_is_refused() {
    let world = World::new();
    let other = PrivateKey::generate(KeyType::EcP256).unwrap();
    let value = format!("WPT {}", token(&proof_header(), &world.proof_claims(), &other));
    let error = world.verify_fields(&[(AUTHORIZATION, &value), (WIT, &world.wit)]).unwrap_err();
    assert_eq!(error, WptError::Signature);

    let good = world.forge(&world.proof_claims());
    let [header, _, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let changed = part(&with(world.proof_claims(), "jti", json!("another-id-of-32-characters-----")));
    let value = format!("{header}.{changed}.{signature}");
    let error = world.verify_fields(&[(AUTHORIZATION, &value), (WIT, &world.wit)]).unwrap_err();
    assert_eq!(error, WptError::Signature);
}

#[test]
fn required_claims_are_there_once_and_of_their_type() {
    for name in ["aud", "exp", "jti", "wth"] {
        assert_eq!(refused_with(name, Value::Null), WptError::Claims, "{name}");
        assert_eq!(refused_with(name, json!(true)), WptError::Claims, "{name}");
    }
    assert_eq!(refused_with("nbf", json!("soon")), WptError::Claims);
    let world = World::new();
    let twice = world.proof_claims().to_string().replacen('{', r#"{"aud":"https://elsewhere.example","#, 1);
    assert_eq!(world.verify_claims(&json!(twice)).unwrap_err(), WptError::Claims);
}

// Wpt, section 2: a time that has not passed, and not unreasonably far ahead.
#[test]
fn exp_is_to_come_and_near() {
    let seconds = now().as_second();
    assert_eq!(refused_with("exp", json!(seconds)), WptError::Expired(at(0)));
    assert_eq!(refused_with("exp", json!(seconds - 300)), WptError::Expired(at(-300)));
    assert_eq!(refused_with("exp", json!(seconds + 71)), WptError::TooLongLived(at(71)));
    let world = World::new();
    for (exp, jti) in [(1, "a"), (60, "b"), (70, "c")] {
        let claims = with(world.proof_claims(), "exp", json!(seconds + exp));
        assert!(world.verify_claims(&with(claims, "jti", json!(jti.repeat(22)))).is_ok(), "{exp}");
    }
    // As long as the policy says.
    let fields =
        [("authorization", world.forge(&world.proof_claims())), ("workload-identity-token", world.wit.clone())];
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let mut policy = world.policy();
    (policy.max_proof_life, policy.skew) = (Duration::from_secs(29), Duration::ZERO);
    let error = verify_wpt(&request(&fields), &policy, &world.replays, now()).unwrap_err();
    assert_eq!(error, WptError::TooLongLived(at(30)));
}

// RFC 7519, section 4.1.5.
#[test]
fn nbf_is_honoured_beyond_the_skew_of_clocks() {
    assert_eq!(refused_with("nbf", json!(now().as_second() + 11)), WptError::NotYetValid(at(11)));
    let world = World::new();
    assert!(world.verify_claims(&with(world.proof_claims(), "nbf", json!(now().as_second() + 10))).is_ok());
}

// Wpt, section 2: 128 random bits.
#[test]
fn an_id_that_cannot_hold_128_bits_is_refused() {
    for (jti, length) in [("", 0), ("0123456789abcdef", 16), ("0123456789abcdef012", 19)] {
        assert_eq!(refused_with("jti", json!(jti)), WptError::TokenId { length });
    }
    let world = World::new();
    assert!(world.verify_claims(&with(world.proof_claims(), "jti", json!("0123456789abcdef0123"))).is_ok());
}

// Wpt, section 2.3: claims that are not understood are ignored, `iat` among them, which libraries add.
#[test]
fn additional_claims_are_ignored() {
    let world = World::new();
    let claims = with(world.proof_claims(), "example.com/trace", json!({"a": [1]}));
    assert!(world.verify_claims(&with(claims, "iat", json!(now().as_second()))).is_ok());
}

// Wpt, appendix A.1: draft 02 moved the proof, and has no `ath`.
#[test]
fn forms_of_draft_01_are_refused() {
    let world = World::new();
    let value = world.forge(&world.proof_claims());
    let jwt = value.strip_prefix("WPT ").unwrap();
    let old = [("Workload-Proof-Token", jwt), (WIT, &world.wit)];
    assert_eq!(world.verify_fields(&old).unwrap_err(), WptError::OldField);
    let beside_bearer = [("Workload-Proof-Token", jwt), (AUTHORIZATION, "Bearer x"), (WIT, &world.wit)];
    assert_eq!(world.verify_fields(&beside_bearer).unwrap_err(), WptError::OldField);
    let both = [("Workload-Proof-Token", jwt), (AUTHORIZATION, &value), (WIT, &world.wit)];
    assert_eq!(world.verify_fields(&both).unwrap_err(), WptError::OldField);
    assert_eq!(refused_with("ath", json!(hash("access token"))), WptError::OldClaim);
}

#[test]
fn a_thousand_fields_change_nothing() {
    let world = World::new();
    let value = world.forge(&world.proof_claims());
    let names: Vec<String> = (0..1000).map(|i| format!("x-{i}")).collect();
    let mut fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    fields.extend([(AUTHORIZATION, value.as_str()), (WIT, &world.wit)]);
    assert!(world.verify(&request(&borrowed(&fields))).is_ok());
}

// Wpt, section 3.1: raw proofs are not logged.
#[test]
fn errors_and_debugging_output_hold_no_proof() {
    let world = World::new();
    let value = world.forge(&with(world.proof_claims(), "aud", json!("x".repeat(1000))));
    let fields = borrowed(&[(AUTHORIZATION, &value), (WIT, &world.wit)]);
    let error = world.verify(&request(&fields)).unwrap_err();
    let shown = format!("{error} {error:?} {:?}", request(&fields));
    assert!(shown.len() < 600 && value.split('.').all(|part| !shown.contains(part)), "{shown}");
}
