//! The two stored formats beside each other, kinds and keys that are not known here, and authorities that others signed.

use std::future::ready;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::tests::{CLUSTER, HOUR, at, created, done, due, issue, kept, policy, read, trust_domain, verifies};
use super::{
    Authority, AuthorityMaker, AuthorityRequest, Format, Journal, JournalError, JwtEntry, Kind, LocalMaker,
    MadeAuthority, Making, Receipts, RotationRequests, X509Entry, next,
};
use crate::bundle::BundleSet;
use crate::key::{KeyRef, PrivateKey};
use crate::x509::CaCertificate;

fn format(journal: &Journal) -> String {
    let envelope: Value = serde_json::from_slice(&journal.to_bytes().unwrap()).unwrap();
    envelope["format"].as_str().unwrap().to_owned()
}

fn payload(journal: &Journal) -> Value {
    serde_json::from_slice(&super::envelope::open(&journal.to_bytes().unwrap()).unwrap().1).unwrap()
}

/// A journal in format 2 with this payload.
fn second(payload: &Value) -> Result<Journal, JournalError> {
    read(&super::envelope::seal(Format::V2, payload.to_string().as_bytes()).unwrap())
}

/// With a slot of a kind that is not known here, which ends after 18 hours.
fn with_unknown_kind() -> Value {
    let mut payload = payload(&created().written_in(Format::V2));
    let slot = json!({ "id": "w1", "removeAt": at(18 * HOUR), "key": { "pkcs8": "secret" }, "z": 1, "a": [2] });
    payload["authorities"]["later"] = json!([slot]);
    payload
}

#[test]
fn a_journal_is_written_in_format_1_until_format_2_is_enabled_and_both_are_read() {
    let journal = created();
    assert_eq!(format(&journal), Format::V1.name());
    let second = journal.clone().written_in(Format::V2);
    assert_eq!(format(&second), Format::V2.name());
    let again = read(&second.to_bytes().unwrap()).unwrap();
    assert_eq!(again.to_bytes().unwrap(), second.to_bytes().unwrap());
    assert_eq!(again.bundle(Duration::ZERO, at(0)), journal.bundle(Duration::ZERO, at(0)));
    assert!(verifies(&issue(&again, at(0)), &bundles(&journal, at(0)), at(1)));
}

#[test]
fn what_was_written_in_format_2_stays_in_it_also_where_it_is_not_enabled() {
    let second = read(&created().written_in(Format::V2).to_bytes().unwrap()).unwrap();
    assert_eq!(format(&kept(&second, at(12 * HOUR)).written_in(Format::V1)), Format::V2.name());
}

// The previous release reads format 1 alone, with these members and no others.
#[test]
fn the_members_of_format_1_are_those_that_the_previous_release_reads() {
    let payload = payload(&kept(&created(), at(12 * HOUR)));
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&payload), ["cluster", "generation", "jwt", "sequence", "trustDomain", "x509"]);
    for slot in payload["x509"].as_array().unwrap() {
        assert_eq!(members(slot), ["activateAt", "certificate", "id", "key", "preparedAt", "removeAt", "retireAt"]);
    }
    for slot in payload["jwt"].as_array().unwrap() {
        assert_eq!(members(slot), ["activateAt", "id", "key", "preparedAt", "removeAt", "retireAt"]);
    }
}

#[test]
fn slots_of_a_kind_that_is_not_known_are_carried_along_byte_for_byte() {
    let wanted = with_unknown_kind();
    let journal = second(&wanted).unwrap();
    let after = kept(&journal, at(12 * HOUR));
    assert_eq!(after.slots(Kind::X509).len(), 2, "the known kinds go on");
    let written = super::envelope::open(&after.to_bytes().unwrap()).unwrap().1;
    let slot = wanted["authorities"]["later"][0].to_string();
    assert!(String::from_utf8_lossy(&written).contains(&slot), "as it was read");
    assert!(!format!("{after:?}").contains("secret"), "Debug shows no key");
}

// Replicas that know the kind and replicas that do not publish the same sequence.
#[test]
fn the_end_of_a_slot_of_an_unknown_kind_counts_in_the_sequence() {
    let (with, without) = (second(&with_unknown_kind()).unwrap(), created());
    assert_eq!(with.sequence(at(18 * HOUR - 1)), without.sequence(at(18 * HOUR - 1)));
    assert!(with.sequence(at(18 * HOUR)) > without.sequence(at(18 * HOUR)));
    let later = kept(&with, at(12 * HOUR));
    assert_eq!(later.next_change(&policy(), &RotationRequests::default(), at(12 * HOUR)), Some(at(18 * HOUR)));
}

