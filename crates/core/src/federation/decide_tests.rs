//! What becomes of a bundle, rule by rule.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::fixtures::{
    ENDPOINT_ID, PEER, at, bundle, certificate, document, domain, fail, jwt_key, key_numbers, look, own, poll, polled,
    reasons, remote, spiffe, spiffe_spec, static_spec, target, trusted_keys, web, web_spec,
};
use super::stored::Kept;
use super::{
    Decision, DocumentFault, Endpoint, FetchError, Fetched, Flag, MAX_KEPT_LENGTH, Observation, Origin, PollOutcome,
    Profile, Refusal, Remote, RemoteSpec, Stored, StoredError, StoredRemote, decide, poll_target, trusted,
};
use crate::bundle::{Bundle, MAX_BUNDLE_LENGTH};

const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;

/// Polled by `https_web`: key 1, sequence 7.
fn kept() -> (RemoteSpec, StoredRemote) {
    let spec = web_spec();
    let first = poll(&spec, None, document(&[1], Some(7)), 0);
    assert_eq!(first.poll, Some(PollOutcome::Updated));
    (spec, first.stored)
}

fn refused(decision: &Decision, before: &StoredRemote) -> Refusal {
    let Some(PollOutcome::Refused(refusal)) = decision.poll else { panic!("{:?}", decision.poll) };
    assert_eq!(decision.stored.kept, before.kept, "what is kept stays");
    let failure = decision.stored.failure().unwrap();
    assert_eq!(failure.refusal, refusal, "the reason is kept");
    assert!(decision.flags.contains(&Flag::PollFailing(*failure)));
    refusal
}

#[test]
fn a_remote_with_a_bundle_in_its_spec_begins_with_that() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let decision = look(&spec, None, 0);
    assert!(decision.is_changed);
    assert_eq!(trusted_keys(&spec, &decision.stored, 0), Some(vec![1]));
    assert_eq!((decision.stored.origin(), decision.stored.sequence()), (Some(Origin::Bootstrap), Some(7)));
    assert_eq!((decision.next_poll, decision.poll), (Some(at(0)), None));
    assert_eq!(reasons(&decision.flags), [""; 0]);
}

#[test]
fn a_remote_by_web_pki_begins_with_what_it_is_polled_for() {
    let spec = web_spec();
    let first = look(&spec, None, 0);
    assert_eq!((first.next_poll, reasons(&first.flags)), (Some(at(0)), vec!["NotBootstrapped"]));
    assert_eq!(trusted_keys(&spec, &first.stored, 0), None);
    let decision = poll(&spec, Some(&first.stored), document(&[1], Some(7)), 1);
    assert_eq!(trusted_keys(&spec, &decision.stored, 1), Some(vec![1]));
    assert_eq!((decision.stored.origin(), decision.poll), (Some(Origin::Polled), Some(PollOutcome::Updated)));
    assert_eq!(reasons(&decision.flags), [""; 0]);
}

#[test]
fn a_remote_without_endpoint_is_never_polled() {
    let spec = static_spec(&document(&[1], Some(7)));
    let decision = look(&spec, None, 0);
    assert_eq!(trusted_keys(&spec, &decision.stored, 0), Some(vec![1]));
    assert_eq!(decision.next_poll, None);
    assert!(poll_target(&remote(&spec, Some(&decision.stored)), at(0)).is_none());
}

#[test]
fn a_polled_bundle_replaces_the_one_in_the_spec_for_good() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let first = look(&spec, None, 0).stored;
    let second = poll(&spec, Some(&first), document(&[2], Some(8)), 10).stored;
    assert_eq!(trusted_keys(&spec, &second, 10), Some(vec![2]));
    let later = look(&spec, Some(&second), 20);
    assert!(!later.is_changed);
    assert_eq!(trusted_keys(&spec, &later.stored, 20), Some(vec![2]));
}

#[test]
fn a_lower_sequence_is_refused_and_the_last_good_bundle_stays() {
    let (spec, stored) = kept();
    let decision = poll(&spec, Some(&stored), document(&[2], Some(6)), 300);
    assert_eq!(refused(&decision, &stored), Refusal::LowerSequence { offered: 6, floor: 7 });
    assert_eq!(trusted_keys(&spec, &decision.stored, 300), Some(vec![1]));
    let higher = poll(&spec, Some(&decision.stored), document(&[2], Some(8)), 600);
    assert_eq!((higher.poll, higher.stored.failure()), (Some(PollOutcome::Updated), None));
    assert_eq!(trusted_keys(&spec, &higher.stored, 600), Some(vec![2]));
}

