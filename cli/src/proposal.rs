//! Objects that are proposed: the WorkloadIdentity that a pod lacks, and the grant that a WorkloadIdentity lacks.

use countersign_crds::{TrustDomain, WorkloadIdentity, WorkloadIdentitySpec};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Map, Value, json};

use crate::objects::{Objects, service_account};

/// Stands for the name of a TrustDomain where none grants anything.
pub(crate) const PLACEHOLDER: &str = "TRUST-DOMAIN";

/// A WorkloadIdentity for the service account of the pod, as YAML.
pub(crate) fn workload_identity(objects: &Objects, namespace: &str, account: &str) -> String {
    yaml(&trust_domain(objects, namespace, account), namespace, account)
}

fn yaml(domain: &str, namespace: &str, account: &str) -> String {
    format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: WorkloadIdentity\nmetadata:\n  name: {account}\n  namespace: {namespace}\n\
         spec:\n  trustDomain: {domain}\n  selector:\n    serviceAccounts: [{account}]\n"
    )
}

/// A command that makes it.
pub(crate) fn apply(objects: &Objects, pod: &Pod) -> String {
    let namespace = pod.namespace().unwrap_or_default();
    format!("kubectl apply -f - <<'END'\n{}END", workload_identity(objects, &namespace, &service_account(pod)))
}

/// A TrustDomain that grants what is proposed, those first that the namespace uses already; else one that grants something to the
/// namespace by its name; a placeholder if none does.
fn trust_domain(objects: &Objects, namespace: &str, account: &str) -> String {
    let mut index = objects.index_with([]);
    let used = |domain: &&TrustDomain| {
        let mut own = objects.identities.iter().filter(|one| one.namespace().as_deref() == Some(namespace));
        !own.any(|one| one.spec.trust_domain == domain.name_any())
    };
    let mut local: Vec<&TrustDomain> = objects.domains.iter().filter(|one| one.spec.authority.is_some()).collect();
    local.sort_by_key(|domain| (used(domain), domain.name_any()));
    let names = local.iter().map(|domain| domain.name_any());
    let granting = names.into_iter().find(|domain| {
        let proposed = yaml(domain, namespace, account);
        let Ok(proposed) = serde_saphyr::from_str::<WorkloadIdentity>(&proposed) else { return false };
        let view = index.preview_identity(countersign_policy::workload_identity(&proposed));
        view.and_then(|view| view.outcome.ok()).is_some_and(|judged| judged.is_admitted())
    });
    let names_it = |domain: &&&TrustDomain| {
        domain.spec.grants.iter().any(|grant| grant.namespaces.match_names.iter().any(|name| name == namespace))
    };
    let named = || local.iter().find(names_it).map(|domain| domain.name_any());
    granting.or_else(named).unwrap_or_else(|| PLACEHOLDER.to_owned())
}

/// A grant of all that the WorkloadIdentity claims, to its namespace.
pub(crate) fn grant(identity: &WorkloadIdentity, label_only: bool) -> Value {
    let WorkloadIdentitySpec { path, x509, jwt, federates_with, .. } = &identity.spec;
    let mut grant = Map::new();
    grant.insert("namespaces".to_owned(), json!({"matchNames": [identity.namespace().unwrap_or_default()]}));
    grant.insert("paths".to_owned(), json!([path]));
    let lists = [
        ("dnsNames", x509.as_ref().map(|x509| x509.dns_names.clone()).unwrap_or_default()),
        ("audiences", jwt.as_ref().map(|jwt| jwt.audiences.clone()).unwrap_or_default()),
        ("federatesWith", federates_with.clone()),
    ];
    for (field, values) in lists.into_iter().filter(|(_, values)| !values.is_empty()) {
        grant.insert(field.to_owned(), json!(values));
    }
    if label_only {
        grant.insert("allowLabelOnly".to_owned(), json!(true));
    }
    // Without the placeholder a grant is for one namespace alone only if it says that it is shared.
    if !path.contains("{namespace}") {
        grant.insert("shared".to_owned(), json!(true));
    }
    Value::Object(grant)
}
