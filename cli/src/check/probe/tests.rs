//! What is created, and what is said of it.

use std::time::Duration;

use countersign_crds::{TrustDomain, WorkloadIdentity};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde_json::json;

use super::{Identity, Problem, Seen, category, end, identity, namespace, pod, trust_domain};
use crate::output::Mark;

fn marks(pod: Result<Identity, Problem>, left_behind: &[&str]) -> Vec<(Mark, Option<&'static str>)> {
    let left_behind = left_behind.iter().map(|command| (*command).to_owned()).collect();
    let seen = Seen { namespace: "countersign-check-1".to_owned(), pod, left_behind };
    category(&seen).checks.iter().map(|check| (check.mark, check.code())).collect()
}

#[test]
fn what_is_created_can_be_read_as_objects() {
    serde_json::from_value::<Namespace>(namespace("a")).unwrap();
    serde_json::from_value::<TrustDomain>(trust_domain("a")).unwrap();
    serde_json::from_value::<WorkloadIdentity>(identity("a")).unwrap();
    serde_json::from_value::<Pod>(pod("agent:1")).unwrap();
}

#[test]
fn the_probe_says_how_far_it_came() {
    let got = Identity { took: Duration::from_secs(2), version: Some("countersign-agent 0.1.0".to_owned()) };
    assert_eq!(marks(Ok(got), &[]), [(Mark::Ok, None)]);
    assert_eq!(marks(Err(Problem::NotCreated("no".to_owned())), &[]), [(Mark::Failed, Some("CS5070"))]);
    let expected = [(Mark::Failed, Some("CS5071")), (Mark::Warning, Some("CS5072"))];
    assert_eq!(marks(Err(Problem::NotReady("no".to_owned())), &["kubectl delete namespace a"]), expected);
}

#[test]
fn a_pod_has_ended_only_once_it_says_so() {
    let phase = |phase: &str| serde_json::from_value(json!({ "status": { "phase": phase } })).unwrap();
    assert!(end(&phase("Running")).is_none());
    assert!(matches!(end(&phase("Succeeded")), Some(Ok(()))));
    assert!(matches!(end(&phase("Failed")), Some(Err(Problem::NotReady(_)))));
}