#[test]
fn the_sequence_of_the_spec_is_one_below_which_no_poll_may_fall() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let first = look(&spec, None, 0).stored;
    let decision = poll(&spec, Some(&first), document(&[2], Some(6)), 1);
    assert_eq!(refused(&decision, &first), Refusal::LowerSequence { offered: 6, floor: 7 });
}

#[test]
fn the_same_bundle_again_confirms_it() {
    let (spec, stored) = kept();
    let decision = poll(&spec, Some(&stored), document(&[1], Some(7)), 300);
    assert_eq!(decision.poll, Some(PollOutcome::Confirmed));
    assert_eq!((decision.stored.taken_at(), decision.stored.confirmed_at()), (Some(at(0)), Some(at(300))));
    assert_eq!(decision.stored.revision(), stored.revision());
    assert_eq!(reasons(&decision.flags), [""; 0]);
}

#[test]
fn other_keys_under_the_same_sequence_are_taken_and_flagged_until_it_grows() {
    let (spec, stored) = kept();
    let reused = poll(&spec, Some(&stored), document(&[2], Some(7)), 300);
    assert_eq!(trusted_keys(&spec, &reused.stored, 300), Some(vec![2]));
    assert_eq!(reasons(&reused.flags), ["SequenceReused"]);
    let again = poll(&spec, Some(&reused.stored), document(&[2], Some(7)), 600);
    assert_eq!(reasons(&again.flags), ["SequenceReused"]);
    let grown = poll(&spec, Some(&again.stored), document(&[2], Some(8)), 900);
    assert_eq!(reasons(&grown.flags), [""; 0]);
}

#[test]
fn a_missing_sequence_is_taken_and_flagged_and_lets_no_older_one_in_after_it() {
    let (spec, stored) = kept();
    let missing = poll(&spec, Some(&stored), document(&[2], None), 300);
    assert_eq!(missing.poll, Some(PollOutcome::Updated));
    assert_eq!((reasons(&missing.flags), missing.stored.sequence()), (vec!["SequenceMissing"], None));
    let older = poll(&spec, Some(&missing.stored), document(&[3], Some(6)), 600);
    assert_eq!(refused(&older, &missing.stored), Refusal::LowerSequence { offered: 6, floor: 7 });
    let newer = poll(&spec, Some(&older.stored), document(&[3], Some(7)), 900);
    assert_eq!((newer.poll, reasons(&newer.flags)), (Some(PollOutcome::Updated), vec![]));
    // Two without sequence, and other keys: that is said already.
    let first = poll(&spec, None, document(&[1], None), 0).stored;
    assert_eq!(reasons(&poll(&spec, Some(&first), document(&[2], None), 300).flags), ["SequenceMissing"]);
}

#[test]
fn an_endpoint_with_another_id_or_none_is_refused() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let stored = look(&spec, None, 0).stored;
    for server_id in [None, Some("spiffe://peer.example/other"), Some("spiffe://other.example/bundle-endpoint")] {
        let server_id = server_id.map(|id| id.parse().unwrap());
        let result = Ok(Fetched { document: document(&[2], Some(8)), server_id });
        let observation = Observation { target: target(&spec, Some(&stored), at(1)), result };
        let decision = decide(&remote(&spec, Some(&stored)), Some(&observation), at(1), 0.0);
        assert_eq!(refused(&decision, &stored), Refusal::Fetch(FetchError::WrongEndpointId));
    }
    let right = poll(&spec, Some(&stored), document(&[2], Some(8)), 1);
    assert_eq!(right.poll, Some(PollOutcome::Updated));
}

#[test]
fn an_endpoint_may_be_of_another_trust_domain() {
    let id = "spiffe://hub.example/bundle-endpoint".parse().unwrap();
    let endpoint = Endpoint { profile: Profile::HttpsSpiffe { id }, ..web() };
    let spec = RemoteSpec::new(domain(PEER), Some(endpoint));
    let first = look(&spec, None, 0);
    assert_eq!((first.next_poll, reasons(&first.flags)), (Some(at(0)), vec!["NotBootstrapped"]));
    assert_eq!(target(&spec, Some(&first.stored), at(0)).anchors, None);
    let decision = poll(&spec, Some(&first.stored), document(&[1], Some(7)), 1);
    assert_eq!(trusted_keys(&spec, &decision.stored, 1), Some(vec![1]));
}

