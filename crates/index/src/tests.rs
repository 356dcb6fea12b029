//! Objects in, published entitlements out.

use std::sync::Arc;

use countersign_crds as crds;
use countersign_policy as policy;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Dirty, DomainVerdict, Entitlement, IdentityKey, Index, PodRecord, SharedIndex};

pub(super) fn domain(name: &str, spec: &Value) -> crds::TrustDomain {
    serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    }))
    .unwrap()
}

fn example() -> crds::TrustDomain {
    let namespaces = json!({"matchLabels": {"team": "a"}});
    let grants = json!([{"namespaces": namespaces, "paths": ["/ns/{namespace}/**"], "allowLabelOnly": true}]);
    domain("example.org", &json!({"authority": {}, "grants": grants}))
}

/// A WorkloadIdentity, `age` seconds younger than the first.
pub(super) fn identity(namespace: &str, name: &str, age: i64, spec: &Value) -> crds::WorkloadIdentity {
    let created = Timestamp::from_second(1_700_000_000 + age).unwrap();
    let mut object = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
        "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{namespace}-{name}"), "generation": 1,
                     "creationTimestamp": created},
        "spec": {"trustDomain": "example.org", "selector": {"serviceAccounts": ["sa"]}},
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

pub(super) fn key(namespace: &str, name: &str) -> IdentityKey {
    IdentityKey { namespace: namespace.to_owned(), name: name.to_owned() }
}

pub(super) fn pod(namespace: &str, name: &str) -> PodRecord {
    let mut pod = PodRecord::default();
    pod.facts.namespace = namespace.to_owned();
    pod.facts.name = name.to_owned();
    pod.facts.uid = format!("uid-{name}");
    pod.facts.service_account = "sa".to_owned();
    pod.facts.containers = vec!["app".to_owned()];
    pod
}

fn labelled(pod: PodRecord, key: &str, value: &str) -> PodRecord {
    let mut pod = pod;
    pod.facts.labels.insert(key.to_owned(), value.to_owned());
    pod
}

pub(super) fn team(value: &str) -> std::collections::BTreeMap<String, String> {
    [("team".to_owned(), value.to_owned())].into()
}

/// Namespace `shop` of team a with pod `p`, and trust domain `example.org`.
fn shop() -> SharedIndex {
    let index = SharedIndex::new(Index::default());
    index.update(|index| {
        index.apply_namespace("shop", team("a"));
        index.apply_domain(policy::trust_domain(&example(), "prod"));
        index.apply_pod(pod("shop", "p"));
    });
    index
}

pub(super) fn ids(entitlement: &Entitlement) -> Vec<String> {
    match entitlement {
        Entitlement::Entitled(entitled) => entitled.iter().map(|one| one.id.to_string()).collect(),
        Entitlement::None(absence) => vec![format!("none: {}", absence.reason)],
        Entitlement::Gone => vec!["gone".to_owned()],
    }
}

fn now(index: &SharedIndex, pod: &str) -> Vec<String> {
    index.read(|index| ids(&index.entitlement(&format!("uid-{pod}"), "")))
}

const ID: &str = "spiffe://example.org/ns/shop/sa/sa";

// R48: a namespace of which nothing is known is not one without labels.
#[test]
fn an_identity_whose_namespace_is_not_known_is_granted_nothing() {
    let selectors = [
        json!({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["b"]}]}),
        json!({"matchExpressions": [{"key": "banned", "operator": "DoesNotExist"}]}),
        json!({"matchNames": ["shop"]}),
    ];
    for namespaces in selectors {
        let index = SharedIndex::new(Index::default());
        let grants = json!([{"namespaces": namespaces, "paths": ["/ns/{namespace}/**"]}]);
        index.update(|index| {
            index.apply_domain(policy::trust_domain(
                &domain("example.org", &json!({"authority": {}, "grants": grants})),
                "prod",
            ));
            index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &json!({}))));
            index.apply_pod(pod("shop", "p"));
        });
        assert_eq!(now(&index, "p"), ["none: NamespaceUnknown"], "{namespaces}");
        index.update(|index| index.apply_namespace("shop", [].into()));
        assert_eq!(now(&index, "p"), [ID], "known, and without labels: {namespaces}");
        index.update(|index| index.remove_namespace("shop"));
        assert_eq!(now(&index, "p"), ["none: NamespaceUnknown"], "{namespaces}");
    }
}

