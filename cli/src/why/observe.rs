//! What is read about a pod, with the rights of the caller. Only the pod and what decides about it are needed; events and logs help.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use countersign_contract::pod::AGENT;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::Job,
        core::v1::{Event, Pod},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api,
    api::{ListParams, LogParams},
    core::{Expression, Selector},
};

use super::{About, Maker};
use crate::{cluster::Cluster, objects::owner};

/// Reads everything about the pod, or about the newest of what makes pods.
pub(super) async fn about(cluster: &Cluster, asked: &str) -> Result<About> {
    let (pod, maker, mut maker_labels) = match asked.split_once('/') {
        None => (cluster.pod(asked).await?, None, BTreeMap::new()),
        Some(("pod" | "pods" | "po", name)) => (cluster.pod(name).await?, None, BTreeMap::new()),
        Some((kind, name)) => match made_by(cluster, kind, name).await? {
            None => (None, Some(Maker::Missing), BTreeMap::new()),
            Some(made) => (newest(cluster, made.selector).await?, Some(Maker::Wants(made.replicas)), made.labels),
        },
    };
    if let (None, Some((kind, name))) = (maker, pod.as_ref().and_then(owner)) {
        maker_labels = made_by(cluster, &kind, &name).await.ok().flatten().map(|made| made.labels).unwrap_or_default();
    }
    let objects = cluster.objects_of_namespace().await?;
    // What only helps may be forbidden.
    let mut events: Vec<Event> = cluster.list_in(&cluster.namespace).await.unwrap_or_default();
    events.sort_by_key(|event| {
        event.last_timestamp.as_ref().map(|time| time.0).or(event.event_time.as_ref().map(|time| time.0))
    });
    let agent_log = match &pod {
        Some(pod) => last_line(cluster, pod).await,
        None => None,
    };
    Ok(About {
        namespace: cluster.namespace.clone(),
        asked: asked.to_owned(),
        pod,
        maker,
        maker_labels,
        objects,
        events,
        agent_log,
    })
}

/// What makes pods.
struct Made {
    labels: BTreeMap<String, String>,
    selector: LabelSelector,
    replicas: Option<i32>,
}

/// `None`: there is none of this name.
async fn made_by(cluster: &Cluster, kind: &str, name: &str) -> Result<Option<Made>> {
    let made = |labels: Option<BTreeMap<String, String>>, selector, replicas| {
        Some(Made { labels: labels.unwrap_or_default(), selector, replicas })
    };
    Ok(match kind {
        "deployment" | "deployments" | "deploy" => read::<Deployment>(cluster, name)
            .await?
            .and_then(|one| made(one.metadata.labels, one.spec.selector, one.spec.replicas)),
        "replicaset" | "replicasets" | "rs" => read::<ReplicaSet>(cluster, name)
            .await?
            .and_then(|one| made(one.metadata.labels, one.spec.selector, one.spec.replicas)),
        "statefulset" | "statefulsets" | "sts" => read::<StatefulSet>(cluster, name)
            .await?
            .and_then(|one| made(one.metadata.labels, one.spec.selector, one.spec.replicas)),
        "daemonset" | "daemonsets" | "ds" => {
            read::<DaemonSet>(cluster, name).await?.and_then(|one| made(one.metadata.labels, one.spec.selector, None))
        }
        "job" | "jobs" => read::<Job>(cluster, name)
            .await?
            .and_then(|one| made(one.metadata.labels, one.spec.and_then(|spec| spec.selector)?, None)),
        _ => bail!("{kind}/{name}: name a pod, or a deployment, replicaset, statefulset, daemonset or job"),
    })
}

async fn newest(cluster: &Cluster, selector: LabelSelector) -> Result<Option<Pod>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let chosen = ListParams::default().labels_from(&labels(selector)?);
    let mut pods = pods.list(&chosen).await.context("listing its pods")?.items;
    pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    Ok(pods.pop())
}

async fn read<K>(cluster: &Cluster, name: &str) -> Result<Option<K>>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    api.get_opt(name).await.with_context(|| format!("reading {} {}/{name}", K::kind(&()), cluster.namespace))
}

fn labels(selector: LabelSelector) -> Result<Selector> {
    let mut expressions: Vec<Expression> =
        selector.match_labels.into_iter().flatten().map(|(key, value)| Expression::Equal(key, value)).collect();
    for requirement in selector.match_expressions.into_iter().flatten() {
        let (key, values) = (requirement.key, requirement.values.unwrap_or_default().into_iter().collect());
        expressions.push(match requirement.operator.as_str() {
            "In" => Expression::In(key, values),
            "NotIn" => Expression::NotIn(key, values),
            "Exists" => Expression::Exists(key),
            "DoesNotExist" => Expression::DoesNotExist(key),
            other => bail!("its selector has the operator {other}, which is not known here"),
        });
    }
    Ok(Selector::from_iter(expressions))
}

/// The last line of the agent's log, of its last run if it does not run now.
async fn last_line(cluster: &Cluster, pod: &Pod) -> Option<String> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), pod.metadata.namespace.as_deref()?);
    let name = pod.metadata.name.as_deref()?;
    for previous in [false, true] {
        let of_agent =
            LogParams { container: Some(AGENT.to_owned()), tail_lines: Some(1), previous, ..LogParams::default() };
        let log = pods.logs(name, &of_agent).await.unwrap_or_default();
        if let Some(line) = log.lines().last().filter(|line| !line.is_empty()) {
            return Some(line.to_owned());
        }
    }
    None
}