#[test]
fn a_self_serving_endpoint_is_verified_by_the_newest_bundle() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let first = look(&spec, None, 0).stored;
    let anchors = |stored: &StoredRemote| key_numbers(&target(&spec, Some(stored), at(1)).anchors.unwrap());
    assert_eq!(anchors(&first), [1]);
    let second = poll(&spec, Some(&first), document(&[2], Some(8)), 1).stored;
    assert_eq!(anchors(&second), [2]);
}

#[test]
fn a_self_serving_endpoint_that_nothing_verifies_is_not_polled() {
    let spec = RemoteSpec::new(domain(PEER), Some(spiffe()));
    let nothing = look(&spec, None, 0);
    assert_eq!((nothing.next_poll, reasons(&nothing.flags)), (None, vec!["NotBootstrapped", "EndpointNotVerifiable"]));
    assert!(poll_target(&remote(&spec, Some(&nothing.stored)), at(0)).is_none());
    // A bundle makes it possible.
    let spec = spec.with_bootstrap(&document(&[1], Some(7)), false);
    let first = look(&spec, Some(&nothing.stored), 10);
    assert_eq!(first.next_poll, Some(at(10)));
    // Nothing to be trusted does not.
    let empty = poll(&spec, Some(&first.stored), document(&[], Some(8)), 11);
    assert_eq!((empty.next_poll, reasons(&empty.flags)), (None, vec!["EndpointNotVerifiable", "TrustsNothing"]));
    // Nor do certificates that have ended.
    let after = 31 * 86_400;
    let ended = look(&spec, Some(&first.stored), after);
    assert_eq!((ended.next_poll, reasons(&ended.flags)), (None, vec!["BootstrapExpired", "EndpointNotVerifiable"]));
}

#[test]
fn a_bundle_whose_certificate_names_another_trust_domain_is_refused() {
    let (spec, stored) = kept();
    let (right, wrong) = (certificate(PEER, 2, 30), certificate("other.example", 3, 30));
    let document = Bundle { sequence: 8, ..bundle(PEER, &[&right, &wrong], &[]) }.to_json();
    let decision = poll(&spec, Some(&stored), document.clone(), 300);
    assert_eq!(refused(&decision, &stored), Refusal::WrongTrustDomain);
    let spec = web_spec().with_bootstrap(&document, false);
    let decision = look(&spec, None, 0);
    assert_eq!(reasons(&decision.flags), ["NotBootstrapped", "BootstrapRefused"]);
}

#[test]
fn a_document_that_is_no_bundle_is_refused_as_a_whole() {
    let (spec, stored) = kept();
    let with_key = |change: fn(&mut serde_json::Value)| {
        let mut value: serde_json::Value = serde_json::from_slice(&document(&[2, 3], Some(8))).unwrap();
        change(&mut value["keys"][1]);
        value.to_string().into_bytes()
    };
    let key = jwt_key("same").jwk();
    let long = [document(&[2], Some(8)), vec![b' '; MAX_BUNDLE_LENGTH]].concat();
    for (document, fault, position) in [
        (long, DocumentFault::TooLong, None),
        (b"<html>".to_vec(), DocumentFault::NoKeySet, None),
        (with_key(|key| key["x"] = json!(7)), DocumentFault::Key, Some(1)),
        (with_key(|key| key["x5c"] = json!([])), DocumentFault::CertificateCount, Some(1)),
        (with_key(|key| key["x5c"] = json!(["AAAA"])), DocumentFault::Certificate, Some(1)),
        (with_key(|key| key["x"] = key["y"].clone()), DocumentFault::CertificateMismatch, Some(1)),
        (with_key(|key| key["use"] = json!("jwt-svid")), DocumentFault::JwtKey, Some(1)),
        (json!({"keys": [key, key]}).to_string().into_bytes(), DocumentFault::DuplicateKeyId, Some(1)),
    ] {
        let decision = poll(&spec, Some(&stored), document.clone(), 300);
        assert_eq!(refused(&decision, &stored), Refusal::Malformed { fault, position });
        let spec = web_spec().with_bootstrap(&document, true);
        let decision = look(&spec, Some(&stored), 300);
        assert!(decision.flags.contains(&Flag::BootstrapRefused(Refusal::Malformed { fault, position })));
        assert_eq!(trusted_keys(&spec, &decision.stored, 300), Some(vec![1]));
    }
}