// Objects may be applied in any order: the outcome is the same.
#[test]
fn every_order_of_applying_publishes_the_same() {
    type Step = fn(&mut Index);
    let steps: [Step; 4] = [
        |index| index.apply_namespace("shop", team("a")),
        |index| index.apply_domain(policy::trust_domain(&example(), "prod")),
        |index| index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &json!({})))),
        |index| index.apply_pod(pod("shop", "p")),
    ];
    let mut orders = vec![vec![]];
    for _ in 0..steps.len() {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..4)
                    .filter(|step| !order.contains(step))
                    .map(|step| [order.clone(), vec![step]].concat())
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    assert_eq!(orders.len(), 24);
    for order in orders {
        let index = SharedIndex::default();
        // The watches of pods come first where a session waits; so does this one.
        let mut subscription = None;
        for step in &order {
            index.update(steps[*step]);
            if *step == 3 {
                subscription = Some(index.subscribe("uid-p", ""));
            }
        }
        assert_eq!(ids(&subscription.unwrap().current()), [ID], "{order:?}");
        let view = index.read(|index| index.identity(&key("shop", "one"))).unwrap();
        assert_eq!((view.matched, view.outcome.unwrap().reason().name()), (1, "Admitted"), "{order:?}");
    }
}

#[test]
fn a_session_is_told_of_what_concerns_it_and_of_nothing_else() {
    let index = shop();
    index.update(|index| index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &json!({})))));
    let mut subscription = index.subscribe("uid-p", "");
    let told = |subscription: &mut super::Subscription| {
        subscription.receiver.has_changed().unwrap() && {
            subscription.receiver.mark_unchanged();
            true
        }
    };
    index.update(|index| {
        index.apply_pod(pod("shop", "other"));
        index.apply_pod(pod("shop", "p"));
        index.apply_namespace("elsewhere", team("a"));
        index.apply_identity(policy::workload_identity(&identity("elsewhere", "one", 0, &json!({}))));
        index.apply_identity(policy::workload_identity(&identity(
            "shop",
            "two",
            5,
            &json!({"selector": {"serviceAccounts": ["other"]}}),
        )));
        index.apply_domain(policy::trust_domain(&example(), "prod"));
        index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &json!({}))));
    });
    assert!(!told(&mut subscription));
    index.update(|index| {
        index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &json!({"x509": {"ttl": "30m"}}))));
    });
    assert!(told(&mut subscription));
    index.update(|index| index.apply_namespace("shop", team("b")));
    assert!(told(&mut subscription));
    assert_eq!(ids(&subscription.current()), ["none: NotGranted"]);
}

#[test]
fn a_session_is_told_that_its_renewal_is_asked_for() {
    let index = shop();
    index.update(|index| index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &json!({})))));
    let subscription = index.subscribe("uid-p", "");
    let renewal = || match &*subscription.current() {
        super::Entitlement::Entitled(entitled) => entitled[0].renewal,
        other => panic!("{other:?}"),
    };
    assert_eq!(renewal(), 0);
    let mut asked = pod("shop", "p");
    asked.facts.renewal = 5;
    index.update(|index| index.apply_pod(asked));
    assert_eq!(renewal(), 5);
}

#[test]
fn the_reason_follows_what_is_missing() {
    let index = shop();
    let subscription = index.subscribe("uid-p", "");
    let reason = || ids(&subscription.current()).remove(0);
    assert_eq!(reason(), "none: NoWorkloadIdentity");
    index.update(|index| {
        index.apply_identity(policy::workload_identity(&identity(
            "shop",
            "one",
            0,
            &json!({"selector": {"serviceAccounts": ["other"]}}),
        )));
    });
    assert_eq!(reason(), "none: ServiceAccountNotSelected");
    let narrowed = json!({"selector": {"serviceAccounts": ["sa"], "matchLabels": {"app": "x"}}});
    index.update(|index| index.apply_identity(policy::workload_identity(&identity("shop", "two", 1, &narrowed))));
    assert_eq!(reason(), "none: LabelsDiffer");
    index.update(|index| index.apply_pod(labelled(pod("shop", "p"), "app", "x")));
    assert_eq!(reason(), ID);
    index.update(|index| index.remove_domain("example.org"));
    assert_eq!(reason(), "none: NoTrustDomain");
    index.update(|index| index.remove_identity(&key("shop", "two")));
    assert_eq!(reason(), "none: ServiceAccountNotSelected");
    index.update(|index| index.remove_identity(&key("shop", "one")));
    assert_eq!(reason(), "none: NoWorkloadIdentity");
}

