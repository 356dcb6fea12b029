//! What mends each way to have no identity: a command that can be copied, or YAML that can be applied.

use countersign_contract::metadata::{annotation, label};
use countersign_crds::WorkloadIdentity;
use countersign_index::Absence;
use countersign_reasons::Reason;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::json;

use super::About;
use crate::{cause::Cause, objects::service_account, proposal};

/// Why a session of the pod has no identity.
pub(super) fn absence(about: &About, pod: &Pod, session: &str, absence: &Absence) -> Cause {
    let of = if session.is_empty() { String::new() } else { format!("container {session}: ") };
    let cause = Cause::new(absence.reason, format!("{of}{}", absence.message));
    let nearest = absence.identity.as_deref().and_then(|name| identity(about, name));
    let mends = match (absence.reason, nearest) {
        (Reason::NoWorkloadIdentity, _) => vec![proposal::apply(&about.objects, pod)],
        (Reason::ServiceAccountNotSelected, _) => not_selected(about, pod),
        (Reason::LabelsDiffer, Some(identity)) => vec![format!(
            "correct the labels in the pod's template, or the selector: kubectl edit --namespace {} workloadidentity {}",
            about.namespace,
            identity.name_any()
        )],
        (Reason::ContainerNotSelected, _) => {
            vec![format!("set the annotation {}: \"true\" in the pod's template", annotation::PER_CONTAINER)]
        }
        (Reason::NoTrustDomain, Some(identity)) => no_trust_domain(about, identity),
        (Reason::NotGranted | Reason::LabelOnlyNotGranted, Some(identity)) => {
            grant(about, identity, absence.reason == Reason::LabelOnlyNotGranted)
        }
        (Reason::LifetimeTooLong | Reason::LifetimeZero, Some(identity)) => vec![format!(
            "kubectl edit --namespace {} workloadidentity {}  # shorten ttl, or leave it out",
            about.namespace,
            identity.name_any()
        )],
        (Reason::Conflict, Some(identity)) => vec![format!(
            "kubectl edit --namespace {} workloadidentity {}  # another spec.path, or other service accounts",
            about.namespace,
            identity.name_any()
        )],
        (reason, _) => vec![reason.remedy()],
    };
    mends.into_iter().fold(cause, Cause::mend)
}

/// What mends a refusal of admission.
pub(super) fn refusal(reason: Reason, namespace: &str) -> Option<String> {
    match reason {
        Reason::NamespaceMode => {
            Some(format!("kubectl label namespace {namespace} {}=sidecar --overwrite", label::INJECT))
        }
        Reason::PodNotCreated => None,
        reason => Some(reason.remedy()),
    }
}

fn identity<'a>(about: &'a About, full_name: &str) -> Option<&'a WorkloadIdentity> {
    let (namespace, name) = full_name.split_once('/')?;
    let mut all = about.objects.identities.iter();
    all.find(|one| one.namespace().as_deref() == Some(namespace) && one.name_any() == name)
}

/// Adding the account to the one WorkloadIdentity, or one more.
fn not_selected(about: &About, pod: &Pod) -> Vec<String> {
    let account = service_account(pod);
    let own: Vec<_> =
        about.objects.identities.iter().filter(|one| one.namespace().as_deref() == Some(&about.namespace)).collect();
    let names: Vec<String> = own.iter().map(|one| one.name_any()).collect();
    let run_as = own.iter().flat_map(|one| &one.spec.selector.service_accounts).next();
    let mut mends = Vec::new();
    if let Some(selected) = run_as.filter(|_| account == "default") {
        mends.push(format!("set serviceAccountName in the pod's template, such as {selected}, which is selected"));
    }
    if let [name] = names.as_slice() {
        let patch = json!([{"op": "add", "path": "/spec/selector/serviceAccounts/-", "value": account}]);
        mends.push(format!(
            "kubectl patch --namespace {} workloadidentity {name} --type json --patch '{patch}'",
            about.namespace
        ));
    } else {
        mends.push(proposal::apply(&about.objects, pod));
    }
    mends
}

fn no_trust_domain(about: &About, identity: &WorkloadIdentity) -> Vec<String> {
    let (asked, namespace, name) = (&identity.spec.trust_domain, &about.namespace, identity.name_any());
    let local: Vec<String> =
        about.objects.domains.iter().filter(|one| one.spec.authority.is_some()).map(|one| one.name_any()).collect();
    let exists = if local.is_empty() {
        "there is no TrustDomain with an authority".to_owned()
    } else {
        format!("there are the TrustDomains {}", local.join(", "))
    };
    vec![
        format!("{exists}; spec.trustDomain cannot be changed, so make the WorkloadIdentity again with the right one:"),
        format!(
            "kubectl get --namespace {namespace} workloadidentity {name} -o yaml | sed 's/trustDomain: {asked}$/trustDomain: \
             NAME/' | kubectl replace --force -f -"
        ),
    ]
}

/// The grant that the WorkloadIdentity needs.
fn grant(about: &About, identity: &WorkloadIdentity, label_only: bool) -> Vec<String> {
    let name = &identity.spec.trust_domain;
    let Some(domain) = about.objects.domains.iter().find(|one| one.name_any() == *name) else { return Vec::new() };
    let value = proposal::grant(identity, label_only);
    let patch = if domain.spec.grants.is_empty() {
        json!([{"op": "add", "path": "/spec/grants", "value": [value]}])
    } else {
        json!([{"op": "add", "path": "/spec/grants/-", "value": value}])
    };
    vec![
        format!("claim what is granted, or ask the owner of TrustDomain {name} for this grant:"),
        format!("kubectl patch trustdomain {name} --type json --patch '{patch}'"),
    ]
}