#[test]
fn failures_are_counted_until_a_poll_succeeds() {
    let (spec, stored) = kept();
    let first = fail(&spec, Some(&stored), FetchError::Timeout, 300);
    assert_eq!(refused(&first, &stored), Refusal::Fetch(FetchError::Timeout));
    let second = fail(&spec, Some(&first.stored), FetchError::Status(503), 600);
    let failure = second.stored.failure().unwrap();
    assert_eq!((failure.count, failure.since, failure.at), (2, at(300), at(600)));
    assert_eq!(failure.refusal, Refusal::Fetch(FetchError::Status(503)));
    assert_eq!(trusted_keys(&spec, &second.stored, 600), Some(vec![1]));
    let good = poll(&spec, Some(&second.stored), document(&[1], Some(7)), 1_200);
    assert_eq!((good.stored.failure(), reasons(&good.flags)), (None, vec![]));
}

#[test]
fn an_empty_set_of_keys_is_no_error_and_trusts_nothing() {
    let (spec, stored) = kept();
    let decision = poll(&spec, Some(&stored), document(&[], Some(8)), 300);
    assert_eq!((decision.poll, reasons(&decision.flags)), (Some(PollOutcome::Updated), vec!["TrustsNothing"]));
    assert_eq!(trusted_keys(&spec, &decision.stored, 300), Some(vec![]), "a bundle, and not none");
    assert_eq!(decision.stored.failure(), None);
    // One that holds only kinds of keys that are not known here is the same.
    let unknown =
        json!({"keys": [{"kty": "OKP", "use": "x509-svid"}, {"kty": "EC", "use": "later-svid"}], "spiffe_sequence": 9});
    let decision = poll(&spec, Some(&stored), unknown.to_string().into_bytes(), 300);
    assert_eq!((decision.poll, reasons(&decision.flags)), (Some(PollOutcome::Updated), vec!["TrustsNothing"]));
}

#[test]
fn of_a_document_of_a_mebibyte_what_exceeds_is_dropped_and_flagged() {
    let (spec, stored) = kept();
    let (x509, jwt) =
        (certificate(PEER, 1, 30), (0..5_000).map(|number| jwt_key(&number.to_string())).collect::<Vec<_>>());
    let large = Bundle { sequence: 8, ..bundle(PEER, &[&x509], &jwt.iter().collect::<Vec<_>>()) }.to_json();
    assert!(large.len() > 4 * MAX_KEPT_LENGTH && large.len() <= MAX_BUNDLE_LENGTH);
    let decision = poll(&spec, Some(&stored), large, 300);
    let bundle = trusted(&remote(&spec, Some(&decision.stored)), at(300)).bundle.unwrap();
    assert!(bundle.to_json().len() <= MAX_KEPT_LENGTH);
    let count = 5_000 - bundle.jwt_authorities.len();
    assert_eq!((decision.flags, bundle.x509_authorities), (vec![Flag::KeysDropped { count }], vec![x509]));
}

#[test]
fn a_changed_bundle_in_the_spec_takes_effect_with_a_higher_sequence() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let first = look(&spec, None, 0).stored;
    let polled = poll(&spec, Some(&first), document(&[1, 2], Some(8)), 1).stored;
    for (sequence, is_taken) in [(Some(9), true), (Some(8), false), (Some(7), false), (None, false)] {
        let changed = spiffe_spec(&document(&[3], sequence));
        let decision = look(&changed, Some(&polled), 2);
        let expected = if is_taken { vec![3] } else { vec![1, 2] };
        assert_eq!(trusted_keys(&changed, &decision.stored, 2), Some(expected), "{sequence:?}");
        let flag = Flag::BootstrapNotNewer { offered: sequence, highest: Some(8) };
        assert_eq!(decision.flags.contains(&flag), !is_taken, "{sequence:?}");
        if is_taken {
            assert_eq!((decision.stored.origin(), decision.next_poll), (Some(Origin::Bootstrap), Some(at(31))));
        }
    }
}