// R32: of two concurrent claims the oldest holds; when it goes, the other gets it.
#[test]
fn of_two_claims_to_one_id_the_oldest_holds_until_it_goes() {
    let index = shop();
    index.update(|index| {
        index.apply_namespace("bank", team("a"));
        let mut shared = example();
        shared.spec.grants[0].paths = vec!["/app".to_owned()];
        shared.spec.grants[0].shared = true;
        index.apply_domain(policy::trust_domain(&shared, "prod"));
        index.apply_pod(pod("bank", "q"));
        index.apply_identity(policy::workload_identity(&identity("bank", "late", 9, &json!({"path": "/app"}))));
    });
    assert_eq!(now(&index, "q"), ["spiffe://example.org/app"]);
    let subscription = index.subscribe("uid-q", "");
    index.update(|index| {
        index.apply_identity(policy::workload_identity(&identity("shop", "early", 0, &json!({"path": "/app"}))));
    });
    assert_eq!(now(&index, "p"), ["spiffe://example.org/app"]);
    assert_eq!(ids(&subscription.current()), ["none: Conflict"]);
    index.update(|index| index.remove_identity(&key("shop", "early")));
    assert_eq!(ids(&subscription.current()), ["spiffe://example.org/app"]);
    index.update(|index| {
        index.apply_identity(policy::workload_identity(&identity("shop", "early", 0, &json!({"path": "/app"}))));
    });
    index.update(|index| {
        index.apply_identity(policy::workload_identity(&identity("shop", "early", 0, &json!({"path": "/other"}))));
    });
    assert_eq!(ids(&subscription.current()), ["spiffe://example.org/app"], "its spec moved away");
}

#[test]
fn pods_are_counted_as_they_come_change_and_go() {
    let index = shop();
    index.update(|index| index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &json!({})))));
    let counts = || {
        let view = index.read(|index| index.identity(&key("shop", "one"))).unwrap();
        (view.matched, view.not_injected)
    };
    assert_eq!(counts(), (1, 1));
    index.update(|index| index.apply_pod(PodRecord { injected: true, ..pod("shop", "q") }));
    assert_eq!(counts(), (2, 1));
    index.update(|index| index.apply_pod(PodRecord { ended: true, ..pod("shop", "p") }));
    assert_eq!(counts(), (1, 0));
    index.update(|index| {
        index.apply_identity(policy::workload_identity(&identity(
            "shop",
            "one",
            0,
            &json!({"selector": {"serviceAccounts": ["x"]}}),
        )));
    });
    assert_eq!(counts(), (0, 0));
    index.update(|index| {
        index.apply_identity(policy::workload_identity(&identity(
            "shop",
            "one",
            0,
            &json!({"selector": {"matchLabels": {"a": "b"}}}),
        )));
    });
    index.update(|index| index.apply_pod(labelled(pod("shop", "r"), "a", "b")));
    assert_eq!(counts(), (1, 1));
    index.update(|index| index.remove_pod("uid-r"));
    assert_eq!(counts(), (0, 0));
}

