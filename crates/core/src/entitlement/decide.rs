//! The identities of one pod and session: the hot path of issuing. When there is none, the reason that comes nearest.

use countersign_reasons::Reason;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::claim::{ClaimKey, name_claim, path_claim};
use super::conflict::LostClaim;
use super::dns::NameTemplate;
use super::endpoint::{RESERVED, is_reserved};
use super::facts::PodFacts;
use super::foreign::Foreign;
use super::judge::{Judged, Refusal};
use super::pattern::PathPattern;
use super::spec::{DomainSpec, IdentitySpec};
use super::template::RenderError;
use crate::id::{IdError, SpiffeId, TrustDomain};

/// An identity to which a session is entitled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entitled {
    /// The WorkloadIdentity.
    pub identity: Arc<IdentitySpec>,
    /// The domain that grants it.
    pub domain: Arc<DomainSpec>,
    /// The id, rendered for the pod.
    pub id: SpiffeId,
    /// The DNS names, rendered for the pod.
    pub dns_names: Vec<String>,
    /// The hint; absent where an identity before this one has the same.
    pub hint: Option<String>,
    /// The foreign trust domains that its WorkloadIdentity names.
    pub foreign: Arc<[Foreign]>,
    /// That of the pod: [`PodFacts::renewal`].
    pub renewal: u64,
}

impl Entitled {
    /// Life of its X509-SVIDs.
    pub fn x509_ttl(&self) -> Duration {
        self.domain.x509_ttl(&self.identity)
    }

    /// Life of its WIT-SVIDs; `None`: it has none.
    pub fn wit_ttl(&self) -> Option<Duration> {
        self.domain.wit_ttl(&self.identity)
    }

    /// Life of its JWT-SVIDs.
    pub fn jwt_ttl(&self) -> Duration {
        self.domain.jwt_ttl(&self.identity)
    }

    /// The foreign trust domains whose bundles it gets, and the paths of their ids that are accepted; empty: all.
    pub fn federates_with(&self) -> impl Iterator<Item = (&TrustDomain, &Arc<[PathPattern]>)> {
        self.foreign.iter().filter_map(|one| Some((&one.trust_domain, one.consent.as_ref().ok()?)))
    }

    /// Whether it may have a token for `audience`.
    pub fn allows_audience(&self, audience: &str) -> bool {
        self.identity.jwt.audiences.iter().any(|pattern| pattern.matches(audience))
    }
}

/// Why a session has no identity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoIdentity {
    /// No WorkloadIdentity where the pod is.
    #[error("namespace {namespace} has no WorkloadIdentity: create one that selects service account {service_account}")]
    NoneInNamespace {
        /// The pod's namespace.
        namespace: String,
        /// The pod's service account.
        service_account: String,
    },
    /// The session names a container that the pod does not have.
    #[error("pod {namespace}/{pod} has no container {container:?} for which its agent asks")]
    NoSuchContainer {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The session's container.
        container: String,
    },
    /// None selects the pod's service account.
    #[error(
        "none of the {count} WorkloadIdentities of namespace {namespace} selects service account {service_account}: add it to \
         spec.selector.serviceAccounts of one, or run the pod as an account that is selected"
    )]
    ServiceAccount {
        /// The pod's namespace.
        namespace: String,
        /// The pod's service account.
        service_account: String,
        /// How many identities there are.
        count: usize,
    },
    /// The account is selected; the labels differ.
    #[error(
        "WorkloadIdentity {identity} selects service account {service_account}, but pods with {unmet}; this pod's labels differ"
    )]
    Labels {
        /// The identity that comes nearest, `namespace/name`.
        identity: String,
        /// The pod's service account.
        service_account: String,
        /// The first condition that the pod does not satisfy.
        unmet: String,
    },
    /// The pod is selected; the session is not.
    #[error(
        "WorkloadIdentity {identity} is for containers {containers} only, not for {session}: list the container there, or give \
         each container its own session with the annotation countersign.dev/per-container: \"true\"",
        containers = containers.join(", "),
        session = if session.is_empty() { "the session of the whole pod".to_owned() } else { format!("container {session}") }
    )]
    Container {
        /// The identity that comes nearest, `namespace/name`.
        identity: String,
        /// The containers it is for.
        containers: Vec<String>,
        /// The session: a container, or "" for the pod's own.
        session: String,
    },
    /// The session is selected by an identity that is not admitted.
    #[error("WorkloadIdentity {identity} selects this pod but is refused ({reason}): {message}")]
    Refused {
        /// The identity that comes nearest, `namespace/name`.
        identity: String,
        /// The refusal's reason.
        reason: Reason,
        /// The refusal, for people.
        message: String,
    },
    /// It is admitted, and cannot be rendered for this pod.
    #[error("WorkloadIdentity {identity} selects this pod, but its {field} cannot be rendered: {problem}")]
    Unrenderable {
        /// The identity, `namespace/name`.
        identity: String,
        /// The field of the WorkloadIdentity.
        field: &'static str,
        /// Why.
        problem: Unrenderable,
    },
}

