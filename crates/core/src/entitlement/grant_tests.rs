//! What grants admit and refuse, and what the refusals say.

use std::time::Duration;

use super::fixtures::{domain, identity, labels, path_grant};
use super::grant::{Claim, GrantError, GrantedList, RuleList, admit};
use super::{AudiencePattern, Condition, DomainSpec, Grant, IdentitySpec, LabelSelector, Requirement, Selector};
use super::{NamePattern, NameTemplate, NamespaceSelector, PathPattern, PathTemplate};

fn check(identity: &IdentitySpec, domain: &DomainSpec) -> Result<(), GrantError> {
    admit(identity, domain, Some(&labels(&[]))).map(drop)
}

fn refused(identity: &IdentitySpec, domain: &DomainSpec) -> (Claim, String) {
    match check(identity, domain) {
        Err(GrantError::NotGranted { claim, value, .. }) => (claim, value),
        other => panic!("{other:?}"),
    }
}

#[test]
fn admits_what_is_granted() {
    let mut identity = identity("shop", "orders");
    identity.x509.dns_names = vec![NameTemplate::parse("{serviceAccount}.{namespace}.svc").unwrap()];
    identity.jwt.audiences = vec![AudiencePattern::parse("payments").unwrap()];
    identity.federates_with = vec!["partner.example".parse().unwrap(), identity.trust_domain.clone()];
    let mut grant = path_grant("/ns/{namespace}/sa/{serviceAccount}");
    grant.dns_names = vec![NamePattern::parse("*.{namespace}.svc").unwrap()];
    grant.audiences = vec![AudiencePattern::parse("pay*").unwrap()];
    grant.federates_with = vec!["partner.example".parse().unwrap()];
    assert_eq!(check(&identity, &domain(vec![grant])), Ok(()));
}

// R48: default deny.
#[test]
fn grants_nothing_by_default() {
    let identity = identity("shop", "orders");
    assert!(matches!(check(&identity, &domain(vec![])), Err(GrantError::NoGrant { .. })));
    let mut elsewhere = path_grant("/ns/{namespace}/**");
    elsewhere.namespaces = NamespaceSelector { names: vec!["bank".into()], labels: None };
    assert!(matches!(check(&identity, &domain(vec![elsewhere])), Err(GrantError::NoGrant { .. })));
}

// R48: of an unknown namespace nothing is known, not that it has no labels.
#[test]
fn an_unknown_namespace_is_granted_nothing() {
    let identity = identity("shop", "orders");
    let without = |condition| {
        let labels = LabelSelector {
            match_expressions: vec![Requirement { key: "team".into(), condition }],
            ..LabelSelector::default()
        };
        NamespaceSelector { names: Vec::new(), labels: Some(labels) }
    };
    for namespaces in [
        without(Condition::NotIn(vec!["bank".into()])),
        without(Condition::DoesNotExist),
        NamespaceSelector { names: Vec::new(), labels: Some(LabelSelector::default()) },
        NamespaceSelector { names: vec!["shop".into()], labels: None },
    ] {
        let domain = domain(vec![Grant { namespaces, ..path_grant("/ns/{namespace}/**") }]);
        assert_eq!(check(&identity, &domain), Ok(()), "known and without labels");
        let refused = admit(&identity, &domain, None).unwrap_err();
        assert_eq!(refused, GrantError::UnknownNamespace { namespace: "shop".into() });
        assert_eq!(refused.reason().name(), "NamespaceUnknown");
        assert!(refused.to_string().starts_with("namespace shop is not known here"));
    }
}

#[test]
fn names_the_claim_that_no_grant_admits() {
    let mut identity = identity("shop", "orders");
    let domain = domain(vec![path_grant("/ns/{namespace}/sa/{serviceAccount}")]);

    identity.x509.dns_names = vec![NameTemplate::parse("api.example.org").unwrap()];
    assert_eq!(refused(&identity, &domain), (Claim::DnsName, "api.example.org".into()));
    identity.x509.dns_names.clear();

    identity.jwt.audiences = vec![AudiencePattern::parse("payments").unwrap()];
    assert_eq!(refused(&identity, &domain), (Claim::Audience, "payments".into()));
    identity.jwt.audiences.clear();

    identity.path = PathTemplate::parse("/admin").unwrap();
    assert_eq!(refused(&identity, &domain), (Claim::Path, "/admin".into()));
    assert_eq!(
        check(&identity, &domain).unwrap_err().to_string(),
        "path \"/admin\" is not granted to namespace shop by TrustDomain example.org, whose spec.grants[0] grants \
         it /ns/{namespace}/sa/{serviceAccount}: claim what is granted, or ask the owner to add it there"
    );
}

// Whose pods are chosen by labels alone is for grants which allow that: what others grant does not add to it.
#[test]
fn what_a_grant_without_label_only_gives_is_not_had_by_labels_alone() {
    let mut identity = identity("shop", "orders");
    identity.path = PathTemplate::parse("/ns/{namespace}/web").unwrap();
    identity.selector = Selector {
        labels: LabelSelector { match_labels: labels(&[("app", "web")]), ..LabelSelector::default() },
        ..Selector::default()
    };
    identity.x509.dns_names = vec![NameTemplate::parse("web.{namespace}.svc").unwrap()];
    let mut names = path_grant("/ns/{namespace}/**");
    names.dns_names = vec![NamePattern::parse("*.{namespace}.svc").unwrap()];
    let mut by_label = path_grant("/ns/{namespace}/**");
    by_label.allow_label_only = true;
    let refusal = (Claim::DnsName, "web.{namespace}.svc".to_owned());
    assert_eq!(refused(&identity, &domain(vec![names.clone(), by_label.clone()])), refusal);
    by_label.dns_names.clone_from(&names.dns_names);
    assert_eq!(check(&identity, &domain(vec![names, by_label])), Ok(()));
}