#[test]
fn pods_that_never_refresh_are_counted_and_a_few_named_as_they_come_change_and_go() {
    let index = shop();
    index.update(|index| index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &json!({})))));
    let told = || {
        let view = index.read(|index| index.identity(&key("shop", "one"))).unwrap();
        (view.never_refresh, view.some_never_refresh.join(" "))
    };
    let stale = |name: &str| PodRecord { never_refreshes: vec!["app".to_owned()], ..pod("shop", name) };
    let dirty = || index.update(|index| std::mem::take(&mut index.dirty.identities).contains(&key("shop", "one")));
    assert_eq!(told(), (0, String::new()));
    dirty();
    index.update(|index| index.apply_pod(stale("p")));
    assert!(dirty(), "nothing else of the pod changed");
    assert_eq!(told(), (1, "p".to_owned()));
    index.update(|index| ["q", "s", "r", "t"].into_iter().for_each(|name| index.apply_pod(stale(name))));
    assert_eq!(told(), (5, "p q r".to_owned()));
    index.update(|index| index.remove_pod("uid-q"));
    assert_eq!(told(), (4, "p r s".to_owned()));
    index.update(|index| index.apply_pod(PodRecord { ended: true, ..stale("r") }));
    index.update(|index| index.apply_pod(pod("shop", "t")));
    dirty();
    assert_eq!(told(), (2, "p s".to_owned()));
    let elsewhere = json!({"selector": {"serviceAccounts": ["sa"], "containers": ["other"]}});
    index.update(|index| index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &elsewhere))));
    assert_eq!(told(), (0, String::new()), "it is for a container that refreshes");
    let here = json!({"selector": {"serviceAccounts": ["sa"], "containers": ["app"]}});
    index.update(|index| index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &here))));
    assert_eq!(told(), (2, "p s".to_owned()));
    index.update(|index| {
        index.apply_identity(policy::workload_identity(&identity(
            "shop",
            "one",
            0,
            &json!({"selector": {"serviceAccounts": ["x"]}}),
        )));
    });
    assert_eq!(told(), (0, String::new()));
}

#[test]
fn a_pod_that_replaces_another_of_its_name_ends_that_ones_session() {
    let index = shop();
    index.update(|index| index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &json!({})))));
    let subscription = index.subscribe("uid-p", "");
    let mut replacement = pod("shop", "p");
    replacement.facts.uid = "uid-new".to_owned();
    index.update(|index| index.apply_pod(replacement));
    assert_eq!(ids(&subscription.current()), ["gone"]);
    assert_eq!(now(&index, "new"), [ID]);
    index.update(|index| index.remove_pod("uid-p"));
    assert_eq!(now(&index, "new"), [ID], "the old pod's late deletion is not the new one's");
}

#[test]
fn of_two_objects_for_one_trust_domain_the_oldest_is_it() {
    let index = shop();
    index.update(|index| {
        let mut second = domain("second", &json!({"trustDomain": "example.org", "authority": {}}));
        second.metadata.creation_timestamp = Some(serde_json::from_value(json!("2025-01-01T00:00:00Z")).unwrap());
        index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &json!({}))));
        index.apply_domain(policy::trust_domain(&second, "prod"));
    });
    let verdict = |name: &str| index.read(|index| index.domain(name)).unwrap();
    assert!(matches!(verdict("example.org"), DomainVerdict::Duplicate { of, .. } if of == "second"));
    assert!(matches!(verdict("second"), DomainVerdict::Accepted(_)));
    assert_eq!(now(&index, "p"), ["none: NoTrustDomain"]);
    index.update(|index| index.remove_domain("second"));
    assert_eq!(now(&index, "p"), [ID]);
}

#[test]
fn a_trust_domain_that_cannot_be_read_names_its_field_and_grants_nothing() {
    let index = shop();
    index.update(|index| {
        index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &json!({}))));
        let mut broken = example();
        broken.spec.grants[0].paths.push("/ns/{nope}".to_owned());
        index.apply_domain(policy::trust_domain(&broken, "prod"));
    });
    let DomainVerdict::Invalid(error) = index.read(|index| index.domain("example.org")).unwrap() else { panic!() };
    let fields: Vec<_> = error.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["spec.grants[0].paths[1]"]);
    assert_eq!(now(&index, "p"), ["none: NoTrustDomain"]);
}

#[test]
fn an_identity_that_cannot_be_read_is_told_to_those_who_wait() {
    let index = shop();
    index.update(|index| {
        index.apply_identity(policy::workload_identity(&identity("shop", "broken", 0, &json!({"path": "/a/../b"}))));
    });
    let Entitlement::None(absence) = index.read(|index| index.entitlement("uid-p", "")) else { panic!() };
    assert!(absence.message.contains("WorkloadIdentity shop/broken cannot be read: spec.path"), "{}", absence.message);
}

