//! What a journal tells those who keep it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign_core::id::TrustDomain;
use countersign_core::journal::{AuthorityPolicy, Expected, Journal, LocalMaker, Receipts, RotationRequests, next};
use countersign_core::key::KeyType;
use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};

const POLICY: AuthorityPolicy = AuthorityPolicy {
    ca_life: Duration::from_secs(86_400),
    longest_svid_life: Duration::from_secs(3600),
    refresh_hint: Duration::from_secs(300),
    max_delay: Duration::from_secs(1_800),
    taint_max_delay: Duration::from_secs(600),
    x509_key_type: KeyType::EcP256,
    jwt_key_type: KeyType::EcP256,
    wit_key_type: None,
};

fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

fn created(trust_domain: Option<&TrustDomain>) -> Journal {
    let made = Journal::create("c", trust_domain, &POLICY, &LocalMaker, now());
    made.now_or_never().unwrap().unwrap()
}

#[test]
fn a_journal_is_of_its_trust_domain_or_of_the_control_plane() {
    let domain = "example.org".parse().unwrap();
    let of_domain = created(Some(&domain));
    let control_plane = created(None);
    assert_eq!((of_domain.trust_domain(), control_plane.trust_domain()), (Some(&domain), None));
    assert_eq!(of_domain.cluster(), "c");
}

#[test]
fn a_form_that_is_not_known_is_named_shortened() {
    let expected = Expected { cluster: "c", trust_domain: None, published_sequence: None, now: now() };
    let journal = created(None);
    let stored: serde_json::Value = serde_json::from_slice(&journal.to_bytes().unwrap()).unwrap();
    for member in ["format", "protection"] {
        let mut other = stored.clone();
        other[member] = "f".repeat(65).into();
        let error = Journal::from_bytes(other.to_string().as_bytes(), &expected).unwrap_err().to_string();
        let shown = format!("\"{}\"", "f".repeat(64));
        assert!(error.contains(&shown), "{member}: {error}");
    }
}

#[test]
fn nothing_is_due_before_the_next_change_and_then_something_is() {
    let journal = created(None);
    let change = journal.next_change(&POLICY, &RotationRequests::default(), now()).unwrap();
    assert!(change > now());
    let receipts = Receipts { acknowledged: Some(u64::MAX), ..Receipts::default() };
    let due = |now| next(&journal, &POLICY, &RotationRequests::default(), &receipts, now);
    assert!(due(change - SignedDuration::from_secs(1)).is_empty());
    assert!(!due(change).is_empty());
}

#[test]
fn the_stored_form_holds_the_digest_of_its_payload() {
    let journal = created(None);
    let envelope: serde_json::Value = serde_json::from_slice(&journal.to_bytes().unwrap()).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let hex: String = digest(&SHA256, &payload).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(envelope["checksum"], format!("sha256:{hex}"));
}

#[test]
fn a_journal_of_another_trust_domain_is_refused_with_both_names() {
    let (ours, other) = ("example.org".parse().unwrap(), "other.org".parse().unwrap());
    let stored = created(Some(&other)).to_bytes().unwrap();
    let expected = Expected { cluster: "c", trust_domain: Some(&ours), published_sequence: None, now: now() };
    let error = Journal::from_bytes(&stored, &expected).unwrap_err().to_string();
    assert!(error.contains("example.org") && error.contains("other.org"), "{error}");
}
