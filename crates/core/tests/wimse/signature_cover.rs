//! What signatures of requests cover (httpsig, section 3; RFC 9421, sections 2 and 2.5).

use countersign_core::wimse::signature::{SignatureError, content_digest};

use crate::fixtures::World;
use crate::signed::{PARAMS, Sent, borrow, plain};

fn not_covered(name: &str) -> SignatureError {
    SignatureError::NotCovered { name: format!("{name:?}") }
}

// Httpsig, section 3: "The following derived components MUST be signed", and the WIT.
#[test]
fn a_signature_that_covers_less_than_it_must_is_refused() {
    let world = World::new();
    for left_out in ["@method", "@path", "@query", "workload-identity-token"] {
        let cover: Vec<_> = plain(&world).into_iter().filter(|(name, _)| name != left_out).collect();
        let sent = Sent::get(&world).signed("wimse", &borrow(&cover), PARAMS, &world.key);
        assert_eq!(sent.verify(&world).unwrap_err(), not_covered(left_out));
    }
    let sent = Sent::get(&world).signed("wimse", &[], PARAMS, &world.key);
    assert_eq!(sent.verify(&world).unwrap_err(), not_covered("@method"));
}

// Httpsig, section 3: "the following request headers MUST be signed when they exist".
#[test]
fn fields_that_must_be_covered_are_covered_where_they_are_there() {
    let world = World::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("content-digest", &content_digest(b"")),
        ("authorization", "Bearer x"),
        ("txn-token", "a.b.c"),
    ] {
        let mut cover = plain(&world);
        let uncovered = Sent::get(&world).with(name, value).signed("wimse", &borrow(&cover), PARAMS, &world.key);
        assert_eq!(uncovered.verify(&world).unwrap_err(), not_covered(name));
        cover.push((name.to_owned(), value.to_owned()));
        let covered = Sent::get(&world).with(name, value).signed("wimse", &borrow(&cover), PARAMS, &world.key);
        let bound = covered.verify(&world).unwrap().sender.bound;
        assert_eq!(bound, ["workload-identity-token", name]);
        // Covered, and taken away on the way.
        let missing = Sent::get(&world).signed("wimse", &borrow(&cover), PARAMS, &world.key);
        let error = SignatureError::NoComponent { name: format!("{name:?}") };
        assert_eq!(missing.verify(&world).unwrap_err(), error);
    }
}

#[test]
fn components_are_covered_in_any_order_and_beside_others() {
    let world = World::new();
    let mut cover = plain(&world);
    cover.reverse();
    cover.push(("x-other".to_owned(), "1, 2".to_owned()));
    cover.push(("@authority".to_owned(), "orders.example.org".to_owned()));
    let mut sent = Sent::get(&world).with("X-Other", "1").with("x-other", "2");
    sent.authority = Some("Orders.example.org");
    let sent = sent.signed("wimse", &borrow(&cover), PARAMS, &world.key);
    assert!(sent.verify(&world).is_ok());
    // A request that covers the authority is refused where a proxy rewrote it.
    let rewritten = Sent { authority: Some("proxy.example.org"), ..sent.clone() };
    assert_eq!(rewritten.verify(&world).unwrap_err(), SignatureError::Signature);
    let unknown = Sent { authority: None, ..sent };
    assert!(matches!(unknown.verify(&world), Err(SignatureError::NoComponent { .. })));
}

// Httpsig, section 3: `@authority` is not covered, since proxies rewrite it.
#[test]
fn a_rewritten_authority_does_not_matter() {
    let world = World::new();
    let sent = Sent { authority: Some("proxy.example.org"), ..Sent::get(&world).plainly_signed(&world) };
    assert!(sent.verify(&world).is_ok());
}

