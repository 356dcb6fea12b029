//! What is handed out of remote trust domains, as TrustDomains, ConfigMaps and time say.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use countersign_core::{
    bundle::Bundle,
    federation::{Remote, RemoteSpec, Stored, StoredRemote, decide},
    key::KeyType,
    x509::X509Authority,
};
use countersign_index::Remotes;
use countersign_runtime::clock::Clock;
use futures::FutureExt as _;
use jiff::Timestamp;

use super::RemoteBundles;

const PEER: &str = "peer.example";
const LIFE: Duration = Duration::from_secs(3600);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn document(sequence: u64) -> Vec<u8> {
    let trust_domain = PEER.parse().unwrap();
    let authority = X509Authority::generate(&trust_domain, KeyType::EcP256, LIFE, at(0)).unwrap();
    Bundle {
        trust_domain,
        x509_authorities: vec![authority.certificate().clone()],
        jwt_authorities: Vec::new(),
        wit_authorities: Vec::new(),
        sequence,
        refresh_hint: Duration::from_secs(300),
    }
    .to_json()
}

fn spec(document: &[u8]) -> RemoteSpec {
    RemoteSpec::new(PEER.parse().unwrap(), None).with_bootstrap(document, false)
}

/// What the leader would store.
fn kept(spec: &RemoteSpec) -> StoredRemote {
    let own = std::collections::BTreeSet::new();
    decide(&Remote { spec, own: &own, stored: Stored::Absent }, None, at(0), 0.0).stored
}

fn remotes(spec: &RemoteSpec, own: &[&str]) -> Arc<Remotes> {
    let remote = countersign_index::Remote { uid: "u".to_owned(), spec: spec.clone() };
    Arc::new(Remotes {
        own: own.iter().map(|name| name.parse().unwrap()).collect(),
        by_name: BTreeMap::from([("td".to_owned(), remote)]),
    })
}

/// With a clock that the test sets.
fn bundles() -> (RemoteBundles, Arc<AtomicI64>) {
    let second = Arc::new(AtomicI64::new(0));
    let told = second.clone();
    (RemoteBundles::new(Clock::new(move || at(told.load(Ordering::Relaxed)))), second)
}

fn handed_out(bundles: &RemoteBundles) -> Option<u64> {
    let published = bundles.subscribe().borrow().clone();
    published.get(&PEER.parse().unwrap()).map(|one| one.published.sequence)
}

/// R50: without the leader's ConfigMap nothing is handed out, whatever comes first.
#[test]
fn a_bundle_is_handed_out_once_trust_domain_and_config_map_are_known_in_any_order() {
    let spec = spec(&document(1));
    let stored = kept(&spec);
    for config_map_first in [true, false] {
        let (bundles, _) = bundles();
        let apply = || bundles.apply_stored("td", Some(stored.to_bytes()));
        if config_map_first {
            apply();
        }
        assert_eq!(handed_out(&bundles), None);
        bundles.change(|state| state.set_remotes(remotes(&spec, &[])));
        if !config_map_first {
            assert_eq!(handed_out(&bundles), None);
            apply();
        }
        assert_eq!(handed_out(&bundles), stored.revision());
        bundles.apply_stored("td", None);
        assert_eq!(handed_out(&bundles), None);
    }
}

#[test]
fn a_trust_domain_of_this_cluster_is_never_handed_out_as_anothers() {
    let spec = spec(&document(1));
    let (bundles, _) = bundles();
    bundles.apply_stored("td", Some(kept(&spec).to_bytes()));
    bundles.change(|state| state.set_remotes(remotes(&spec, &[PEER])));
    assert_eq!(handed_out(&bundles), None);
}

#[test]
fn what_cannot_be_read_is_handed_out_by_nobody_and_is_known() {
    let spec = spec(&document(1));
    let (bundles, _) = bundles();
    bundles.change(|state| state.set_remotes(remotes(&spec, &[])));
    bundles.apply_stored("td", Some(b"{}".to_vec()));
    assert_eq!(handed_out(&bundles), None);
    assert!(matches!(bundles.known("td").unwrap().kept, Some(Err(_))));
}

/// R26: trust ends by time alone.
#[test]
fn a_bundle_of_the_spec_ends_with_its_last_certificate() {
    let spec = spec(&document(1));
    let (bundles, second) = bundles();
    bundles.change(|state| state.set_remotes(remotes(&spec, &[])));
    bundles.apply_stored("td", Some(kept(&spec).to_bytes()));
    assert!(handed_out(&bundles).is_some());
    second.store(2 * 3600, Ordering::Relaxed);
    bundles.change(|_| Vec::new());
    assert_eq!(handed_out(&bundles), None);
}

/// The leader knows of polls before they are written; once it leads no longer, what is written counts.
#[test]
fn what_the_leader_knows_counts_until_it_leads_no_longer() {
    let (older, newer) = (spec(&document(1)), spec(&document(2)));
    let (bundles, _) = bundles();
    bundles.change(|state| state.set_remotes(remotes(&newer, &[])));
    let stored = kept(&older);
    bundles.apply_stored("td", Some(stored.to_bytes()));
    let own = std::collections::BTreeSet::new();
    let latest = decide(&Remote { spec: &newer, own: &own, stored: Stored::Read(&stored) }, None, at(9), 0.0).stored;
    bundles.set_latest("td", Some(latest.clone()));
    assert_eq!(handed_out(&bundles), latest.revision());
    assert_ne!(latest.revision(), stored.revision());
    bundles.set_latest("td", None);
    assert_eq!(handed_out(&bundles), stored.revision());
}

/// The status of each remote TrustDomain follows whatever may change it, and of one that did not change nothing is told.
#[tokio::test]
async fn whose_status_may_have_changed_is_told_by_name() {
    let spec = spec(&document(1));
    let (bundles, _) = bundles();
    bundles.change(|state| state.set_remotes(remotes(&spec, &[])));
    assert_eq!(Vec::from_iter(bundles.changed_domains().await), ["td"]);
    bundles.apply_stored("td", Some(kept(&spec).to_bytes()));
    assert_eq!(Vec::from_iter(bundles.changed_domains().await), ["td"]);
    bundles.change(|state| state.set_remotes(remotes(&spec, &[])));
    assert!(bundles.changed_domains().now_or_never().is_none());
}