#[test]
fn what_a_list_no_longer_holds_is_gone() {
    let index = shop();
    index.update(|index| {
        index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &json!({}))));
        index.retain_identities(&[].into());
        index.retain_domains(&[].into());
        index.retain_namespaces(&[].into());
        assert_eq!((index.identity_count(), index.domain_count(), index.namespace_count()), (0, 0, 0));
    });
    assert_eq!(now(&index, "p"), ["none: NoWorkloadIdentity"]);
}

#[test]
fn pods_that_a_list_does_not_hold_are_gone_and_those_it_holds_unchanged_stay() {
    let index = shop();
    index.update(|index| {
        index.apply_pod(pod("shop", "q"));
        index.apply_pod(pod("shop", "r"));
        index.begin_pods();
        index.apply_pod(pod("shop", "q"));
        index.apply_pod(pod("shop", "s"));
        index.end_pods();
        let there = ["uid-p", "uid-q", "uid-r", "uid-s"].map(|uid| index.pod(uid).is_some());
        assert_eq!(there, [false, true, false, true]);
    });
}

// No change of one pod may cost what all pods cost.
#[test]
fn a_change_of_one_pod_is_told_to_its_sessions_and_its_identities_alone() {
    let index = shop();
    index.update(|index| {
        for number in 0..50 {
            let name = format!("other-{number}");
            index.apply_identity(policy::workload_identity(&identity(
                "shop",
                &name,
                0,
                &json!({"selector": {"serviceAccounts": [name.as_str()]}}),
            )));
            let mut other = pod("shop", &name);
            other.facts.service_account = name;
            index.apply_pod(other);
        }
        index.apply_identity(policy::workload_identity(&identity("shop", "mine", 0, &json!({}))));
    });
    let mut others: Vec<_> = (0..50).map(|number| index.subscribe(&format!("uid-other-{number}"), "")).collect();
    let mine = index.subscribe("uid-p", "");
    index.update(|index| index.dirty = Dirty::default());
    let ended = PodRecord { ended: true, ..pod("shop", "p") };
    index.update(|index| index.apply_pod(ended));
    assert_eq!(*mine.current(), Entitlement::Gone);
    assert!(others.iter_mut().all(|other| !other.receiver.has_changed().unwrap()));
    let dirty: Vec<_> = index.update(|index| index.dirty.identities.iter().map(|key| key.name.clone()).collect());
    assert_eq!(dirty, ["mine"]);
}

#[test]
fn a_pod_read_live_counts_until_the_watch_confirms_it_or_its_time_is_over() {
    let begin = Timestamp::from_second(1_800_000_000).unwrap();
    let after = |seconds| begin.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    let index = shop();
    index.update(|index| {
        index.apply_live_pod(pod("shop", "q"), after(60), begin);
        index.apply_live_pod(pod("shop", "r"), after(60), begin);
        assert!(index.alive("uid-q", after(59)) && index.alive("uid-r", after(59)));
        index.begin_pods();
        index.end_pods();
        assert!(index.pod("uid-q").is_some(), "a list older than the read must not remove it");
        index.apply_pod(pod("shop", "q"));
        assert!(index.alive("uid-q", after(61)) && !index.alive("uid-r", after(60)));
        index.apply_live_pod(pod("shop", "s"), after(200), after(100));
        assert!(index.pod("uid-r").is_none(), "what was never confirmed is forgotten");
        assert!(index.pod("uid-q").is_some());
    });
}

#[test]
fn nothing_is_kept_of_sessions_that_ended() {
    let index = shop();
    let (first, second) = (index.subscribe("uid-p", ""), index.subscribe("uid-p", ""));
    assert_eq!(index.read(Index::session_count), 1);
    drop(first);
    assert_eq!(index.read(Index::session_count), 1);
    drop(second);
    index.read(|index| {
        assert_eq!(index.session_count(), 0);
        assert_eq!(index.sessions.waiting("shop").count(), 0);
    });
}

