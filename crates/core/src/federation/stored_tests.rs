//! The stored form is read as it was written, and nothing else is.

use serde_json::{Value, json};

use super::super::FetchError;
use super::super::fixtures::{
    PEER, at, bundle, certificate, document, domain, fail, jwt_key, look, poll, spiffe_spec, static_spec, web_spec,
};
use super::*;

fn read(bytes: &[u8]) -> Result<StoredRemote, StoredError> {
    StoredRemote::from_bytes(&domain(PEER), bytes)
}

/// One with every member: from the spec, and with a failure.
fn full() -> StoredRemote {
    let mut stored = look(&spiffe_spec(&document(&[1, 2], Some(7))), None, 0).stored;
    stored = fail(&spiffe_spec(&document(&[1, 2], Some(7))), Some(&stored), FetchError::Status(503), 60).stored;
    let kept = stored.kept.as_mut().unwrap();
    kept.dropped = 3;
    kept.is_sequence_reused = true;
    stored
}

fn value() -> Value {
    serde_json::from_slice(&full().to_bytes()).unwrap()
}

/// With one value replaced in the text, so that order and format stay.
fn with(from: &str, to: &str) -> Result<StoredRemote, StoredError> {
    let text = String::from_utf8(full().to_bytes()).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
    read(text.replace(from, to).as_bytes())
}

