//! Whether a domain's grants admit what a WorkloadIdentity claims. Default: nothing. One grant must admit all of it, so
//! that what was meant for one path is not combined with another. Every refusal names claim, rule and remedy.

use countersign_reasons::Reason;
use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::audience::AudiencePattern;
use super::endpoint::RESERVED;
use super::facts::Labels;
use super::foreign::{Foreign, MissingConsent, consent};
use super::segment::{Placeholder, Segment, check_path_segment};
use super::spec::{DomainSpec, Grant, IdentitySpec};
use crate::id::TrustDomain;

/// Checks every claim of `identity` against the grants of `domain` for the identity's namespace, which has
/// `namespace_labels`; absent: the namespace is not known, and granted nothing, as its labels may be any. The first claim
/// that no remaining grant admits is the error. Foreign trust domains are no part of that: see [`Admitted::foreign`].
pub fn admit(
    identity: &IdentitySpec,
    domain: &DomainSpec,
    namespace_labels: Option<&Labels>,
) -> Result<Admitted, GrantError> {
    admit_selector(identity)?;
    let unknown = || GrantError::UnknownNamespace { namespace: identity.namespace.clone() };
    let rules = Rules::for_namespace(identity, domain, namespace_labels.ok_or_else(unknown)?)?;
    let rules = admit_path(identity, rules)?;
    let rules = admit_dns_names(identity, rules)?;
    let rules = admit_audiences(identity, rules)?;
    admit_cluster(identity, domain)?;
    admit_lives(identity, domain)?;
    Ok(Admitted(rules.list()))
}

/// That an identity's claims are granted, and by which grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted(RuleList);

impl Admitted {
    /// What becomes of the foreign trust domains that `identity` names, in its order: of each, whether a grant of `domain` that
    /// admits the identity names it, and whether its own TrustDomain, which `find` has, admits the namespace. One grant names
    /// all that are granted. The own domain's bundle comes with every identity: naming it claims nothing.
    pub(super) fn foreign(
        &self,
        identity: &IdentitySpec,
        domain: &DomainSpec,
        labels: &Labels,
        find: &dyn Fn(&TrustDomain) -> Option<Arc<DomainSpec>>,
    ) -> Arc<[Foreign]> {
        let mut rules = self.0.clone();
        let named = identity.federates_with.iter().filter(|named| **named != domain.trust_domain);
        let foreign = named.map(|named| {
            let grants =
                |index: &&usize| domain.grants.get(**index).is_some_and(|one| one.federates_with.contains(named));
            let granting: Box<[usize]> = rules.0.iter().filter(grants).copied().collect();
            let consent = if granting.is_empty() {
                let (domain, namespace) = (domain.name.clone(), identity.namespace.clone());
                Err(MissingConsent::NotGranted { domain, namespace, rules: rules.clone() })
            } else {
                rules = RuleList(granting);
                consent(find(named).as_deref(), identity, labels)
            };
            Foreign { trust_domain: named.clone(), consent }
        });
        foreign.collect()
    }
}

