//! Components that are ready, and each way not to be.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{images, issuer, leads, published, ready, release, same_minor};
use crate::{
    installation::{Leader, Replicas},
    output::Mark,
    reading::Reading,
};

const SYSTEM: &str = "countersign-system";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn replicas(ready: i32, running: &str) -> Replicas {
    Replicas {
        wanted: 2,
        ready,
        images: BTreeSet::from(["operator:dev".to_owned()]),
        running: BTreeSet::from([running.to_owned()]),
        not_ready: BTreeMap::from([("a".to_owned(), "container operator is in CrashLoopBackOff".to_owned())]),
    }
}

fn readiness(replicas: Reading<Replicas>) -> Option<&'static str> {
    ready("operator", "countersign-operator", &replicas, SYSTEM).code()
}

#[test]
fn no_replica_fails_and_too_few_are_a_warning() {
    assert_eq!(readiness(Reading::Found(replicas(2, ""))), None);
    assert_eq!(readiness(Reading::Found(replicas(1, ""))), Some("CS5032"));
    assert_eq!(readiness(Reading::Found(replicas(0, ""))), Some("CS5031"));
    assert_eq!(readiness(Reading::Absent), Some("CS5030"));
    let check = ready("operator", "o", &Reading::Found(replicas(0, "")), SYSTEM);
    assert!(check.message.contains("CrashLoopBackOff"), "{check:?}");
    let none = Replicas { wanted: 0, not_ready: BTreeMap::new(), ..replicas(0, "") };
    let check = ready("operator", "o", &Reading::Found(none), SYSTEM);
    assert!(check.message.contains("scaled to 0") && check.mends.join("\n").contains("kubectl scale"));
}

fn leadership(holder: Option<&str>, renewed: i64) -> Option<&'static str> {
    let leader = Leader { holder: holder.map(str::to_owned), renewed: Some(at(renewed)), duration: 15 };
    leads(&Reading::Found(leader), SYSTEM, at(100)).code()
}

#[test]
fn a_lease_that_is_not_renewed_leads_nobody() {
    assert_eq!(leadership(Some("a_1"), 90), None);
    assert_eq!(leadership(Some("a_1"), 84), Some("CS5034"));
    assert_eq!(leadership(Some("a_1"), 110), Some("CS5051"));
    assert_eq!(leadership(None, 90), Some("CS5033"));
}

#[test]
fn an_issuer_without_endpoints_and_settings_without_keys_fail() {
    assert_eq!(issuer(&Reading::Found(0), SYSTEM).code(), Some("CS5036"));
    assert_eq!(issuer(&Reading::Found(2), SYSTEM).mark, Mark::Ok);
    assert_eq!(published(&Reading::Found(vec!["issuer"]), SYSTEM).code(), Some("CS5037"));
    assert_eq!(published(&Reading::Found(vec![]), SYSTEM).mark, Mark::Ok);
}

#[test]
fn replicas_of_two_builds_and_of_another_release_are_warnings() {
    assert_eq!(images("operator", "countersign-operator", &replicas(2, "operator:dev"), SYSTEM).mark, Mark::Ok);
    assert_eq!(images("operator", "countersign-operator", &replicas(2, "operator:old"), SYSTEM).code(), Some("CS5035"));
    let mut other = replicas(2, "r.example:5000/operator:v99.1.0");
    other.images = other.running.clone();
    assert_eq!(images("operator", "countersign-operator", &other, SYSTEM).code(), Some("CS5038"));
}

#[test]
fn tags_that_are_versions_are_compared_by_major_and_minor() {
    assert_eq!(release("r.example:5000/operator:v1.2.3@sha256:00").as_deref(), Some("1.2.3"));
    assert_eq!(release("r.example:5000/operator"), None);
    assert_eq!(release("operator:dev"), None);
    assert!(same_minor("1.2.3", "1.2.0") && !same_minor("1.3.0", "1.2.0"));
}