#[test]
fn a_changed_bundle_in_the_spec_takes_effect_by_replace_whatever_its_sequence() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let first = look(&spec, None, 0).stored;
    let polled = poll(&spec, Some(&first), document(&[2], Some(8)), 1).stored;
    for sequence in [Some(9), Some(8), Some(3), None] {
        let replacing = spec.clone().with_bootstrap(&document(&[3], sequence), true);
        let replaced = look(&replacing, Some(&polled), 2);
        assert_eq!(trusted_keys(&replacing, &replaced.stored, 2), Some(vec![3]), "{sequence:?}");
        let missing = sequence.is_none().then_some("SequenceMissing");
        let expected: Vec<&str> = ["BootstrapReplaceSet"].into_iter().chain(missing).collect();
        assert_eq!(reasons(&replaced.flags), expected, "{sequence:?}");
        // From there polls go on; it is taken once.
        let higher = sequence.unwrap_or(0) + 1;
        let next = poll(&replacing, Some(&replaced.stored), document(&[4], Some(higher)), 3);
        assert_eq!(trusted_keys(&replacing, &next.stored, 3), Some(vec![4]), "{sequence:?}");
        let later = look(&replacing, Some(&next.stored), 4);
        assert_eq!(trusted_keys(&replacing, &later.stored, 4), Some(vec![4]), "{sequence:?}");
    }
}

// A commit set the trust domain up anew with lower sequences; then somebody reverts it.
#[test]
fn reverting_a_replacement_does_not_restore_revoked_keys() {
    let old = spiffe_spec(&document(&[1], Some(5)));
    let stored = look(&old, None, 0).stored;
    let stored = poll(&old, Some(&stored), document(&[1], Some(9)), 1).stored;
    let replacing = old.clone().with_bootstrap(&document(&[2], Some(3)), true);
    let stored = look(&replacing, Some(&stored), 2).stored;
    let stored = poll(&replacing, Some(&stored), document(&[2], Some(4)), 40).stored;
    let reverted = look(&old, Some(&stored), 80);
    assert_eq!(trusted_keys(&old, &reverted.stored, 80), Some(vec![2]));
    let flag = Flag::BootstrapNotNewer { offered: Some(5), highest: Some(9) };
    assert_eq!(reverted.flags, [flag]);
    // Polls of the new one are not kept off by the sequences of the old one.
    let next = poll(&old, Some(&reverted.stored), document(&[2, 3], Some(5)), 90);
    assert_eq!(trusted_keys(&old, &next.stored, 90), Some(vec![2, 3]));
}

#[test]
fn a_bundle_in_the_spec_that_is_kept_already_or_formatted_anew_is_no_change() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let first = look(&spec, None, 0).stored;
    let value: serde_json::Value = serde_json::from_slice(&document(&[1], Some(7))).unwrap();
    let formatted = spiffe_spec(serde_json::to_string_pretty(&value).unwrap().as_bytes());
    let same = look(&formatted, Some(&first), 1);
    assert_eq!((same.is_changed, reasons(&same.flags)), (false, vec![]));
    // Somebody brings it up to date with what is polled.
    let polled = poll(&spec, Some(&first), document(&[2], Some(8)), 2).stored;
    let updated = spiffe_spec(&document(&[2], Some(8)));
    let known = look(&updated, Some(&polled), 3);
    assert_eq!((reasons(&known.flags), known.stored.origin()), (vec![], Some(Origin::Polled)));
    let polled = poll(&updated, Some(&known.stored), document(&[3], Some(9)), 4).stored;
    assert_eq!(reasons(&look(&updated, Some(&polled), 5).flags), [""; 0], "and it counts as taken from then on");
    // Or nearly so.
    let older = spiffe_spec(&document(&[3], Some(8)));
    assert_eq!(reasons(&look(&older, Some(&polled), 5).flags), [""; 0]);
    // Before or after a poll brings it.
    let ahead = spiffe_spec(&document(&[2], None));
    let first = look(&ahead, Some(&first), 1);
    assert_eq!(reasons(&first.flags), ["BootstrapNotNewer"]);
    let polled = poll(&ahead, Some(&first.stored), document(&[2], Some(8)), 2);
    assert_eq!(reasons(&polled.flags), [""; 0]);
    assert!(!look(&ahead, Some(&polled.stored), 3).is_changed);
    // Other keys of that sequence are not what is kept.
    let other = spiffe_spec(&document(&[4], Some(8)));
    assert_eq!(reasons(&look(&other, Some(&known.stored), 3).flags), ["BootstrapNotNewer"]);
}

#[test]
fn replace_is_flagged_as_long_as_it_is_set() {
    let spec = web_spec().with_bootstrap(&document(&[1], Some(7)), true);
    let decision = look(&spec, None, 0);
    assert_eq!(reasons(&decision.flags), ["BootstrapReplaceSet"]);
    let without = web_spec().with_bootstrap(&document(&[1], Some(7)), false);
    assert_eq!(reasons(&look(&without, Some(&decision.stored), 1).flags), [""; 0]);
}

