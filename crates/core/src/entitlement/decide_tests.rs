//! What pods and sessions get, and the reason when they get nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::fixtures::{domain, identity, labels, path_grant, pod};
use super::{
    AudiencePattern, ClaimHistory, DomainSpec, Entitled, IdentitySpec, Judged, NameTemplate, NoIdentity, PathTemplate,
    PodFacts,
};
use super::{MAX_IDENTITIES, NamePattern, first_identities_for, identities_for, judge_all, left_out};

fn open_domain() -> DomainSpec {
    let mut grant = path_grant("/**");
    grant.shared = true;
    grant.dns_names = vec![NamePattern::parse("*.{namespace}.svc").unwrap()];
    grant.audiences = vec![AudiencePattern::parse("*").unwrap()];
    domain(vec![grant])
}

fn judged_by(domain: DomainSpec, identities: impl IntoIterator<Item = IdentitySpec>) -> Vec<Judged> {
    let domain = Arc::new(domain);
    let original = |_: &IdentitySpec| ClaimHistory::Original;
    judge_all(identities.into_iter().map(Arc::new), |_| Some(Arc::clone(&domain)), original, &BTreeMap::new())
}

fn judged(identities: impl IntoIterator<Item = IdentitySpec>) -> Vec<Judged> {
    judged_by(open_domain(), identities)
}

fn ids(entitled: &[Entitled]) -> Vec<String> {
    entitled.iter().map(|entitled| entitled.id.to_string()).collect()
}

fn reason(pod: &PodFacts, session: &str, judged: &[Judged]) -> &'static str {
    identities_for(pod, session, judged).unwrap_err().reason().name()
}

/// For the same account as `identity("shop", "orders")`, with another path.
fn also(path: &str, created: i64, uid: &str) -> IdentitySpec {
    IdentitySpec {
        name: uid.into(),
        uid: uid.into(),
        created: Timestamp::from_second(created).unwrap(),
        path: PathTemplate::parse(path).unwrap(),
        ..identity("shop", "orders")
    }
}

// R1, R33
#[test]
fn a_selected_pod_gets_its_id_names_and_lives() {
    let mut orders = identity("shop", "orders");
    orders.x509.dns_names = vec![NameTemplate::parse("{serviceAccount}.{namespace}.svc").unwrap()];
    orders.jwt.audiences = vec![AudiencePattern::parse("pay*").unwrap()];
    orders.jwt.ttl = Some(Duration::from_secs(60));
    orders.hint = Some("internal".into());
    let entitled = identities_for(&pod("shop", "orders"), "", &judged([orders])).unwrap().remove(0);
    assert_eq!(entitled.id.to_string(), "spiffe://example.org/ns/shop/sa/orders");
    assert_eq!(entitled.dns_names, ["orders.shop.svc"]);
    assert_eq!(entitled.hint.as_deref(), Some("internal"));
    assert_eq!((entitled.x509_ttl(), entitled.jwt_ttl()), (Duration::from_secs(3600), Duration::from_secs(60)));
    assert!(entitled.allows_audience("payments") && !entitled.allows_audience("orders"));
}

// R2: the id is the workload's, not the instance's.
#[test]
fn all_replicas_get_the_same_id() {
    let judged = judged([identity("shop", "orders")]);
    let replica = |name: &str| PodFacts { name: name.into(), uid: name.into(), ..pod("shop", "orders") };
    let get = |name| ids(&identities_for(&replica(name), "", &judged).unwrap());
    assert_eq!(get("orders-0"), get("orders-1"));
}

// Which of too many a session gets is certain: the oldest.
#[test]
fn a_session_gets_so_many_identities_the_oldest_of_them_and_the_others_are_named() {
    let uid = |number: i64| format!("i{number:03}");
    let many = |count: i64| {
        (0..count).map(move |number| also(&format!("/{number}"), count - number, &uid(number))).collect::<Vec<_>>()
    };
    let most = i64::try_from(MAX_IDENTITIES).unwrap();
    let (pod, enough, judged) = (pod("shop", "orders"), judged(many(most)), judged(many(most + 3)));
    assert_eq!(identities_for(&pod, "", &enough).unwrap().len(), MAX_IDENTITIES);
    assert_eq!(left_out(&pod, "", &enough), [""; 0]);
    let entitled = identities_for(&pod, "", &judged).unwrap();
    assert_eq!(entitled.len(), MAX_IDENTITIES);
    assert_eq!(entitled[0].identity.uid, uid(most + 2), "the last of them is the oldest");
    assert_eq!(left_out(&pod, "", &judged), [2, 1, 0].map(|number| format!("shop/{}", uid(number))));
}

