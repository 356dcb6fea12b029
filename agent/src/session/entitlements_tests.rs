//! Which bundles a session uses, of those that it was sent and those that it has.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_core::bundle::{Bundle, BundleSet};
use countersign_core::id::TrustDomain;
use countersign_core::key::KeyType;
use countersign_core::x509::X509Authority;
use countersign_proto::issuer::v1;
use jiff::Timestamp;

use super::{Entitlements, EntitlementsError};
use crate::session::known_bundles::KnownBundles;

const OWN: &str = "example.org";
const FOREIGN: &str = "example.com";

fn bundle(trust_domain: &str, sequence: u64) -> Bundle {
    let trust_domain: TrustDomain = trust_domain.parse().unwrap();
    let (life, now) = (Duration::from_secs(3600), Timestamp::now());
    let authority = X509Authority::generate(&trust_domain, KeyType::EcP256, life, now).unwrap();
    Bundle {
        trust_domain,
        x509_authorities: vec![authority.certificate().clone()],
        jwt_authorities: Vec::new(),
        wit_authorities: Vec::new(),
        sequence,
        refresh_hint: Duration::from_secs(300),
    }
}

fn message(bundle: &Bundle) -> v1::Bundle {
    let trust_domain = bundle.trust_domain.to_string();
    v1::Bundle { trust_domain, document: bundle.to_json().into(), sequence: bundle.sequence, ..v1::Bundle::default() }
}

fn damaged(trust_domain: &str, sequence: u64) -> v1::Bundle {
    v1::Bundle {
        trust_domain: trust_domain.into(),
        document: b"damaged".as_slice().into(),
        sequence,
        ..v1::Bundle::default()
    }
}

/// A State of an identity of [`OWN`].
fn state(bundles: &[v1::Bundle]) -> v1::State {
    let identity = v1::Identity { spiffe_id: format!("spiffe://{OWN}/a"), ..v1::Identity::default() };
    v1::State { identities: vec![identity], bundles: bundles.to_vec(), ..v1::State::default() }
}

fn used(entitlements: &Entitlements, trust_domain: &str) -> Option<Arc<Bundle>> {
    entitlements.trust.get(&trust_domain.parse().unwrap()).cloned()
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn count(&self, text: &str) -> usize {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().matches(text).count()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_older_bundle_than_the_one_in_use_is_not_used() {
    let (known, newer, older) = (KnownBundles::default(), bundle(OWN, 8), bundle(OWN, 7));
    let first = Entitlements::parse(state(&[message(&newer)]), &known).unwrap();
    let second = Entitlements::parse(state(&[message(&older)]), &known).unwrap();
    assert_eq!(*used(&second, OWN).unwrap(), newer);
    drop((first, second));
    // The same for another session, or one that was restarted.
    let newest = bundle(OWN, 9);
    let third = Entitlements::parse(state(&[message(&newest)]), &known).unwrap();
    assert_eq!(*used(&third, OWN).unwrap(), newest);
}

#[test]
fn an_older_bundle_is_logged_once_until_a_newer_one_comes() {
    let (known, log) = (KnownBundles::default(), Log::default());
    let parse = |sequence| Entitlements::parse(state(&[message(&bundle(OWN, sequence))]), &known).unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_writer({
            let log = log.clone();
            move || log.clone()
        })
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let mut held = vec![parse(8)];
        for (sequence, lines) in [(8, 0), (7, 1), (6, 1), (9, 1), (8, 2), (7, 2)] {
            held.push(parse(sequence));
            assert_eq!(log.count("an older bundle than the one in use, which stays"), lines, "{sequence}");
        }
    });
}

#[test]
fn a_session_uses_what_another_session_has_if_that_is_newer() {
    let (known, newer, older) = (KnownBundles::default(), bundle(OWN, 8), bundle(OWN, 7));
    let other = Entitlements::parse(state(&[message(&newer)]), &known).unwrap();
    let this = Entitlements::parse(state(&[message(&older)]), &known).unwrap();
    assert_eq!(used(&this, OWN), used(&other, OWN));
}

#[test]
fn of_two_sessions_that_get_their_states_at_once_the_newer_bundle_is_remembered() {
    let (known, newer, older) = (KnownBundles::default(), bundle(OWN, 8), bundle(OWN, 7));
    let both = [&newer, &older].map(|sent| BundleSet::new([sent.clone()]).unwrap());
    for trust in &both {
        known.record(trust);
    }
    assert_eq!(*known.newest(older).unwrap(), newer);
}

