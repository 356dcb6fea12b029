//! Rights: whether the service accounts of the components may do what this build's manifests let them do, and what the caller may.

use std::collections::BTreeSet;

use countersign_contract::objects::SYSTEM_NAMESPACE;
use countersign_reasons::Reason;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::{
    authorization::v1::{
        NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
        SubjectAccessReview, SubjectAccessReviewSpec,
    },
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject},
};
use kube::{Api, Client, ResourceExt as _, api::PostParams};
use serde_json::Value;

use super::finding::{Category, Check, count, some};
use crate::{
    cluster::Cluster,
    reading::{Gap, Reading, Right},
};

/// The manifests with the roles of the components: what these need is said there and nowhere else.
const MANIFESTS: [&str; 3] = [
    include_str!("../../../manifests/base/operator/rbac.yaml"),
    include_str!("../../../manifests/base/webhook/rbac.yaml"),
    include_str!("../../../manifests/base/webhook/ca.yaml"),
];

/// How many questions are asked at once.
const CONCURRENT: usize = 8;

/// A service account, and one thing that it must be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    /// `namespace/name`.
    account: (String, String),
    verb: String,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Resource { group: String, resource: String, subresource: String, name: String, namespace: Option<String> },
    Path(String),
}

/// What was asked, and the answers.
#[derive(Debug)]
pub(super) struct Seen {
    /// `None`: the caller may not ask.
    components: Reading<Vec<(Need, bool)>>,
    /// What the caller may read, and change.
    view: Vec<(Right, bool)>,
    administer: Vec<(Right, bool)>,
}

pub(super) async fn observe(cluster: &Cluster, system: &str) -> Seen {
    let client = &cluster.client;
    let (components, view, administer) =
        futures::join!(components(client, system), ask_all(client, view(system)), ask_all(client, administer()));
    Seen { components, view, administer }
}

/// What `countersign-view` is for.
fn view(system: &str) -> Vec<Right> {
    let everywhere =
        ["trustdomains.countersign.dev", "workloadidentities.countersign.dev", "pods", "namespaces", "events"];
    let in_system = ["deployments.apps", "leases.coordination.k8s.io", "endpointslices.discovery.k8s.io"];
    let mut rights: Vec<Right> = everywhere.into_iter().map(|resource| Right::new("list", resource, None)).collect();
    rights.extend(in_system.into_iter().map(|resource| Right::new("list", resource, Some(system))));
    rights
}

/// What `countersign-admin` is for.
fn administer() -> Vec<Right> {
    [
        ("patch", "trustdomains", "countersign.dev"),
        ("patch", "workloadidentities", "countersign.dev"),
        ("create", "workloadidentities", "countersign.dev"),
    ]
    .into_iter()
    .map(|(verb, resource, group)| Right::new(verb, with_group(resource, group), None))
    .collect()
}

