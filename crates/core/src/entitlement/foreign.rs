//! Which of the foreign trust domains that an identity names it gets. Three consents are needed: the WorkloadIdentity names the
//! domain, the grant that admits the identity names it too, and the remote TrustDomain admits the namespace. One that is missing
//! keeps that domain's bundle away and nothing else: the identity itself is admitted without it.

use countersign_reasons::Reason;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::facts::Labels;
use super::pattern::PathPattern;
use super::selector::NamespaceSelector;
use super::spec::{DomainKind, DomainSpec, IdentitySpec};
use crate::id::TrustDomain;

/// What a TrustDomain says of a remote trust domain: who may trust it here, and which of its ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteTerms {
    /// The namespaces whose workloads may get its bundle.
    pub namespaces: NamespaceSelector,
    /// The paths of its ids that are accepted where ids are checked; empty: all.
    pub paths: Arc<[PathPattern]>,
}

/// A foreign trust domain that a WorkloadIdentity names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its name.
    pub trust_domain: TrustDomain,
    /// The paths of its ids that are accepted, empty for all; or the consent that is missing.
    pub consent: Result<Arc<[PathPattern]>, MissingConsent>,
}

/// Which consent is missing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MissingConsent {
    /// No grant that admits the identity names the domain.
    #[error(
        "TrustDomain {domain} does not grant it to namespace {namespace}: ask its owner to add it to federatesWith of {rules}"
    )]
    NotGranted {
        /// The TrustDomain that grants the identity.
        domain: String,
        /// The identity's namespace.
        namespace: String,
        /// The grants that admit everything else that the identity claims.
        rules: super::RuleList,
    },
    /// No TrustDomain is for it.
    #[error("no TrustDomain here is for it: ask the owner of this cluster for one with spec.remote")]
    NoTrustDomain,
    /// Its TrustDomain does not admit the namespace.
    #[error(
        "TrustDomain {domain} does not admit namespace {namespace}: ask its owner to add it to spec.remote.namespaces"
    )]
    NamespaceNotAdmitted {
        /// The remote TrustDomain's name.
        domain: String,
        /// The identity's namespace.
        namespace: String,
    },
}

impl MissingConsent {
    /// A CamelCase reason for conditions.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NotGranted { .. } => Reason::FederationNotGranted,
            Self::NoTrustDomain => Reason::NoRemoteTrustDomain,
            Self::NamespaceNotAdmitted { .. } => Reason::NamespaceNotAdmitted,
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.consent {
            Ok(_) => write!(f, "{}", self.trust_domain),
            Err(missing) => write!(f, "{}: {missing}", self.trust_domain),
        }
    }
}