// The status of what a change touches, and of nothing else, is looked at again.
#[tokio::test]
async fn only_what_a_change_touches_is_dirty() {
    let index = shop();
    index.update(|index| {
        index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &json!({}))));
        index.apply_identity(policy::workload_identity(&identity(
            "shop",
            "two",
            1,
            &json!({"selector": {"serviceAccounts": ["x"]}}),
        )));
        index.dirty = Dirty::default();
        index.apply_pod(pod("shop", "q"));
    });
    assert_eq!(index.dirty_identities().await.into_iter().collect::<Vec<_>>(), [key("shop", "one")]);
    index.update(|index| index.apply_pod(labelled(pod("shop", "q"), "a", "b")));
    assert_eq!(index.read(|index| index.dirty.clone()), Dirty::default());
    index.update(|index| index.apply_domain(policy::trust_domain(&example(), "prod")));
    assert!(index.dirty_domains().await.contains("example.org"));
}

// Finding 8: what a change costs does not grow with the number of identities.
#[test]
fn a_change_among_very_many_identities_of_one_pod_is_matched_once() {
    let index = shop();
    let session = index.subscribe("uid-p", "");
    for overlapping in [true, false] {
        let apply = |number: i64| {
            let own = format!("/ns/{{namespace}}/own/x{number}");
            let path = if overlapping { "/ns/{namespace}/{podName}".to_owned() } else { own };
            let name = format!("{overlapping}-{number}");
            let spec = identity("shop", &name, number, &json!({"path": path}));
            index.update(|index| index.apply_identity(policy::workload_identity(&spec)));
        };
        (0..200).for_each(apply);
        let before = index.read(Index::evaluated);
        apply(200);
        assert_eq!(index.read(Index::evaluated) - before, 1, "overlapping: {overlapping}");
    }
    let published = session.current();
    assert_eq!(*published, index.read(|index| index.entitlement("uid-p", "")));
    assert!(matches!(&*published, Entitlement::Entitled(entitled) if entitled.len() == 32), "{:?}", ids(&published));
}

// R25: an older object of the same trust domain takes over, and the authorities with it.
#[test]
fn the_authorities_of_accepted_trust_domains_are_published() {
    let index = shop();
    let mut authorities = index.authorities();
    let names = |published: &std::collections::BTreeMap<String, _>| published.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&authorities.borrow_and_update()), ["example.org"]);
    index.update(|index| index.apply_pod(pod("shop", "q")));
    assert!(!authorities.has_changed().unwrap(), "a pod changes nothing of them");
    let mut older = example();
    older.metadata.name = Some("older".to_owned());
    older.metadata.creation_timestamp = serde_json::from_value(json!("2020-01-01T00:00:00Z")).unwrap();
    older.spec.trust_domain = Some("example.org".to_owned());
    index.update(|index| index.apply_domain(policy::trust_domain(&older, "prod")));
    assert_eq!(names(&authorities.borrow_and_update()), ["older"]);
    index.update(|index| index.remove_domain("older"));
    assert_eq!(names(&authorities.borrow_and_update()), ["example.org"]);
    let mut foreign = example();
    foreign.spec.authority = None;
    foreign.spec.remote = serde_json::from_value(json!({ "namespaces": { "matchNames": ["shop"] } })).unwrap();
    index.update(|index| index.apply_domain(policy::trust_domain(&foreign, "prod")));
    assert!(authorities.borrow_and_update().is_empty());
}

#[test]
fn a_hundred_thousand_pods_share_what_they_can() {
    let index = shop();
    index.update(|index| index.apply_identity(policy::workload_identity(&identity("shop", "one", 0, &json!({})))));
    let entitled = |pod: &str| match index.read(|index| index.entitlement(&format!("uid-{pod}"), "")) {
        Entitlement::Entitled(entitled) => entitled,
        other => panic!("{other:?}"),
    };
    index.update(|index| index.apply_pod(pod("shop", "q")));
    let (p, q) = (entitled("p"), entitled("q"));
    assert!(Arc::ptr_eq(&p[0].identity, &q[0].identity) && Arc::ptr_eq(&p[0].domain, &q[0].domain));
}
