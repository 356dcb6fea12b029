//! Signatures of requests: their fields and parameters (httpsig, section 3; RFC 9421, sections 2 and 4).

use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::wimse::WitFieldError;
use countersign_core::wimse::signature::SignatureError;
use countersign_core::wit::WitSvidError;

use crate::fixtures::{World, at, now};
use crate::signed::{PARAMS, Sent, borrow, by_hand, plain};

fn verify(params: &str) -> Result<(), SignatureError> {
    let world = World::new();
    let cover = plain(&world);
    let sent = Sent::get(&world).signed("wimse", &borrow(&cover), params, &world.key);
    sent.verify(&world).map(|_| ())
}

fn refused(from: &str, to: &str) -> SignatureError {
    assert!(PARAMS.contains(from), "{from}");
    verify(&PARAMS.replace(from, to)).unwrap_err()
}

#[test]
fn a_request_that_keeps_every_rule_is_accepted() {
    let world = World::new();
    let proven = Sent::get(&world).plainly_signed(&world).verify(&world).unwrap();
    assert_eq!(proven.sender.wit.id.to_string(), "spiffe://example.org/ns/shop/sa/cart");
    assert_eq!(proven.sender.audience.as_deref(), Some("https://orders.example.org/orders/7"));
    assert_eq!((proven.sender.expires_at, proven.sender.bound), (at(30), vec!["workload-identity-token".to_owned()]));
    assert_eq!((proven.nonce.as_str(), proven.sign_response), ("0123456789abcdef", false));
}

// Httpsig, section 3: the WIT is validated before the signature.
#[test]
fn exactly_one_wit_that_is_trusted_is_required() {
    let (world, other) = (World::new(), World::new());
    let signed = Sent::get(&world).plainly_signed(&world);
    let mut without = signed.clone();
    without.fields.remove(0);
    assert_eq!(without.verify(&world).unwrap_err(), SignatureError::Wit(WitFieldError::Missing));
    let twice = signed.clone().with("workload-identity-token", world.wit.clone());
    assert_eq!(twice.verify(&world).unwrap_err(), SignatureError::Wit(WitFieldError::Repeated));
    let mut joined = signed.clone();
    joined.fields[0].1 = format!("{0}, {0}", world.wit);
    assert_eq!(joined.verify(&world).unwrap_err(), SignatureError::Wit(WitFieldError::NotOne));
    let error = SignatureError::Wit(WitFieldError::Wit(WitSvidError::Signature));
    assert_eq!(signed.verify(&other).unwrap_err(), error);
    let mut bearer = Sent::get(&world).with("Authorization", format!("Bearer {}", world.wit));
    bearer.fields.remove(0);
    assert_eq!(bearer.verify(&world).unwrap_err(), SignatureError::Wit(WitFieldError::Missing));
}