/// Whether the TrustDomain `domain`, which is for the foreign trust domain, lets workloads of a namespace with these labels have
/// its bundle. That of a trust domain whose authority is here needs no third consent.
pub(super) fn consent(
    domain: Option<&DomainSpec>,
    identity: &IdentitySpec,
    labels: &Labels,
) -> Result<Arc<[PathPattern]>, MissingConsent> {
    let domain = domain.ok_or(MissingConsent::NoTrustDomain)?;
    match &domain.kind {
        DomainKind::Local => Ok(Arc::default()),
        DomainKind::Remote(terms) if terms.namespaces.selects(&identity.namespace, labels) => Ok(terms.paths.clone()),
        DomainKind::Remote(_) => Err(MissingConsent::NamespaceNotAdmitted {
            domain: domain.name.clone(),
            namespace: identity.namespace.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fixtures::{domain, identity, labels, path_grant};
    use super::super::{ClaimHistory, Claims, DomainKind, DomainSpec, Grant, NamespaceSelector, judge};
    use super::*;

    fn remote(name: &str, namespaces: &[&str]) -> DomainSpec {
        let names = namespaces.iter().map(|&name| name.to_owned()).collect();
        let terms = RemoteTerms {
            namespaces: NamespaceSelector { names, labels: None },
            paths: [PathPattern::parse("/ns/*/sa/api").unwrap()].into(),
        };
        DomainSpec {
            trust_domain: name.parse().unwrap(),
            name: format!("td-{name}"),
            kind: DomainKind::Remote(terms),
            ..domain(Vec::new())
        }
    }

    /// What becomes of the foreign domains of an identity of namespace `shop`.
    fn foreign(names: &[&str], grants: &[&[&str]], remotes: &[DomainSpec]) -> Vec<Foreign> {
        let parse = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let mut identity = identity("shop", "orders");
        identity.federates_with = parse(names);
        let grant = |names: &&[&str]| Grant {
            federates_with: parse(names),
            ..path_grant("/ns/{namespace}/sa/{serviceAccount}")
        };
        let local = Arc::new(domain(grants.iter().map(grant).collect()));
        let find = |name: &TrustDomain| remotes.iter().find(|one| one.trust_domain == *name).cloned().map(Arc::new);
        let mut claims = Claims::default();
        claims.insert(&identity, &ClaimHistory::Original);
        let judged = judge(Arc::new(identity), Some(local), Some(&labels(&[])), &claims, &find);
        assert!(judged.is_admitted(), "{}", judged.message());
        judged.foreign().to_vec()
    }

    fn reasons(all: &[Foreign]) -> Vec<&'static str> {
        all.iter().map(|one| one.consent.as_ref().map_or_else(|missing| missing.reason().name(), |_| "given")).collect()
    }

    /// R16, R48: each of the three is needed, and each that is missing is named.
    #[test]
    fn a_foreign_domain_needs_three_consents_and_the_one_that_is_missing_is_named() {
        let admits = [remote("b.org", &["shop"])];
        assert_eq!(reasons(&foreign(&["b.org"], &[&["b.org"]], &admits)), ["given"]);
        assert_eq!(reasons(&foreign(&[], &[&["b.org"]], &admits)), [""; 0]);
        assert_eq!(reasons(&foreign(&["b.org"], &[&["c.org"]], &admits)), ["FederationNotGranted"]);
        assert_eq!(reasons(&foreign(&["b.org"], &[&["b.org"]], &[])), ["NoRemoteTrustDomain"]);
        let other = [remote("b.org", &["bank"])];
        assert_eq!(reasons(&foreign(&["b.org"], &[&["b.org"]], &other)), ["NamespaceNotAdmitted"]);
        let all = foreign(&["b.org"], &[&["b.org"]], &other);
        assert_eq!(
            all[0].to_string(),
            "b.org: TrustDomain td-b.org does not admit namespace shop: ask its owner to add it to spec.remote.namespaces"
        );
    }

    /// R50: what one domain lacks takes nothing from another, nor from the identity.
    #[test]
    fn a_missing_consent_of_one_domain_does_not_touch_another() {
        let remotes = [remote("b.org", &["shop"]), remote("c.org", &["bank"])];
        let all = foreign(&["c.org", "b.org", "d.org"], &[&["b.org", "c.org", "d.org"]], &remotes);
        assert_eq!(reasons(&all), ["NamespaceNotAdmitted", "given", "NoRemoteTrustDomain"]);
    }

    /// R16: the patterns of the remote TrustDomain go with its bundle.
    #[test]
    fn accepted_paths_are_those_of_the_remote_trust_domain() {
        let all = foreign(&["b.org"], &[&["b.org"]], &[remote("b.org", &["shop"])]);
        let paths = all[0].consent.as_ref().unwrap();
        assert!(paths[0].matches("/ns/x/sa/api") && !paths[0].matches("/ns/x/sa/admin"));
    }

    /// What is granted for one purpose is not combined with what is granted for another.
    #[test]
    fn all_foreign_domains_are_granted_by_one_grant() {
        let remotes = [remote("b.org", &["shop"]), remote("c.org", &["shop"])];
        let apart: [&[&str]; 2] = [&["b.org"], &["c.org"]];
        assert_eq!(reasons(&foreign(&["b.org", "c.org"], &apart, &remotes)), ["given", "FederationNotGranted"]);
        assert_eq!(reasons(&foreign(&["b.org", "c.org"], &[&["b.org", "c.org"]], &remotes)), ["given", "given"]);
    }
}
