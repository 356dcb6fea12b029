//! What a Workload Proof Token binds, and what it does not (wpt, sections 2 and 3.1).

use countersign_core::wimse::wpt::{WptError, verify_wpt};
use countersign_core::wimse::{Audience, Body, Policy, Request};
use serde_json::{Value, json};

use crate::fixtures::{ORIGIN, PATH, TARGET, World, borrowed, hash, issue, now, request, with};

const TXN: &str = "txn.token.value";

fn fresh(claims: Value, id: &str) -> Value {
    with(claims, "jti", json!(format!("{id:_>30}")))
}

// Wpt, sections 2 and 3.1: the target URI, or what the verifier is configured with.
#[test]
fn aud_is_an_audience_of_the_verifier() {
    let world = World::new();
    for aud in [
        "https://elsewhere.example/orders/7",
        "https://orders.example.org/orders/8",
        "https://orders.example.org/orders/7/",
        "https://orders.example.org",
        "https://orders.example.org/orders/7?a=1",
        "https://orders.example.org/orders/7#a",
        "https://orders.example.org.evil.example/orders/7",
        "http://orders.example.org/orders/7",
        "https://ORDERS.example.org/orders/7",
        "",
    ] {
        let error = world.verify_claims(&with(world.proof_claims(), "aud", json!(aud))).unwrap_err();
        assert_eq!(error, WptError::Audience { aud: format!("{aud:?}") });
    }
    // One recipient, in either form of JSON.
    for aud in [json!([TARGET, "https://elsewhere.example/"]), json!([])] {
        let error = world.verify_claims(&with(world.proof_claims(), "aud", aud)).unwrap_err();
        assert!(matches!(error, WptError::Audience { .. }));
    }
    assert!(world.verify_claims(&with(world.proof_claims(), "aud", json!([TARGET]))).is_ok());
}

// Wpt, section 3.1: "untrusted data … MUST NOT be used".
#[test]
fn host_never_says_for_whom_a_proof_is() {
    let world = World::new();
    let value = world.forge(&with(world.proof_claims(), "aud", json!("https://other.example.org/orders/7")));
    let fields = borrowed(&[
        ("host", "other.example.org"),
        ("x-forwarded-host", "other.example.org"),
        ("authorization", &value),
        ("workload-identity-token", &world.wit),
    ]);
    let request = Request { authority: Some("other.example.org"), ..request(&fields) };
    assert!(matches!(world.verify(&request), Err(WptError::Audience { .. })));
    let value = world.forge(&world.proof_claims());
    let fields =
        borrowed(&[("host", "other.example.org"), ("authorization", &value), ("workload-identity-token", &world.wit)]);
    assert!(world.verify(&self::request(&fields)).is_ok());
}

#[test]
fn audiences_are_configured_exactly_or_as_targets_of_an_origin() {
    let world = World::new();
    let verify = |audiences: &[Audience], aud: &str, path: &str, id: &str| {
        let value = world.forge(&fresh(with(world.proof_claims(), "aud", json!(aud)), id));
        let fields = borrowed(&[("authorization", &value), ("workload-identity-token", &world.wit)]);
        let request = Request { path, ..request(&fields) };
        verify_wpt(&request, &Policy::new(&world.bundles, audiences), &world.replays, now()).is_ok()
    };
    let exactly = [Audience::exactly("orders"), Audience::exactly(TARGET)];
    assert!(verify(&exactly, "orders", "/any", "1") && verify(&exactly, TARGET, "/any", "2"));
    assert!(!verify(&exactly, "Orders", "/any", "3") && !verify(&exactly, ORIGIN, "/", "4"));
    let targets = [Audience::targets_of(ORIGIN).unwrap()];
    assert!(verify(&targets, ORIGIN, "", "5") && verify(&targets, &format!("{ORIGIN}/"), "", "6"));
    assert!(!verify(&targets, ORIGIN, PATH, "7") && !verify(&[], TARGET, PATH, "8"));
    for origin in
        ["", "orders", "https://", "https://a/", "https://a/b", "https://A", "ftp://a", "https://u@a", "https://a?b"]
    {
        assert!(Audience::targets_of(origin).is_err(), "{origin}");
    }
    assert!(Audience::targets_of("https://[::1]:8443").is_ok());
}

// Wpt, section 2: "matches the hash of the token value conveyed in the Workload-Identity-Token header".
#[test]
fn a_swapped_wit_is_refused() {
    let world = World::new();
    // Another WIT for the same workload and key.
    let other = issue(&world.authority, "spiffe://example.org/ns/shop/sa/cart", &world.key);
    assert_ne!(other, world.wit);
    let value = world.forge(&world.proof_claims());
    let error = world.verify_fields(&[("authorization", &value), ("workload-identity-token", &other)]).unwrap_err();
    assert_eq!(error, WptError::WitHash);
    for wth in ["", &hash(&world.wit)[1..], &hash(&other)] {
        let error = world.verify_claims(&with(world.proof_claims(), "wth", json!(wth))).unwrap_err();
        assert_eq!(error, WptError::WitHash);
    }
}

