//! Who holds a claim, as sessions and statuses are told, and how much one change touches.

use countersign_core::entitlement::{ClaimHistory, ClaimKey, ClaimKind};
use countersign_crds as crds;
use countersign_policy as policy;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::tests::{domain, identity, ids, key, pod, team};
use super::{Dirty, Entitlement, Index, SharedIndex};

/// Namespaces `shop` and `bank` share `/svc/*` and the names below `example.org`; each has a pod, `p` and `q`.
fn shared() -> SharedIndex {
    let index = SharedIndex::new(Index::default());
    index.update(|index| {
        index.apply_namespace("shop", team("a"));
        index.apply_namespace("bank", team("a"));
        index.apply_domain(policy::trust_domain(&shared_domain("a"), ""));
        index.apply_pod(pod("shop", "p"));
        index.apply_pod(pod("bank", "q"));
    });
    index
}

fn shared_domain(team: &str) -> crds::TrustDomain {
    let grant = json!({
        "namespaces": {"matchLabels": {"team": team}}, "shared": true,
        "paths": ["/svc/*", "/x/*"], "dnsNames": ["*.example.org"],
    });
    domain("example.org", &json!({"authority": {}, "grants": [grant]}))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// The leader looks at an object and writes what it records; the watch tells of it. What was recorded, with the seconds.
fn lead(index: &SharedIndex, object: &mut crds::WorkloadIdentity, second: i64) -> Option<Vec<(String, i64)>> {
    let key = key(object.metadata.namespace.as_deref().unwrap(), object.metadata.name.as_deref().unwrap());
    let recorded = index.update(|index| index.record_claims(&key, at(second)))?;
    let record = |(claim, since): (&ClaimKey, &Timestamp)| {
        let kind = if claim.kind == ClaimKind::Path { "Path" } else { "DNSName" };
        json!({"kind": kind, "value": claim.value, "since": since})
    };
    let claims: Vec<Value> = recorded.iter().map(record).collect();
    let status = json!({"claims": claims, "observedGeneration": object.metadata.generation});
    object.status = Some(serde_json::from_value(status).unwrap());
    index.update(|index| index.apply_identity(policy::workload_identity(&object.clone())));
    let seconds = |(claim, since): (ClaimKey, Timestamp)| (claim.value.into(), since.duration_since(at(0)).as_secs());
    Some(recorded.into_iter().map(seconds).collect())
}

/// A later version of an object, with the status it had.
fn edited(old: &crds::WorkloadIdentity, spec: &Value) -> crds::WorkloadIdentity {
    let (namespace, name) = (old.metadata.namespace.as_deref().unwrap(), old.metadata.name.as_deref().unwrap());
    let mut new = identity(namespace, name, 0, spec);
    new.metadata.creation_timestamp.clone_from(&old.metadata.creation_timestamp);
    new.metadata.generation = old.metadata.generation.map(|generation| generation + 1);
    new.status.clone_from(&old.status);
    new
}

fn apply(index: &SharedIndex, object: &crds::WorkloadIdentity) {
    index.update(|index| index.apply_identity(policy::workload_identity(&object.clone())));
}

fn now(index: &SharedIndex, pod: &str) -> Vec<String> {
    index.read(|index| ids(&index.entitlement(&format!("uid-{pod}"), "")))
}

// R32, finding 1.
#[test]
fn an_update_takes_no_id_from_the_pods_of_another_namespace() {
    for moved in ["/svc/pay", "/svc/{podName}"] {
        let index = shared();
        let mut parked = identity("shop", "parked", 0, &json!({"path": "/svc/parked"}));
        let mut holder = identity("bank", "holder", 100, &json!({"path": "/svc/pay"}));
        apply(&index, &parked);
        lead(&index, &mut parked, 0);
        apply(&index, &holder);
        let subscription = index.subscribe("uid-q", "");
        // Whether the leader has looked at the holder or not.
        for second in [200, 300] {
            apply(&index, &edited(&parked, &json!({"path": moved})));
            assert_eq!(now(&index, "p"), ["none: Conflict"], "{moved}");
            assert_eq!(ids(&subscription.current()), ["spiffe://example.org/svc/pay"]);
            assert!(!subscription.receiver.has_changed().unwrap(), "its session notices nothing");
            lead(&index, &mut holder, second);
        }
        let mut moved = edited(&parked, &json!({"path": moved}));
        lead(&index, &mut moved, 400);
        assert_eq!(
            (now(&index, "p"), now(&index, "q")),
            (vec!["none: Conflict".to_owned()], vec!["spiffe://example.org/svc/pay".to_owned()])
        );
    }
}

#[test]
fn a_claim_outside_the_grants_has_no_age_when_they_widen_or_the_namespaces_label_changes() {
    let index = shared();
    index.update(|index| index.apply_namespace("shop", team("b")));
    let mut parked = identity("shop", "parked", 0, &json!({"path": "/svc/pay"}));
    let mut holder = identity("bank", "holder", 100, &json!({"path": "/svc/pay"}));
    apply(&index, &parked);
    assert_eq!(lead(&index, &mut parked, 0), Some(vec![]));
    apply(&index, &holder);
    lead(&index, &mut holder, 200);
    index.update(|index| index.apply_namespace("shop", team("a")));
    assert_eq!(
        (now(&index, "p").remove(0), now(&index, "q").remove(0)),
        ("none: Conflict".to_owned(), "spiffe://example.org/svc/pay".to_owned())
    );
    lead(&index, &mut parked, 300);

    // The holder's own label flips: the claim ends, and begins anew behind whoever waited.
    index.update(|index| index.apply_namespace("bank", team("b")));
    assert_eq!(now(&index, "p"), ["spiffe://example.org/svc/pay"]);
    assert_eq!(lead(&index, &mut holder, 400), Some(vec![]));
    index.update(|index| index.apply_namespace("bank", team("a")));
    assert_eq!(
        (now(&index, "p").remove(0), now(&index, "q").remove(0)),
        ("spiffe://example.org/svc/pay".to_owned(), "none: Conflict".to_owned())
    );
}

#[test]
fn while_there_is_no_trust_domain_or_namespace_nothing_recorded_is_forgotten() {
    let index = shared();
    let mut fresh = identity("shop", "fresh", 0, &json!({"path": "/x/a"}));
    let mut holder = identity("bank", "holder", 100, &json!({"path": "/svc/pay"}));
    apply(&index, &holder);
    let before = lead(&index, &mut holder, 200).unwrap();
    index.update(|index| index.remove_domain("example.org"));
    apply(&index, &fresh);
    assert_eq!(lead(&index, &mut fresh, 300), None, "nobody has decided anything of it");
    assert_eq!(lead(&index, &mut holder, 300), Some(before.clone()));
    index.update(|index| index.apply_domain(policy::trust_domain(&shared_domain("a"), "")));
    index.update(|index| index.remove_namespace("bank"));
    assert_eq!(lead(&index, &mut holder, 400), Some(before));
}

#[test]
fn a_name_of_another_namespace_is_left_out_and_its_winner_is_told() {
    let index = shared();
    let named = |namespace, name, age| {
        let spec = json!({"path": format!("/svc/{name}"), "x509": {"dnsNames": ["pay.example.org"]}});
        identity(namespace, name, age, &spec)
    };
    apply(&index, &named("bank", "first", 0));
    apply(&index, &named("shop", "late", 1));
    let names = |entitlement: &Entitlement| match entitlement {
        Entitlement::Entitled(entitled) => entitled[0].dns_names.clone(),
        other => panic!("{other:?}"),
    };
    let mut subscription = index.subscribe("uid-p", "");
    assert_eq!(names(&subscription.current()), [""; 0]);
    subscription.receiver.mark_unchanged();
    index.update(|index| index.remove_identity(&key("bank", "first")));
    assert!(subscription.receiver.has_changed().unwrap());
    assert_eq!(names(&subscription.current()), ["pay.example.org"]);
}

// An operator of an earlier version recorded nothing. What it found granted is as old as its object.
#[test]
fn after_an_upgrade_what_was_held_is_held() {
    let ready = |status: &str, reason: &str, observed: i64| {
        json!({"observedGeneration": observed, "conditions": [{
            "type": "Ready", "status": status, "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]})
    };
    let claims = json!({"claims": [], "observedGeneration": 1});
    for (generation, status, expected) in [
        (1, json!(null), ClaimHistory::Original),
        (2, json!(null), ClaimHistory::Changed),
        (1, json!({}), ClaimHistory::Original),
        (5, ready("True", "Admitted", 5), ClaimHistory::Original),
        (5, ready("True", "Admitted", 4), ClaimHistory::Changed),
        (5, ready("False", "AuthorityNotReady", 5), ClaimHistory::Original),
        (5, ready("False", "AuthorityStalled", 5), ClaimHistory::Original),
        (5, ready("False", "Conflict", 5), ClaimHistory::Changed),
        (1, ready("False", "Conflict", 1), ClaimHistory::Original),
        (1, ready("False", "NoTrustDomain", 1), ClaimHistory::Original),
        (1, ready("False", "NotGranted", 1), ClaimHistory::Changed),
        (1, claims, ClaimHistory::Recorded([].into())),
    ] {
        let mut object = identity("shop", "one", 0, &json!({}));
        object.metadata.generation = Some(generation);
        object.status = serde_json::from_value(status.clone()).unwrap();
        assert_eq!(policy::claim_history(&object), expected, "generation {generation}, {status}");
    }
}

// Finding 8: very many claims of one namespace to the same ids.
#[test]
fn one_change_among_very_many_conflicting_identities_judges_few() {
    const MANY: i64 = 1_000;
    let index = shared();
    let by_pod = |n: i64| {
        let spec = json!({"path": "/x/{podName}", "selector": {"serviceAccounts": [format!("sa-{n}")]}});
        identity("shop", &format!("{n:04}"), n, &spec)
    };
    let judged = |change: &dyn Fn(&mut Index)| {
        index.update(|index| {
            index.dirty = Dirty::default();
            change(index);
            index.dirty.identities.len()
        })
    };
    let most =
        (0..MANY).map(|n| judged(&|index| index.apply_identity(policy::workload_identity(&by_pod(n))))).max().unwrap();
    assert!(most <= 40, "{most} for one more");
    judged(&|index| while index.name_holders() {});
    assert_eq!(
        judged(&|index| index.apply_identity(policy::workload_identity(&identity(
            "bank",
            "elsewhere",
            0,
            &json!({"path": "/svc/a"})
        )))),
        1
    );
    assert_eq!(judged(&|index| index.remove_identity(&key("shop", "0500"))), 0, "one that lost");
    let first = judged(&|index| index.remove_identity(&key("shop", "0000")));
    assert_eq!(first, 1, "the one that holds from now on");
    let outcome = |name: &str| index.read(|index| index.identity(&key("shop", name))).unwrap().outcome.unwrap();
    assert!(outcome("0001").is_admitted());
    assert!(index.read(Index::has_renamed_holders));
    index.update(|index| while index.name_holders() {});
    assert!(outcome("0002").message().contains("WorkloadIdentity shop/0001 "), "{}", outcome("0002").message());
}
