//! The journal as a whole: created, kept over a life, stored and read, and refused when it must be.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::{any, prop, prop_assert, proptest};

use super::{
    Action, Authority, AuthorityPolicy, AuthoritySlot, Expected, Format, Journal, JournalError, Kind, LocalMaker, Plan,
    Receipts, RotationRequests, State, Step, next,
};
use crate::bundle::BundleSet;
use crate::id::{SpiffeId, TrustDomain};
use crate::jwt::{IssuedJwt, JwtRequest, verify_jwt_svid};
use crate::key::{KeyRef, KeyType, PrivateKey};
use crate::x509::{IssuedX509, LeafRequest, verify_x509_svid};

pub(super) const CLUSTER: &str = "6f2b3c9e-kube-system";
pub(super) const HOUR: i64 = 3_600;
/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600;

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}

pub(super) fn trust_domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

/// CA 24 h, SVID 1 h, hint 5 min, and a switch may wait for 30 min.
pub(super) fn policy() -> AuthorityPolicy {
    AuthorityPolicy {
        ca_life: Duration::from_secs(86_400),
        longest_svid_life: Duration::from_secs(3_600),
        refresh_hint: Duration::from_secs(300),
        max_delay: Duration::from_secs(1_800),
        taint_max_delay: Duration::from_secs(600),
        x509_key_type: KeyType::EcP256,
        jwt_key_type: KeyType::EcP256,
        wit_key_type: None,
    }
}

/// The result of a future that waits for nothing.
pub(super) fn done<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap()
}

fn create(trust_domain: Option<&TrustDomain>, policy: &AuthorityPolicy) -> Journal {
    done(Journal::create(CLUSTER, trust_domain, policy, &LocalMaker, at(0))).unwrap()
}

pub(super) fn created() -> Journal {
    create(Some(&trust_domain()), &policy())
}

pub(super) fn due(journal: &Journal, now: Timestamp) -> Plan {
    next(journal, &policy(), &RotationRequests::default(), &Receipts::default(), now)
}

fn apply(journal: &Journal, plan: &Plan, now: Timestamp) -> Result<Journal, JournalError> {
    done(journal.apply(plan, &policy(), &LocalMaker, now))
}

pub(super) fn kept(journal: &Journal, now: Timestamp) -> Journal {
    apply(journal, &due(journal, now), now).unwrap()
}

pub(super) fn expected(trust_domain: Option<&TrustDomain>) -> Expected<'_> {
    Expected { cluster: CLUSTER, trust_domain, published_sequence: None, now: at(0) }
}

pub(super) fn read(bytes: &[u8]) -> Result<Journal, JournalError> {
    Journal::from_bytes(bytes, &expected(Some(&trust_domain())))
}

pub(super) fn bundles(journal: &Journal, now: Timestamp) -> BundleSet {
    BundleSet::new(journal.bundle(policy().refresh_hint, now)).unwrap()
}

pub(super) fn issue(journal: &Journal, now: Timestamp) -> (IssuedX509, IssuedJwt) {
    let id: SpiffeId = "spiffe://example.org/ns/shop/sa/orders".parse().unwrap();
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let ttl = policy().longest_svid_life;
    let request = LeafRequest { spki: key.public_key(), id: &id, dns_names: &[], ttl };
    let x509 = journal.active_x509(now).unwrap().signer().issue(&request, now).unwrap();
    let jwt = journal.active_jwt(now).unwrap();
    let audiences = ["payments".to_owned()];
    let request = JwtRequest { id: &id, audiences: &audiences, ttl: ttl.min(jwt.time_left(now)), issuer: None };
    (x509, jwt.signer().issue(&request, now).unwrap())
}

pub(super) fn verifies((x509, jwt): &(IssuedX509, IssuedJwt), bundles: &BundleSet, now: Timestamp) -> bool {
    let chain: Vec<&[u8]> = x509.chain.iter().map(Vec::as_slice).collect();
    let x509 = verify_x509_svid(&chain, bundles, now).is_ok();
    assert_eq!(x509, verify_jwt_svid(&jwt.token, "payments", bundles, now).is_ok(), "at {now}");
    x509
}

fn x509(journal: &mut Journal) -> &mut Vec<AuthoritySlot> {
    journal.authorities.get_mut(&Kind::X509).unwrap()
}

fn jwt(journal: &mut Journal) -> &mut Vec<AuthoritySlot> {
    journal.authorities.get_mut(&Kind::Jwt).unwrap()
}