// Finding 8: work is bounded, however many identities a namespace has.
#[test]
fn no_more_identities_are_looked_at_than_a_session_may_have() {
    let most = i64::try_from(MAX_IDENTITIES).unwrap();
    let judged = judged((0..10 * most).map(|number| also(&format!("/{number}"), number, &format!("i{number:03}"))));
    let looked_at = std::cell::Cell::new(0);
    let counted = judged.iter().inspect(|_| looked_at.set(looked_at.get() + 1));
    let entitled = first_identities_for(&pod("shop", "orders"), "", counted).unwrap().unwrap();
    assert_eq!((entitled.len(), looked_at.get()), (MAX_IDENTITIES, MAX_IDENTITIES));
}

#[test]
fn the_oldest_comes_first_then_the_lower_uid() {
    let (a, b, c) = (also("/c", 9, "a"), also("/a", 5, "b"), also("/b", 5, "c"));
    let expected = ["spiffe://example.org/a", "spiffe://example.org/b", "spiffe://example.org/c"];
    for order in [[&a, &b, &c], [&c, &b, &a], [&b, &c, &a]] {
        let judged = judged(order.map(Clone::clone));
        assert_eq!(ids(&identities_for(&pod("shop", "orders"), "", &judged).unwrap()), expected);
    }
}

#[test]
fn a_hint_is_kept_by_the_first_that_has_it() {
    let hinted = |path, created, hint: &str| IdentitySpec { hint: Some(hint.into()), ..also(path, created, path) };
    let judged = judged([
        hinted("/a", 1, "x"),
        hinted("/b", 2, "x"),
        hinted("/c", 3, "y"),
        also("/d", 4, "d"),
        hinted("/e", 5, "x"),
    ]);
    let entitled = identities_for(&pod("shop", "orders"), "", &judged).unwrap();
    let hints: Vec<_> = entitled.iter().map(|entitled| entitled.hint.as_deref()).collect();
    assert_eq!(hints, [Some("x"), None, Some("y"), None, None]);
}

// R3: two containers of one pod get different ids.
#[test]
fn containers_get_their_own_identities_in_their_own_sessions() {
    let only = |path, container: &str| {
        let mut identity = also(path, 1, path);
        identity.selector.containers = vec![container.into()];
        identity
    };
    let judged = judged([only("/app", "app"), only("/proxy", "proxy"), also("/pod", 2, "pod")]);
    let get = |session| ids(&identities_for(&pod("shop", "orders"), session, &judged).unwrap());
    assert_eq!(get("app"), ["spiffe://example.org/app", "spiffe://example.org/pod"]);
    assert_eq!(get("proxy"), ["spiffe://example.org/proxy", "spiffe://example.org/pod"]);
    assert_eq!(get(""), ["spiffe://example.org/pod"]);
}

#[test]
fn identities_of_other_namespaces_are_passed_over() {
    let judged = judged([identity("bank", "orders")]);
    assert_eq!(reason(&pod("shop", "orders"), "", &judged), "NoWorkloadIdentity");
}

#[test]
fn what_is_not_admitted_is_never_given() {
    let nothing_granted = judged_by(domain(vec![]), [identity("shop", "orders")]);
    let refused = identities_for(&pod("shop", "orders"), "", &nothing_granted).unwrap_err();
    assert_eq!(refused.reason().name(), "NotGranted");
    assert!(
        refused.to_string().contains("WorkloadIdentity shop/orders selects this pod but is refused (NotGranted): "),
        "{refused}"
    );

    let conflicting = judged([identity("shop", "orders"), also("/ns/shop/sa/orders", 2_000, "late")]);
    assert_eq!(ids(&identities_for(&pod("shop", "orders"), "", &conflicting).unwrap()).len(), 1);
}

// R1: change account, label or container outside what is selected, and there is no credential, with the reason.
#[test]
fn no_identity_says_what_came_nearest() {
    let mut labelled = identity("shop", "orders");
    labelled.selector.labels.match_labels = labels(&[("tier", "web")]);
    let web = PodFacts { labels: labels(&[("tier", "web")]), ..pod("shop", "orders") };
    let mut narrowed = also("/app", 2_000, "narrowed");
    narrowed.selector.labels = labelled.selector.labels.clone();
    narrowed.selector.containers = vec!["app".into()];

    assert_eq!(reason(&web, "", &[]), "NoWorkloadIdentity");
    assert_eq!(reason(&web, "ghost", &judged([labelled.clone()])), "NoSuchContainer");
    assert_eq!(
        reason(&pod("shop", "other"), "", &judged([labelled.clone(), narrowed.clone()])),
        "ServiceAccountNotSelected"
    );
    assert_eq!(reason(&pod("shop", "orders"), "", &judged([labelled.clone(), identity("shop", "x")])), "LabelsDiffer");
    assert_eq!(reason(&web, "", &judged([identity("shop", "x"), narrowed.clone()])), "ContainerNotSelected");
    assert_eq!(reason(&web, "proxy", &judged([narrowed])), "ContainerNotSelected");
    assert_eq!(reason(&web, "", &judged_by(domain(vec![]), [identity("shop", "x"), labelled])), "NotGranted");
}

