//! Rights: whether the service accounts of the components may do what this build's manifests let them do, and what the caller may.

mod needs;

use std::collections::BTreeSet;

use countersign_contract::objects::FEDERATION_NAMESPACE;
use countersign_reasons::Reason;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
};
use kube::{Api, Client, api::PostParams};

use super::category::{Category, some};
use crate::{
    cluster::Cluster,
    finding::Finding,
    output::count,
    reading::{Gap, Reading, Right},
};
use needs::{Need, needs};

/// How many questions are asked at once.
const CONCURRENT: usize = 8;

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
    rights.push(Right::new("list", "configmaps", Some(FEDERATION_NAMESPACE)));
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
            let answer = reviews.create(&PostParams::default(), &need.review()).await;
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

pub(super) fn category(seen: &Seen) -> Category {
    let mut checks = match &seen.components {
        Reading::Found(answers) => of_components(answers),
        other => vec![Finding::gap("components", other.gap().unwrap_or(Gap::Absent))],
    };
    checks.push(view_check(&seen.view));
    checks.push(administer_check(&seen.administer));
    Category::new("rights", checks)
}

fn of_components(answers: &[(Need, bool)]) -> Vec<Finding> {
    let missing: Vec<&Need> = answers.iter().filter(|(_, allowed)| !allowed).map(|(need, _)| need).collect();
    if missing.is_empty() {
        let accounts: BTreeSet<_> = answers.iter().map(|(need, _)| &need.account).collect();
        let message = format!("{} may do all that they need", count(accounts.len(), "service account"));
        return vec![Finding::ok("components", message)];
    }
    let accounts: BTreeSet<_> = missing.iter().map(|need| &need.account).collect();
    let check = |account: &(String, String)| {
        let lacks = missing.iter().filter(|need| need.account == *account).map(|need| need.text());
        let (namespace, name) = account;
        let message = format!("service account {namespace}/{name} may not: {}", some(lacks));
        Finding::failed("components", Reason::ComponentRightMissing, message).with_mends(format!(
            "kubectl apply --server-side -k manifests/base\nkubectl auth can-i --list --as=system:serviceaccount:{namespace}:{name}"
        ))
    };
    accounts.into_iter().map(check).collect()
}

fn view_check(asked: &[(Right, bool)]) -> Finding {
    let missing: Vec<&Right> = asked.iter().filter(|(_, allowed)| !allowed).map(|(right, _)| right).collect();
    if missing.is_empty() {
        return Finding::ok("to read", "you may read all that the commands read (role countersign-view)");
    }
    // A ClusterRole for what is in the whole cluster, and a Role in each namespace of the installation.
    let places: BTreeSet<Option<&str>> = missing.iter().map(|right| right.namespace.as_deref()).collect();
    let bindings = places.into_iter().map(|namespace| match namespace {
        None => "kubectl create clusterrolebinding NAME --clusterrole=countersign-view --user=USER".to_owned(),
        Some(namespace) => {
            format!("kubectl create rolebinding NAME -n {namespace} --role=countersign-view --user=USER")
        }
    });
    let hint: Vec<String> = std::iter::once("ask an administrator for the role:".to_owned()).chain(bindings).collect();
    let message =
        format!("you may not {}; what depends on it is left out", some(missing.iter().map(ToString::to_string)));
    Finding::warning("to read", Reason::MayNotView, message).with_mends(hint.join(
        "
",
    ))
}

fn administer_check(asked: &[(Right, bool)]) -> Finding {
    let missing = asked.iter().filter(|(_, allowed)| !allowed).map(|(right, _)| right.to_string());
    let missing: Vec<String> = missing.collect();
    if missing.is_empty() {
        return Finding::ok("to act", "you may act (role countersign-admin)");
    }
    Finding::skipped("to act", format!("you may not {}: commands that act are not for you", some(missing)))
}

#[cfg(test)]
mod tests;