/// The key of an authority as it is stored.
pub(super) fn stored_key(authority: &Authority) -> String {
    let KeyRef::Stored(key) = authority.key() else { panic!() };
    STANDARD.encode(key.pkcs8_der().as_slice())
}

#[test]
fn a_new_journal_signs_at_once_and_has_a_spare_of_each_kind() {
    let journal = created();
    assert_eq!((journal.slots(Kind::X509).len(), journal.slots(Kind::Jwt).len(), journal.generation()), (2, 2, 1));
    assert_eq!(journal.active_x509(at(0)).unwrap().signer().trust_domain(), Some(&trust_domain()));
    assert!(due(&journal, at(0)).is_empty());
    assert!(verifies(&issue(&journal, at(0)), &bundles(&journal, at(0)), at(1)));
    let certificate = journal.active_x509(at(0)).unwrap().signer().certificate().clone();
    assert_eq!(certificate.not_after(), at(24 * HOUR));
}

// R53, in small: over three lives, what was signed verifies with the bundle of its whole life, and with a bundle as old as
// relying parties may have it.
#[test]
fn svids_verify_until_they_expire_across_switches_and_with_the_bundle_of_one_poll_ago() {
    let mut journal = created();
    let poll = SignedDuration::try_from(policy().refresh_hint).unwrap();
    let mut signed: Vec<(IssuedX509, IssuedJwt)> = Vec::new();
    let mut last_poll = bundles(&journal, at(0));
    for quarter in 0..(3 * 24 * 4) {
        let now = at(quarter * HOUR / 4);
        signed.retain(|(x509, jwt)| x509.not_after > now && jwt.expires_at > now);
        let current = bundles(&journal, now);
        assert!(signed.iter().all(|svids| verifies(svids, &current, now)), "at {now}");
        let fresh = issue(&journal, now);
        assert!(verifies(&fresh, &last_poll, now), "at {now}");
        assert!(fresh.0.not_after.duration_since(now) == SignedDuration::from_hours(1), "at {now}");
        signed.push(fresh);
        journal = kept(&journal, now);
        last_poll = bundles(&journal, now - poll);
    }
    assert!(journal.generation() > 4);
    assert!(journal.slots(Kind::X509).len() <= 3);
}

// A live domain goes from one type of keys to another by a rotation.
#[test]
fn a_requested_rotation_changes_the_type_of_keys_and_what_was_signed_before_verifies_on() {
    for key_type in [KeyType::EcP384, KeyType::Rsa2048] {
        let (journal, now) = (created(), at(HOUR));
        let before = issue(&journal, now);
        let policy = AuthorityPolicy { x509_key_type: key_type, jwt_key_type: key_type, ..policy() };
        let requests = RotationRequests { after: Some(now), ..RotationRequests::default() };
        let plan = next(&journal, &policy, &requests, &Receipts::default(), now);
        let journal = done(journal.apply(&plan, &policy, &LocalMaker, now)).unwrap();
        let switch = journal.slots(Kind::X509)[0].times.retire_at;
        let journal = read(&journal.to_bytes().unwrap()).unwrap();
        let after = issue(&journal, switch);
        let token = |svids: &(IssuedX509, IssuedJwt)| svids.1.token.split('.').next().unwrap().to_owned();
        assert_ne!(token(&before), token(&after), "another key and algorithm");
        for svids in [&before, &after] {
            assert!(verifies(svids, &bundles(&journal, switch), switch), "{key_type}");
        }
    }
}

#[test]
fn the_sequence_grows_with_every_change_of_the_bundle() {
    let mut journal = created();
    assert_eq!(journal.sequence(at(0)), u64::try_from(START).unwrap() * 1_000);
    let mut last = journal.bundle(Duration::ZERO, at(0)).unwrap();
    for half_hour in 1..(2 * 60) {
        let now = at(half_hour * HOUR / 2);
        // Before the keeper comes: what has ended is gone from every replica's bundle, under a higher sequence.
        let after = kept(&journal, now);
        for journal in [&journal, &after] {
            let bundle = journal.bundle(Duration::ZERO, now).unwrap();
            assert!(bundle.sequence >= last.sequence);
            let same =
                bundle.x509_authorities == last.x509_authorities && bundle.jwt_authorities == last.jwt_authorities;
            assert!(same || bundle.sequence > last.sequence, "at {now}");
            last = bundle;
        }
        journal = after;
    }
}

