//! Before an installation: whether the caller may install, and whether objects of others have our names.

use countersign_contract::{
    API_GROUP,
    objects::{AUTHORITIES_NAMESPACE, FEDERATION_NAMESPACE, OPERATOR, WEBHOOK, WEBHOOK_CA, WEBHOOK_CONFIGURATION},
};
use countersign_crds::{TrustDomain, WorkloadIdentity};
use countersign_reasons::Reason;
use k8s_openapi::{
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::Namespace,
        rbac::v1::ClusterRoleBinding,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{CustomResourceExt as _, ResourceExt as _};

use super::{
    category::{Category, some},
    rights,
};
use crate::{
    cluster::Cluster,
    finding::Finding,
    reading::{Gap, Reading, Right},
};

/// What every object of an installation has.
const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "countersign");

/// What was read.
#[derive(Debug)]
pub(super) struct Seen {
    rights: Vec<(Right, bool)>,
    /// Of each object with a name of ours: what it is, and whether it is ours.
    objects: Vec<(String, Reading<bool>)>,
}

pub(super) async fn observe(cluster: &Cluster, system: &str) -> Seen {
    Seen { rights: rights::ask_all(&cluster.client, to_install(system)).await, objects: objects(cluster, system).await }
}

/// What applying the manifests needs.
fn to_install(system: &str) -> Vec<Right> {
    let cluster_wide = [
        "namespaces",
        "customresourcedefinitions.apiextensions.k8s.io",
        "clusterroles.rbac.authorization.k8s.io",
        "clusterrolebindings.rbac.authorization.k8s.io",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
        "validatingadmissionpolicies.admissionregistration.k8s.io",
        "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    ];
    let in_system = [
        "serviceaccounts",
        "configmaps",
        "services",
        "deployments.apps",
        "poddisruptionbudgets.policy",
        "roles.rbac.authorization.k8s.io",
        "rolebindings.rbac.authorization.k8s.io",
    ];
    let rbac = ["roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io"];
    let mut rights: Vec<Right> =
        cluster_wide.into_iter().map(|resource| Right::new("create", resource, None)).collect();
    rights.extend(in_system.into_iter().map(|resource| Right::new("create", resource, Some(system))));
    for namespace in [AUTHORITIES_NAMESPACE, FEDERATION_NAMESPACE] {
        rights.extend(rbac.into_iter().map(|resource| Right::new("create", resource, Some(namespace))));
    }
    rights
}

async fn objects(cluster: &Cluster, system: &str) -> Vec<(String, Reading<bool>)> {
    let mut objects = Vec::new();
    for wanted in [TrustDomain::crd(), WorkloadIdentity::crd()] {
        let name = wanted.name_any();
        let found: Reading<CustomResourceDefinition> = cluster.read(&name).await;
        let is_ours = |found: CustomResourceDefinition| {
            found.spec.group == API_GROUP
                && found.spec.names.kind == wanted.spec.names.kind
                && found.spec.scope == wanted.spec.scope
        };
        objects.push((format!("customresourcedefinition {name}"), found.map(is_ours)));
    }
    for name in [OPERATOR, WEBHOOK, WEBHOOK_CA] {
        let found: Reading<ClusterRoleBinding> = cluster.read(name).await;
        let is_ours = |found: ClusterRoleBinding| {
            let mut subjects = found.subjects.iter().flatten();
            found.role_ref.name == name && subjects.all(|subject| subject.namespace.as_deref() == Some(system))
        };
        objects.push((format!("clusterrolebinding {name}"), found.map(is_ours)));
    }
    let mutating: Reading<MutatingWebhookConfiguration> = cluster.read(WEBHOOK_CONFIGURATION).await;
    let label = format!("mutatingwebhookconfiguration {WEBHOOK_CONFIGURATION}");
    objects.push((label, mutating.map(|found| has_our_label(&found))));
    let validating: Reading<ValidatingWebhookConfiguration> = cluster.read(WEBHOOK_CONFIGURATION).await;
    let label = format!("validatingwebhookconfiguration {WEBHOOK_CONFIGURATION}");
    objects.push((label, validating.map(|found| has_our_label(&found))));
    for name in [system, AUTHORITIES_NAMESPACE, FEDERATION_NAMESPACE] {
        // An administrator may have made it before.
        let found: Reading<Namespace> = cluster.read(name).await;
        objects.push((format!("namespace {name}"), found.map(|_| true)));
    }
    objects
}

fn has_our_label<K: kube::Resource>(object: &K) -> bool {
    object.labels().get(PART_OF.0).is_some_and(|value| value == PART_OF.1)
}

pub(super) fn category(seen: &Seen) -> Category {
    Category::new("installation", vec![may_install(&seen.rights), names(&seen.objects)])
}

fn may_install(rights: &[(Right, bool)]) -> Finding {
    let missing: Vec<String> =
        rights.iter().filter(|(_, allowed)| !allowed).map(|(right, _)| right.to_string()).collect();
    if missing.is_empty() {
        return Finding::ok("rights", "you may create all objects of an installation");
    }
    let message = format!("you may not {}", some(missing));
    Finding::failed("rights", Reason::MayNotInstall, message)
        .with_mends("ask an administrator for the role:\nkubectl create clusterrolebinding NAME --clusterrole=cluster-admin --user=USER")
}

fn names(objects: &[(String, Reading<bool>)]) -> Finding {
    let with = |wanted: &Reading<bool>| {
        let found = objects.iter().filter(|(_, found)| found == wanted);
        found.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let others = with(&Reading::Found(false));
    if let Some(first) = others.first() {
        let message = format!("not of Countersign, and with names that it needs: {}", some(others.clone()));
        return Finding::failed("names", Reason::ObjectOfAnother, message)
            .with_mends(format!("kubectl get {first} -o yaml\nremove or rename it"));
    }
    if let Some(right) = objects.iter().find_map(|(_, found)| match found.gap() {
        Some(gap @ (Gap::Forbidden(_) | Gap::Failed(_))) => Some(gap),
        _ => None,
    }) {
        return Finding::gap("names", right);
    }
    let ours: Vec<String> =
        with(&Reading::Found(true)).into_iter().filter(|name| !name.starts_with("namespace ")).collect();
    if ours.is_empty() {
        return Finding::ok("names", "no object has a name that an installation needs");
    }
    let message = format!("Countersign is installed already: {}", some(ours));
    Finding::warning("names", Reason::AlreadyInstalled, message).with_mends("kubectl countersign check\nwithout --pre")
}

#[cfg(test)]
mod tests {
    use super::{Seen, category, to_install};
    use crate::{output::Mark, reading::Reading};

    fn seen(allowed: bool, objects: &[(&str, Reading<bool>)]) -> Seen {
        Seen {
            rights: to_install("countersign-system").into_iter().map(|right| (right, allowed)).collect(),
            objects: objects.iter().map(|(name, found)| ((*name).to_owned(), found.clone())).collect(),
        }
    }

    fn marks(seen: &Seen) -> Vec<(Mark, Option<&'static str>)> {
        category(seen).checks.iter().map(|check| (check.mark, check.code())).collect()
    }

    #[test]
    fn an_empty_cluster_and_an_administrator_pass() {
        let seen = seen(true, &[("clusterrolebinding countersign-operator", Reading::Absent)]);
        assert_eq!(marks(&seen), [(Mark::Ok, None), (Mark::Ok, None)]);
    }

    #[test]
    fn a_caller_who_may_not_install_fails() {
        assert_eq!(marks(&seen(false, &[]))[0], (Mark::Failed, Some("CS5004")));
    }

    #[test]
    fn objects_of_others_with_our_names_fail_and_our_own_are_a_warning() {
        let other = [("clusterrolebinding countersign-webhook", Reading::Found(false))];
        assert_eq!(marks(&seen(true, &other))[1], (Mark::Failed, Some("CS5005")));
        let own = [("customresourcedefinition trustdomains.countersign.dev", Reading::Found(true))];
        assert_eq!(marks(&seen(true, &own))[1], (Mark::Warning, Some("CS5006")));
        let namespace = [("namespace countersign-system", Reading::Found(true))];
        assert_eq!(marks(&seen(true, &namespace))[1], (Mark::Ok, None));
    }
}
