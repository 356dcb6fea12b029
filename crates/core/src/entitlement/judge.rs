//! The one outcome of a WorkloadIdentity, on which issuer and status agree: admitted under a domain, or refused with a
//! reason and a remedy.

use countersign_reasons::Reason;
use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use super::claim::{ClaimHistory, ClaimKey, ClaimKind, Standing, claims_of};
use super::conflict::{Claims, LostClaim};
use super::facts::Labels;
use super::foreign::Foreign;
use super::grant::{Admitted, GrantError, admit};
use super::spec::{DomainKind, DomainSpec, IdentitySpec};
use crate::id::TrustDomain;

/// A WorkloadIdentity and its outcome. Only [`judge`] makes one, so what is admitted here was granted; what others hold of
/// its claims it does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    identity: Arc<IdentitySpec>,
    outcome: Result<Arc<DomainSpec>, Refusal>,
    lost: Box<[LostClaim]>,
    foreign: Arc<[Foreign]>,
}

impl Judged {
    /// What was judged.
    pub fn identity(&self) -> &Arc<IdentitySpec> {
        &self.identity
    }

    /// The domain under which it is admitted, or why it is not.
    pub fn outcome(&self) -> Result<&Arc<DomainSpec>, &Refusal> {
        self.outcome.as_ref()
    }

    /// The claims that others hold, those of the oldest holder first: pods get neither these ids nor these DNS names.
    pub fn lost(&self) -> &[LostClaim] {
        &self.lost
    }

    /// The foreign trust domains that it names, and which of them it gets; none where it is not admitted.
    pub fn foreign(&self) -> &Arc<[Foreign]> {
        &self.foreign
    }

    /// How the grants stand to its claims, whoever else claims the same.
    pub fn standing(&self) -> Standing {
        match &self.outcome {
            Ok(_) | Err(Refusal::Conflict { .. }) => Standing::Granted,
            Err(Refusal::NoTrustDomain { .. }) => Standing::Unknown,
            Err(Refusal::RemoteTrustDomain { .. } | Refusal::NotGranted(_)) => Standing::NotGranted,
        }
    }

    /// Whether pods may get it.
    pub fn is_admitted(&self) -> bool {
        self.outcome.is_ok()
    }

    /// A CamelCase reason for conditions: `Admitted`, or that of the refusal.
    pub fn reason(&self) -> Reason {
        self.outcome.as_ref().map_or_else(Refusal::reason, |_| Reason::Admitted)
    }

    /// A sentence for people.
    pub fn message(&self) -> String {
        match &self.outcome {
            Ok(domain) => format!("granted by TrustDomain {}", domain.name),
            Err(refusal) => refusal.to_string(),
        }
    }
}

/// Why no pod gets a WorkloadIdentity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No TrustDomain has the name.
    #[error("there is no TrustDomain {domain}: create it, or name another in spec.trustDomain")]
    NoTrustDomain {
        /// The trust domain named.
        domain: TrustDomain,
    },
    /// The TrustDomain is another authority's.
    #[error(
        "TrustDomain {domain} is remote: this cluster cannot issue in it; name a domain of which it is the authority"
    )]
    RemoteTrustDomain {
        /// The TrustDomain's name.
        domain: String,
    },
    /// The domain's owner does not grant what is claimed.
    #[error(transparent)]
    NotGranted(#[from] GrantError),
    /// Older claims of others hold all ids that it can give.
    #[error(
        "its path {path:?} can give ids that WorkloadIdentity {namespace}/{name} already holds; the older claim keeps them: \
         change path or service accounts of one"
    )]
    Conflict {
        /// The path that overlaps.
        path: String,
        /// The namespace of the oldest holder.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Refusal {
    /// A CamelCase reason for conditions.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NoTrustDomain { .. } => Reason::NoTrustDomain,
            Self::RemoteTrustDomain { .. } => Reason::RemoteTrustDomain,
            Self::NotGranted(error) => error.reason(),
            Self::Conflict { .. } => Reason::Conflict,
        }
    }
}