#[test]
fn a_sequence_never_falls_when_the_clock_does() {
    let journal = kept(&created(), at(12 * HOUR));
    let before = journal.sequence(at(12 * HOUR));
    let action = Action::Remove { slot: journal.slots(Kind::X509)[1].id.clone() };
    let plan = Plan { steps: vec![Step { kind: Kind::X509, action }] };
    let taken_back = apply(&journal, &plan, at(-24 * HOUR));
    assert_eq!(taken_back.unwrap().sequence(at(-24 * HOUR)), before + 1);
}

#[test]
fn the_control_plane_has_roots_and_no_bundle() {
    let journal = create(None, &policy());
    assert!(journal.slots(Kind::Jwt).is_empty() && journal.bundle(Duration::ZERO, at(0)).is_none());
    let spki = PrivateKey::generate(KeyType::EcP256).unwrap();
    let names = ["countersign-issuer.countersign-system.svc".to_owned()];
    let signer = journal.active_x509(at(0)).unwrap().signer();
    assert!(signer.issue_server(spki.public_key(), &names, Duration::from_secs(60), at(0)).is_ok());
    let journal = kept(&journal, at(12 * HOUR));
    assert_eq!(journal.roots(at(12 * HOUR)).len(), 2);
    let bytes = journal.to_bytes().unwrap();
    assert!(Journal::from_bytes(&bytes, &expected(None)).is_ok());
}

#[test]
fn what_is_stored_reads_back_the_same() {
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let policy = AuthorityPolicy { x509_key_type: key_type, jwt_key_type: key_type, ..policy() };
        let mut journal = create(Some(&trust_domain()), &policy);
        x509(&mut journal)[0].tainted_at = Some(at(5));
        let bytes = journal.to_bytes().unwrap();
        let again = read(&bytes).unwrap();
        assert_eq!(again.to_bytes().unwrap(), bytes);
        assert_eq!(again.slots(Kind::X509)[0].state(at(5)), State::Tainted);
        assert_eq!(again.bundle(Duration::ZERO, at(0)), journal.bundle(Duration::ZERO, at(0)));
    }
}

#[test]
fn every_reason_to_refuse_a_journal_is_typed() {
    let journal = created();
    let bytes = journal.to_bytes().unwrap();
    let here = trust_domain();
    let refused = |expected: Expected<'_>| Journal::from_bytes(&bytes, &expected).unwrap_err().reason().name();
    let expected = expected(Some(&here));
    assert_eq!(refused(Expected { cluster: "other", ..expected }), "JournalOfOtherCluster");
    assert_eq!(refused(Expected { trust_domain: None, ..expected }), "JournalOfOtherTrustDomain");
    let other = "other.org".parse().unwrap();
    assert_eq!(refused(Expected { trust_domain: Some(&other), ..expected }), "JournalOfOtherTrustDomain");
    let published = journal.sequence(at(0));
    assert!(Journal::from_bytes(&bytes, &Expected { published_sequence: Some(published), ..expected }).is_ok());
    assert_eq!(refused(Expected { published_sequence: Some(published + 1), ..expected }), "JournalOlderThanPublished");

    let edited = |edit: fn(&mut serde_json::Value)| {
        let mut envelope: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        edit(&mut envelope);
        read(envelope.to_string().as_bytes()).unwrap_err().reason().name()
    };
    assert_eq!(edited(|envelope| envelope["format"] = "countersign.dev/journal.v3".into()), "JournalFormatUnknown");
    assert_eq!(edited(|envelope| envelope["protection"] = "kms".into()), "JournalFormatUnknown");
    assert_eq!(edited(|envelope| envelope["checksum"] = "sha256:00".into()), "JournalDamaged");
    assert_eq!(edited(|envelope| envelope["payload"] = "e30=".into()), "JournalDamaged");
    assert_eq!(edited(|envelope| envelope["payload"] = "%".into()), "JournalDamaged");
    assert_eq!(edited(|envelope| envelope["more"] = 1.into()), "JournalDamaged");
    assert_eq!(read(b"").unwrap_err().reason().name(), "JournalDamaged");
    assert_eq!(read(b"{}").unwrap_err().reason().name(), "JournalDamaged");
    let mut longest = bytes.to_vec();
    longest.resize(super::MAX_LENGTH, b' ');
    assert!(read(&longest).is_ok());
    let JournalError::Damaged { what } = read(&vec![b' '; super::MAX_LENGTH + 1]).unwrap_err() else { panic!() };
    assert_eq!(what, "1048577 bytes, over 1048576");
}

