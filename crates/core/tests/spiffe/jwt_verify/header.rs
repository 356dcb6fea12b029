//! The form of a token and its header (JWT-SVID, section 2).

use countersign_core::jwt::JwtSvidError;
use serde_json::{Value, json};

use super::{Domain, claims, header};

#[test]
fn typ_is_absent_jwt_or_jose() {
    let domain = Domain::new();
    for (typ, accepted) in
        [("JWT", true), ("JOSE", true), ("jwt", false), ("at+jwt", false), ("wit+jwt", false), ("", false)]
    {
        let verified = domain.verify(&json!({"alg": "ES256", "kid": "k1", "typ": typ}), &claims());
        assert_eq!(verified.is_ok(), accepted, "{typ}");
        assert!(accepted || matches!(verified, Err(JwtSvidError::Type { .. })));
    }
    assert!(domain.verify(&json!({"alg": "ES256", "kid": "k1"}), &claims()).is_ok());
}

#[test]
fn a_header_that_holds_more_is_refused() {
    let domain = Domain::new();
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("jku", json!("https://evil.example/keys")),
        ("jwk", domain.bundle_key()),
        ("x5c", json!([])),
        ("cty", json!("JWT")),
        ("b64", json!(false)),
    ] {
        let mut header = header();
        header[name] = value;
        assert_eq!(domain.verify(&header, &claims()).unwrap_err(), JwtSvidError::Header, "{name}");
    }
}

#[test]
fn a_header_that_says_something_twice_is_refused() {
    let twice = Value::String(r#"{"alg":"ES256","kid":"k1","kid":"k2"}"#.to_owned());
    assert_eq!(Domain::new().verify(&twice, &claims()).unwrap_err(), JwtSvidError::Header);
}

#[test]
fn only_the_compact_form_is_read() {
    let domain = Domain::new();
    let good = domain.token(&header(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let json_form = json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string();
    let padded = format!("{}=.{}.{}", parts[0], parts[1], parts[2]);
    let four = format!("{good}.");
    let two = format!("{}.{}", parts[0], parts[1]);
    let spaced = format!(" {good}");
    for text in [&json_form, &padded, &four, &two, &spaced, "", ".", "..", "...."] {
        let refused = matches!(domain.verify_token(text), Err(JwtSvidError::NotCompact | JwtSvidError::Header));
        assert!(refused, "{text}");
    }
}

#[test]
fn a_token_that_is_too_long_is_not_read() {
    let verify = |length| Domain::new().verify_token(&"a".repeat(length)).unwrap_err();
    assert_eq!(verify(16 * 1024), JwtSvidError::NotCompact);
    assert_eq!(verify(16 * 1024 + 1), JwtSvidError::TooLong { length: 16 * 1024 + 1 });
}

#[test]
fn what_an_error_quotes_is_cut_after_64_characters_and_says_so() {
    let quoted = |length| {
        let header = json!({"alg": "ES256", "kid": "k".repeat(length)});
        Domain::new().verify(&header, &claims()).unwrap_err().to_string()
    };
    let (whole, cut) = (quoted(64), quoted(65));
    assert!(whole.contains(&"k".repeat(64)) && !whole.contains('…'), "{whole}");
    assert!(cut.contains(&"k".repeat(64)) && !cut.contains(&"k".repeat(65)) && cut.contains('…'), "{cut}");
}

#[test]
fn an_error_holds_neither_token_nor_what_a_terminal_obeys() {
    let domain = Domain::new();
    let kid = format!("{}\u{1b}[2J", "k".repeat(1000));
    let error = domain.verify(&json!({"alg": "ES256", "kid": kid}), &claims()).unwrap_err().to_string();
    assert!(error.len() < 300 && !error.contains('\u{1b}'), "{error}");
    let other = Domain::new().token(&header(), &claims());
    let error = format!("{:?}", domain.verify_token(&other).unwrap_err());
    assert!(other.split('.').all(|part| !error.contains(part)), "{error}");
}