// Httpsig, section 3: "If no signature has that `tag` value, the message does not carry a WIMSE HTTP signature".
#[test]
fn a_request_without_a_signature_of_the_tag_is_refused() {
    let world = World::new();
    assert_eq!(Sent::get(&world).verify(&world).unwrap_err(), SignatureError::Missing);
    let tag = r#";tag="wimse-workload-to-workload""#;
    assert_eq!(refused(tag, ""), SignatureError::Missing);
    assert_eq!(refused(tag, r#";tag="Wimse-Workload-To-Workload""#), SignatureError::Missing);
    assert_eq!(refused(tag, ";tag=wimse-workload-to-workload"), SignatureError::Missing, "a token is no string");
}

// Httpsig, section 3: "If more than one signature has that `tag` value, the recipient MUST reject the message".
#[test]
fn two_signatures_with_the_tag_are_refused() {
    let world = World::new();
    let cover = plain(&world);
    let twice = Sent::get(&world).plainly_signed(&world).signed("other", &borrow(&cover), PARAMS, &world.key);
    assert_eq!(twice.verify(&world).unwrap_err(), SignatureError::Several);
    // In one line too, and under one label, which readers understand differently.
    let (input, signature) = by_hand(&borrow(&cover), PARAMS, &world.key);
    for (labels, expected) in [(["a", "b"], SignatureError::Several), (["a", "a"], SignatureError::Input)] {
        let join = |value: &str| labels.map(|label| format!("{label}={value}")).join(", ");
        let sent = Sent::get(&world).with("Signature-Input", join(&input)).with("Signature", join(&signature));
        assert_eq!(sent.verify(&world).unwrap_err(), expected);
    }
}

// Httpsig, section 3: "recipients MUST use that `tag` to find the WIMSE signature; they MUST NOT choose by label".
#[test]
fn the_signature_is_found_by_its_tag_among_those_of_others() {
    let world = World::new();
    let cover = plain(&world);
    let proxy = PrivateKey::generate(KeyType::EcP256).unwrap();
    let of_proxy = PARAMS.replace("wimse-workload-to-workload", "example-proxy-hop");
    let sent = Sent::get(&world)
        .signed("wimse", &borrow(&cover), &of_proxy, &proxy)
        .signed("origin", &borrow(&cover), PARAMS, &world.key)
        // Of components that this profile does not know, and of no signature.
        .with("Signature-Input", r#"hop=("@target-uri" "content-type";sf);created=1;tag="x""#)
        .with("Signature-Input", r#"dated=("@method");created=@1790000000"#);
    assert!(sent.verify(&world).is_ok());
}

#[test]
fn fields_that_cannot_be_read_are_refused() {
    let world = World::new();
    let good = Sent::get(&world).plainly_signed(&world);
    let with = |name: &str, value: &str| {
        let mut sent = good.clone();
        sent.fields.iter_mut().find(|(field, _)| field == name).unwrap().1 = value.to_owned();
        sent.verify(&world).unwrap_err()
    };
    let long = format!("wimse=(){}", " ".repeat(16 * 1024));
    for input in ["wimse", "wimse=(", "Wimse=()", "wimse=(\"@method\"", "wimse=(\"\u{e9}\")", "=()", &long] {
        let error = with("Signature-Input", input);
        assert!(matches!(error, SignatureError::Input | SignatureError::Missing), "{input}: {error}");
    }
    let item = r#"wimse=1;tag="wimse-workload-to-workload""#;
    assert_eq!(with("Signature-Input", item), SignatureError::Input);
    for signature in ["", "other=:AA==:", "wimse=\"AA==\"", "wimse=AA", "wimse=(:AA==:)", "wimse=:AA==", "wimse=:*:"] {
        assert_eq!(with("Signature", signature), SignatureError::Field, "{signature}");
    }
    for signature in ["wimse=::", "wimse=:AAAA:"] {
        assert_eq!(with("Signature", signature), SignatureError::Signature, "{signature}");
    }
}

#[test]
fn a_field_is_as_long_as_is_looked_at() {
    let world = World::new();
    let cover = plain(&world);
    let (input, signature) = by_hand(&borrow(&cover), PARAMS, &world.key);
    let verify = |length: usize| {
        let other = format!("a=(){}", ";b".repeat((length - 4 - input.len()) / 2));
        let sent =
            Sent::get(&world).with("Signature-Input", &other[..]).with("Signature-Input", format!("wimse={input}"));
        sent.with("Signature", format!("wimse={signature}")).verify(&world).map(|_| ())
    };
    assert_eq!(verify(16 * 1000), Ok(()));
    assert_eq!(verify(16 * 1024 + 10), Err(SignatureError::Input));
}

// RFC 9421, section 4.1: what is not written canonically is signed canonically.
#[test]
fn spaces_between_parts_do_not_matter() {
    let world = World::new();
    let cover = plain(&world);
    let (input, signature) = by_hand(&borrow(&cover), PARAMS, &world.key);
    let spaced = input.replace(';', "; ").replace("\" \"", "\"   \"");
    let sent =
        Sent::get(&world).with("Signature-Input", format!("a={spaced}")).with("Signature", format!("a={signature}"));
    assert!(sent.verify(&world).is_ok());
}

// Httpsig, section 3: parameters that MUST be included.
#[test]
fn created_expires_nonce_and_wimse_aud_are_required() {
    let parameter = |name| SignatureError::Parameter { name };
    for (name, text) in [
        ("created", ";created=1790000000"),
        ("expires", ";expires=1790000030"),
        ("nonce", r#";nonce="0123456789abcdef""#),
        ("wimse-aud", r#";wimse-aud="https://orders.example.org/orders/7""#),
    ] {
        assert_eq!(refused(text, ""), parameter(name));
        assert_eq!(refused(text, &format!(";{name}=token")), parameter(name), "of another type");
        assert_eq!(refused(text, &format!(";{name}")), parameter(name), "a boolean");
    }
    assert_eq!(refused("created=1790000000", "created=1790000000.5"), parameter("created"));
    assert_eq!(refused("created=1790000000", "created=\"1790000000\""), parameter("created"));
    assert_eq!(refused("expires=1790000030", "expires=999999999999999"), parameter("expires"));
}

// Httpsig, section 3: parameters that MUST NOT be used.
#[test]
fn keyid_and_alg_are_refused() {
    for (name, text) in [("keyid", r#";keyid="k1""#), ("alg", r#";alg="ecdsa-p256-sha256""#), ("alg", ";alg")] {
        assert_eq!(verify(&format!("{PARAMS}{text}")).unwrap_err(), SignatureError::ForbiddenParameter { name });
    }
}

// Httpsig, sections 3 and 3.3: of responses alone.
#[test]
fn a_request_repeats_no_nonce() {
    let error = verify(&format!(r#"{PARAMS};wimse-req-nonce="0123456789abcdef""#)).unwrap_err();
    assert_eq!(error, SignatureError::ForbiddenParameter { name: "wimse-req-nonce" });
}

// RFC 9421, section 2.3: what is not known is signed, and means nothing.
#[test]
fn other_parameters_are_ignored() {
    assert_eq!(verify(&format!(r#"{PARAMS};x="1";y"#)), Ok(()));
}

// Httpsig, section 3.2: a Boolean.
#[test]
fn wimse_sign_response_is_a_boolean() {
    let world = World::new();
    let cover = plain(&world);
    let asks = |text: &str| {
        let params = format!("{PARAMS};wimse-sign-response{text}");
        Sent::get(&world).signed("wimse", &borrow(&cover), &params, &world.key).verify(&world)
    };
    assert!(asks("").unwrap().sign_response && !asks("=?0").unwrap().sign_response);
    for text in ["=1", "=\"true\"", "=true"] {
        assert_eq!(asks(text).unwrap_err(), SignatureError::Parameter { name: "wimse-sign-response" }, "{text}");
    }
}

// Httpsig, section 3: at least 64 random bits.
#[test]
fn a_nonce_that_cannot_hold_64_bits_is_refused() {
    for (nonce, length) in [("", 0), ("abcd1111", 8), ("012345678", 9)] {
        assert_eq!(refused("0123456789abcdef", nonce), SignatureError::Nonce { length });
    }
    assert_eq!(verify(&PARAMS.replace("0123456789abcdef", "0123456789")), Ok(()));
}

// Httpsig, sections 3 and 5.1: a short life, and nothing outside of it.
#[test]
fn created_and_expires_enclose_now_and_little_more() {
    let life = |created: i64, expires: i64| {
        let (created, expires) = (now().as_second() + created, now().as_second() + expires);
        let params = PARAMS.replace("created=1790000000", &format!("created={created}"));
        verify(&params.replace("expires=1790000030", &format!("expires={expires}")))
    };
    assert_eq!(life(0, 60), Ok(()));
    assert_eq!(life(10, 70), Ok(()), "a clock that is ahead");
    assert_eq!(life(-59, 1), Ok(()));
    assert_eq!(life(11, 40), Err(SignatureError::Created(at(11))));
    assert_eq!(life(-30, 0), Err(SignatureError::Expired(at(0))));
    assert_eq!(life(-300, -250), Err(SignatureError::Expired(at(-250))));
    for (created, expires) in [(0, 61), (-61, 1), (5, 5), (5, 4)] {
        let expected = SignatureError::Life { created: at(created), expires: at(expires) };
        assert_eq!(life(created, expires), Err(expected));
    }
}

// Httpsig, section 3.1.
#[test]
fn wimse_aud_is_an_audience_of_the_verifier() {
    for audience in [
        "https://elsewhere.example/orders/7",
        "https://orders.example.org/orders/8",
        "https://orders.example.org/orders/7?",
        "https://orders.example.org",
        "",
    ] {
        let error = refused("https://orders.example.org/orders/7", audience);
        assert_eq!(error, SignatureError::Audience { audience: format!("{audience:?}") });
    }
    let world = World::new();
    let host = Sent::get(&world).plainly_signed(&world).with("Host", "elsewhere.example");
    assert!(host.verify(&world).is_ok(), "never compared");
}

#[test]
fn errors_hold_no_token_and_no_signature() {
    let world = World::new();
    let mut sent = Sent::get(&world).plainly_signed(&world);
    sent.path = "/admin".to_owned();
    let error = sent.verify(&world).unwrap_err();
    let shown = format!("{error} {error:?} {:?}", sent.request(|request| format!("{request:?}")));
    for (_, value) in &sent.fields {
        assert!(!shown.contains(value), "{shown}");
    }
}
