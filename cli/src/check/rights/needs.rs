//! What the service accounts of the components must be allowed to do: what the manifests of this build let them do.

use std::collections::BTreeSet;

use countersign_contract::objects::SYSTEM_NAMESPACE;
use k8s_openapi::api::{
    authorization::v1::{NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject},
};
use kube::ResourceExt as _;
use serde_json::Value;

use super::with_group;

/// The manifests with the roles of the components: what these need is said there and nowhere else.
const MANIFESTS: [&str; 3] = [
    include_str!("../../../../manifests/base/operator/rbac.yaml"),
    include_str!("../../../../manifests/base/webhook/rbac.yaml"),
    include_str!("../../../../manifests/base/webhook/ca.yaml"),
];

/// A service account, and one thing that it must be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    /// Namespace and name.
    pub(super) account: (String, String),
    verb: String,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Resource { group: String, resource: String, subresource: String, name: String, namespace: Option<String> },
    Path(String),
}

/// What the roles in the manifests allow, to the accounts to which they are bound.
pub(super) fn needs(system: &str) -> BTreeSet<Need> {
    let documents: Vec<Value> =
        MANIFESTS.iter().flat_map(|text| serde_saphyr::from_multiple(text).unwrap_or_default()).collect();
    let of_kind = |kind: &'static str| {
        documents.iter().filter(move |document| document.get("kind").is_some_and(|found| found == kind)).cloned()
    };
    let cluster_roles: Vec<ClusterRole> = of_kind("ClusterRole").filter_map(parsed).collect();
    let roles: Vec<Role> = of_kind("Role").filter_map(parsed).collect();

    let mut needs = BTreeSet::new();
    for binding in of_kind("ClusterRoleBinding").filter_map(parsed::<ClusterRoleBinding>) {
        let role = cluster_roles.iter().find(|role| role.name_any() == binding.role_ref.name);
        let rules = role.and_then(|role| role.rules.as_deref()).unwrap_or_default();
        add(&mut needs, binding.subjects.as_deref(), rules, None);
    }
    for binding in of_kind("RoleBinding").filter_map(parsed::<RoleBinding>) {
        let namespace = binding.namespace().unwrap_or_default();
        let is_it = |role: &&Role| is_role(role, &binding.role_ref, &namespace);
        let rules = roles.iter().find(is_it).and_then(|role| role.rules.as_deref()).unwrap_or_default();
        add(&mut needs, binding.subjects.as_deref(), rules, Some(&namespace));
    }
    let installed = |namespace: String| if namespace == SYSTEM_NAMESPACE { system.to_owned() } else { namespace };
    needs.into_iter().map(|need| need.with_namespaces(installed)).collect()
}

impl Need {
    fn with_namespaces(mut self, installed: impl Fn(String) -> String) -> Self {
        self.account.0 = installed(self.account.0);
        if let Target::Resource { namespace, .. } = &mut self.target {
            *namespace = namespace.take().map(installed);
        }
        self
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let verb = &self.verb;
        match &self.target {
            Target::Path(path) => format!("{verb} {path}"),
            Target::Resource { group, resource, subresource, name, namespace } => {
                let resource = [resource.as_str(), subresource].join("/");
                let mut text = format!("{verb} {}", with_group(resource.trim_end_matches('/'), group));
                if !name.is_empty() {
                    text = format!("{text} {name}");
                }
                namespace.iter().for_each(|namespace| text = format!("{text} in {namespace}"));
                text
            }
        }
    }

    /// The question whether it is.
    pub(super) fn review(&self) -> SubjectAccessReview {
        let (namespace, name) = &self.account;
        let mut spec = SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{name}")),
            groups: Some(vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ]),
            ..SubjectAccessReviewSpec::default()
        };
        match &self.target {
            Target::Path(path) => {
                spec.non_resource_attributes =
                    Some(NonResourceAttributes { path: Some(path.clone()), verb: Some(self.verb.clone()) });
            }
            Target::Resource { group, resource, subresource, name, namespace } => {
                let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
                spec.resource_attributes = Some(ResourceAttributes {
                    verb: Some(self.verb.clone()),
                    group: Some(group.clone()),
                    resource: Some(resource.clone()),
                    subresource: given(subresource),
                    name: given(name),
                    namespace: namespace.clone(),
                    ..ResourceAttributes::default()
                });
            }
        }
        SubjectAccessReview { spec, ..SubjectAccessReview::default() }
    }
}

fn parsed<T: serde::de::DeserializeOwned>(document: Value) -> Option<T> {
    serde_json::from_value(document).ok()
}

fn is_role(role: &Role, named: &RoleRef, namespace: &str) -> bool {
    role.name_any() == named.name && role.namespace().as_deref() == Some(namespace)
}

fn add(needs: &mut BTreeSet<Need>, subjects: Option<&[Subject]>, rules: &[PolicyRule], namespace: Option<&str>) {
    for subject in subjects.unwrap_or_default() {
        let account = (subject.namespace.clone().unwrap_or_default(), subject.name.clone());
        for rule in rules {
            for verb in &rule.verbs {
                let with = |target| Need { account: account.clone(), verb: verb.clone(), target };
                needs.extend(targets(rule, namespace).into_iter().map(with));
            }
        }
    }
}

fn targets(rule: &PolicyRule, namespace: Option<&str>) -> Vec<Target> {
    let any_name = vec![String::new()];
    let names = rule.resource_names.as_ref().filter(|names| !names.is_empty()).unwrap_or(&any_name);
    let mut targets: Vec<Target> = rule.non_resource_urls.iter().flatten().cloned().map(Target::Path).collect();
    for resource in rule.resources.iter().flatten() {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        for (group, name) in
            rule.api_groups.iter().flatten().flat_map(|group| names.iter().map(move |name| (group, name)))
        {
            targets.push(Target::Resource {
                group: group.clone(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                name: name.clone(),
                namespace: namespace.map(str::to_owned),
            });
        }
    }
    targets
}