#[test]
fn a_release_that_finds_more_in_the_same_document_takes_it_while_nothing_newer_is_kept() {
    let spec = spiffe_spec(&document(&[1, 2], Some(7)));
    let mut less = look(&spec, None, 0).stored;
    // As a release before would have read it.
    less.kept.as_mut().unwrap().bundle.x509_authorities.truncate(1);
    let decision = look(&spec, Some(&less), 1);
    assert_eq!(trusted_keys(&spec, &decision.stored, 1), Some(vec![1, 2]));
    for change in [|kept: &mut Kept| kept.origin = Origin::Polled, |kept: &mut Kept| kept.sequence = Some(8)] {
        let mut newer = less.clone();
        change(newer.kept.as_mut().unwrap());
        assert!(!look(&spec, Some(&newer), 1).is_changed);
    }
}

#[test]
fn a_poll_of_another_endpoint_than_the_spec_names_now_counts_for_nothing() {
    let (spec, stored) = kept();
    let observation = polled(&spec, Some(&stored), document(&[2], Some(8)), at(300));
    let other = Endpoint { url: "https://elsewhere.example".parse().unwrap(), ..web() };
    for changed in [RemoteSpec::new(domain(PEER), Some(other)), RemoteSpec::new(domain(PEER), None), spiffe_spec(b"{")]
    {
        let decision = decide(&remote(&changed, Some(&stored)), Some(&observation), at(300), 0.0);
        assert_eq!(decision.poll, Some(PollOutcome::Outdated));
        assert_eq!((&decision.stored.kept, decision.stored.failure()), (&stored.kept, None));
    }
    let mut of_other = observation;
    of_other.target.trust_domain = domain("other.example");
    let decision = decide(&remote(&spec, Some(&stored)), Some(&of_other), at(300), 0.0);
    assert_eq!((decision.poll, &decision.stored.kept), (Some(PollOutcome::Outdated), &stored.kept));
}

// The endpoint's key was stolen. The owner replaces the bundle while a poll of the thief's endpoint is under way.
#[test]
fn a_poll_that_began_before_the_bundle_was_replaced_counts_for_nothing() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let stored = look(&spec, None, 0).stored;
    let under_way = polled(&spec, Some(&stored), document(&[1], Some(100)), at(1));
    let replacing = spec.with_bootstrap(&document(&[2], Some(3)), true);
    let decision = decide(&remote(&replacing, Some(&stored)), Some(&under_way), at(5), 0.0);
    assert_eq!(decision.poll, Some(PollOutcome::Outdated));
    assert_eq!(trusted_keys(&replacing, &decision.stored, 5), Some(vec![2]));
    assert_eq!(decision.next_poll, Some(at(35)), "and it is polled again soon");
}

#[test]
fn a_remote_that_claims_an_own_trust_domain_is_refused() {
    let spec = web_spec().with_bootstrap(&document(&[1], Some(7)), false);
    let (_, stored) = kept();
    let own = own([PEER]);
    for stored in [Stored::Absent, Stored::Read(&stored)] {
        let remote = Remote { spec: &spec, own: &own, stored };
        let observation = Observation {
            target: target(&spec, None, at(0)),
            result: Ok(Fetched { document: document(&[2], Some(8)), server_id: None }),
        };
        let decision = decide(&remote, Some(&observation), at(300), 0.0);
        assert_eq!((decision.flags, decision.is_changed), (vec![Flag::OwnTrustDomain], false));
        assert_eq!((decision.poll, decision.next_poll, decision.next_change), (None, None, None));
        assert_eq!(trusted(&remote, at(300)).bundle, None);
        assert!(poll_target(&remote, at(300)).is_none());
    }
}

