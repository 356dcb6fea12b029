//! The control plane's root is made once, and never anew under pods that trust it; what is written is written over what was
//! read.

use std::{sync::Arc, time::Duration};

use countersign_contract::objects::journal::SECRET_TYPE;
use countersign_core::journal::{Format, Journal, Kind, LocalMaker};
use futures::FutureExt as _;
use http::Method;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Service};
use serde_json::json;

use super::{Context, ControlPlaneError, Due, StoredSecret, address, control_plane_policy, decide, reconcile};
use crate::{
    authorities::{Authorities, store::JournalStore},
    fake_api_server::{Questions, answering, leading},
    metrics::Metrics,
};
use countersign_runtime::clock::Clock;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn made() -> StoredSecret {
    assert!(matches!(decide(None, "cluster", None, false, at(0)), Ok(Due::Create)));
    let policy = control_plane_policy();
    let journal = Journal::create("cluster", None, &policy, &LocalMaker, at(0));
    let journal = journal.now_or_never().expect("it is made here").unwrap();
    StoredSecret { resource_version: "1".to_owned(), owner: None, journal: Some(journal.to_bytes().unwrap()) }
}

#[test]
fn the_first_root_is_made_where_none_was_ever_published() {
    assert!(matches!(decide(Some(&made()), "cluster", None, true, at(60)), Ok(Due::Nothing(_))));
}

#[test]
fn no_new_root_is_made_under_pods_that_trust_one() {
    assert!(matches!(decide(None, "cluster", None, true, at(0)), Err(ControlPlaneError::Missing)));
    assert!(matches!(decide(None, "cluster", Some(1), false, at(0)), Err(ControlPlaneError::Missing)));
    let mut damaged = made();
    damaged.journal.as_mut().unwrap().truncate(100);
    assert!(matches!(decide(Some(&damaged), "cluster", None, true, at(0)), Err(ControlPlaneError::Journal(_))));
    assert!(matches!(decide(Some(&made()), "elsewhere", None, true, at(0)), Err(ControlPlaneError::Journal(_))));
}

#[test]
fn the_next_root_is_published_long_before_it_signs() {
    let Ok(Due::Nothing(journal)) = decide(Some(&made()), "cluster", None, true, at(60)) else { panic!("it is due") };
    assert_eq!(journal.roots(at(60)).len(), 2);
    let successor = &journal.slots(Kind::X509)[1].times;
    assert!(successor.activate_at.duration_since(at(0)).as_hours() > 24 * 100);
}

#[test]
fn the_issuers_address_is_the_services_clusterip() {
    let service = |ip: &str| -> Service { serde_json::from_value(json!({"spec": {"clusterIP": ip}})).unwrap() };
    assert_eq!(address(&service("10.96.0.7")).as_deref(), Some("10.96.0.7:8443"));
    assert_eq!(address(&service("fd00::7")).as_deref(), Some("[fd00::7]:8443"));
    assert_eq!(address(&service("None")), None);
    assert_eq!(address(&service("")), None);
}

/// Of a leading replica when the next root is due; it leads no longer once a request of `ends` came for a path that ends so.
fn due(ends: Option<(Method, &'static str)>) -> (Context, Questions) {
    let clock = Clock::new(|| at(364 * 24 * 3600));
    let leadership = leading(&clock);
    let journal = made().journal.unwrap().to_vec();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE,
        "metadata": {"name": "control-plane", "resourceVersion": "7"}, "data": {"journal": ByteString(journal)},
    });
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "countersign-control-plane", "resourceVersion": "8"},
        "data": {"roots.pem": "the first alone"},
    });
    let service = json!({"apiVersion": "v1", "kind": "Service", "spec": {"clusterIP": "10.96.0.7"}});
    let told = leadership.clone();
    let (client, questions) = answering(move |asked| {
        if ends.as_ref().is_some_and(|(method, path)| asked.method == *method && asked.path.ends_with(path)) {
            told.lead_for(Duration::ZERO);
        }
        let objects = [("/secrets/control-plane", &secret), ("/configmaps/countersign-control-plane", &map)];
        let found = objects.into_iter().find(|(path, _)| asked.path.ends_with(path));
        (200, found.map_or(&service, |(_, object)| object).clone())
    });
    let context = Context {
        cluster_name: String::new(),
        authorities: Authorities::new("cluster".to_owned(), clock.clone()),
        journals: JournalStore::new(client.clone(), "countersign-authorities", Format::V1),
        maker: Arc::new(LocalMaker),
        client,
        namespace: "countersign-system".to_owned(),
        issuer_name: "issuer".to_owned(),
        audience: "audience".to_owned(),
        cluster: "cluster".to_owned(),
        leadership,
        clock,
        metrics: Arc::new(Metrics::new()),
    };
    (context, questions)
}

#[tokio::test]
async fn the_journal_and_the_config_map_are_written_over_the_versions_that_were_read() {
    let (context, questions) = due(None);
    reconcile(&context).await.unwrap();
    let all = questions.all();
    let written: Vec<_> = all
        .iter()
        .filter(|asked| asked.method != Method::GET)
        .map(|asked| (asked.method.clone(), asked.body["metadata"]["resourceVersion"].clone()))
        .collect();
    assert_eq!(written, [(Method::PUT, json!("7")), (Method::PATCH, json!("8"))]);
}

// Its time may end while it reads: nothing that follows is written.
#[tokio::test]
async fn a_replica_that_leads_no_longer_writes_neither_journal_nor_config_map() {
    let reads_secret = (Method::GET, "/secrets/control-plane");
    let reads_service = (Method::GET, "/services/countersign-issuer");
    for (ends, written) in [(reads_secret, vec![]), (reads_service, vec![Method::PUT])] {
        let (context, questions) = due(Some(ends.clone()));
        let ended = reconcile(&context).await;
        assert!(matches!(ended, Err(ControlPlaneError::NotLeading(_))), "{ends:?}: {ended:?}");
        let mut methods = questions.methods();
        methods.retain(|method| method != Method::GET);
        assert_eq!(methods, written, "{ends:?}");
    }
}