/// What is inside is checked too, whoever computed the checksum.
#[test]
fn a_payload_that_does_not_hold_together_is_damaged() {
    let journal = kept(&created(), at(12 * HOUR));
    let damaged = |edit: fn(&mut Journal)| {
        let mut journal = journal.clone();
        edit(&mut journal);
        let JournalError::Damaged { what } = read(&journal.to_bytes().unwrap()).unwrap_err() else { panic!() };
        what
    };
    let missing = "a kind of authority that belongs in it is missing, or one that does not is there";
    assert_eq!(damaged(|journal| x509(journal).clear()), missing);
    assert_eq!(damaged(|journal| jwt(journal).clear()), missing);
    assert!(damaged(|journal| x509(journal)[0].times.remove_at = at(100 * HOUR)).contains("ends before the slot"));
    assert!(damaged(|journal| jwt(journal)[0].times.retire_at = at(-1)).contains("out of order"));
    assert!(damaged(|journal| x509(journal)[1].id = x509(journal)[0].id.clone()).contains("twice"));
    assert!(damaged(|journal| jwt(journal)[0].id.clear()).starts_with("slot : "));
    assert!(
        damaged(|journal| {
            let other = "other.org".parse().unwrap();
            *x509(journal) = create(Some(&other), &policy()).slots(Kind::X509).to_vec();
        })
        .contains("of another trust domain")
    );
    let text = String::from_utf8(super::envelope::open(&journal.to_bytes().unwrap()).unwrap().1.to_vec()).unwrap();
    let keys = journal.slots(Kind::X509).iter().map(|slot| stored_key(&slot.authority)).collect::<Vec<_>>();
    let swapped = super::envelope::seal(Format::V1, text.replacen(&keys[0], &keys[1], 1).as_bytes()).unwrap();
    assert!(read(&swapped).unwrap_err().to_string().contains("not the one of"));
}

#[test]
fn a_plan_for_another_journal_is_refused() {
    let plan = due(&created(), at(23 * HOUR));
    assert!(!plan.is_empty());
    let other = apply(&created(), &plan, at(23 * HOUR));
    assert!(matches!(other, Err(JournalError::StalePlan { .. })));
}

#[test]
fn an_empty_plan_changes_nothing() {
    let journal = created();
    assert_eq!(kept(&journal, at(1)).to_bytes().unwrap(), journal.to_bytes().unwrap());
}

// R87: neither Debug nor an error shows a key.
#[test]
fn keys_never_show() {
    let journal = created();
    let bytes = journal.to_bytes().unwrap();
    let mut shown = format!("{journal:?}");
    let cut = read(&bytes[..bytes.len() - 2]).unwrap_err();
    shown += &format!("{cut} {cut:?}");
    let (_, payload) = super::envelope::open(&bytes).unwrap();
    let text = String::from_utf8(payload.to_vec()).unwrap();
    for (from, to) in [("\"key\":\"", "\"key\":{\"x\":\""), ("\"id\":\"", "\"id\":7,\"y\":\"")] {
        let bent = super::envelope::seal(Format::V1, text.replace(from, to).as_bytes()).unwrap();
        let error = read(&bent).unwrap_err();
        shown += &format!("{error} {error:?}");
    }
    let with_wit = AuthorityPolicy { wit_key_type: Some(KeyType::EcP256), ..policy() };
    let with_wit = done(Journal::create(CLUSTER, Some(&trust_domain()), &with_wit, &LocalMaker, at(0))).unwrap();
    shown += &format!("{with_wit:?}");
    let slots = Kind::ALL.map(|kind| if kind == Kind::Wit { with_wit.slots(kind) } else { journal.slots(kind) });
    for slot in slots.map(|slots| &slots[0]) {
        let KeyRef::Stored(key) = slot.authority.key() else { panic!() };
        let der = key.pkcs8_der();
        let hex: String = der.iter().map(|byte| format!("{byte:02x}")).collect();
        // The private scalar stands in the middle of the document.
        for needle in [&STANDARD.encode(der.as_slice())[40..80], &hex[80..120], &format!("{:?}", &der[40..50])] {
            assert!(!shown.contains(needle));
        }
    }
}

proptest! {
    #[test]
    fn any_bit_that_flips_is_noticed(position in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = STORED.with(Clone::clone);
        let index = position.index(bytes.len());
        bytes[index] ^= 1 << bit;
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(&bytes).is_err());
    }
}

thread_local! {
    static STORED: Vec<u8> = created().to_bytes().unwrap().to_vec();
}