// RFC 9421, section 2.5: each component once, of a known kind.
#[test]
fn components_that_are_unknown_or_there_twice_are_refused() {
    let world = World::new();
    let refused = |name: &str, value: &str| {
        let mut cover = plain(&world);
        cover.push((name.to_owned(), value.to_owned()));
        Sent::get(&world)
            .with("X", "1")
            .signed("wimse", &borrow(&cover), PARAMS, &world.key)
            .verify(&world)
            .unwrap_err()
    };
    for name in [
        "@target-uri",
        "@request-target",
        "@scheme",
        "@query-param;name=\"a\"",
        "@signature-params",
        "@nothing",
        "X",
        "x y",
        "",
        "x;sf",
        "x;key=\"a\"",
        "x;bs",
        "x;tr",
        "x;req=?0",
        "x;req;sf",
        "@status;req=1",
    ] {
        assert!(matches!(refused(name, "1"), SignatureError::UnknownComponent { .. }), "{name}");
    }
    assert_eq!(refused("@method", "GET"), SignatureError::RepeatedComponent { name: "\"@method\"".to_owned() });
    for name in ["@status", "@method;req", "x;req", "absent"] {
        assert!(matches!(refused(name, "1"), SignatureError::NoComponent { .. }), "{name}");
    }
}

#[test]
fn a_thousand_fields_are_no_obstacle_and_a_thousand_components_are_refused() {
    let world = World::new();
    let mut sent = Sent::get(&world);
    sent.fields.extend((0..1000).map(|i| (format!("x-{i}"), i.to_string())));
    let signed = sent.clone().plainly_signed(&world);
    assert!(signed.verify(&world).is_ok());
    let mut cover = plain(&world);
    cover.extend((0..60).map(|i| (format!("x-{i}"), i.to_string())));
    assert!(sent.clone().signed("wimse", &borrow(&cover), PARAMS, &world.key).verify(&world).is_ok());
    cover.extend((60..1000).map(|i| (format!("x-{i}"), i.to_string())));
    let error = sent.signed("wimse", &borrow(&cover), PARAMS, &world.key).verify(&world).unwrap_err();
    assert_eq!(error, SignatureError::TooManyComponents { found: 1004 });
}

#[test]
fn fields_of_one_value_that_are_there_twice_are_refused() {
    let world = World::new();
    for name in ["content-type", "authorization", "txn-token"] {
        let mut cover = plain(&world);
        cover.push((name.to_owned(), "a, b".to_owned()));
        let sent = Sent::get(&world).with(name, "a").with(name, "b");
        let error = sent.signed("wimse", &borrow(&cover), PARAMS, &world.key).verify(&world).unwrap_err();
        assert_eq!(error, SignatureError::RepeatedField { name });
    }
}

// RFC 9421, section 7.5.6: a line break in a value would be another line of the signature base.
#[test]
fn line_breaks_in_values_are_refused() {
    let world = World::new();
    for value in ["a\nb", "a\r\n b"] {
        let mut cover = plain(&world);
        cover.push(("x".to_owned(), value.to_owned()));
        let sent = Sent::get(&world).with("x", value).signed("wimse", &borrow(&cover), PARAMS, &world.key);
        assert_eq!(sent.verify(&world).unwrap_err(), SignatureError::NoComponent { name: "\"x\"".to_owned() });
    }
}

// Httpsig, section 3: CONNECT covers `@authority`, and MUST NOT cover `@path` and `@query`.
#[test]
fn connect_is_signed_over_its_authority() {
    let world = World::new();
    let params = PARAMS.replace("https://orders.example.org/orders/7", "https://orders.example.org/");
    let connect = || {
        let mut sent = Sent::get(&world);
        (sent.method, sent.path, sent.authority) = ("CONNECT", String::new(), Some("Db.example.org:5432"));
        sent
    };
    let cover = |extra: &[(&str, &str)]| {
        let mut cover = vec![("@method", "CONNECT"), ("workload-identity-token", world.wit.as_str())];
        cover.extend(extra);
        connect().signed("wimse", &cover, &params, &world.key)
    };
    let authority = ("@authority", "db.example.org:5432");
    assert!(cover(&[authority]).verify(&world).is_ok());
    assert_eq!(cover(&[]).verify(&world).unwrap_err(), not_covered("@authority"));
    for (name, value) in [("@path", "/"), ("@query", "?")] {
        let error = SignatureError::ForbiddenComponent { name: format!("{name:?}") };
        assert_eq!(cover(&[authority, (name, value)]).verify(&world).unwrap_err(), error);
    }
    let elsewhere = Sent { authority: Some("db.example.org:22"), ..cover(&[authority]) };
    assert_eq!(elsewhere.verify(&world).unwrap_err(), SignatureError::Signature);
    // Methods are case-sensitive: another one has a path.
    let lower = Sent { method: "connect", ..cover(&[authority]) };
    assert_eq!(lower.verify(&world).unwrap_err(), not_covered("@path"));
}
