//! What is known of each remote trust domain, and which consent each WorkloadIdentity lacks that names it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use countersign_crds::{
    TrustDomain, TrustDomainStatus, WorkloadIdentity,
    condition::{CONSENTS_COMPLETE, FEDERATED, READY, RECONCILING, STALLED},
};
use countersign_index::{IdentityKey, Index};
use countersign_reasons::Reason;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Api, ResourceExt as _, api::ListParams};

use super::report::{Remote, Report, User};
use crate::{
    Options, Outcome,
    access::{required, unless_denied},
    cluster::Cluster,
    finding::Finding,
    objects::Objects,
    output::Mark,
    reading::Right,
    times::{moment, relative},
};

/// Show the bundle of each remote trust domain, and who gets it.
///
/// Of each bundle where it comes from, when it was confirmed last, and what is wrong with it; of each WorkloadIdentity that names the
/// trust domain which of the three consents is missing. Exit code 1 if a bundle is not trusted, or a consent is missing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The TrustDomain, or the trust domain; all that are remote if absent.
    name: Option<String>,
}

/// How long after its time a poll is overdue. The status is written when something changes, and at least every hour.
const OVERDUE: SignedDuration = SignedDuration::from_mins(10);

pub(super) async fn run(Args { name }: Args, options: &Options) -> Result<Outcome> {
    let cluster = options.cluster().await?;
    let observed = observe(&cluster).await?;
    let report = report(&observed, name.as_deref(), Timestamp::now());
    if let (Some(name), true) = (&name, report.remotes.is_empty() && report.unknown.is_empty()) {
        bail!("there is no remote TrustDomain {name}: see kubectl countersign federation status");
    }
    options.print(&report)?;
    Ok(if report.is_well() { Outcome::Well } else { Outcome::Problem })
}

/// What was read.
#[derive(Debug, Default)]
struct Observed {
    objects: Objects,
    /// What the caller may not read.
    denied: Vec<Right>,
}

async fn observe(cluster: &Cluster) -> Result<Observed> {
    let mut observed = Observed::default();
    observed.objects.cluster = cluster.name_in_paths().await;
    observed.objects.domains =
        required(cluster.list().await, &Right::new("list", "trustdomains.countersign.dev", None))?;
    let denied = Right::new("list", "workloadidentities.countersign.dev", None);
    match unless_denied(cluster.list().await, denied)? {
        Ok(identities) => observed.objects.identities = identities,
        Err(denied) => observed.denied.push(denied),
    }
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let listed = namespaces.list_metadata(&ListParams::default()).await.context("listing namespaces");
    match unless_denied(listed, Right::new("list", "namespaces", None))? {
        Ok(listed) => {
            let found =
                listed.items.into_iter().map(|one| Namespace { metadata: one.metadata, ..Namespace::default() });
            observed.objects.namespaces = found.collect();
        }
        Err(denied) => observed.denied.push(denied),
    }
    Ok(observed)
}

fn report(observed: &Observed, name: Option<&str>, now: Timestamp) -> Report {
    let objects = &observed.objects;
    // Without the labels of namespaces it cannot be judged who is admitted; then what the operator reported counts alone.
    let index = (!objects.namespaces.is_empty()).then(|| objects.index());
    let is_asked =
        |domain: &&TrustDomain| name.is_none_or(|name| domain.name_any() == name || domain.trust_domain_name() == name);
    let mut domains: Vec<&TrustDomain> = objects.domains.iter().filter(|one| one.spec.remote.is_some()).collect();
    domains.sort_by_key(|one| one.name_any());
    let remotes =
        domains.into_iter().filter(is_asked).map(|domain| remote(domain, objects, index.as_ref(), now)).collect();
    Report {
        remotes,
        unknown: unknown(objects, name),
        findings: observed.denied.iter().map(|denied| Finding::denied("cluster", denied)).collect(),
        now,
    }
}

