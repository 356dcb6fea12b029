//! What mends each way to have no identity: a command that can be copied, or YAML that can be applied.

use countersign_contract::metadata::{annotation, label};
use countersign_crds::WorkloadIdentity;
use countersign_index::{Absence, DomainVerdict, IdentityKey, Index};
use countersign_reasons::Reason;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::json;

use super::About;
use crate::{
    finding::Finding,
    objects::{distance, service_account, sessions},
    proposal,
};

/// Why a session of the pod has no identity: what fails at a step.
pub(super) fn absence(step: &str, about: &About, pod: &Pod, session: &str, absence: &Absence) -> Finding {
    let of = if session.is_empty() { String::new() } else { format!("container {session}: ") };
    let failed = Finding::failed(step, absence.reason, format!("{of}{}", absence.message));
    let nearest = absence.identity.as_deref().and_then(|name| identity(about, name));
    let mends = match (absence.reason, nearest) {
        (Reason::NoWorkloadIdentity, _) => proposed(about, pod),
        (Reason::ServiceAccountNotSelected, _) => not_selected(about, pod),
        (Reason::LabelsDiffer, Some(identity)) => vec![format!(
            "correct the labels in the pod's template, or the selector: kubectl edit --namespace {} workloadidentity {}",
            about.namespace,
            identity.name_any()
        )],
        (Reason::ContainerNotSelected, Some(identity)) if !session.is_empty() => vec![format!(
            "kubectl edit --namespace {} workloadidentity {}  # spec.selector.containers is {}, the pod's containers are {}",
            about.namespace,
            identity.name_any(),
            identity.spec.selector.containers.join(", "),
            sessions(pod).join(", ")
        )],
        (Reason::ContainerNotSelected, _) => {
            vec![format!("set the annotation {}: \"true\" in the pod's template", annotation::PER_CONTAINER)]
        }
        (Reason::NoTrustDomain, Some(identity)) => return no_trust_domain(about, identity, failed),
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
    mends.into_iter().fold(failed, Finding::with_mend)
}

/// What mends a refusal of admission, by us or by Kubernetes.
pub(super) fn refusal(reason: Reason, namespace: &str, message: &str) -> String {
    let between = |after: &str| message.split_once(after).and_then(|(_, rest)| rest.split('"').next());
    match reason {
        Reason::NamespaceMode => format!("kubectl label namespace {namespace} {}=sidecar --overwrite", label::INJECT),
        Reason::PodNotCreated if message.contains("not found") && message.contains("serviceaccount \"") => {
            let account = between("serviceaccount \"").filter(|name| is_plain(name)).unwrap_or("NAME");
            format!("kubectl create serviceaccount {account} --namespace {namespace}")
        }
        Reason::PodNotCreated if message.contains("exceeded quota") => {
            format!("kubectl describe resourcequota --namespace {namespace}  # raise it, or remove other pods")
        }
        Reason::PodNotCreated if message.contains("per Container") => format!(
            "kubectl edit limitrange --namespace {namespace}  # a LimitRange concerns the agent too; or set the webhook's \
             --agent-memory-mib and --agent-cpu"
        ),
        Reason::PodNotCreated if message.contains("PodSecurity") => format!(
            "correct the pod's template, or the label pod-security.kubernetes.io/enforce of namespace {namespace}"
        ),
        reason => reason.remedy(),
    }
}

/// What mends a WorkloadIdentity that selects the pod's account and that nobody can read.
pub(super) fn unreadable(step: &str, about: &About, index: &Index, pod: &Pod) -> Option<Finding> {
    let account = service_account(pod);
    let own = about.objects.identities.iter().filter(|one| one.namespace().as_deref() == Some(&about.namespace));
    for identity in own.filter(|one| one.spec.selector.service_accounts.contains(&account)) {
        let key = IdentityKey { namespace: about.namespace.clone(), name: identity.name_any() };
        let Some(Err(errors)) = index.identity(&key).map(|view| view.outcome) else { continue };
        let (name, asked) = (identity.name_any(), &identity.spec.trust_domain);
        if asked.starts_with("spiffe://") {
            let text = format!(
                "WorkloadIdentity {}/{name} names {asked}: a TrustDomain is named by the name of its object, without spiffe://",
                about.namespace
            );
            return Some(no_trust_domain(about, identity, Finding::failed(step, Reason::NoTrustDomain, text)));
        }
        let text = format!("WorkloadIdentity {}/{name} selects the pod and cannot be used: {errors}", about.namespace);
        let mend = format!("kubectl edit --namespace {} workloadidentity {name}", about.namespace);
        return Some(Finding::failed(step, Reason::Invalid, text).with_mend(mend));
    }
    None
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
    let mut mends = Vec::new();
    // Somebody wrote namespace/name, as other systems do.
    let qualified = format!("{}/{account}", about.namespace);
    for identity in &own {
        if let Some(position) = identity.spec.selector.service_accounts.iter().position(|one| *one == qualified) {
            let path = format!("/spec/selector/serviceAccounts/{position}");
            let patch = json!([{"op": "replace", "path": path, "value": account}]);
            mends.push(format!("it selects {qualified}, and accounts are named without their namespace:"));
            mends.push(format!(
                "kubectl patch --namespace {} workloadidentity {} --type json --patch {}",
                about.namespace,
                identity.name_any(),
                quoted(&patch.to_string())
            ));
            return mends;
        }
    }
    let selected = own.iter().flat_map(|one| &one.spec.selector.service_accounts).filter(|one| !one.contains('/'));
    let nearest = selected.min_by_key(|one| distance(one, &account));
    if let Some(nearest) = nearest.filter(|one| account == "default" || distance(one, &account) <= 2) {
        mends.push(format!("set serviceAccountName in the pod's template to {nearest}, which is selected, or:"));
    }
    if let [name] = names.as_slice() {
        let patch = json!([{"op": "add", "path": "/spec/selector/serviceAccounts/-", "value": account}]);
        mends.push(format!(
            "kubectl patch --namespace {} workloadidentity {name} --type json --patch {}",
            about.namespace,
            quoted(&patch.to_string())
        ));
    } else {
        mends.extend(proposed(about, pod));
    }
    mends
}

/// The WorkloadIdentity that the pod lacks.
fn proposed(about: &About, pod: &Pod) -> Vec<String> {
    let command = proposal::apply(&about.objects, pod);
    let ungranted = format!(
        "no TrustDomain grants anything to namespace {}: put the name of one in, and ask its owner for a grant",
        about.namespace
    );
    let is_ungranted = command.contains(proposal::PLACEHOLDER);
    is_ungranted.then_some(ungranted).into_iter().chain([command]).collect()
}

/// There is none of the name, or the one of the name has no effect.
fn no_trust_domain(about: &About, identity: &WorkloadIdentity, failed: Finding) -> Finding {
    let (asked, namespace, name) = (&identity.spec.trust_domain, &about.namespace, identity.name_any());
    let verdict = about.objects.index_with([]).domain(asked);
    let failed = match verdict {
        Some(DomainVerdict::Duplicate { of, trust_domain }) => Finding::failed(
            &failed.about,
            Reason::Duplicate,
            format!("TrustDomain {asked} has no effect: {of}, which is older, holds trust domain {trust_domain}"),
        ),
        Some(DomainVerdict::Invalid(errors)) => {
            return Finding::failed(
                &failed.about,
                Reason::Invalid,
                format!("TrustDomain {asked} cannot be used: {errors}"),
            )
            .with_mend(format!("kubectl edit trustdomain {asked}"));
        }
        Some(DomainVerdict::Accepted(_)) | None => failed,
    };
    let local: Vec<String> = about
        .objects
        .domains
        .iter()
        .filter(|one| one.spec.authority.is_some() && one.name_any() != *asked)
        .map(|one| one.name_any())
        .collect();
    let nearest = local.iter().min_by_key(|one| distance(one, asked)).filter(|one| distance(one, asked) <= 9);
    let right = nearest.map_or("NAME", String::as_str);
    let exists = if local.is_empty() {
        "there is no TrustDomain with an authority".to_owned()
    } else {
        format!("there are the TrustDomains {}", local.join(", "))
    };
    if !is_plain(asked) {
        let again = format!("delete WorkloadIdentity {name}, and make it again with the right one");
        return failed.with_mend(format!("{exists}; spec.trustDomain cannot be changed, so {again}"));
    }
    failed
        .with_mend(format!("{exists}; spec.trustDomain cannot be changed, so make the WorkloadIdentity again with the right one:"))
        .with_mend(format!(
            "kubectl get --namespace {namespace} workloadidentity {name} -o yaml | sed 's#trustDomain: {asked}$#trustDomain: \
             {right}#' | kubectl replace --force -f -"
        ))
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
        format!("kubectl patch trustdomain {name} --type json --patch {}", quoted(&patch.to_string())),
    ]
}

/// One word of a shell. What stands in objects is written by others than the one who copies the command.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Whether a text means nothing to a shell or to sed.
fn is_plain(text: &str) -> bool {
    text.chars().all(|character| character.is_ascii_alphanumeric() || "._:/-".contains(character))
}
