//! From the agent's question to the authority's answer: which WorkloadIdentity selects the pod, what is granted, who holds it, and
//! whether it is signed.

use std::collections::BTreeSet;

use countersign_crds::{WorkloadIdentity, condition};
use countersign_index::{Absence, Entitlement, IdentityKey, Index};
use countersign_reasons::Reason;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::ResourceExt as _;

use super::{About, BESIDE, mends};
use crate::{
    finding::Finding,
    objects::{condition_of, condition_reason, service_account, sessions, uid},
    output::Mark,
    reading::full_name,
};

/// The steps, and what is wrong beside them.
pub(super) struct Entitlements {
    pub(super) steps: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

pub(super) fn steps(about: &About, pod: &Pod) -> Entitlements {
    let index = about.objects.index_with([pod]);
    let (mut ids, mut granting) = (Vec::new(), BTreeSet::new());
    for session in sessions(pod) {
        match index.entitlement(&uid(pod), &session) {
            Entitlement::Entitled(entitled) => {
                for one in entitled {
                    granting.insert(one.identity.full_name());
                    ids.push(one.id.to_string());
                }
            }
            Entitlement::None(absence) => {
                if let Some(step) = mends::unreadable("match", about, &index, pod) {
                    return Entitlements { steps: vec![step], warnings: Vec::new() };
                }
                return Entitlements { steps: absent(about, pod, &session, &absence), warnings: Vec::new() };
            }
            Entitlement::Gone => {
                let step = Finding::failed("match", Reason::PodEnded, "the pod has ended");
                return Entitlements { steps: vec![step], warnings: Vec::new() };
            }
        }
    }
    let of_pod: Vec<&WorkloadIdentity> = about
        .objects
        .identities
        .iter()
        .filter(|identity| granting.iter().any(|name| *name == full_name(*identity)))
        .collect();
    let names: Vec<String> = of_pod.iter().map(|identity| identity.name_any()).collect();
    let selected = match names.as_slice() {
        [] => "identities of the system".to_owned(),
        names => format!("selected by WorkloadIdentity {}", names.join(", ")),
    };
    let domains: BTreeSet<&str> = of_pod.iter().map(|identity| identity.spec.trust_domain.as_str()).collect();
    let granted = format!("by TrustDomain {}", domains.into_iter().collect::<Vec<_>>().join(", "));
    let steps = vec![
        Finding::ok("match", selected),
        Finding::ok("grant", granted),
        Finding::ok("identity", ids.join(", ")),
        issue(about, &of_pod),
    ];
    let mut warnings = warnings(&of_pod);
    warnings.extend(refused(about, pod, &index));
    Entitlements { steps, warnings }
}

/// The steps up to the one that fails.
fn absent(about: &About, pod: &Pod, session: &str, absence: &Absence) -> Vec<Finding> {
    let failing = match absence.reason {
        Reason::NoWorkloadIdentity
        | Reason::NoSuchContainer
        | Reason::ServiceAccountNotSelected
        | Reason::LabelsDiffer
        | Reason::ContainerNotSelected => "match",
        Reason::Conflict => "conflict",
        Reason::Unrenderable => "identity",
        _ => "grant",
    };
    let mut steps = Vec::new();
    if failing != "match" {
        steps.push(Finding::ok("match", "a WorkloadIdentity selects the pod"));
    }
    if failing == "conflict" {
        steps.push(Finding::ok("grant", "its TrustDomain grants it"));
    }
    steps.push(mends::absence(failing, about, pod, session, absence));
    steps
}

/// Whether the authorities of the trust domains sign.
fn issue(about: &About, identities: &[&WorkloadIdentity]) -> Finding {
    for identity in identities {
        let name = identity.spec.trust_domain.as_str();
        let domain = about.objects.domains.iter().find(|domain| domain.name_any() == name);
        let conditions = domain.and_then(|domain| domain.status.as_ref()).map(|status| status.conditions.as_slice());
        let ready = condition_of(conditions.unwrap_or_default(), condition::READY);
        match ready {
            Some(ready) if ready.status == "True" => {}
            Some(ready) => {
                let reason = condition_reason(&ready.reason).unwrap_or(Reason::AuthorityNotReady);
                let text = format!("TrustDomain {name} does not sign: {}", ready.message);
                let mend = format!("kubectl describe trustdomain {name}");
                return Finding::failed("issue", reason, text).with_mend(mend);
            }
            None => {
                let text = format!(
                    "TrustDomain {name} has no status yet: the operator has not looked at it, or no replica of it leads"
                );
                return Finding::failed("issue", Reason::AuthorityNotReady, text)
                    .with_mend("kubectl countersign check");
            }
        }
    }
    Finding::ok("issue", "its authorities sign")
}

/// Other WorkloadIdentities that name the pod's account, select the pod, and are refused.
fn refused(about: &About, pod: &Pod, index: &Index) -> Vec<Finding> {
    let account = service_account(pod);
    let own = about.objects.identities.iter().filter(|one| one.namespace().as_deref() == Some(&about.namespace));
    let named = own.filter(|one| one.spec.selector.service_accounts.contains(&account));
    let refused = named.filter_map(|identity| {
        let key = IdentityKey { namespace: about.namespace.clone(), name: identity.name_any() };
        let view = index.identity(&key).filter(|view| view.matched > 0)?;
        let judged = view.outcome.ok()?;
        let refusal = judged.outcome().err()?;
        let absence = Absence {
            reason: refusal.reason(),
            message: format!("WorkloadIdentity {} selects the pod too, and is refused: {refusal}", identity.name_any()),
            identity: Some(full_name(identity)),
        };
        Some(mends::absence(BESIDE, about, pod, "", &absence).marked(Mark::Warning))
    });
    refused.collect()
}

/// What costs no identity: claims of others, foreign bundles, WIT-SVIDs, mounts that are never renewed.
fn warnings(identities: &[&WorkloadIdentity]) -> Vec<Finding> {
    let mut found = Vec::new();
    for identity in identities {
        let conditions = identity.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        found.extend(conditions.iter().filter(|one| is_beside(one)).filter_map(|one| {
            let reason = condition_reason(&one.reason).filter(|reason| !reason.is_well())?;
            let message = format!("WorkloadIdentity {}: {}", identity.name_any(), one.message);
            Some(Finding::warning(BESIDE, reason, message))
        }));
    }
    found
}

fn is_beside(one: &Condition) -> bool {
    match one.type_.as_str() {
        condition::CONFLICTING => one.status == "True",
        condition::FEDERATED | condition::WIT_AVAILABLE | condition::CREDENTIALS_REFRESHABLE => one.status == "False",
        _ => false,
    }
}