/// Judges one identity: the domain it names (if there is one), the labels of its namespace (if that is known), and the
/// granted claims of all, its own among them. `find` has the TrustDomain of a foreign trust domain.
pub fn judge(
    identity: Arc<IdentitySpec>,
    domain: Option<Arc<DomainSpec>>,
    namespace_labels: Option<&Labels>,
    claims: &Claims,
    find: &dyn Fn(&TrustDomain) -> Option<Arc<DomainSpec>>,
) -> Judged {
    let (domain, admitted) = match granted(&identity, domain, namespace_labels) {
        Ok(granted) => granted,
        Err(refusal) => {
            return Judged { identity, outcome: Err(refusal), lost: Box::default(), foreign: Arc::default() };
        }
    };
    let foreign = match namespace_labels.filter(|_| !identity.federates_with.is_empty()) {
        Some(labels) => admitted.foreign(&identity, &domain, labels, find),
        None => Arc::default(),
    };
    let lost = claims.lost(&identity).into_boxed_slice();
    let outcome = match conflict(&identity, &lost) {
        Some(refusal) => Err(refusal),
        None => Ok(domain),
    };
    let foreign = if outcome.is_ok() { foreign } else { Arc::default() };
    Judged { identity, outcome, lost, foreign }
}

/// The refusal of an identity none of whose ids is left to it.
fn conflict(identity: &IdentitySpec, lost: &[LostClaim]) -> Option<Refusal> {
    let is_path = |claim: &ClaimKey| claim.kind == ClaimKind::Path;
    let oldest = lost.iter().find(|lost| is_path(&lost.claim))?;
    let lost_paths = lost.iter().filter(|lost| is_path(&lost.claim)).count();
    let paths = claims_of(identity).into_iter().filter(is_path).count();
    (lost_paths == paths).then(|| Refusal::Conflict {
        path: identity.path.to_string(),
        namespace: oldest.namespace.clone(),
        name: oldest.name.clone(),
    })
}

/// Judges all identities there are, in the order given. `domain` finds the domain an identity names; `history` what is
/// known of the ages of its claims; `namespace_labels` has the labels of each namespace that has any: every namespace is
/// known here. No foreign trust domain is.
pub fn judge_all(
    identities: impl IntoIterator<Item = Arc<IdentitySpec>>,
    domain: impl Fn(&IdentitySpec) -> Option<Arc<DomainSpec>>,
    history: impl Fn(&IdentitySpec) -> ClaimHistory,
    namespace_labels: &BTreeMap<String, Labels>,
) -> Vec<Judged> {
    let no_labels = Labels::new();
    let identities: Vec<_> = identities.into_iter().collect();
    let facts =
        |identity: &IdentitySpec| (domain(identity), namespace_labels.get(&identity.namespace).or(Some(&no_labels)));

    let mut claims = Claims::default();
    for identity in &identities {
        let (domain, labels) = facts(identity);
        if grantable(identity, domain, labels).is_ok() {
            claims.insert(identity, &history(identity));
        }
    }
    identities
        .into_iter()
        .map(|identity| {
            let (domain, labels) = facts(&identity);
            judge(identity, domain, labels, &claims, &|_| None)
        })
        .collect()
}

/// Whether the identity's claims are granted, whoever else claims them: what enters [`Claims`]. The domain, or why not.
pub fn grantable(
    identity: &IdentitySpec,
    domain: Option<Arc<DomainSpec>>,
    namespace_labels: Option<&Labels>,
) -> Result<Arc<DomainSpec>, Refusal> {
    granted(identity, domain, namespace_labels).map(|(domain, _)| domain)
}