impl NoIdentity {
    /// The WorkloadIdentity that comes nearest, `namespace/name`, if one selects the pod's service account.
    pub fn identity(&self) -> Option<&str> {
        match self {
            Self::NoneInNamespace { .. } | Self::NoSuchContainer { .. } | Self::ServiceAccount { .. } => None,
            Self::Labels { identity, .. }
            | Self::Container { identity, .. }
            | Self::Refused { identity, .. }
            | Self::Unrenderable { identity, .. } => Some(identity),
        }
    }

    /// A CamelCase reason for events and metrics.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NoneInNamespace { .. } => Reason::NoWorkloadIdentity,
            Self::NoSuchContainer { .. } => Reason::NoSuchContainer,
            Self::ServiceAccount { .. } => Reason::ServiceAccountNotSelected,
            Self::Labels { .. } => Reason::LabelsDiffer,
            Self::Container { .. } => Reason::ContainerNotSelected,
            Self::Refused { reason, .. } => *reason,
            Self::Unrenderable { problem: Unrenderable::Reserved, .. } => Reason::Reserved,
            Self::Unrenderable { .. } => Reason::Unrenderable,
        }
    }
}

/// Why something cannot be rendered for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unrenderable {
    /// A fact does not fit the template.
    #[error(transparent)]
    Template(#[from] RenderError),
    /// What results is no SPIFFE ID.
    #[error(transparent)]
    Id(#[from] IdError),
    /// What results is kept for this system.
    #[error("the path begins with /{RESERVED}/, which is reserved; choose another first segment")]
    Reserved,
}

/// The most identities of one session. Each is a certificate to renew, and a place in every push.
pub const MAX_IDENTITIES: usize = 32;

/// How many identities of a namespace are compared to say why a session has none.
const COMPARED: usize = 256;

/// The WorkloadIdentities, `namespace/name`, that are admitted and select the session beyond [`MAX_IDENTITIES`]: the youngest.
pub fn left_out<'a>(pod: &PodFacts, session: &str, judged: impl IntoIterator<Item = &'a Judged>) -> Vec<String> {
    let judged = in_order(judged).into_iter().filter(|judged| judged.identity().namespace == pod.namespace);
    let selected = selected(pod, session, judged);
    selected.skip(MAX_IDENTITIES).map(|(judged, _)| judged.identity().full_name()).collect()
}

/// Those that are admitted and select the session, in the order of `candidates`.
fn selected<'a>(
    pod: &PodFacts,
    session: &str,
    candidates: impl Iterator<Item = &'a Judged>,
) -> impl Iterator<Item = (&'a Judged, &'a Arc<DomainSpec>)> {
    candidates
        .filter(move |judged| selects(judged.identity(), pod, session))
        .filter_map(|judged| Some((judged, judged.outcome().ok()?)))
}

/// In order of precedence: the oldest first, then by uid.
fn in_order<'a>(judged: impl IntoIterator<Item = &'a Judged>) -> Vec<&'a Judged> {
    let mut all: Vec<_> = judged.into_iter().collect();
    all.sort_by(|a, b| a.identity().precedence().cmp(&b.identity().precedence()));
    all
}

/// The identities of `pod` for a session (a container's name, or "" for the pod's own): the oldest first, then by uid;
/// the first is the default, and there are [`MAX_IDENTITIES`] at most. `judged` are the identities of the pod's namespace,
/// admitted or not, in any order; those of other namespaces are passed over. Never empty when `Ok`.
pub fn identities_for<'a>(
    pod: &PodFacts,
    session: &str,
    judged: impl IntoIterator<Item = &'a Judged>,
) -> Result<Vec<Entitled>, NoIdentity> {
    let judged = in_order(judged);
    match first_identities_for(pod, session, judged.iter().copied()) {
        Some(entitled) => entitled,
        None => Err(nearest_reason(pod, session, judged.iter().copied())),
    }
}

/// As [`identities_for`], where `judged` is in order of precedence: no more of it is looked at than it takes. `None` when the
/// session is selected by none of them; then [`nearest_reason`] says why.
pub fn first_identities_for<'a>(
    pod: &PodFacts,
    session: &str,
    judged: impl Iterator<Item = &'a Judged>,
) -> Option<Result<Vec<Entitled>, NoIdentity>> {
    let candidates = judged.filter(|judged| judged.identity().namespace == pod.namespace);
    if !session.is_empty() && !pod.containers.iter().any(|container| container == session) {
        let (namespace, pod, container) = (pod.namespace.clone(), pod.name.clone(), session.to_owned());
        return Some(Err(NoIdentity::NoSuchContainer { namespace, pod, container }));
    }
    let mut unrenderable = None;
    let mut entitled: Vec<Entitled> = selected(pod, session, candidates)
        .filter_map(|(judged, domain)| {
            render(judged, domain, pod).map_err(|error| unrenderable.get_or_insert(error).clone()).ok()
        })
        .take(MAX_IDENTITIES)
        .collect();
    if entitled.is_empty() {
        return unrenderable.map(Err);
    }
    keep_first_of_each_hint(&mut entitled);
    Some(Ok(entitled))
}

