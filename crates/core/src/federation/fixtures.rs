//! Keys, bundles and times of the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    Decision, Endpoint, FetchError, Fetched, Flag, Observation, PollTarget, Profile, Remote, RemoteSpec, Stored,
    StoredRemote, decide, poll_target, trusted,
};
use crate::bundle::Bundle;
use crate::id::{SpiffeId, TrustDomain};
use crate::jwt::JwtVerificationKey;
use crate::key::{KeyType, PrivateKey};
use crate::x509::{CaCertificate, X509Authority};

pub(super) const DAY: Duration = Duration::from_secs(86_400);
pub(super) const PEER: &str = "peer.example";
/// The id of the endpoint of [`PEER`].
pub(super) const ENDPOINT_ID: &str = "spiffe://peer.example/bundle-endpoint";

/// So many seconds after 2026-09-21, on a whole second.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap() + SignedDuration::from_secs(seconds)
}

pub(super) fn domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

pub(super) fn own<const N: usize>(names: [&str; N]) -> BTreeSet<TrustDomain> {
    names.into_iter().map(domain).collect()
}

/// Key 1, 2 and so on.
pub(super) fn key(number: u8) -> PrivateKey {
    static KEYS: LazyLock<Vec<PrivateKey>> =
        LazyLock::new(|| (0..8).map(|_| PrivateKey::generate(KeyType::EcP256).unwrap()).collect());
    KEYS[usize::from(number)].clone()
}

/// A certificate of that key which ends so many days after [`at`] 0; the same for the same arguments.
pub(super) fn certificate(name: &str, number: u8, days: i64) -> CaCertificate {
    static MADE: Mutex<BTreeMap<(String, u8, i64), CaCertificate>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    let make = || {
        let life = DAY * u32::try_from(days).unwrap();
        X509Authority::self_signed(&domain(name), key(number), life, at(0)).unwrap().certificate().clone()
    };
    made.entry((name.to_owned(), number, days)).or_insert_with(make).clone()
}

/// Key 1 under that id.
pub(super) fn jwt_key(kid: &str) -> JwtVerificationKey {
    JwtVerificationKey::new(kid, key(1).public_key()).unwrap()
}

pub(super) fn bundle(name: &str, x509: &[&CaCertificate], jwt: &[&JwtVerificationKey]) -> Bundle {
    Bundle {
        trust_domain: domain(name),
        x509_authorities: x509.iter().map(|certificate| (*certificate).clone()).collect(),
        jwt_authorities: jwt.iter().map(|key| (*key).clone()).collect(),
        wit_authorities: Vec::new(),
        sequence: 1,
        refresh_hint: Duration::from_secs(300),
    }
}

/// A document of [`PEER`] with the certificates of those keys, each for 30 days.
pub(super) fn document(keys: &[u8], sequence: Option<u64>) -> Vec<u8> {
    let certificates: Vec<_> = keys.iter().map(|number| certificate(PEER, *number, 30)).collect();
    let bundle = bundle(PEER, &certificates.iter().collect::<Vec<_>>(), &[]);
    let mut document: Value = serde_json::from_slice(&bundle.to_json()).unwrap();
    match sequence {
        Some(sequence) => document["spiffe_sequence"] = json!(sequence),
        None => {
            document.as_object_mut().unwrap().remove("spiffe_sequence");
        }
    }
    document.to_string().into_bytes()
}

pub(super) fn web() -> Endpoint {
    let profile = Profile::HttpsWeb { roots: Vec::new() };
    Endpoint { url: "https://peer.example/bundle".parse().unwrap(), profile }
}

pub(super) fn spiffe() -> Endpoint {
    let id = ENDPOINT_ID.parse().unwrap();
    Endpoint { url: "https://peer.example/bundle".parse().unwrap(), profile: Profile::HttpsSpiffe { id } }
}

/// [`PEER`] by `https_web`.
pub(super) fn web_spec() -> RemoteSpec {
    RemoteSpec::new(domain(PEER), Some(web()))
}

