//! What a journal tells those who keep it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use countersign_core::journal::{AuthorityPolicy, Journal, RandomKeys, next};
use countersign_core::key::KeyType;
use jiff::{SignedDuration, Timestamp};

const POLICY: AuthorityPolicy = AuthorityPolicy {
    ca_life: Duration::from_secs(86_400),
    longest_svid_life: Duration::from_secs(3600),
    refresh_hint: Duration::from_secs(300),
    x509_key_type: KeyType::EcP256,
    jwt_key_type: KeyType::EcP256,
};

fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

#[test]
fn a_journal_is_of_its_trust_domain_or_of_the_control_plane() {
    let domain = "example.org".parse().unwrap();
    let of_domain = Journal::create("c", Some(&domain), &POLICY, &mut RandomKeys, now()).unwrap();
    let control_plane = Journal::create("c", None, &POLICY, &mut RandomKeys, now()).unwrap();
    assert_eq!((of_domain.trust_domain(), control_plane.trust_domain()), (Some(&domain), None));
}

#[test]
fn nothing_is_due_before_the_next_change_and_then_something_is() {
    let journal = Journal::create("c", None, &POLICY, &mut RandomKeys, now()).unwrap();
    let change = journal.next_change(&POLICY, now()).unwrap();
    assert!(change > now());
    assert!(next(&journal, &POLICY, change - SignedDuration::from_secs(1)).is_empty());
    assert!(!next(&journal, &POLICY, change).is_empty());
}