fn remote(domain: &TrustDomain, objects: &Objects, index: Option<&Index>, now: Timestamp) -> Remote {
    let empty = TrustDomainStatus::default();
    let status = domain.status.as_ref().unwrap_or(&empty);
    let mut findings: Vec<Finding> = status.conditions.iter().filter_map(condition).collect();
    if status.conditions.is_empty() {
        let message = "the operator has not reported on it yet";
        findings.push(Finding::warning("bundle", Reason::NotReported, message));
    }
    let next_poll = status.remote.as_ref().and_then(|remote| remote.next_poll.as_ref()).map(|at| at.0);
    findings.extend(next_poll.and_then(|at| overdue(at, now)));
    let users = objects.identities.iter().filter(|one| names(one, domain.trust_domain_name()));
    let mut users: Vec<User> = users.map(|one| user(one, domain.trust_domain_name(), index)).collect();
    users.sort_by(|one, other| one.identity.cmp(&other.identity));
    Remote::new(domain, findings, users)
}

/// What a condition says that a person should know.
fn condition(condition: &Condition) -> Option<Finding> {
    let mark = match (condition.type_.as_str(), condition.status.as_str()) {
        (READY, "True") => Mark::Ok,
        (READY, _) => Mark::Failed,
        // Which WorkloadIdentities lack what is listed beside it.
        (CONSENTS_COMPLETE | RECONCILING | STALLED, _) => return None,
        // Each of the others is there while something is wrong.
        (_, "True") => Mark::Warning,
        _ => return None,
    };
    let about = if condition.type_ == READY { "bundle" } else { &condition.type_ };
    Some(Finding::reported(about, mark, &condition.reason, &condition.message))
}

fn overdue(at: Timestamp, now: Timestamp) -> Option<Finding> {
    (now.duration_since(at) > OVERDUE).then(|| {
        let message = format!("the poll of {} is overdue, {}", moment(at), relative(at, now));
        Finding::warning("next poll", Reason::PollOverdue, message)
            .with_mend("see whether the operator runs, and a replica leads:\nkubectl countersign check")
    })
}

fn names(identity: &WorkloadIdentity, trust_domain: &str) -> bool {
    identity.spec.federates_with.iter().any(|name| name == trust_domain)
}

fn user(identity: &WorkloadIdentity, trust_domain: &str, index: Option<&Index>) -> User {
    let (namespace, name) = (identity.namespace().unwrap_or_default(), identity.name_any());
    let full_name = format!("{namespace}/{name}");
    let reported = identity.status.iter().flat_map(|status| &status.conditions).find(|one| one.type_ == FEDERATED);
    let key = IdentityKey { namespace, name };
    let judged = index.and_then(|index| index.identity(&key)).and_then(|view| view.outcome.ok());
    let missing = match &judged {
        None => None,
        Some(judged) if !judged.is_admitted() => {
            Some((judged.reason().name().to_owned(), format!("it is refused itself: {}", judged.message())))
        }
        Some(judged) => {
            let found = judged.foreign().iter().find(|one| one.trust_domain.as_str() == trust_domain);
            found
                .and_then(|one| one.consent.as_ref().err())
                .map(|missing| (missing.reason().name().to_owned(), missing.to_string()))
        }
    };
    // The operator knows what cannot be judged here: whether there is a bundle, and whether it fits what a pod is sent.
    let is_named = |one: &&Condition| one.message.contains(trust_domain);
    let missing = missing.or_else(|| {
        let failed = reported.filter(|one| one.status == "False").filter(is_named);
        failed.map(|one| (one.reason.clone(), one.message.clone()))
    });
    let gets_it = match (&missing, reported.map(|one| one.status.as_str()), judged.is_some()) {
        (Some(_), ..) => Some(false),
        (None, Some("True"), _) | (None, None, true) => Some(true),
        (None, Some(_), true) => Some(true),
        (None, ..) => None,
    };
    User::new(full_name, gets_it, missing)
}

/// The trust domains that are named and that no TrustDomain is for, with the WorkloadIdentities that name them.
fn unknown(objects: &Objects, asked: Option<&str>) -> BTreeMap<String, Vec<String>> {
    let mut unknown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for identity in &objects.identities {
        for named in &identity.spec.federates_with {
            let is_known = objects.domains.iter().any(|domain| domain.trust_domain_name() == named);
            if !is_known && asked.is_none_or(|asked| asked == named) {
                let user = format!("{}/{}", identity.namespace().unwrap_or_default(), identity.name_any());
                unknown.entry(named.clone()).or_default().push(user);
            }
        }
    }
    unknown
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