#[test]
fn what_is_stored_and_unreadable_is_as_if_absent_and_flagged() {
    let spec = web_spec().with_bootstrap(&document(&[1], Some(7)), false);
    let error = StoredError::Malformed { what: "it is cut off" };
    let own = BTreeSet::new();
    let remote = Remote { spec: &spec, own: &own, stored: Stored::Unreadable(&error) };
    assert_eq!(trusted(&remote, at(0)).bundle, None);
    let decision = decide(&remote, None, at(0), 0.0);
    assert!(decision.is_changed);
    assert_eq!(decision.flags, [Flag::StoredUnreadable(error.clone())]);
    assert_eq!(decision.stored, look(&spec, None, 0).stored);
    // Also where there is nothing else to store.
    let nothing = RemoteSpec::new(domain(PEER), None);
    let remote = Remote { spec: &nothing, ..remote };
    assert!(decide(&remote, None, at(0), 0.0).is_changed);
    let owner = super::fixtures::own([PEER]);
    assert!(!decide(&Remote { own: &owner, ..remote }, None, at(0), 0.0).is_changed);
}

#[test]
fn what_is_stored_of_another_trust_domain_is_as_if_absent() {
    let (_, stored) = kept();
    let other = RemoteSpec::new(domain("other.example"), Some(web()));
    let decision = look(&other, Some(&stored), 1);
    assert_eq!(decision.stored, look(&other, None, 1).stored);
    assert_eq!(trusted(&remote(&other, Some(&stored)), at(1)).bundle, None);
}

#[test]
fn polls_follow_the_hint_and_wait_longer_after_failures() {
    let (spec, stored) = kept();
    assert_eq!(stored.next_poll(), Some(at(270)), "300 s, up to a tenth earlier");
    let observation = polled(&spec, Some(&stored), document(&[1], Some(7)), at(300));
    let late = decide(&remote(&spec, Some(&stored)), Some(&observation), at(300), 1.0);
    assert_eq!(late.next_poll, Some(at(600)));
    let first = fail(&spec, Some(&stored), FetchError::Connect, 300);
    assert_eq!(first.next_poll, Some(at(300 + 270)));
    let second = fail(&spec, Some(&first.stored), FetchError::Connect, 600);
    assert_eq!(second.next_poll, Some(at(600 + 540)));
    let good = poll(&spec, Some(&second.stored), document(&[1], Some(7)), 1_200);
    assert_eq!(good.next_poll, Some(at(1_200 + 270)));
    // A poll that is not due yet stays due when it is.
    assert_eq!(look(&spec, Some(&good.stored), 1_300).next_poll, Some(at(1_200 + 270)));
    // maxStale shortens the wait.
    let hasty = web_spec().with_max_stale(Duration::from_secs(240));
    assert_eq!(poll(&hasty, Some(&good.stored), document(&[1], Some(7)), 1_500).next_poll, Some(at(1_500 + 54)));
}

#[test]
fn while_there_is_no_bundle_the_first_polls_follow_each_other_soon() {
    let spec = web_spec();
    let first = fail(&spec, None, FetchError::Resolve, 0);
    assert_eq!(first.next_poll, Some(at(30)));
    let second = fail(&spec, Some(&first.stored), FetchError::Resolve, 30);
    assert_eq!(second.next_poll, Some(at(30 + 54)));
}

#[test]
fn another_endpoint_is_polled_at_once_and_its_predecessors_failures_are_forgotten() {
    let (spec, stored) = kept();
    let failing = fail(&spec, Some(&stored), FetchError::Connect, 300).stored;
    let other = RemoteSpec::new(domain(PEER), Some(Endpoint { url: "https://new.example".parse().unwrap(), ..web() }));
    let decision = look(&other, Some(&failing), 400);
    assert_eq!((decision.next_poll, decision.stored.failure()), (Some(at(400)), None));
    assert_eq!(trusted_keys(&other, &decision.stored, 400), Some(vec![1]));
    // But never closer than half a minute.
    assert_eq!(look(&other, Some(&failing), 310).next_poll, Some(at(330)));
    let none = look(&RemoteSpec::new(domain(PEER), None), Some(&failing), 400);
    assert_eq!((none.next_poll, none.stored.next_poll(), none.stored.failure()), (None, None, None));
}

#[test]
fn times_of_a_clock_that_was_ahead_do_not_count() {
    let spec = web_spec();
    let stored = poll(&spec, None, document(&[1], Some(7)), 365 * 24 * HOUR).stored;
    let decision = look(&spec, Some(&stored), 0);
    assert_eq!(decision.stored.confirmed_at(), Some(at(0)));
    assert_eq!(decision.next_poll, Some(at(HOUR)));
    assert_eq!(trusted_keys(&spec, &decision.stored, 24 * HOUR), None);
    // A poll half a minute after the last one, whenever that says it was.
    let other = RemoteSpec::new(domain(PEER), Some(Endpoint { url: "https://new.example".parse().unwrap(), ..web() }));
    assert_eq!(look(&other, Some(&stored), 0).next_poll, Some(at(30)));
}

