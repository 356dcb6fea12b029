//! What a WorkloadIdentity claims and what a TrustDomain grants, translated once from the API objects.

use std::time::Duration;

use jiff::Timestamp;

use super::audience::AudiencePattern;
use super::claim::ClaimHistory;
use super::dns::{NamePattern, NameTemplate};
use super::field_error::FieldErrors;
use super::foreign::RemoteTerms;
use super::pattern::PathPattern;
use super::segment::Scope;
use super::selector::{NamespaceSelector, Selector};
use super::template::PathTemplate;
use crate::federation::RemoteSpec;
use crate::id::TrustDomain;
use crate::journal::AuthorityConfig;

/// A WorkloadIdentity. `D` is what is known of its trust domain: [`Unresolved`] until the TrustDomain it names was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySpec<D = TrustDomain> {
    /// Its namespace; it selects pods of no other.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its creationTimestamp.
    pub created: Timestamp,
    /// Its trust domain; while there is no such TrustDomain, the name of that as it stands.
    pub trust_domain: D,
    /// The pods it is for.
    pub selector: Selector,
    /// The id's path.
    pub path: PathTemplate,
    /// What its X509-SVIDs hold.
    pub x509: X509Spec,
    /// What its JWT-SVIDs hold.
    pub jwt: JwtSpec,
    /// Its WIT-SVIDs, where it has any.
    pub wit: Option<WitSpec>,
    /// Foreign domains whose bundles the workload receives.
    pub federates_with: Vec<TrustDomain>,
    /// How the workload tells its identities apart.
    pub hint: Option<String>,
}

/// Stands for the trust domain of a WorkloadIdentity that was read without its TrustDomain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unresolved;

/// A WorkloadIdentity object, read without any other object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredIdentity {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// The name of its TrustDomain.
    pub domain: String,
    /// What is recorded of the ages of its claims.
    pub history: ClaimHistory,
    /// What it says, or the fields that cannot be used.
    pub spec: Result<IdentitySpec<Unresolved>, FieldErrors>,
}

/// The X.509 part of a WorkloadIdentity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct X509Spec {
    /// Life; absent: the domain's default.
    pub ttl: Option<Duration>,
    /// DNS names beside the id.
    pub dns_names: Vec<NameTemplate>,
}

/// The JWT part of a WorkloadIdentity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwtSpec {
    /// Life; absent: the domain's default.
    pub ttl: Option<Duration>,
    /// Audiences for which tokens may be asked; empty: none.
    pub audiences: Vec<AudiencePattern>,
}

/// The WIT part of a WorkloadIdentity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WitSpec {
    /// Life; absent: the domain's default.
    pub ttl: Option<Duration>,
    /// Whether the workload gets the keys of its WIT-SVIDs. Otherwise they stay in the agent, which makes the proofs.
    pub export_key: bool,
}

impl<D> IdentitySpec<D> {
    /// The same in this trust domain.
    pub fn within(&self, trust_domain: TrustDomain) -> IdentitySpec {
        IdentitySpec {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            created: self.created,
            trust_domain,
            selector: self.selector.clone(),
            path: self.path.clone(),
            x509: self.x509.clone(),
            jwt: self.jwt.clone(),
            wit: self.wit,
            federates_with: self.federates_with.clone(),
            hint: self.hint.clone(),
        }
    }
}

impl IdentitySpec {
    /// Order of precedence: the oldest first, then by uid.
    pub fn precedence(&self) -> (Timestamp, &str) {
        (self.created, &self.uid)
    }

    /// `namespace/name`, for messages.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    pub(super) fn scope<'a>(&'a self, cluster: &'a str) -> Scope<'a> {
        Scope { namespace: &self.namespace, cluster, service_accounts: &self.selector.service_accounts }
    }
}

/// Whose authority a TrustDomain has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainKind {
    /// This cluster's: it signs here, and its grants say what may be claimed.
    Local,
    /// Another's: nothing is signed or granted here.
    Remote(RemoteTerms),
}

/// A TrustDomain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainSpec {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The object's name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its creationTimestamp.
    pub created: Timestamp,
    /// Whose authority it has.
    pub kind: DomainKind,
    /// What `{cluster}` stands for; empty: not set.
    pub cluster: String,
    /// Lives of X509-SVIDs.
    pub x509: LifetimeBounds,
    /// Lives of JWT-SVIDs.
    pub jwt: LifetimeBounds,
    /// Lives of WIT-SVIDs, where the domain has authorities for them.
    pub wit: Option<LifetimeBounds>,
    /// What may be claimed. One grant must admit all that an identity claims.
    pub grants: Vec<Grant>,
}

/// A TrustDomain object, read without any other object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredDomain {
    /// Its name.
    pub name: String,
    /// What it says, or the fields that cannot be used.
    pub spec: Result<DomainSpec, FieldErrors>,
    /// Its authorities, where this cluster is the authority.
    pub authority: Option<AuthorityConfig>,
    /// Where its bundle comes from, where another is the authority.
    pub remote: Option<RemoteSpec>,
}

/// How long SVIDs of a kind live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifetimeBounds {
    /// Where a WorkloadIdentity names none.
    pub default: Duration,
    /// None lives longer.
    pub longest: Duration,
}

impl LifetimeBounds {
    fn of(self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.default).min(self.longest)
    }
}

impl DomainSpec {
    /// Life of the identity's X509-SVIDs; never above the domain's longest.
    pub fn x509_ttl(&self, identity: &IdentitySpec) -> Duration {
        self.x509.of(identity.x509.ttl)
    }

    /// Life of the identity's JWT-SVIDs; never above the domain's longest.
    pub fn jwt_ttl(&self, identity: &IdentitySpec) -> Duration {
        self.jwt.of(identity.jwt.ttl)
    }

    /// Life of the identity's WIT-SVIDs; never above the domain's longest. `None`: it has none.
    pub fn wit_ttl(&self, identity: &IdentitySpec) -> Option<Duration> {
        Some(self.wit?.of(identity.wit?.ttl))
    }
}

/// What one part of a TrustDomain's owner's policy lets namespaces claim. Empty lists admit nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// For which namespaces.
    pub namespaces: NamespaceSelector,
    /// Paths. One without `{namespace}` counts only where the grant is `shared`.
    pub paths: Vec<PathPattern>,
    /// DNS names.
    pub dns_names: Vec<NamePattern>,
    /// Audiences.
    pub audiences: Vec<AudiencePattern>,
    /// Foreign domains.
    pub federates_with: Vec<TrustDomain>,
    /// Its paths may be claimed by identities that name no service account.
    pub allow_label_only: bool,
    /// Its paths need not hold `{namespace}`: namespaces share them.
    pub shared: bool,
}

impl Grant {
    /// The patterns that count: all, or, unless the grant is shared, those that keep namespaces apart.
    pub(super) fn effective_paths(&self) -> impl Iterator<Item = &PathPattern> {
        self.paths.iter().filter(|pattern| self.shared || pattern.is_namespaced())
    }

    /// The patterns that do not count, since they hold no `{namespace}` and the grant is not shared: an error at
    /// admission.
    pub fn ineffective_paths(&self) -> impl Iterator<Item = &PathPattern> {
        self.paths.iter().filter(|pattern| !self.shared && !pattern.is_namespaced())
    }
}