fn malformed(result: Result<StoredRemote, StoredError>) -> &'static str {
    match result {
        Err(StoredError::Malformed { what }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_stored_is_read_as_it_was() {
    let empty = StoredRemote::empty(&domain(PEER));
    let polled = poll(&web_spec(), None, document(&[1], None), 0).stored;
    for stored in [empty, polled, full()] {
        let bytes = stored.to_bytes();
        assert_eq!(read(&bytes), Ok(stored.clone()));
        assert_eq!(read(&bytes).unwrap().to_bytes(), bytes);
        assert!(!bytes.contains(&b'\n'));
    }
}

/// A later release must read this: what changes it is a new format.
#[test]
fn the_first_format_stays_readable() {
    let text = concat!(
        r#"{"format":"countersign.dev/remote-bundle.v1","trustDomain":"peer.example","sequenceFloor":7,"highestSequence":9,"#,
        r#""bootstrap":"sha256:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","#,
        r#""endpoint":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","#,
        r#""polledAt":"2026-09-21T14:14:20Z","nextPoll":"2026-09-21T14:19:20.5Z","#,
        r#""failure":{"refusal":{"fetch":{"status":503}},"count":2,"since":"2026-09-21T14:13:20Z","at":"2026-09-21T14:14:20Z"},"#,
        r#""kept":{"origin":"bootstrap","sequence":7,"takenAt":"2026-09-21T14:13:20Z","confirmedAt":"2026-09-21T14:13:20Z","#,
        r#""document":{"keys":[{"crv":"P-256","kid":"1","kty":"EC","use":"jwt-svid","#,
        r#""x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}],"#,
        r#""spiffe_sequence":1790000000000,"spiffe_refresh_hint":300}}}"#,
    );
    let stored = read(text.as_bytes()).unwrap();
    assert_eq!((stored.sequence(), stored.revision()), (Some(7), Some(1_790_000_000_000)));
    assert_eq!((stored.sequence_floor, stored.highest_sequence), (Some(7), Some(9)));
    assert_eq!((stored.origin(), stored.polled_at()), (Some(Origin::Bootstrap), Some(at(60))));
    assert_eq!(stored.failure().unwrap().refusal, Refusal::Fetch(FetchError::Status(503)));
    for (name, refusal) in [
        (r#"{"fetch":"wrongEndpointId"}"#, Refusal::Fetch(FetchError::WrongEndpointId)),
        (
            r#"{"malformed":{"fault":"noKeySet"}}"#,
            Refusal::Malformed { fault: super::super::DocumentFault::NoKeySet, position: None },
        ),
        (r#""wrongTrustDomain""#, Refusal::WrongTrustDomain),
        (r#"{"lowerSequence":{"offered":1,"floor":2}}"#, Refusal::LowerSequence { offered: 1, floor: 2 }),
    ] {
        let stored = read(text.replace(r#"{"fetch":{"status":503}}"#, name).as_bytes()).unwrap();
        assert_eq!(stored.failure().unwrap().refusal, refusal);
    }
}

#[test]
fn what_is_of_another_trust_domain_is_refused() {
    let error = StoredRemote::from_bytes(&domain("other.example"), &full().to_bytes());
    assert_eq!(error, Err(StoredError::OtherTrustDomain { found: domain(PEER) }));
}

#[test]
fn another_format_is_named() {
    let error = with("remote-bundle.v1", "remote-bundle.v2").unwrap_err();
    assert!(matches!(&error, StoredError::UnknownFormat { .. }), "{error:?}");
    assert!(error.to_string().contains("countersign.dev/remote-bundle.v2"), "{error}");
    let long = json!({"format": "x".repeat(10_000)}).to_string();
    assert!(read(long.as_bytes()).unwrap_err().to_string().len() < 512);
}

#[test]
fn what_is_no_object_with_a_format_is_refused() {
    for text in ["", "{}", "[]", "null", "{\"format\":1}", "\u{0}", "[\"countersign.dev/remote-bundle.v1\"]"] {
        malformed(read(text.as_bytes()));
    }
    let bytes = full().to_bytes();
    for length in [1, 50, bytes.len() / 2, bytes.len() - 1] {
        malformed(read(&bytes[..length]));
    }
}

#[test]
fn a_member_that_is_missing_unknown_or_of_another_type_is_refused() {
    let not_its_members = "it has not the members of its format";
    for pointer in ["", "/kept", "/failure"] {
        let mut changed = value();
        changed.pointer_mut(pointer).unwrap()["more"] = json!(1);
        assert_eq!(malformed(read(changed.to_string().as_bytes())), not_its_members, "{pointer}");
    }
    for (from, to) in [
        (r#""origin":"bootstrap""#, r#""origin":"elsewhere""#),
        (r#""sequenceFloor":7"#, r#""sequenceFloor":-7"#),
        (r#""bootstrap":"sha256:"#, r#""bootstrap":"md5:"#),
        (r#""count":1"#, r#""count":4294967296"#),
        (r#""status":503"#, r#""state":503"#),
    ] {
        assert_eq!(malformed(with(from, to)), not_its_members, "{to}");
    }
}

#[test]
fn another_formatting_of_the_same_is_refused() {
    let bytes = full().to_bytes();
    let formatted = "it is formatted in another way";
    assert_eq!(malformed(read(&[&bytes[..], b"\n"].concat())), formatted);
    assert_eq!(malformed(read(&[b" ", &bytes[..]].concat())), formatted);
    assert_eq!(malformed(with(r#""dropped":3"#, r#""dropped": 3"#)), formatted);
    // A default that is written out; a key that nobody knows.
    assert_eq!(malformed(with(r#""dropped":3"#, r#""dropped":0"#)), formatted);
    assert_eq!(malformed(with(r#""document":{"keys":["#, r#""document":{"keys":[{"kty":"OKP"},"#)), formatted);
}

#[test]
fn a_document_that_is_no_bundle_of_the_trust_domain_or_not_normalised_is_refused() {
    assert_eq!(
        malformed(with(r#""document":{"keys":"#, r#""document":{"key":"#)),
        "its document is no bundle of the trust domain"
    );
    let keys = value()["kept"]["document"]["keys"].as_array().unwrap().clone();
    let text = String::from_utf8(full().to_bytes()).unwrap();
    let (one, two) = (keys[0].to_string(), keys[1].to_string());
    let both = format!("{one},{two}");
    assert!(text.contains(&both));
    for other in [format!("{two},{one}"), format!("{one},{one}")] {
        assert_eq!(malformed(read(text.replace(&both, &other).as_bytes())), "it is formatted in another way");
    }
    assert!(read(text.replace(&both, &one).as_bytes()).is_ok());
    let other: Value =
        serde_json::from_slice(&bundle(PEER, &[&certificate("other.example", 1, 30)], &[]).to_json()).unwrap();
    let other = text.replace(&both, &other["keys"][0].to_string());
    assert_eq!(malformed(read(other.as_bytes())), "its document is no bundle of the trust domain");
    let revision = value()["kept"]["document"]["spiffe_sequence"].to_string();
    let without = text.replace(&format!(r#","spiffe_sequence":{revision}"#), "");
    assert_eq!(malformed(read(without.as_bytes())), "it is formatted in another way");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let contradiction = "its sequences or its origin contradict each other";
    assert_eq!(malformed(with(r#""sequenceFloor":7"#, r#""sequenceFloor":6"#)), contradiction);
    assert_eq!(malformed(with(r#""sequenceFloor":7,"#, "")), contradiction);
    assert_eq!(malformed(with(r#""highestSequence":7"#, r#""highestSequence":6"#)), contradiction);
    let digest = value()["bootstrap"].to_string();
    assert_eq!(malformed(with(&format!(r#""bootstrap":{digest},"#), "")), contradiction);
    let higher = String::from_utf8(full().to_bytes()).unwrap();
    let higher = higher.replace(r#""sequenceFloor":7,"highestSequence":7"#, r#""sequenceFloor":8,"highestSequence":8"#);
    assert_eq!(malformed(read(higher.as_bytes())), contradiction, "from the spec, it sets the floor");
    assert!(read(higher.replace(r#""origin":"bootstrap""#, r#""origin":"polled""#).as_bytes()).is_ok());
    // Polled, it needs none.
    let text = String::from_utf8(full().to_bytes()).unwrap();
    let polled = text
        .replace(&format!(r#""bootstrap":{digest},"#), "")
        .replace(r#""origin":"bootstrap""#, r#""origin":"polled""#);
    assert!(read(polled.as_bytes()).is_ok());
    let empty = String::from_utf8(StoredRemote::empty(&domain(PEER)).to_bytes()).unwrap();
    for member in
        [r#""sequenceFloor":1,"highestSequence":1"#, r#""highestSequence":1"#, &format!(r#""bootstrap":{digest}"#)]
    {
        let changed = empty.replace(r#""peer.example"}"#, &format!(r#""peer.example",{member}}}"#));
        assert_eq!(malformed(read(changed.as_bytes())), contradiction, "{changed}");
    }
}

#[test]
fn the_longest_bundle_that_is_kept_can_be_stored() {
    let x509: Vec<_> = (1..250).map(|days| certificate(PEER, 1, days)).collect();
    let jwt: Vec<_> = (0..1_000).map(|number| jwt_key(&number.to_string())).collect();
    let long = bundle(PEER, &x509.iter().collect::<Vec<_>>(), &jwt.iter().collect::<Vec<_>>());
    let stored = look(&static_spec(&long.to_json()), None, 0).stored;
    let bytes = stored.to_bytes();
    assert!(bytes.len() > MAX_KEPT_LENGTH - 1_024 && bytes.len() <= MAX_STORED_LENGTH, "{}", bytes.len());
    assert_eq!(read(&bytes), Ok(stored));
}

#[test]
fn what_is_too_long_is_not_read() {
    let long = vec![b' '; MAX_STORED_LENGTH + 1];
    assert_eq!(read(&long), Err(StoredError::TooLong { length: MAX_STORED_LENGTH + 1 }));
    assert_ne!(read(&long[1..]), Err(StoredError::TooLong { length: MAX_STORED_LENGTH }));
}

/// R50: five hundred peers that change nothing cost a write each once in a while, not at each poll.
#[test]
fn a_poll_that_changes_nothing_is_written_once_the_last_confirmation_is_old() {
    let spec = web_spec();
    let first = poll(&spec, None, document(&[1], Some(1)), 0).stored;
    let eighth = i64::try_from(spec.max_stale().as_secs() / 8).unwrap();
    let again = poll(&spec, Some(&first), document(&[1], Some(1)), eighth - 1).stored;
    assert_ne!(again, first);
    assert!(!again.is_worth_writing_over(&first, spec.max_stale()));
    assert!(
        !fail(&spec, Some(&first), FetchError::Connect, 300).stored.is_worth_writing_over(&first, spec.max_stale())
    );
    let late = poll(&spec, Some(&again), document(&[1], Some(1)), eighth).stored;
    assert!(late.is_worth_writing_over(&first, spec.max_stale()));
    for changed in [document(&[1, 2], Some(2)), document(&[1], Some(2)), document(&[1], None)] {
        assert!(poll(&spec, Some(&first), changed, 300).stored.is_worth_writing_over(&first, spec.max_stale()));
    }
}