#[test]
fn a_pattern_without_namespace_counts_only_in_a_shared_grant() {
    let mut identity = identity("shop", "orders");
    identity.path = PathTemplate::parse("/frontend").unwrap();
    let mut grant = path_grant("/frontend");
    assert_eq!(refused(&identity, &domain(vec![grant.clone()])), (Claim::Path, "/frontend".into()));
    assert_eq!(grant.ineffective_paths().collect::<Vec<_>>(), [&PathPattern::parse("/frontend").unwrap()]);
    grant.shared = true;
    assert_eq!(check(&identity, &domain(vec![grant.clone()])), Ok(()));
    assert_eq!(grant.ineffective_paths().count(), 0);
}

// Shared in one grant does not make another's patterns shared.
#[test]
fn a_shared_grant_does_not_widen_another() {
    let mut identity = identity("shop", "orders");
    identity.path = PathTemplate::parse("/frontend").unwrap();
    let shared = Grant { shared: true, ..path_grant("/backend") };
    assert_eq!(refused(&identity, &domain(vec![path_grant("/frontend"), shared])).0, Claim::Path);
}

#[test]
fn one_grant_must_admit_every_claim() {
    let mut identity = identity("shop", "orders");
    identity.jwt.audiences = vec![AudiencePattern::parse("payments").unwrap()];
    let path = path_grant("/ns/{namespace}/sa/*");
    let mut audience = path_grant("/ns/{namespace}/other");
    audience.audiences = identity.jwt.audiences.clone();
    let refusal = check(&identity, &domain(vec![audience.clone(), path.clone()])).unwrap_err();
    let GrantError::NotGranted { claim: Claim::Audience, rules, granted, .. } = refusal else { panic!("{refusal}") };
    assert_eq!((rules, granted), (RuleList([1].into()), GrantedList::default()));

    let mut both = path;
    both.audiences = identity.jwt.audiences.clone();
    assert_eq!(check(&identity, &domain(vec![audience, both])), Ok(()));
}

#[test]
fn label_only_needs_the_grant_that_admits_the_path_to_allow_it() {
    let mut identity = identity("shop", "orders");
    identity.selector.service_accounts.clear();
    identity.selector.labels.match_labels = labels(&[("app", "orders")]);
    identity.path = PathTemplate::parse("/ns/{namespace}/orders").unwrap();
    let grant = path_grant("/ns/{namespace}/orders");
    let other = Grant { allow_label_only: true, ..path_grant("/ns/{namespace}/other") };
    let allowing = Grant { allow_label_only: true, ..grant.clone() };
    assert!(matches!(check(&identity, &domain(vec![grant.clone(), other])), Err(GrantError::LabelOnly { .. })));
    assert_eq!(check(&identity, &domain(vec![grant, allowing.clone()])), Ok(()));

    identity.selector.labels.match_labels.clear();
    assert!(matches!(check(&identity, &domain(vec![allowing])), Err(GrantError::SelectsEverything { .. })));
}

#[test]
fn a_cluster_without_a_usable_name_is_told_before_any_pod_asks() {
    let mut identity = identity("shop", "orders");
    identity.path = PathTemplate::parse("/{cluster}/{namespace}").unwrap();
    let mut domain = domain(vec![path_grant("/{cluster}/{namespace}")]);
    assert_eq!(check(&identity, &domain), Ok(()));
    for unusable in ["", "a/b", ".."] {
        domain.cluster = unusable.into();
        assert!(matches!(check(&identity, &domain), Err(GrantError::NoCluster { .. })), "{unusable}");
    }
}

#[test]
fn lives_stay_within_the_domains_longest() {
    let domain = domain(vec![path_grant("/ns/{namespace}/**")]);
    let longest = domain.x509.longest;
    let mut identity = identity("shop", "orders");
    identity.x509.ttl = Some(longest);
    assert_eq!(check(&identity, &domain), Ok(()));
    identity.x509.ttl = Some(longest + Duration::from_secs(1));
    assert!(matches!(check(&identity, &domain), Err(GrantError::LifetimeTooLong { claim: Claim::X509Life, .. })));
    identity.x509.ttl = None;
    identity.jwt.ttl = Some(domain.jwt.longest + Duration::from_secs(1));
    assert!(matches!(check(&identity, &domain), Err(GrantError::LifetimeTooLong { claim: Claim::JwtLife, .. })));
    identity.jwt.ttl = Some(Duration::ZERO);
    assert!(matches!(check(&identity, &domain), Err(GrantError::LifetimeZero { claim: Claim::JwtLife })));
}

#[test]
fn prints_at_most_eight_granted_entries() {
    let list = |n: usize| GrantedList((0..n).map(|i| format!("/{i}")).collect()).to_string();
    assert_eq!(list(0), "none");
    assert_eq!(list(2), "/0, /1");
    assert!(list(8).ends_with("/7"));
    assert!(list(10).ends_with("/7 and 2 more"));
}