fn selects(identity: &IdentitySpec, pod: &PodFacts, session: &str) -> bool {
    identity.selector.selects_pod(pod) && identity.selector.selects_session(session)
}

/// What the pod gets of an admitted identity. A DNS name that another namespace holds is left out.
fn render(judged: &Judged, domain: &Arc<DomainSpec>, pod: &PodFacts) -> Result<Entitled, NoIdentity> {
    let identity = judged.identity();
    let account = &pod.service_account;
    if let Some(lost) = find_lost(judged, || path_claim(identity, account)) {
        let (path, namespace, name) = (identity.path.to_string(), lost.namespace.clone(), lost.name.clone());
        let refusal = Refusal::Conflict { path, namespace, name };
        let (reason, message) = (refusal.reason(), refusal.to_string());
        return Err(NoIdentity::Refused { identity: identity.full_name(), reason, message });
    }
    let failed = |field, problem| NoIdentity::Unrenderable { identity: identity.full_name(), field, problem };
    let path = identity.path.render(pod, &domain.cluster).map_err(|error| failed("path", error.into()))?;
    if is_reserved(&path) {
        return Err(failed("path", Unrenderable::Reserved));
    }
    let id = SpiffeId::new(&domain.trust_domain, &path).map_err(|error| failed("path", error.into()))?;
    let held = |name: &&NameTemplate| find_lost(judged, || name_claim(identity, &name.to_string(), account)).is_none();
    let names = identity.x509.dns_names.iter().filter(held).map(|name| name.render(pod, &domain.cluster));
    let dns_names = names.collect::<Result<_, _>>().map_err(|error| failed("DNS name", error.into()))?;
    Ok(Entitled {
        identity: Arc::clone(identity),
        domain: Arc::clone(domain),
        id,
        dns_names,
        hint: identity.hint.clone(),
        foreign: Arc::clone(judged.foreign()),
        renewal: pod.renewal,
    })
}

/// The claim, if another holds it. Most identities have lost none, and then it is not made.
fn find_lost(judged: &Judged, claim: impl FnOnce() -> Option<ClaimKey>) -> Option<&LostClaim> {
    if judged.lost().is_empty() {
        return None;
    }
    let claim = claim()?;
    judged.lost().iter().find(|lost| lost.claim == claim)
}

/// Hints are unique within a response (Workload API 5.2.1).
fn keep_first_of_each_hint(entitled: &mut [Entitled]) {
    let mut rest = entitled;
    while let Some((first, after)) = rest.split_first_mut() {
        for later in after.iter_mut().filter(|later| later.hint == first.hint) {
            later.hint = None;
        }
        rest = after;
    }
}

/// Of all reasons why a session has no identity, that of the identity that came nearest; of equally near ones, the oldest. In a
/// namespace with more than 256 identities only the first 256 of `judged` are compared.
pub fn nearest_reason<'a>(pod: &PodFacts, session: &str, judged: impl IntoIterator<Item = &'a Judged>) -> NoIdentity {
    let mut candidates = judged.into_iter().filter(|judged| judged.identity().namespace == pod.namespace);
    let compared = in_order(candidates.by_ref().take(COMPARED));
    let count = compared.len() + candidates.count();
    let (namespace, service_account) = (pod.namespace.clone(), pod.service_account.clone());
    let nearest = compared.into_iter().map(|judged| miss(pod, session, judged)).min_by_key(|(distance, _)| *distance);
    match nearest {
        None => NoIdentity::NoneInNamespace { namespace, service_account },
        Some((_, Some(reason))) => reason,
        Some((_, None)) => NoIdentity::ServiceAccount { namespace, service_account, count },
    }
}

/// How far an identity is from serving the session, and why it does not; `None`: it is for other accounts.
fn miss(pod: &PodFacts, session: &str, judged: &Judged) -> (u8, Option<NoIdentity>) {
    let (spec, identity) = (judged.identity(), judged.identity().full_name());
    if !spec.selector.selects_account(&pod.service_account) {
        return (3, None);
    }
    if let Some(unmet) = spec.selector.labels.first_unmet(&pod.labels) {
        let service_account = pod.service_account.clone();
        return (2, Some(NoIdentity::Labels { identity, service_account, unmet }));
    }
    if !spec.selector.selects_session(session) {
        let containers = spec.selector.containers.clone();
        return (1, Some(NoIdentity::Container { identity, containers, session: session.to_owned() }));
    }
    (0, Some(NoIdentity::Refused { identity, reason: judged.reason(), message: judged.message() }))
}