/// [`PEER`] by `https_spiffe`, beginning with that document.
pub(super) fn spiffe_spec(document: &[u8]) -> RemoteSpec {
    RemoteSpec::new(domain(PEER), Some(spiffe())).with_bootstrap(document, false)
}

/// [`PEER`] by a document in the TrustDomain alone.
pub(super) fn static_spec(document: &[u8]) -> RemoteSpec {
    RemoteSpec::new(domain(PEER), None).with_bootstrap(document, false)
}

/// What is stored, if anything, in a cluster that is the authority of `local.example`.
pub(super) fn remote<'a>(spec: &'a RemoteSpec, stored: Option<&'a StoredRemote>) -> Remote<'a> {
    static OWN: LazyLock<BTreeSet<TrustDomain>> = LazyLock::new(|| own(["local.example"]));
    Remote { spec, own: &OWN, stored: stored.map_or(Stored::Absent, Stored::Read) }
}

pub(super) fn target(spec: &RemoteSpec, stored: Option<&StoredRemote>, now: Timestamp) -> PollTarget {
    poll_target(&remote(spec, stored), now).unwrap()
}

/// The id of the server that serves `spec`'s endpoint.
pub(super) fn server_id(spec: &RemoteSpec) -> Option<SpiffeId> {
    match &spec.endpoint().unwrap().profile {
        Profile::HttpsWeb { .. } | Profile::WimseDiscovery { .. } => None,
        Profile::HttpsSpiffe { id } => Some(id.clone()),
    }
}

/// A poll of `spec`'s endpoint that brought `document`.
pub(super) fn polled(
    spec: &RemoteSpec,
    stored: Option<&StoredRemote>,
    document: Vec<u8>,
    now: Timestamp,
) -> Observation {
    let fetched = Fetched { document, server_id: server_id(spec) };
    Observation { target: target(spec, stored, now), result: Ok(fetched) }
}

/// A poll of `spec`'s endpoint that brought nothing.
pub(super) fn failed(
    spec: &RemoteSpec,
    stored: Option<&StoredRemote>,
    error: FetchError,
    now: Timestamp,
) -> Observation {
    Observation { target: target(spec, stored, now), result: Err(error) }
}

/// What becomes of it without a poll, so many seconds after [`at`] 0.
pub(super) fn look(spec: &RemoteSpec, stored: Option<&StoredRemote>, seconds: i64) -> Decision {
    decide(&remote(spec, stored), None, at(seconds), 0.0)
}

/// What becomes of it with a poll that brought `document`, so many seconds after [`at`] 0.
pub(super) fn poll(spec: &RemoteSpec, stored: Option<&StoredRemote>, document: Vec<u8>, seconds: i64) -> Decision {
    let observation = polled(spec, stored, document, at(seconds));
    decide(&remote(spec, stored), Some(&observation), at(seconds), 0.0)
}

/// What becomes of it with a poll that failed, so many seconds after [`at`] 0.
pub(super) fn fail(spec: &RemoteSpec, stored: Option<&StoredRemote>, error: FetchError, seconds: i64) -> Decision {
    let observation = failed(spec, stored, error, at(seconds));
    decide(&remote(spec, stored), Some(&observation), at(seconds), 0.0)
}

/// The numbers of the keys that are trusted so many seconds after [`at`] 0; `None`: no bundle is handed out.
pub(super) fn trusted_keys(spec: &RemoteSpec, stored: &StoredRemote, seconds: i64) -> Option<Vec<u8>> {
    let bundle = trusted(&remote(spec, Some(stored)), at(seconds)).bundle?;
    Some(key_numbers(&bundle))
}

/// Which of the keys of [`document`] a bundle has.
pub(super) fn key_numbers(bundle: &Bundle) -> Vec<u8> {
    let has = |number: &u8| bundle.x509_authorities.contains(&certificate(PEER, *number, 30));
    (0..8).filter(has).collect()
}

pub(super) fn reasons(flags: &[Flag]) -> Vec<&'static str> {
    flags.iter().map(|flag| flag.reason().name()).collect()
}