/// Why a WorkloadIdentity's claims are not granted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GrantError {
    /// The namespace is not known.
    #[error(
        "namespace {namespace} is not known here, and so no grant can be for it: it is being created or deleted, or the operator \
         has not been told of it yet; if this stays, see whether the namespace exists"
    )]
    UnknownNamespace {
        /// The identity's namespace.
        namespace: String,
    },
    /// No grant is for the namespace.
    #[error(
        "TrustDomain {domain} grants nothing to namespace {namespace}: ask its owner for a grant whose `namespaces` select it"
    )]
    NoGrant {
        /// The TrustDomain's name.
        domain: String,
        /// The identity's namespace.
        namespace: String,
    },
    /// A claim outside every grant that admits the claims before it.
    #[error(
        "{claim} {value:?} is not granted to namespace {namespace} by TrustDomain {domain}, whose {rules} grants it {granted}: \
         claim what is granted, or ask the owner to add it there"
    )]
    NotGranted {
        /// What is claimed.
        claim: Claim,
        /// As it is written in the WorkloadIdentity.
        value: String,
        /// The identity's namespace.
        namespace: String,
        /// The TrustDomain's name.
        domain: String,
        /// The grants that were held against the claim.
        rules: RuleList,
        /// What they grant of that kind.
        granted: GrantedList,
    },
    /// The path is granted, but not to an identity that names no service account.
    #[error(
        "it selects pods by label alone, which {rules} of TrustDomain {domain} does not allow for path {path:?}: name service \
         accounts, or ask the owner for allowLabelOnly"
    )]
    LabelOnly {
        /// The TrustDomain's name.
        domain: String,
        /// The path claimed.
        path: String,
        /// The grants that admit the path.
        rules: RuleList,
    },
    /// The path is kept for this system.
    #[error("path {path:?} begins with /{RESERVED}, which is reserved: choose another first segment")]
    Reserved {
        /// The path claimed.
        path: String,
    },
    /// Neither accounts nor labels.
    #[error("it selects every pod of namespace {namespace}: name service accounts or labels in spec.selector")]
    SelectsEverything {
        /// The identity's namespace.
        namespace: String,
    },
    /// `{cluster}` is used and has no usable value.
    #[error(
        "it uses {{cluster}}, and the operator was given no cluster name that can stand in a path of TrustDomain {domain}: leave {{cluster}} out, or set the operator's --cluster-name"
    )]
    NoCluster {
        /// The TrustDomain's name.
        domain: String,
    },
    /// A life above the domain's longest.
    #[error(
        "{claim} is {asked}s, and TrustDomain {domain} allows at most {longest}s: shorten it, or ask the owner for a longer \
         life", asked = asked.as_secs_f64(), longest = longest.as_secs_f64()
    )]
    LifetimeTooLong {
        /// The life that is too long.
        claim: Claim,
        /// The life asked for.
        asked: Duration,
        /// The longest allowed.
        longest: Duration,
        /// The TrustDomain's name.
        domain: String,
    },
    /// A life of nothing.
    #[error("{claim} is zero: give a life, or leave it out for the TrustDomain's default")]
    LifetimeZero {
        /// The life that is zero.
        claim: Claim,
    },
}

impl GrantError {
    /// A CamelCase reason for conditions.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::UnknownNamespace { .. } => Reason::NamespaceUnknown,
            Self::NoGrant { .. } | Self::NotGranted { .. } => Reason::NotGranted,
            Self::LabelOnly { .. } => Reason::LabelOnlyNotGranted,
            Self::Reserved { .. } => Reason::Reserved,
            Self::SelectsEverything { .. } => Reason::SelectsEverything,
            Self::NoCluster { .. } => Reason::NoClusterName,
            Self::LifetimeTooLong { .. } => Reason::LifetimeTooLong,
            Self::LifetimeZero { .. } => Reason::LifetimeZero,
        }
    }
}

/// A field of a WorkloadIdentity that needs a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Claim {
    /// The id's path.
    Path,
    /// A DNS name.
    DnsName,
    /// A JWT audience.
    Audience,
    /// The life of X509-SVIDs.
    X509Life,
    /// The life of JWT-SVIDs.
    JwtLife,
    /// The life of WIT-SVIDs.
    WitLife,
}

impl Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path => "path",
            Self::DnsName => "DNS name",
            Self::Audience => "audience",
            Self::X509Life => "the life of X509-SVIDs",
            Self::JwtLife => "the life of JWT-SVIDs",
            Self::WitLife => "the life of WIT-SVIDs",
        })
    }
}

/// What is granted of a kind, for people: at most eight entries are printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantedList(pub Box<[String]>);

impl Display for GrantedList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, entry) in self.0.iter().take(SHOWN).enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            f.write_str(entry)?;
        }
        match self.0.len().checked_sub(SHOWN) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

/// Positions in `spec.grants` of a TrustDomain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleList(pub Box<[usize]>);

impl Display for RuleList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(|index| format!("spec.grants[{index}]")).collect();
        f.write_str(&names.join(" or "))
    }
}

/// The grants still in question, with their positions.
struct Rules<'a> {
    domain: &'a DomainSpec,
    grants: Vec<(usize, &'a Grant)>,
}

impl<'a> Rules<'a> {
    fn for_namespace(identity: &IdentitySpec, domain: &'a DomainSpec, labels: &Labels) -> Result<Self, GrantError> {
        let selecting = |(_, grant): &(usize, &Grant)| grant.namespaces.selects(&identity.namespace, labels);
        let grants: Vec<_> = domain.grants.iter().enumerate().filter(selecting).collect();
        if grants.is_empty() {
            return Err(GrantError::NoGrant { domain: domain.name.clone(), namespace: identity.namespace.clone() });
        }
        Ok(Self { domain, grants })
    }

