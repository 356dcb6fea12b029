//! What is handed out and until when, and what is said of it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;

use super::fixtures::{
    PEER, at, bundle, certificate, document, domain, fail, jwt_key, look, poll, reasons, remote, spiffe, spiffe_spec,
    static_spec, target, trusted_keys, web_spec,
};
use super::{Failure, FetchError, Flag, Origin, Refusal, RemoteSpec, StoredError, StoredRemote, trusted};
use crate::bundle::Bundle;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

fn next_change(spec: &RemoteSpec, stored: &StoredRemote, seconds: i64) -> Option<jiff::Timestamp> {
    trusted(&remote(spec, Some(stored)), at(seconds)).next_change
}

#[test]
fn a_polled_bundle_is_trusted_until_a_day_after_it_was_confirmed() {
    let spec = web_spec();
    let stored = poll(&spec, None, document(&[1], Some(7)), 0).stored;
    assert_eq!(trusted_keys(&spec, &stored, DAY - 1), Some(vec![1]));
    assert_eq!(next_change(&spec, &stored, DAY - 1), Some(at(DAY)));
    assert_eq!(trusted_keys(&spec, &stored, DAY), None);
    let stale = look(&spec, Some(&stored), DAY);
    assert_eq!(stale.flags, [Flag::Stale { since: at(DAY) }]);
    let confirmed = poll(&spec, Some(&stored), document(&[1], Some(7)), HOUR).stored;
    assert_eq!(trusted_keys(&spec, &confirmed, DAY), Some(vec![1]));
    // What fails confirms nothing.
    let failing = fail(&spec, Some(&stored), FetchError::Timeout, HOUR).stored;
    assert_eq!(trusted_keys(&spec, &failing, DAY), None);
    let refused = poll(&spec, Some(&stored), document(&[1], Some(6)), HOUR).stored;
    assert_eq!(trusted_keys(&spec, &refused, DAY), None);
    // It is trusted again as soon as a poll brings it.
    let back = poll(&spec, Some(&failing), document(&[1], Some(7)), 2 * DAY).stored;
    assert_eq!(trusted_keys(&spec, &back, 2 * DAY), Some(vec![1]));
}

#[test]
fn the_spec_says_for_how_long_a_polled_bundle_is_trusted() {
    let spec = web_spec().with_max_stale(Duration::from_secs(600));
    let stored = poll(&spec, None, document(&[1], Some(7)), 0).stored;
    assert_eq!((trusted_keys(&spec, &stored, 599), trusted_keys(&spec, &stored, 600)), (Some(vec![1]), None));
    // A change of the spec holds for what is kept.
    assert_eq!(trusted_keys(&web_spec(), &stored, 600), Some(vec![1]));
    let forever = web_spec().with_max_stale(Duration::MAX);
    assert_eq!(trusted_keys(&forever, &stored, 10_000 * DAY), Some(vec![1]));
}

#[test]
fn a_stale_bundle_is_not_replaced_by_the_older_one_in_the_spec() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let stored = look(&spec, None, 0).stored;
    let stored = poll(&spec, Some(&stored), document(&[2], Some(8)), 1).stored;
    let stale = look(&spec, Some(&stored), 2 * DAY);
    assert_eq!((trusted_keys(&spec, &stale.stored, 2 * DAY), reasons(&stale.flags)), (None, vec!["Stale"]));
}

#[test]
fn a_stale_bundle_still_verifies_its_endpoint() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let stored = look(&spec, None, 0).stored;
    let stored = poll(&spec, Some(&stored), document(&[2], Some(8)), 1).stored;
    let anchors = target(&spec, Some(&stored), at(2 * DAY)).anchors.unwrap();
    assert_eq!(super::fixtures::key_numbers(&anchors), [2]);
    let back = poll(&spec, Some(&stored), document(&[3], Some(9)), 2 * DAY).stored;
    assert_eq!(trusted_keys(&spec, &back, 2 * DAY), Some(vec![3]));
}

#[test]
fn a_bundle_in_the_spec_is_trusted_until_its_last_certificate_ends() {
    let (first, last) = (certificate(PEER, 1, 5), certificate(PEER, 2, 30));
    let spec = static_spec(&bundle(PEER, &[&first, &last], &[]).to_json());
    let stored = look(&spec, None, 0).stored;
    let trusts = |seconds| trusted(&remote(&spec, Some(&stored)), at(seconds)).bundle.is_some();
    assert!(trusts(2 * DAY) && trusts(30 * DAY), "it does not become stale, and its end is included");
    assert!(!trusts(30 * DAY + 1));
    let end = last.not_after();
    assert_eq!(next_change(&spec, &stored, 30 * DAY - 1), Some(end + SignedDuration::from_nanos(1)));
    assert!(trusted(&remote(&spec, Some(&stored)), end + SignedDuration::from_nanos(1)).bundle.is_none());
    let expired = look(&spec, Some(&stored), 31 * DAY);
    assert_eq!((expired.flags, expired.next_change), (vec![Flag::BootstrapExpired { at: end }], None));
}

