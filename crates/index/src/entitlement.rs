//! What a session is entitled to.

use countersign_contract::{
    objects::{ENDPOINT, ENDPOINT_NAMESPACE},
    pod,
};
use countersign_core::entitlement::{
    DomainKind, Entitled, MAX_IDENTITIES, NoIdentity, PodFacts, endpoint_identity, first_identities_for, left_out,
    nearest_reason,
};
use countersign_reasons::Reason;

use crate::Index;

/// What a session's pod is entitled to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entitlement {
    /// The pod does not exist or has ended.
    Gone,
    /// Its identities, the default first; never empty.
    Entitled(Vec<Entitled>),
    /// It has none.
    None(Absence),
}

/// Why a pod has no identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    /// Why, as a program reads it.
    pub reason: Reason,
    /// What is missing and what to do.
    pub message: String,
    /// The WorkloadIdentity that comes nearest, `namespace/name`, if one selects the pod's service account.
    pub identity: Option<String>,
}

impl Index {
    /// What a session (empty: the pod's own, else a container's) is entitled to.
    #[must_use]
    pub fn entitlement(&self, uid: &str, session: &str) -> Entitlement {
        let Some(pod) = self.pods.record(uid).filter(|pod| !pod.ended) else { return Entitlement::Gone };
        let facts = &pod.facts;
        if is_endpoint(facts) && session.is_empty() {
            return self.endpoint_entitlement(facts);
        }
        let (namespace, account) = (facts.namespace.as_str(), facts.service_account.as_str());
        let found = first_identities_for(facts, session, self.identities.judged_candidates(namespace, account));
        // Why there is none depends on all identities of the namespace; the common case does not look at them.
        match found.unwrap_or_else(|| Err(nearest_reason(facts, session, self.identities.judged_in(namespace)))) {
            Ok(entitled) => Entitlement::Entitled(entitled),
            Err(why) => Entitlement::None(self.absence(namespace, &why)),
        }
    }

    /// The WorkloadIdentities, `namespace/name`, that select a session and have no effect for it, since it has
    /// [`MAX_IDENTITIES`] others.
    ///
    /// [`MAX_IDENTITIES`]: countersign_core::entitlement::MAX_IDENTITIES
    #[must_use]
    pub fn left_out(&self, uid: &str, session: &str) -> Vec<String> {
        let Some(pod) = self.pods.record(uid).filter(|pod| !pod.ended) else { return Vec::new() };
        let (namespace, account) = (pod.facts.namespace.as_str(), pod.facts.service_account.as_str());
        left_out(&pod.facts, session, self.identities.judged_candidates(namespace, account))
    }

    /// Whether a session name is the pod's own or one of its containers', the agent's excepted: that serves others, and has no
    /// identity of its own to ask for.
    #[must_use]
    pub fn has_session(&self, uid: &str, session: &str) -> bool {
        session.is_empty()
            || session != pod::AGENT && self.pods.containers(uid).iter().any(|container| container == session)
    }

    /// What publishes bundles has one identity in each trust domain of this cluster, the oldest first, and needs no
    /// WorkloadIdentity for it.
    fn endpoint_entitlement(&self, pod: &PodFacts) -> Entitlement {
        let mut domains = self.accepted_domains();
        domains.retain(|domain| domain.kind == DomainKind::Local);
        domains.sort_by(|one, other| (one.created, &one.uid).cmp(&(other.created, &other.uid)));
        let entitled: Vec<_> =
            domains.iter().take(MAX_IDENTITIES).filter_map(|domain| endpoint_identity(domain, pod).ok()).collect();
        if entitled.is_empty() {
            let message =
                "this cluster is the authority of no trust domain, so nothing is published: create a TrustDomain";
            return Entitlement::None(Absence {
                reason: Reason::NoLocalTrustDomain,
                message: message.to_owned(),
                identity: None,
            });
        }
        Entitlement::Entitled(entitled)
    }

    fn absence(&self, namespace: &str, why: &NoIdentity) -> Absence {
        let mut message = why.to_string();
        if let Some((key, error)) = self.identities.invalid_in(namespace) {
            message.push_str(&format!("; WorkloadIdentity {}/{} cannot be read: {error}", key.namespace, key.name));
        }
        Absence { reason: why.reason(), message, identity: why.identity().map(str::to_owned) }
    }
}

/// Whether a pod is one that publishes bundles. Nobody else has rights in its namespace.
fn is_endpoint(pod: &PodFacts) -> bool {
    pod.namespace == ENDPOINT_NAMESPACE && pod.service_account == ENDPOINT
}