    /// Those that admit a claim; none is an error which lists what each of them `grants`.
    fn narrow<V: Display, P: Display + 'a>(
        self,
        identity: &IdentitySpec,
        claim: Claim,
        value: &V,
        grants: impl Fn(&'a Grant) -> Vec<&'a P>,
        admits: impl Fn(&P, &V) -> bool,
    ) -> Result<Self, GrantError> {
        let admitting = |grant: &'a Grant| grants(grant).into_iter().any(|pattern| admits(pattern, value));
        let remaining: Vec<_> = self.grants.iter().copied().filter(|(_, grant)| admitting(grant)).collect();
        if remaining.is_empty() {
            let granted = self.grants.iter().flat_map(|(_, grant)| grants(grant)).map(ToString::to_string);
            return Err(GrantError::NotGranted {
                claim,
                value: value.to_string(),
                namespace: identity.namespace.clone(),
                domain: self.domain.name.clone(),
                rules: self.list(),
                granted: GrantedList(granted.collect()),
            });
        }
        Ok(Self { grants: remaining, ..self })
    }

    fn list(&self) -> RuleList {
        RuleList(self.grants.iter().map(|(index, _)| *index).collect())
    }
}

fn admit_selector(identity: &IdentitySpec) -> Result<(), GrantError> {
    if identity.selector.is_label_only() && identity.selector.labels.is_empty() {
        return Err(GrantError::SelectsEverything { namespace: identity.namespace.clone() });
    }
    Ok(())
}

fn admit_path<'a>(identity: &IdentitySpec, rules: Rules<'a>) -> Result<Rules<'a>, GrantError> {
    if matches!(identity.path.segments().first(), Some(Segment::Literal(first)) if **first == *RESERVED) {
        return Err(GrantError::Reserved { path: identity.path.to_string() });
    }
    let scope = identity.scope(&rules.domain.cluster);
    let effective = |grant: &'a Grant| grant.effective_paths().collect();
    let rules =
        rules.narrow(identity, Claim::Path, &identity.path, effective, |pattern, path| pattern.admits(path, &scope))?;
    if !identity.selector.is_label_only() {
        return Ok(rules);
    }
    let allowing: Vec<_> = rules.grants.iter().copied().filter(|(_, grant)| grant.allow_label_only).collect();
    if allowing.is_empty() {
        let (domain, path) = (rules.domain.name.clone(), identity.path.to_string());
        return Err(GrantError::LabelOnly { domain, path, rules: rules.list() });
    }
    Ok(Rules { grants: allowing, ..rules })
}

fn admit_dns_names<'a>(identity: &IdentitySpec, rules: Rules<'a>) -> Result<Rules<'a>, GrantError> {
    let scope = identity.scope(&rules.domain.cluster);
    identity.x509.dns_names.iter().try_fold(rules, |rules, name| {
        rules.narrow(
            identity,
            Claim::DnsName,
            name,
            |grant| grant.dns_names.iter().collect(),
            |pattern, name| pattern.admits(name, &scope),
        )
    })
}

fn admit_audiences<'a>(identity: &IdentitySpec, rules: Rules<'a>) -> Result<Rules<'a>, GrantError> {
    identity.jwt.audiences.iter().try_fold(rules, |rules, audience| {
        rules.narrow(
            identity,
            Claim::Audience,
            audience,
            |grant| grant.audiences.iter().collect(),
            AudiencePattern::admits,
        )
    })
}

fn admit_cluster(identity: &IdentitySpec, domain: &DomainSpec) -> Result<(), GrantError> {
    let uses_cluster = identity.path.uses(Placeholder::Cluster)
        || identity.x509.dns_names.iter().any(|name| name.uses(Placeholder::Cluster));
    if uses_cluster && check_path_segment(&domain.cluster).is_err() {
        return Err(GrantError::NoCluster { domain: domain.name.clone() });
    }
    Ok(())
}

fn admit_lives(identity: &IdentitySpec, domain: &DomainSpec) -> Result<(), GrantError> {
    let x509 = (Claim::X509Life, identity.x509.ttl, domain.x509.longest);
    let jwt = (Claim::JwtLife, identity.jwt.ttl, domain.jwt.longest);
    // A domain without authorities for them refuses nothing: an identity must not end because these do.
    let wit = domain.wit.map(|lives| (Claim::WitLife, identity.wit.and_then(|wit| wit.ttl), lives.longest));
    for (claim, asked, longest) in [x509, jwt].into_iter().chain(wit) {
        let Some(asked) = asked else { continue };
        if asked.is_zero() {
            return Err(GrantError::LifetimeZero { claim });
        }
        if asked > longest {
            return Err(GrantError::LifetimeTooLong { claim, asked, longest, domain: domain.name.clone() });
        }
    }
    Ok(())
}
