//! Objects that are proposed: the WorkloadIdentity that a pod lacks, and the grant that a WorkloadIdentity lacks.

use countersign_crds::{TrustDomain, WorkloadIdentity, WorkloadIdentitySpec};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Map, Value, json};

use crate::objects::{Objects, service_account};

/// A WorkloadIdentity for the service account of the pod, as YAML.
pub(crate) fn workload_identity(objects: &Objects, namespace: &str, account: &str) -> String {
    let domain = trust_domain(objects, namespace);
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

/// The TrustDomain that is likeliest to grant the default path to a namespace: one that names it, else one that selects by labels.
fn trust_domain(objects: &Objects, namespace: &str) -> String {
    let local: Vec<&TrustDomain> = objects.domains.iter().filter(|one| one.spec.authority.is_some()).collect();
    let grants = |is_it: &dyn Fn(&[String]) -> bool| {
        local.iter().find(|domain| domain.spec.grants.iter().any(|grant| is_it(&grant.namespaces.match_names)))
    };
    let named = grants(&|names| names.iter().any(|name| name == namespace));
    let chosen = named.or_else(|| grants(&|names| names.is_empty())).or(local.first());
    chosen.map_or_else(|| "TRUST-DOMAIN".to_owned(), |domain| domain.name_any())
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