#[test]
fn what_format_2_does_not_allow_is_damaged() {
    let damaged = |edit: fn(&mut Value)| {
        let mut payload = with_unknown_kind();
        edit(&mut payload);
        let JournalError::Damaged { what } = second(&payload).unwrap_err() else { panic!("another error") };
        what
    };
    let jwt = |payload: &mut Value, member: &str, value: Value| payload["authorities"]["jwt"][0][member] = value;
    assert!(damaged(|payload| payload["more"] = 1.into()).contains("not as it was written"));
    assert!(damaged(|payload| payload["authorities"]["x509"][0]["more"] = 1.into()).contains("not as it was written"));
    assert!(
        damaged(|payload| payload["authorities"]["later"][0] = json!({ "id": "w" })).contains("has no id or no end")
    );
    let twice = damaged(|payload| {
        payload["authorities"]["later"][0]["id"] = payload["authorities"]["x509"][0]["id"].clone();
    });
    assert!(twice.contains("twice"), "{twice}");
    for key in [json!({}), json!({ "store": "s" }), json!({ "pkcs8": "x", "store": "s", "reference": "r" })] {
        let mut payload = with_unknown_kind();
        jwt(&mut payload, "key", key);
        let error = second(&payload).unwrap_err().to_string();
        assert!(error.contains("neither pkcs8 nor store and reference"), "{error}");
    }
    let mut payload = with_unknown_kind();
    let certificate = payload["authorities"]["x509"][0]["certificate"].clone();
    jwt(&mut payload, "trustAnchors", json!([certificate]));
    assert!(second(&payload).unwrap_err().to_string().contains("a JWT authority has no certificate"));
}

/// Makes JWT authorities whose keys are in a store that this release does not know.
struct Elsewhere;

impl AuthorityMaker for Elsewhere {
    fn make(&self, request: AuthorityRequest) -> Making<'_> {
        if request.kind != Kind::Jwt {
            return LocalMaker.make(request);
        }
        let key = KeyRef::Elsewhere { store: "kms".to_owned(), reference: "keys/7".to_owned() };
        let public = PrivateKey::generate(request.key_type).unwrap();
        let id = format!("k{}", request.life.as_secs());
        let entry = JwtEntry::new(&id, public.public_key(), key).unwrap();
        Box::pin(ready(Ok(MadeAuthority { id, authority: Authority::Jwt(entry) })))
    }
}

#[test]
fn a_key_that_is_elsewhere_is_trusted_here_signs_nothing_and_asks_for_format_2() {
    let journal = done(Journal::create(CLUSTER, Some(&trust_domain()), &policy(), &Elsewhere, at(0))).unwrap();
    assert_eq!(format(&journal), Format::V2.name());
    let again = read(&journal.to_bytes().unwrap()).unwrap();
    assert_eq!(again.to_bytes().unwrap(), journal.to_bytes().unwrap());
    let bundle = again.bundle(Duration::ZERO, at(0)).unwrap();
    assert_eq!(bundle.jwt_authorities[0].kid(), "k86400");
    assert!(again.active_jwt(at(0)).is_none() && again.active_x509(at(0)).is_some());
}

/// An upstream CA: it signs the authorities' certificates, and its root goes into the bundle.
struct Upstream {
    root: Issuer<'static, KeyPair>,
    certificate: CaCertificate,
    /// How long what it signs is valid.
    life: Duration,
}

impl Upstream {
    fn new(life: Duration) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params("upstream", at(0), Duration::from_secs(10 * 365 * 86_400));
        let certificate = CaCertificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        Self { root: Issuer::new(params, key), certificate, life }
    }

    fn sign(&self, request: &AuthorityRequest) -> Result<MadeAuthority, JournalError> {
        let (id, key) =
            (format!("{}+{}", request.from.as_second(), request.life.as_secs()), KeyPair::generate().unwrap());
        let mut params = ca_params(&id, request.from, self.life);
        let trust_domain = request.trust_domain.as_ref().unwrap().id_string();
        params.subject_alt_names = vec![SanType::URI(trust_domain.try_into().unwrap())];
        let certificate = CaCertificate::from_der(params.signed_by(&key, &self.root).unwrap().der()).unwrap();
        let key = KeyRef::Stored(PrivateKey::from_pkcs8_der(key.serialized_der()).unwrap());
        let entry = X509Entry::intermediate(vec![certificate], vec![self.certificate.clone()], key)?;
        Ok(MadeAuthority { id, authority: Authority::X509(entry) })
    }
}

fn ca_params(name: &str, from: Timestamp, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = OffsetDateTime::from_unix_timestamp(from.as_second()).unwrap();
    params.not_after = params.not_before + life;
    params
}

impl AuthorityMaker for Upstream {
    fn make(&self, request: AuthorityRequest) -> Making<'_> {
        match request.kind {
            Kind::X509 => Box::pin(ready(self.sign(&request))),
            Kind::Jwt | Kind::Wit => LocalMaker.make(request),
        }
    }
}

