//! The control plane's root is made once, and never anew under pods that trust it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::{ControlPlaneError, Due, StoredSecret, address, decide};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn made() -> StoredSecret {
    let Ok(Due::Write(journal)) = decide(None, "cluster", None, false, at(0)) else { panic!("no first root") };
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
    let half = at(365 * 24 * 3600 / 2);
    let Ok(Due::Write(journal)) = decide(Some(&made()), "cluster", None, true, half) else { panic!("no successor") };
    assert_eq!(journal.roots(half).len(), 2);
    let successor = &journal.x509_slots()[1].times;
    assert!(successor.activate_at.duration_since(half).as_hours() > 24 * 100);
}

#[test]
fn the_issuers_address_is_the_services_clusterip() {
    let service = |ip: &str| -> Service { serde_json::from_value(json!({"spec": {"clusterIP": ip}})).unwrap() };
    assert_eq!(address(&service("10.96.0.7")).as_deref(), Some("10.96.0.7:8443"));
    assert_eq!(address(&service("fd00::7")).as_deref(), Some("[fd00::7]:8443"));
    assert_eq!(address(&service("None")), None);
    assert_eq!(address(&service("")), None);
}
