//! Claims (JWT-SVID, section 3).

use countersign_core::jwt::{JwtSvidError, jwt_svid_faults, read_jwt_svid};
use serde_json::{Value, json};

use super::{CART, Domain, claims, header, refused_with, refused_without};
use crate::fixtures::{at, id, now, trust_domain};

#[test]
fn a_token_that_keeps_every_rule_is_accepted() {
    let mut claims = claims();
    claims["team"] = json!("checkout");
    let verified = Domain::new().verify(&header(), &claims).unwrap();
    assert_eq!((verified.id, verified.audiences), (id(CART), vec!["orders".to_owned()]));
    assert_eq!(verified.expires_at, at(300));
    assert_eq!(Value::Object(verified.raw), claims);
}

/// R28
#[test]
fn every_rule_that_a_token_breaks_is_named_the_first_one_first() {
    let domain = Domain::new();
    let header = json!({"alg": "none", "typ": "at+jwt"});
    let token = domain.token(&header, &json!({"sub": "joe", "aud": "orders", "exp": now().as_second()}));
    let faults = jwt_svid_faults(&token, now());
    assert!(
        matches!(
            faults.as_slice(),
            [JwtSvidError::Algorithm { .. }, JwtSvidError::Type { .. }, JwtSvidError::Id(_), JwtSvidError::Expired(_)]
        ),
        "{faults:?}"
    );
    assert_eq!(read_jwt_svid(&token).unwrap_err(), faults[0]);
    assert_eq!(jwt_svid_faults(&domain.token(&super::header(), &claims()), now()), []);
    assert_eq!(jwt_svid_faults("a.b", now()), [JwtSvidError::NotCompact]);
}

#[test]
fn a_trust_domain_without_bundle_is_refused() {
    let mut claims = claims();
    claims["sub"] = json!("spiffe://other.org/cart");
    let error = Domain::new().verify(&header(), &claims).unwrap_err();
    assert_eq!(error, JwtSvidError::UntrustedDomain(trust_domain("other.org")));
}

#[test]
fn sub_is_required_and_a_spiffe_id() {
    assert_eq!(refused_without("sub"), JwtSvidError::Claims);
    for sub in ["cart", "https://example.org/cart", "spiffe://Example.org/cart", "spiffe://example.org/a/../b"] {
        assert!(matches!(refused_with("sub", json!(sub)), JwtSvidError::Id(_)), "{sub}");
    }
    assert_eq!(refused_with("sub", json!(7)), JwtSvidError::Claims);
}

#[test]
fn aud_is_required_and_names_us() {
    let audience = JwtSvidError::Audience { expected: "orders".to_owned() };
    assert_eq!(refused_without("aud"), JwtSvidError::Claims);
    for aud in [json!([]), json!(["stock"]), json!("stock"), json!(["Orders"]), json!(["orders "])] {
        assert_eq!(refused_with("aud", aud.clone()), audience, "{aud}");
    }
    for aud in [json!(7), json!([7]), json!(null)] {
        assert_eq!(refused_with("aud", aud.clone()), JwtSvidError::Claims, "{aud}");
    }
    for aud in [json!("orders"), json!(["stock", "orders"])] {
        let mut claims = claims();
        claims["aud"] = aud;
        assert!(Domain::new().verify(&header(), &claims).is_ok());
    }
}

#[test]
fn exp_is_required_and_to_come() {
    assert_eq!(refused_without("exp"), JwtSvidError::Claims);
    for exp in [json!("tomorrow"), json!(null), json!(1e300), json!(-1e300)] {
        assert_eq!(refused_with("exp", exp.clone()), JwtSvidError::Claims, "{exp}");
    }
    let seconds = now().as_second();
    assert_eq!(refused_with("exp", json!(seconds - 1)), JwtSvidError::Expired(at(-1)));
    assert_eq!(refused_with("exp", json!(seconds)), JwtSvidError::Expired(at(0)));
    assert_eq!(refused_with("exp", json!(seconds as f64 + 0.5)), JwtSvidError::Expired(at(0)));
    let mut claims = claims();
    claims["exp"] = json!(seconds + 1);
    assert!(Domain::new().verify(&header(), &claims).is_ok());
}

#[test]
fn nbf_is_honoured_with_a_small_leeway() {
    let seconds = now().as_second();
    assert_eq!(refused_with("nbf", json!(seconds + 11)), JwtSvidError::NotYetValid(at(11)));
    let mut claims = claims();
    claims["nbf"] = json!(seconds + 10);
    assert!(Domain::new().verify(&header(), &claims).is_ok());
}

// RFC 7519, section 4.1.
#[test]
fn registered_claims_that_limit_nothing_are_of_their_type_all_the_same() {
    for (name, wrong, right) in [
        ("iat", json!("now"), json!(now().as_second() + 3600)),
        ("iss", json!(7), json!("https://example.org")),
        ("jti", json!({"a": 1}), json!("j")),
        ("nbf", json!("now"), json!(null)),
    ] {
        assert_eq!(refused_with(name, wrong), JwtSvidError::Claims, "{name}");
        let mut claims = claims();
        claims[name] = right;
        assert!(Domain::new().verify(&header(), &claims).is_ok(), "{name}");
    }
}

#[test]
fn claims_that_say_something_twice_are_refused() {
    let exp = now().as_second() + 300;
    let twice = format!(r#"{{"sub":"{CART}","aud":"stock","aud":"orders","exp":{exp}}}"#);
    assert_eq!(Domain::new().verify(&header(), &Value::String(twice)).unwrap_err(), JwtSvidError::Claims);
}