#[test]
fn an_authority_that_another_signed_sends_its_chain_and_the_bundle_holds_the_anchor_once() {
    let upstream = Upstream::new(Duration::from_secs(10 * 86_400));
    let first = done(Journal::create(CLUSTER, Some(&trust_domain()), &policy(), &upstream, at(0))).unwrap();
    assert_eq!(format(&first), Format::V2.name());
    let plan = due(&first, at(23 * HOUR));
    let both = done(first.apply(&plan, &policy(), &upstream, at(23 * HOUR))).unwrap();
    let journal = read(&both.to_bytes().unwrap()).unwrap();
    assert_eq!((journal.slots(Kind::X509).len(), journal.roots(at(23 * HOUR)).len()), (3, 1));
    for now in [at(22 * HOUR), at(23 * HOUR)] {
        let svids = issue(&journal, now);
        assert_eq!(svids.0.chain.len(), 2, "the leaf and its authority");
        assert!(verifies(&svids, &bundles(&journal, now), now));
    }
}

#[test]
fn an_authority_whose_certificate_ends_too_early_is_not_taken() {
    let upstream = Upstream::new(Duration::from_secs(3600));
    let made = done(Journal::create(CLUSTER, Some(&trust_domain()), &policy(), &upstream, at(0)));
    let error = made.unwrap_err();
    assert_eq!(error.reason().name(), "AuthorityNotMade");
    assert!(error.to_string().contains("ends before the slot"), "{error}");
}

/// Makes nothing: a service that is away.
struct Away;

impl AuthorityMaker for Away {
    fn make(&self, _: AuthorityRequest) -> Making<'_> {
        Box::pin(ready(Err(JournalError::Made { kind: Kind::X509, what: "nobody answers".to_owned() })))
    }
}

// An upstream CA that is down must not keep a key that has leaked trusted, nor let the only authority retire.
#[test]
fn whoever_makes_authorities_cannot_keep_one_from_being_revoked() {
    let journal = created();
    let ids: Vec<String> = journal.slots(Kind::X509).iter().map(|slot| slot.id.clone()).collect();
    let revoke = |ids: &[String]| {
        let requests = RotationRequests { revoked: ids.iter().cloned().collect(), ..RotationRequests::default() };
        let plan = next(&journal, &policy(), &requests, &Receipts::default(), at(HOUR));
        done(journal.apply(&plan, &policy(), &Away, at(HOUR))).unwrap()
    };
    let one = revoke(&ids[..1]);
    assert_eq!(one.slots(Kind::X509).len(), 1, "the spare signs");
    let slot = &one.slots(Kind::X509)[0];
    assert_eq!((slot.times.activate_at, slot.times.retire_at), (at(HOUR), slot.times.remove_at), "to its end");
    let none = read(&revoke(&ids).to_bytes().unwrap()).unwrap();
    assert!(none.slots(Kind::X509).is_empty() && none.roots(at(HOUR)).is_empty());
    assert!(none.active_jwt(at(HOUR)).is_some(), "the other kind goes on");
    let later = kept(&none, at(2 * HOUR));
    assert_eq!(later.slots(Kind::X509).len(), 2, "and it is made good as soon as somebody answers");
    let due = due(&none, at(2 * HOUR));
    assert!(done(none.apply(&due, &policy(), &Away, at(2 * HOUR))).is_err(), "nothing else is due");
}

fn bundles(journal: &Journal, now: Timestamp) -> BundleSet {
    BundleSet::new(journal.bundle(policy().refresh_hint, now)).unwrap()
}

#[test]
fn wit_authorities_come_when_they_are_enabled_and_end_when_they_are_not() {
    let first = done(Journal::create(CLUSTER, Some(&trust_domain()), &policy(), &LocalMaker, at(0))).unwrap();
    assert!(first.slots(Kind::Wit).is_empty() && first.active_wit(at(0)).is_none());
    assert_eq!(format(&first), Format::V1.name());

    let enabled = super::AuthorityPolicy { wit_key_type: Some(crate::key::KeyType::EcP256), ..policy() };
    let plan = next(&first, &enabled, &RotationRequests::default(), &Receipts::default(), at(HOUR));
    let with = done(first.apply(&plan, &enabled, &LocalMaker, at(HOUR))).unwrap();
    assert_eq!(format(&with), Format::V2.name());
    assert!(with.sequence(at(HOUR)) > first.sequence(at(HOUR)));
    let journal = read(&with.to_bytes().unwrap()).unwrap();
    let bundle = journal.bundle(Duration::from_secs(300), at(HOUR)).unwrap();
    assert_eq!((bundle.wit_authorities.len(), bundle.jwt_authorities.len()), (2, 2));
    assert_eq!(crate::bundle::Bundle::parse(&trust_domain(), &bundle.to_json()).unwrap(), bundle);
    let active = journal.active_wit(at(HOUR)).unwrap();
    assert_eq!(bundle.wit_authorities[0].kid(), active.signer().kid());

    // No successor is made, and what is there stays in the bundle until its end.
    let later = active.ends_at() - jiff::SignedDuration::from_secs(1);
    assert!(
        next(&journal, &policy(), &RotationRequests::default(), &Receipts::default(), at(2 * HOUR))
            .steps
            .iter()
            .all(|step| step.kind != Kind::Wit)
    );
    assert!(!journal.bundle(Duration::from_secs(300), later).unwrap().wit_authorities.is_empty());
}
