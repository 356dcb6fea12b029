//! `identity`: what a pod is entitled to, what the operator has issued to it, and what its agent holds, as far as anything says so.

mod decide;
mod report;

#[cfg(test)]
mod tests;

use anyhow::{Context as _, Result, bail};
use countersign_crds::{TrustDomain, WorkloadIdentity};
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::{Api, api::ListParams};

use crate::{Options, Outcome, access::unless_denied, cluster::Cluster, objects::Objects, reading::Right};
use decide::Observed;

/// Show what a pod is entitled to, what was issued to it, and what it holds.
///
/// Entitled is what the policies give it, decided as the operator decides. Issued and held are what status, events and acknowledgements
/// say; what none of them says is shown as unknown. Credentials themselves are never read.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pod.
    pod: String,
    /// Show the identities alone in which the three differ. Exit code 1 if there are any.
    #[arg(long)]
    diff: bool,
}

pub(crate) async fn run(Args { pod, diff }: Args, options: &Options) -> Result<Outcome> {
    let cluster = options.cluster().await?;
    let observed = observe(&cluster, &pod).await?;
    let mut report = decide::report(&observed);
    if diff {
        report.keep_differences();
    }
    options.print(&report)?;
    Ok(if diff && report.has_differences() { Outcome::Problem } else { Outcome::Well })
}

async fn observe(cluster: &Cluster, name: &str) -> Result<Observed> {
    let namespace = cluster.namespace.clone();
    let Some(pod) = cluster.pod(name).await? else {
        bail!("there is no pod {name} in namespace {namespace}: see kubectl get pods -n {namespace}");
    };
    let mut denied = Vec::new();
    let domains: Option<Vec<TrustDomain>> = {
        let read = cluster.list().await.context("is Countersign installed?");
        keep(&mut denied, unless_denied(read, Right::new("list", "trustdomains.countersign.dev", None))?)
    };
    let identities: Option<Vec<WorkloadIdentity>> = {
        let read = cluster.list().await;
        keep(&mut denied, unless_denied(read, Right::new("list", "workloadidentities.countersign.dev", None))?)
    };
    // Those of the namespace give identities; the others can only take an id or a name away.
    let identities = match identities {
        Some(identities) => Some(identities),
        None => {
            let read = cluster.list_in(&namespace).await;
            let one = Right::new("list", "workloadidentities.countersign.dev", Some(&namespace));
            keep(&mut denied, unless_denied(read, one)?)
        }
    };
    let namespaces = self::namespaces(cluster, &mut denied).await?;
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), &namespace);
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let about = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    let read = events.list(&about).await.with_context(|| format!("listing events of namespace {namespace}"));
    let events = keep(&mut denied, unless_denied(read, Right::new("list", "events", Some(&namespace)))?);

    let is_decidable = domains.is_some() && identities.is_some() && !namespaces.is_empty();
    let objects = Objects {
        domains: domains.unwrap_or_default(),
        identities: identities.unwrap_or_default(),
        namespaces,
        pods: vec![pod],
        cluster: cluster.name_in_paths().await,
    };
    Ok(Observed {
        objects,
        events: events.map(|list| list.items).unwrap_or_default(),
        is_decidable,
        denied,
        now: jiff::Timestamp::now(),
    })
}

/// All of them, since a WorkloadIdentity of another one may hold an id or a name; else that of the pod.
async fn namespaces(cluster: &Cluster, denied: &mut Vec<Right>) -> Result<Vec<Namespace>> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let read = namespaces.list_metadata(&ListParams::default()).await.context("listing namespaces");
    let all = match keep(denied, unless_denied(read, Right::new("list", "namespaces", None))?) {
        Some(all) => all.items,
        None => {
            let name = cluster.namespace.as_str();
            let read = namespaces.get_metadata(name).await.with_context(|| format!("reading namespace {name}"));
            keep(denied, unless_denied(read, Right::new("get", "namespaces", None))?).into_iter().collect()
        }
    };
    Ok(all.into_iter().map(|one| Namespace { metadata: one.metadata, ..Namespace::default() }).collect())
}

fn keep<T>(denied: &mut Vec<Right>, read: Result<T, Right>) -> Option<T> {
    read.map_err(|missing| denied.push(missing)).ok()
}