#[test]
fn an_identity_that_cannot_be_rendered_does_not_hide_the_others() {
    let odd = PodFacts { name: "a/b".into(), ..pod("shop", "orders") };
    let judged_odd = judged([also("/pod/{podName}", 1, "odd")]);
    assert!(matches!(identities_for(&odd, "", &judged_odd), Err(NoIdentity::Unrenderable { field: "path", .. })));
    let both = judged([also("/pod/{podName}", 1, "odd"), identity("shop", "orders")]);
    assert_eq!(ids(&identities_for(&odd, "", &both).unwrap()), ["spiffe://example.org/ns/shop/sa/orders"]);

    let mut dotted = identity("shop", "a.b");
    dotted.x509.dns_names = vec![NameTemplate::parse("{serviceAccount}.{namespace}.svc").unwrap()];
    let judged = judged([dotted]);
    assert!(matches!(
        identities_for(&pod("shop", "a.b"), "", &judged),
        Err(NoIdentity::Unrenderable { field: "DNS name", .. })
    ));
}

// An account that is added takes nothing from the accounts that were there, of this identity or of others.
#[test]
fn an_account_whose_id_another_holds_does_not_get_it_and_the_others_do() {
    let at = |account: &str, name: &str, created| IdentitySpec {
        namespace: name.into(),
        created: Timestamp::from_second(created).unwrap(),
        path: PathTemplate::parse("/svc/{serviceAccount}").unwrap(),
        ..identity(name, account)
    };
    let mut both = at("orders", "shop", 500);
    both.selector.service_accounts.push("payments".into());
    let judged = judged([both, at("payments", "bank", 100)]);
    assert_eq!(
        judged[0].lost().iter().map(|lost| (&*lost.claim.value, lost.namespace.as_str())).collect::<Vec<_>>(),
        [("/svc/payments", "bank")]
    );
    let get = |namespace, account| identities_for(&pod(namespace, account), "", &judged).map(|entitled| ids(&entitled));
    assert_eq!(get("shop", "orders").unwrap(), ["spiffe://example.org/svc/orders"]);
    assert_eq!(get("bank", "payments").unwrap(), ["spiffe://example.org/svc/payments"]);
    let refused = get("shop", "payments").unwrap_err();
    assert_eq!(refused.reason().name(), "Conflict");
    assert!(refused.to_string().contains("WorkloadIdentity bank/payments already holds"), "{refused}");
}

#[test]
fn a_dns_name_that_another_namespace_holds_is_left_out_and_the_identity_stays() {
    let mut grant = path_grant("/ns/{namespace}/**");
    (grant.shared, grant.dns_names) = (true, vec![NamePattern::parse("*.example.org").unwrap()]);
    let claiming = |namespace: &str, account: &str, created, names: &[&str]| {
        let mut claiming = identity(namespace, account);
        claiming.created = Timestamp::from_second(created).unwrap();
        claiming.x509.dns_names = names.iter().map(|name| NameTemplate::parse(name).unwrap()).collect();
        claiming
    };
    let judged = judged_by(
        domain(vec![grant]),
        [
            claiming("bank", "first", 1, &["pay.example.org"]),
            claiming("shop", "late", 2, &["pay.example.org", "{serviceAccount}.example.org"]),
            claiming("bank", "second", 3, &["pay.example.org"]),
        ],
    );
    assert!(judged.iter().all(Judged::is_admitted));
    let names = |namespace, account| identities_for(&pod(namespace, account), "", &judged).unwrap().remove(0).dns_names;
    assert_eq!(names("bank", "first"), ["pay.example.org"]);
    assert_eq!(names("shop", "late"), ["late.example.org"]);
    assert_eq!(names("bank", "second"), ["pay.example.org"], "within a namespace nobody is excluded");
    assert_eq!((judged[1].lost()[0].namespace.as_str(), judged[1].lost()[0].name.as_str()), ("bank", "first"));
}