#[test]
fn the_end_of_a_bundle_in_the_spec_is_announced_a_tenth_of_its_life_or_a_day_before() {
    for (days, announced) in [(30, 27 * DAY), (5, 4 * DAY)] {
        let last = certificate(PEER, 1, days);
        let spec = static_spec(&bundle(PEER, &[&last, &certificate(PEER, 2, 1)], &[]).to_json());
        let stored = look(&spec, None, 0).stored;
        let said = |seconds| {
            look(&spec, Some(&stored), seconds).flags.contains(&Flag::BootstrapExpiring { at: last.not_after() })
        };
        // A tenth of its life: it begins a little before it is made.
        let slack = 60;
        assert!(!said(announced - slack), "{days}");
        assert!(said(announced + slack), "{days}");
        assert!(said(days * DAY), "{days}");
        assert!(!said(days * DAY + 1), "{days}");
        let from = next_change(&spec, &stored, announced - slack).unwrap();
        assert!(from > at(announced - slack) && from <= at(announced + slack), "{days}: {from}");
    }
    let day = certificate(PEER, 1, 1);
    let spec = static_spec(&bundle(PEER, &[&day], &[]).to_json());
    assert_eq!(
        reasons(&look(&spec, None, 0).flags),
        ["BootstrapExpiring"],
        "one that lives a day is always about to end"
    );
}

#[test]
fn the_end_of_a_bundle_in_the_spec_is_not_announced_once_a_poll_brought_it() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let stored = look(&spec, None, 0).stored;
    let polled = poll(&spec, Some(&stored), document(&[1], Some(7)), 29 * DAY);
    assert_eq!((reasons(&polled.flags), polled.stored.origin()), (vec![], Some(Origin::Polled)));
}

#[test]
fn a_bundle_in_the_spec_without_certificates_has_no_end() {
    let spec = static_spec(&bundle(PEER, &[], &[&jwt_key("one")]).to_json());
    let decision = look(&spec, None, 0);
    assert_eq!((reasons(&decision.flags), decision.next_change), (vec!["BootstrapWithoutEnd"], None));
    assert!(trusted(&remote(&spec, Some(&decision.stored)), at(10_000 * DAY)).bundle.is_some());
    let empty = static_spec(&document(&[], Some(1)));
    assert_eq!(reasons(&look(&empty, None, 0).flags), ["TrustsNothing"]);
}

#[test]
fn a_bundle_that_was_removed_from_the_spec_is_not_trusted_any_more_and_verifies_nothing() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let stored = look(&spec, None, 0).stored;
    let without = RemoteSpec::new(domain(PEER), Some(spiffe()));
    let decision = look(&without, Some(&stored), 28 * DAY);
    assert_eq!(trusted_keys(&without, &decision.stored, 28 * DAY), None);
    assert_eq!(reasons(&decision.flags), ["BootstrapRemoved", "EndpointNotVerifiable"]);
    assert_eq!(decision.next_poll, None);
    // It is trusted again when it is back, and a poll makes it independent of the spec.
    assert_eq!(trusted_keys(&spec, &decision.stored, 1), Some(vec![1]));
    let polled = poll(&spec, Some(&stored), document(&[1], Some(7)), 1).stored;
    assert_eq!(trusted_keys(&without, &polled, 1), Some(vec![1]));
}

#[test]
fn a_bundle_is_handed_out_with_its_hint_and_all_keys() {
    let spec = web_spec();
    let (x509, jwt) = (certificate(PEER, 1, 30), jwt_key("one"));
    let given = Bundle { refresh_hint: Duration::from_secs(77), ..bundle(PEER, &[&x509], &[&jwt]) };
    let stored = poll(&spec, None, given.to_json(), 0).stored;
    let handed_out = trusted(&remote(&spec, Some(&stored)), at(0)).bundle.unwrap();
    assert_eq!(handed_out, Bundle { sequence: stored.revision().unwrap(), ..given });
}

#[test]
fn every_flag_has_a_reason_of_its_own_and_a_short_text() {
    let failure = Failure { refusal: Refusal::WrongTrustDomain, count: u32::MAX, since: at(0), at: at(1) };
    let flags = [
        Flag::StoredUnreadable(StoredError::UnknownFormat { format: "x".repeat(64) }),
        Flag::OwnTrustDomain,
        Flag::NotBootstrapped,
        Flag::EndpointNotVerifiable,
        Flag::BootstrapRefused(Refusal::WrongTrustDomain),
        Flag::BootstrapNotNewer { offered: None, highest: Some(u64::MAX) },
        Flag::BootstrapReplaceSet,
        Flag::BootstrapExpiring { at: at(0) },
        Flag::BootstrapExpired { at: at(0) },
        Flag::BootstrapWithoutEnd,
        Flag::BootstrapRemoved,
        Flag::Stale { since: at(0) },
        Flag::PollFailing(failure),
        Flag::SequenceMissing,
        Flag::SequenceReused,
        Flag::TrustsNothing,
        Flag::KeysDropped { count: usize::MAX },
    ];
    let reasons: BTreeSet<&str> = flags.iter().map(|flag| flag.reason().name()).collect();
    assert_eq!(reasons.len(), flags.len());
    for flag in &flags {
        let text = flag.to_string();
        assert!((20..512).contains(&text.len()), "{text}");
    }
    let text = Flag::BootstrapNotNewer { offered: None, highest: Some(9) }.to_string();
    assert!(text.contains("its sequence is none, and 9 was accepted before"), "{text}");
}