#[test]
fn the_revision_grows_with_every_change_of_keys_whatever_the_sequence_does() {
    let (spec, stored) = kept();
    let millis = |seconds: i64| u64::try_from(at(seconds).as_millisecond()).unwrap();
    assert_eq!(stored.revision(), Some(millis(0)));
    let missing = poll(&spec, Some(&stored), document(&[2], None), 1).stored;
    assert_eq!(missing.revision(), Some(millis(1)));
    let replacing = web_spec().with_bootstrap(&document(&[3], Some(1)), true);
    let replaced = look(&replacing, Some(&missing), 2).stored;
    assert_eq!(replaced.revision(), Some(millis(2)));
    // Within the same millisecond, and with a clock that is behind.
    let again = poll(&replacing, Some(&replaced), document(&[4], Some(2)), 2).stored;
    assert_eq!(again.revision(), Some(millis(2) + 1));
    let behind = poll(&replacing, Some(&again), document(&[5], Some(3)), -HOUR).stored;
    assert_eq!(behind.revision(), Some(millis(2) + 2));
    let handed_out = trusted(&remote(&replacing, Some(&behind)), at(3)).bundle.unwrap();
    assert_eq!(handed_out.sequence, millis(2) + 2);
}

#[test]
fn a_new_hint_or_sequence_alone_is_no_new_revision() {
    let (spec, stored) = kept();
    let one = certificate(PEER, 1, 30);
    let hinted = Bundle { sequence: 8, refresh_hint: Duration::from_secs(900), ..bundle(PEER, &[&one], &[]) }.to_json();
    let decision = poll(&spec, Some(&stored), hinted, 300);
    assert_eq!(decision.poll, Some(PollOutcome::Confirmed));
    assert_eq!((decision.stored.revision(), decision.stored.sequence()), (stored.revision(), Some(8)));
    assert_eq!(decision.next_poll, Some(at(300 + 810)));
    let older = poll(&spec, Some(&decision.stored), document(&[1], Some(7)), 1_200);
    assert_eq!(refused(&older, &decision.stored), Refusal::LowerSequence { offered: 7, floor: 8 });
}

#[test]
fn keys_in_another_order_are_the_same_keys() {
    let (spec, _) = kept();
    let stored = poll(&spec, None, document(&[1, 2], Some(7)), 0).stored;
    let turned = poll(&spec, Some(&stored), document(&[2, 1], Some(7)), 300);
    assert_eq!((turned.poll, reasons(&turned.flags)), (Some(PollOutcome::Confirmed), vec![]));
}

#[test]
fn nothing_is_written_where_nothing_changed() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let first = look(&spec, None, 0);
    assert!(first.is_changed);
    assert!(!look(&spec, Some(&first.stored), MINUTE).is_changed);
    assert!(poll(&spec, Some(&first.stored), document(&[1], Some(7)), MINUTE).is_changed);
    assert!(fail(&spec, Some(&first.stored), FetchError::Tls, MINUTE).is_changed);
}

#[test]
fn a_bundle_taken_from_the_spec_ends_what_failed_before_it() {
    let spec = spiffe_spec(&document(&[1], Some(7)));
    let stored = look(&spec, None, 0).stored;
    let failing = fail(&spec, Some(&stored), FetchError::UntrustedCertificate, 60).stored;
    let newer = look(&spiffe_spec(&document(&[2], Some(8))), Some(&failing), 120);
    assert_eq!((newer.stored.failure(), newer.next_poll), (None, Some(at(120))));
}

#[test]
fn an_outcome_has_a_label_for_a_metric() {
    for (outcome, label) in [
        (PollOutcome::Confirmed, "confirmed"),
        (PollOutcome::Updated, "updated"),
        (PollOutcome::Outdated, "outdated"),
        (PollOutcome::Refused(Refusal::LowerSequence { offered: 1, floor: 2 }), "lower_sequence"),
    ] {
        assert_eq!(outcome.label(), label);
    }
}

#[test]
fn what_was_fetched_is_not_shown() {
    let fetched = Fetched { document: b"secret of a peer".to_vec(), server_id: Some(ENDPOINT_ID.parse().unwrap()) };
    let shown = format!("{fetched:?}");
    assert!(!shown.contains("secret") && shown.contains("16 bytes"), "{shown}");
}