// Wpt, section 2: "If presented in conjunction with a Txn-Token, the value of the tth claim matches the hash".
#[test]
fn tth_is_the_hash_of_the_transaction_token_wherever_there_is_one() {
    let world = World::new();
    let verify = |claims: &Value, txn: &[&str]| {
        let value = world.forge(claims);
        let mut fields = vec![("authorization", value.as_str()), ("workload-identity-token", &world.wit)];
        fields.extend(txn.iter().map(|txn| ("Txn-Token", *txn)));
        world.verify_fields(&fields)
    };
    let bound = with(world.proof_claims(), "tth", json!(hash(TXN)));
    let proven = verify(&bound, &[TXN]).unwrap();
    assert_eq!(proven.bound, ["workload-identity-token", "txn-token"]);
    assert_eq!(verify(&bound, &["another.token.value"]).unwrap_err(), WptError::TxnTokenHash);
    assert_eq!(verify(&bound, &[]).unwrap_err(), WptError::TxnTokenHash);
    assert_eq!(verify(&world.proof_claims(), &[TXN]).unwrap_err(), WptError::TxnTokenHash);
    assert_eq!(verify(&bound, &[TXN, TXN]).unwrap_err(), WptError::RepeatedTxnToken);
    assert_eq!(verify(&bound, &[&format!("{TXN}, {TXN}")]).unwrap_err(), WptError::TxnTokenHash);
}

// Wpt, section 2: every token that conveys context is bound, and what is not understood is refused.
#[test]
fn oth_binds_the_fields_that_the_verifier_knows_and_no_other() {
    let world = World::new();
    let verify = |oth: Value, fields: &[(&str, &str)], id: &str| {
        let value = world.forge(&fresh(with(world.proof_claims(), "oth", oth), id));
        let all = [&[("authorization", value.as_str()), ("workload-identity-token", &world.wit)], fields].concat();
        world.verify_fields(&all)
    };
    let failed = |name: &str| WptError::OtherToken { name: format!("{name:?}") };
    let bound = json!({"x-context": hash("context token")});
    // Spaces around the value are not hashed.
    let proven = verify(bound.clone(), &[("X-Context", "  context token ")], "1").unwrap();
    assert_eq!(proven.bound, ["workload-identity-token", "x-context"]);
    let refused = |oth: Value, fields: &[(&str, &str)]| verify(oth, fields, "2").unwrap_err();
    assert_eq!(refused(bound.clone(), &[("X-Context", "another token")]), failed("x-context"));
    assert_eq!(refused(bound.clone(), &[]), failed("x-context"));
    assert_eq!(refused(Value::Null, &[("X-Context", "context token")]), failed("x-context"));
    let twice = [("X-Context", "context token"), ("x-context", "context token")];
    assert_eq!(refused(bound, &twice), failed("x-context"));
    let unknown = json!({"x-context": hash("context token"), "x-other": hash("other token")});
    let both = [("X-Context", "context token"), ("X-Other", "other token")];
    assert_eq!(refused(unknown, &both), failed("x-other"));
    assert_eq!(refused(json!({"X-Context": hash("context token")}), &both[..1]), failed("X-Context"));
    for oth in [json!([]), json!("x"), json!({"x-context": 7})] {
        assert_eq!(refused(oth, &[]), WptError::Claims);
    }
    let twice = world.proof_claims().to_string().replacen('{', r#"{"oth":{"x-context":"a","x-context":"b"},"#, 1);
    assert_eq!(world.verify_claims(&json!(twice)).unwrap_err(), WptError::Claims);
    // A field that the verifier does not use is neither bound nor in the way.
    assert!(verify(Value::Null, &[("x-other", "other token")], "3").is_ok());
}

// Wpt, section 3.3: major portions of a request are not protected.
#[test]
fn neither_method_nor_query_nor_body_is_bound() {
    let world = World::new();
    for (id, method, query, body) in [
        ("1", "GET", None, Body::Empty),
        ("2", "DELETE", Some("all=1"), Body::Bytes(b"{}")),
        ("3", "POST", Some(""), Body::Sha256([7; 32])),
    ] {
        let value = world.forge(&fresh(world.proof_claims(), id));
        let fields = borrowed(&[("authorization", &value), ("workload-identity-token", &world.wit)]);
        assert!(world.verify(&Request { method, query, body, ..request(&fields) }).is_ok(), "{method}");
    }
}