fn granted(
    identity: &IdentitySpec,
    domain: Option<Arc<DomainSpec>>,
    namespace_labels: Option<&Labels>,
) -> Result<(Arc<DomainSpec>, Admitted), Refusal> {
    let named = domain.filter(|domain| domain.trust_domain == identity.trust_domain);
    let domain = named.ok_or_else(|| Refusal::NoTrustDomain { domain: identity.trust_domain.clone() })?;
    if domain.kind != DomainKind::Local {
        return Err(Refusal::RemoteTrustDomain { domain: domain.name.clone() });
    }
    let admitted = admit(identity, &domain, namespace_labels)?;
    Ok((domain, admitted))
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use jiff::Timestamp;

    use super::super::fixtures::{domain, identity, labels, path_grant};
    use super::super::{NamespaceSelector, PathTemplate, RemoteTerms};
    use super::*;

    fn standard_domain() -> DomainSpec {
        domain(vec![path_grant("/ns/{namespace}/sa/{serviceAccount}")])
    }

    fn reasons(identities: &[IdentitySpec], domain: Option<DomainSpec>) -> Vec<&'static str> {
        let domain = domain.map(Arc::new);
        judge_all(
            identities.iter().cloned().map(Arc::new),
            |_| domain.clone(),
            |_| ClaimHistory::Original,
            &BTreeMap::new(),
        )
        .iter()
        .map(|judged| judged.reason().name())
        .collect()
    }

    fn younger(identity: &IdentitySpec, name: &str, age: i64) -> IdentitySpec {
        let created = Timestamp::from_second(1_000 + age).unwrap();
        IdentitySpec { name: name.into(), uid: name.into(), created, ..identity.clone() }
    }

    #[test]
    fn every_outcome_has_its_reason() {
        let plain = identity("shop", "orders");
        let elsewhere = IdentitySpec { path: PathTemplate::parse("/admin").unwrap(), ..plain.clone() };
        let mut long = plain.clone();
        long.x509.ttl = Some(std::time::Duration::from_secs(1_000_000));
        let remote = DomainSpec { kind: DomainKind::Remote(RemoteTerms::default()), ..standard_domain() };
        let other = DomainSpec { trust_domain: "other.org".parse().unwrap(), ..standard_domain() };

        assert_eq!(reasons(from_ref(&plain), Some(standard_domain())), ["Admitted"]);
        assert_eq!(reasons(from_ref(&plain), None), ["NoTrustDomain"]);
        assert_eq!(reasons(from_ref(&plain), Some(other)), ["NoTrustDomain"]);
        assert_eq!(reasons(from_ref(&plain), Some(remote)), ["RemoteTrustDomain"]);
        assert_eq!(reasons(&[elsewhere], Some(standard_domain())), ["NotGranted"]);
        assert_eq!(reasons(&[long], Some(standard_domain())), ["LifetimeTooLong"]);
        assert_eq!(reasons(&[younger(&plain, "late", 5), plain], Some(standard_domain())), ["Conflict", "Admitted"]);
    }

    // R32: the loser says with whom.
    #[test]
    fn a_conflict_names_the_holder() {
        let old = identity("shop", "orders");
        let late = younger(&old, "late", 5);
        let mut claims = Claims::default();
        claims.insert(&old, &ClaimHistory::Original);
        let judged = judge(Arc::new(late), Some(Arc::new(standard_domain())), Some(&labels(&[])), &claims, &|_| None);
        assert!(!judged.is_admitted());
        assert_eq!(
            judged.message(),
            "its path \"/ns/{namespace}/sa/{serviceAccount}\" can give ids that WorkloadIdentity shop/orders already holds; \
             the older claim keeps them: change path or service accounts of one"
        );
    }

    // A claim that is not granted must not shut out one that is.
    #[test]
    fn what_is_not_granted_takes_nothing_from_others() {
        let squatter =
            IdentitySpec { path: PathTemplate::parse("/ns/bank/sa/orders").unwrap(), ..identity("shop", "orders") };
        let owner = younger(&identity("bank", "orders"), "owner", 50);
        assert_eq!(reasons(&[squatter, owner], Some(standard_domain())), ["NotGranted", "Admitted"]);
    }

    // Three in a row, each overlapping the next: taking the first away gives to the second and takes from nobody.
    #[test]
    fn a_claim_in_conflict_still_counts_against_younger_ones() {
        let claiming = |accounts: &[&str], name, age| {
            let mut identity = younger(&identity("shop", "x"), name, age);
            identity.selector.service_accounts = accounts.iter().map(|&account| account.into()).collect();
            identity
        };
        let (first, second, third) =
            (claiming(&["a"], "1", 0), claiming(&["a", "b"], "2", 1), claiming(&["b"], "3", 2));
        let all = [first, second.clone(), third.clone()];
        // The second has `b`, which nobody claimed before it.
        assert_eq!(reasons(&all, Some(standard_domain())), ["Admitted", "Admitted", "Conflict"]);
        assert_eq!(reasons(&[second, third], Some(standard_domain())), ["Admitted", "Conflict"]);
    }

    #[test]
    fn the_namespaces_labels_decide() {
        let mut grant = path_grant("/ns/{namespace}/**");
        let team = labels(&[("team", "a")]);
        grant.namespaces = NamespaceSelector {
            names: Vec::new(),
            labels: Some(super::super::LabelSelector { match_labels: team.clone(), ..Default::default() }),
        };
        let domain = Arc::new(domain(vec![grant]));
        let judged = |namespaces: &BTreeMap<String, Labels>| {
            judge_all(
                [Arc::new(identity("shop", "a"))],
                |_| Some(domain.clone()),
                |_| ClaimHistory::Original,
                namespaces,
            )
            .remove(0)
            .reason()
            .name()
        };
        assert_eq!(judged(&BTreeMap::from([("shop".into(), team)])), "Admitted");
        assert_eq!(judged(&BTreeMap::new()), "NotGranted");
    }
}