#[test]
fn an_older_bundle_does_not_replace_one_that_was_withdrawn() {
    let (known, own) = (KnownBundles::default(), message(&bundle(OWN, 1)));
    let with = |sequence| state(&[own.clone(), message(&bundle(FOREIGN, sequence))]);
    drop(Entitlements::parse(with(8), &known).unwrap());
    let withdrawn = Entitlements::parse(state(std::slice::from_ref(&own)), &known).unwrap();
    assert_eq!(used(&withdrawn, FOREIGN), None);
    assert_eq!(used(&Entitlements::parse(with(7), &known).unwrap(), FOREIGN), None);
    assert_eq!(used(&Entitlements::parse(with(8), &known).unwrap(), FOREIGN).unwrap().sequence, 8);
}

// Without one of its own trust domain the State cannot be used, and the next stream may be with a replica that is up to date.
#[test]
fn a_state_with_an_older_bundle_of_its_own_domain_than_the_withdrawn_one_is_refused() {
    let known = KnownBundles::default();
    drop(Entitlements::parse(state(&[message(&bundle(OWN, 8))]), &known).unwrap());
    let refused = Entitlements::parse(state(&[message(&bundle(OWN, 7))]), &known);
    assert!(matches!(refused, Err(EntitlementsError::NoBundle(_))), "{refused:?}");
}

#[test]
fn a_bundle_of_a_state_that_is_not_used_is_not_the_newest() {
    let (known, mut twice) = (KnownBundles::default(), state(&[message(&bundle(OWN, 8))]));
    twice.identities.extend(twice.identities.clone());
    Entitlements::parse(twice, &known).unwrap_err();
    let older = Entitlements::parse(state(&[message(&bundle(OWN, 7))]), &known).unwrap();
    assert_eq!(used(&older, OWN).unwrap().sequence, 7);
}

#[test]
fn in_place_of_a_bundle_that_cannot_be_read_the_one_in_use_stays() {
    let known = KnownBundles::default();
    let both = [message(&bundle(OWN, 3)), message(&bundle(FOREIGN, 5))];
    let first = Entitlements::parse(state(&both), &known).unwrap();
    let second = Entitlements::parse(state(&[damaged(OWN, 4), damaged(FOREIGN, 6)]), &known).unwrap();
    assert_eq!(*first.trust, *second.trust);
}

#[test]
fn without_one_in_use_an_unreadable_foreign_bundle_is_left_out_and_an_own_one_refused() {
    let known = KnownBundles::default();
    let left_out = Entitlements::parse(state(&[message(&bundle(OWN, 3)), damaged(FOREIGN, 6)]), &known).unwrap();
    assert_eq!((used(&left_out, FOREIGN), left_out.trust.len()), (None, 1));
    let refused = Entitlements::parse(state(&[damaged(OWN, 6)]), &KnownBundles::default());
    assert!(matches!(refused, Err(EntitlementsError::NoBundle(_))), "{refused:?}");
}

#[test]
fn of_two_contents_under_one_sequence_the_later_is_used() {
    let (known, first, second) = (KnownBundles::default(), bundle(OWN, 8), bundle(OWN, 8));
    let before = Entitlements::parse(state(&[message(&first)]), &known).unwrap();
    let after = Entitlements::parse(state(&[message(&second)]), &known).unwrap();
    assert_eq!(*used(&after, OWN).unwrap(), second);
    // As does a setting that changes without the keys.
    let hint = Bundle { refresh_hint: Duration::from_secs(60), ..second };
    let last = Entitlements::parse(state(&[message(&hint)]), &known).unwrap();
    assert_eq!(*used(&last, OWN).unwrap(), hint);
    drop(before);
}

#[test]
fn an_operator_that_sends_no_sequence_is_understood_by_the_documents() {
    let known = KnownBundles::default();
    let without = |sequence| v1::Bundle { sequence: 0, ..message(&bundle(OWN, sequence)) };
    let first = Entitlements::parse(state(&[message(&bundle(OWN, 8))]), &known).unwrap();
    let second = Entitlements::parse(state(&[without(7)]), &known).unwrap();
    assert_eq!(used(&second, OWN), used(&first, OWN));
    let third = Entitlements::parse(state(&[without(9)]), &known).unwrap();
    assert_eq!(used(&third, OWN).unwrap().sequence, 9);
}