fn with_group(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// Whether the caller may do each.
pub(super) async fn ask_all(client: &Client, rights: Vec<Right>) -> Vec<(Right, bool)> {
    stream::iter(rights)
        .map(async |right| {
            let allowed = may(client, &right).await;
            (right, allowed)
        })
        .buffered(CONCURRENT)
        .collect()
        .await
}

/// Whether the caller may do it; an API server that does not answer allows nothing.
pub(super) async fn may(client: &Client, right: &Right) -> bool {
    let (resource, group) = right.resource.split_once('.').unwrap_or((&right.resource, ""));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let attributes = ResourceAttributes {
        verb: Some(right.verb.clone()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: Some(subresource.to_owned()).filter(|subresource| !subresource.is_empty()),
        namespace: right.namespace.clone(),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await;
    answer.ok().and_then(|review| review.status).is_some_and(|status| status.allowed)
}

async fn components(client: &Client, system: &str) -> Reading<Vec<(Need, bool)>> {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let mut asked = stream::iter(needs(system))
        .map(async |need| {
            let answer = reviews.create(&PostParams::default(), &review(&need)).await;
            (need, answer)
        })
        .buffered(CONCURRENT);
    let mut answers = Vec::new();
    while let Some((need, answer)) = asked.next().await {
        let right = || Right::new("create", "subjectaccessreviews.authorization.k8s.io", None);
        match Reading::from(answer, right) {
            Reading::Found(review) => answers.push((need, review.status.is_some_and(|status| status.allowed))),
            other => return other.map(|_| Vec::new()),
        }
    }
    Reading::Found(answers)
}

fn review(need: &Need) -> SubjectAccessReview {
    let (namespace, name) = &need.account;
    let mut spec = SubjectAccessReviewSpec {
        user: Some(format!("system:serviceaccount:{namespace}:{name}")),
        groups: Some(vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ]),
        ..SubjectAccessReviewSpec::default()
    };
    match &need.target {
        Target::Path(path) => {
            spec.non_resource_attributes =
                Some(NonResourceAttributes { path: Some(path.clone()), verb: Some(need.verb.clone()) });
        }
        Target::Resource { group, resource, subresource, name, namespace } => {
            let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
            spec.resource_attributes = Some(ResourceAttributes {
                verb: Some(need.verb.clone()),
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

/// What the roles in the manifests allow, to the accounts to which they are bound.
fn needs(system: &str) -> BTreeSet<Need> {
    let documents: Vec<Value> =
        MANIFESTS.iter().flat_map(|text| serde_saphyr::from_multiple(text).unwrap_or_default()).collect();
    let of_kind = |kind: &'static str| documents.iter().filter(move |document| document["kind"] == kind).cloned();
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

impl Need {
    fn with_namespaces(mut self, installed: impl Fn(String) -> String) -> Self {
        self.account.0 = installed(self.account.0);
        if let Target::Resource { namespace, .. } = &mut self.target {
            *namespace = namespace.take().map(installed);
        }
        self
    }

    fn text(&self) -> String {
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
}

pub(super) fn category(seen: &Seen) -> Category {
    let mut checks = match &seen.components {
        Reading::Found(answers) => of_components(answers),
        other => vec![Check::gap("components", other.gap().unwrap_or(Gap::Absent))],
    };
    checks.push(view_check(&seen.view));
    checks.push(administer_check(&seen.administer));
    Category::new("rights", checks)
}

fn of_components(answers: &[(Need, bool)]) -> Vec<Check> {
    let missing: Vec<&Need> = answers.iter().filter(|(_, allowed)| !allowed).map(|(need, _)| need).collect();
    if missing.is_empty() {
        let accounts: BTreeSet<_> = answers.iter().map(|(need, _)| &need.account).collect();
        let message = format!("{} may do all that they need", count(accounts.len(), "service account"));
        return vec![Check::ok("components", message)];
    }
    let accounts: BTreeSet<_> = missing.iter().map(|need| &need.account).collect();
    let check = |account: &(String, String)| {
        let lacks = missing.iter().filter(|need| need.account == *account).map(|need| need.text());
        let (namespace, name) = account;
        let message = format!("service account {namespace}/{name} may not: {}", some(lacks));
        Check::failed("components", Reason::ComponentRightMissing, message).hint(format!(
            "kubectl apply --server-side -k manifests/base; to see one: kubectl auth can-i --list --as=system:serviceaccount:{namespace}:{name}"
        ))
    };
    accounts.into_iter().map(check).collect()
}

fn view_check(asked: &[(Right, bool)]) -> Check {
    let missing = asked.iter().filter(|(_, allowed)| !allowed).map(|(right, _)| right.to_string());
    let missing: Vec<String> = missing.collect();
    if missing.is_empty() {
        return Check::ok("to read", "you may read all that the commands read (role countersign-view)");
    }
    let message = format!("you may not {}; what depends on it is left out", some(missing));
    Check::warning("to read", Reason::MayNotView, message)
        .hint("ask an administrator: kubectl create clusterrolebinding NAME --clusterrole=countersign-view --user=USER")
}

fn administer_check(asked: &[(Right, bool)]) -> Check {
    let missing = asked.iter().filter(|(_, allowed)| !allowed).map(|(right, _)| right.to_string());
    let missing: Vec<String> = missing.collect();
    if missing.is_empty() {
        return Check::ok("to act", "you may act (role countersign-admin)");
    }
    Check::skipped("to act", format!("you may not {}: commands that act are not for you", some(missing)))
}

#[cfg(test)]
mod tests;
