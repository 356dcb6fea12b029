//! Which objects go into a dump.

use countersign_contract::{
    API_GROUP, API_VERSION,
    objects::{AUTHORITIES_NAMESPACE, ENDPOINT_NAMESPACE, FEDERATION_NAMESPACE},
};
use kube::{api::ApiResource, core::GroupVersionKind};

/// Objects of one kind.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) resource: ApiResource,
    pub(super) scope: Scope,
}

/// Which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All, with or without a namespace.
    All,
    /// Those with names of the product.
    Ours,
    /// All, of which only names, labels and health are kept.
    Names,
    /// All of a namespace of the product.
    Namespace(String),
}

impl Source {
    fn new(group: &str, version: &str, kind: &str, plural: &str, scope: Scope) -> Self {
        let kind = GroupVersionKind::gvk(group, version, kind);
        Self { resource: ApiResource::from_gvk_with_plural(&kind, plural), scope }
    }

    /// `plural`, or `plural.group`.
    pub(super) fn label(&self) -> String {
        let ApiResource { plural, group, .. } = &self.resource;
        if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") }
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        match &self.scope {
            Scope::Namespace(namespace) => Some(namespace),
            _ => None,
        }
    }

    pub(super) fn is_wanted(&self, name: &str) -> bool {
        self.scope != Scope::Ours
            || name == "countersign"
            || name.starts_with("countersign-")
            || name.starts_with("countersign.dev:")
            || name.ends_with(".countersign.dev")
    }
}

/// The namespaces of the product.
pub(super) fn namespaces(system: &str) -> Vec<String> {
    [system, AUTHORITIES_NAMESPACE, FEDERATION_NAMESPACE, ENDPOINT_NAMESPACE].map(str::to_owned).to_vec()
}

/// All pods; those of workloads are reduced.
pub(super) fn pods() -> Source {
    Source::new("", "v1", "Pod", "pods", Scope::All)
}

pub(super) fn all(namespaces: &[String]) -> Vec<Source> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    const ADMISSION: &str = "admissionregistration.k8s.io";
    let mut sources = vec![
        Source::new(API_GROUP, API_VERSION, "TrustDomain", "trustdomains", Scope::All),
        Source::new(API_GROUP, API_VERSION, "WorkloadIdentity", "workloadidentities", Scope::All),
        Source::new("", "v1", "Namespace", "namespaces", Scope::Names),
        Source::new("", "v1", "Node", "nodes", Scope::Names),
    ];
    sources.extend(
        [
            ("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions"),
            (ADMISSION, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
            (ADMISSION, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
            (ADMISSION, "ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
            (ADMISSION, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
            (RBAC, "ClusterRole", "clusterroles"),
            (RBAC, "ClusterRoleBinding", "clusterrolebindings"),
        ]
        .map(|(group, kind, plural)| Source::new(group, "v1", kind, plural, Scope::Ours)),
    );
    for namespace in namespaces {
        sources.extend(
            [
                ("apps", "Deployment", "deployments"),
                ("", "Pod", "pods"),
                ("", "Service", "services"),
                ("", "ConfigMap", "configmaps"),
                ("discovery.k8s.io", "EndpointSlice", "endpointslices"),
                ("coordination.k8s.io", "Lease", "leases"),
                ("", "Event", "events"),
                (RBAC, "Role", "roles"),
                (RBAC, "RoleBinding", "rolebindings"),
                ("policy", "PodDisruptionBudget", "poddisruptionbudgets"),
                ("networking.k8s.io", "NetworkPolicy", "networkpolicies"),
            ]
            .map(|(group, kind, plural)| Source::new(group, "v1", kind, plural, Scope::Namespace(namespace.clone()))),
        );
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::{Scope, Source, all, namespaces};

    #[test]
    fn secrets_are_never_a_source() {
        let sources = all(&namespaces("countersign-system"));
        assert!(sources.iter().all(|source| source.resource.plural != "secrets"));
    }

    #[test]
    fn of_the_objects_of_a_cluster_only_ours_are_kept() {
        let source = Source::new("", "v1", "ClusterRole", "clusterroles", Scope::Ours);
        assert!(source.is_wanted("countersign-operator") && source.is_wanted("trustdomains.countersign.dev"));
        assert!(!source.is_wanted("cluster-admin") && !source.is_wanted("countersigned"));
    }
}
