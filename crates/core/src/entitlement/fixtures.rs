//! Objects that the tests of this module start from.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    DomainKind, DomainSpec, Grant, IdentitySpec, JwtSpec, LabelSelector, Labels, LifetimeBounds, NamespaceSelector,
    PathPattern, PathTemplate, PodFacts, Selector, X509Spec,
};

pub(super) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// An identity named after the service account that it selects, with the default path.
pub(super) fn identity(namespace: &str, service_account: &str) -> IdentitySpec {
    IdentitySpec {
        namespace: namespace.into(),
        name: service_account.into(),
        uid: format!("uid-{namespace}-{service_account}"),
        created: Timestamp::from_second(1_000).unwrap(),
        trust_domain: "example.org".parse().unwrap(),
        selector: Selector { service_accounts: vec![service_account.into()], ..Selector::default() },
        path: PathTemplate::default(),
        x509: X509Spec::default(),
        jwt: JwtSpec::default(),
        wit: None,
        federates_with: Vec::new(),
        hint: None,
    }
}

pub(super) fn pod(namespace: &str, service_account: &str) -> PodFacts {
    PodFacts {
        namespace: namespace.into(),
        name: format!("{service_account}-0"),
        uid: "pod-uid".into(),
        service_account: service_account.into(),
        labels: Labels::new(),
        containers: vec!["app".into(), "proxy".into()],
        renewal: 0,
    }
}

pub(super) fn domain(grants: Vec<Grant>) -> DomainSpec {
    DomainSpec {
        trust_domain: "example.org".parse().unwrap(),
        name: "example.org".into(),
        uid: "uid-domain".into(),
        created: Timestamp::from_second(1).unwrap(),
        kind: DomainKind::Local,
        cluster: "prod".into(),
        x509: LifetimeBounds { default: Duration::from_secs(3600), longest: Duration::from_secs(4 * 3600) },
        jwt: LifetimeBounds { default: Duration::from_secs(300), longest: Duration::from_secs(3600) },
        wit: None,
        grants,
    }
}

/// A grant of one path to every namespace.
pub(super) fn path_grant(pattern: &str) -> Grant {
    Grant {
        namespaces: NamespaceSelector { names: Vec::new(), labels: Some(LabelSelector::default()) },
        paths: vec![PathPattern::parse(pattern).unwrap()],
        ..Grant::default()
    }
}
