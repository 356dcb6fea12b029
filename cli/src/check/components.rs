//! The components: whether their replicas are ready and of one build, whether one of the operator's leads, and whether agents can
//! find and reach the issuer.

use std::time::Duration;

use countersign_contract::objects::{ISSUER_SERVICE, OPERATOR, WEBHOOK, WEBHOOK_CA, control_plane};
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::api::{core::v1::ConfigMap, discovery::v1::EndpointSlice};

use super::{
    category::{Category, some},
    replicas::{self, Replica},
};
use crate::{
    cluster::Cluster,
    finding::Finding,
    installation::{Leader, Replicas},
    output::count,
    reading::{Gap, Reading},
    times::{age, relative},
};

/// By how much a renewal may lie ahead of the API server's time: its `Date` header has whole seconds.
const AHEAD: Duration = Duration::from_secs(5);

/// The replicas of each component in the manifests.
const REPLICAS: u32 = 2;

/// What was read.
#[derive(Debug)]
pub(super) struct Seen {
    operator: Reading<Replicas>,
    webhook: Reading<Replicas>,
    webhook_ca: Reading<Replicas>,
    leader: Reading<Leader>,
    /// How many endpoints of the issuer's Service are ready.
    issuer: Reading<usize>,
    /// The keys that the ConfigMap lacks.
    control_plane: Reading<Vec<&'static str>>,
    replicas: Reading<Vec<Replica>>,
}

pub(super) async fn observe(cluster: &Cluster, system: &str) -> Seen {
    let selector = format!("kubernetes.io/service-name={ISSUER_SERVICE}");
    let slices: Reading<Vec<EndpointSlice>> = cluster.read_labelled(system, &selector).await;
    let control_plane: Reading<ConfigMap> = cluster.read_in(system, control_plane::CONFIG_MAP).await;
    Seen {
        operator: cluster.replicas(system, OPERATOR).await,
        webhook: cluster.replicas(system, WEBHOOK).await,
        webhook_ca: cluster.replicas(system, WEBHOOK_CA).await,
        leader: cluster.leader(system).await,
        issuer: slices.map(|slices| slices.iter().map(ready_endpoints).sum()),
        control_plane: control_plane.map(|found| missing_keys(&found)),
        replicas: replicas::observe(cluster, system).await,
    }
}

fn ready_endpoints(slice: &EndpointSlice) -> usize {
    let is_ready = |conditions: &k8s_openapi::api::discovery::v1::EndpointConditions| conditions.ready != Some(false);
    slice.endpoints.iter().flatten().filter(|endpoint| endpoint.conditions.as_ref().is_none_or(is_ready)).count()
}

fn missing_keys(found: &ConfigMap) -> Vec<&'static str> {
    use control_plane::{AUDIENCE, ISSUER, ISSUER_NAME, ROOTS};
    let is_set = |key: &str| {
        let value = found.data.as_ref().and_then(|data| data.get(key));
        value.is_some_and(|value| !value.trim().is_empty())
    };
    [ROOTS, ISSUER, ISSUER_NAME, AUDIENCE].into_iter().filter(|key| !is_set(key)).collect()
}

pub(super) fn category(seen: &Seen, system: &str, now: Timestamp) -> Category {
    let mut checks = vec![
        ready("operator", OPERATOR, &seen.operator, system),
        ready("webhook", WEBHOOK, &seen.webhook, system),
        ready("webhook CA", WEBHOOK_CA, &seen.webhook_ca, system),
        leads(&seen.leader, system, now),
        issuer(&seen.issuer, system),
        published(&seen.control_plane, system),
    ];
    checks.extend(replicas::checks(&seen.replicas, system));
    Category::new("components", checks)
}

impl Seen {
    /// How many agents the operator's replicas count as outdated.
    pub(super) fn outdated_agents(&self) -> f64 {
        replicas::outdated_agents(self.replicas.items())
    }
}

/// What the components say of their builds.
pub(super) fn versions(seen: &Seen, system: &str) -> Vec<Finding> {
    let parts = [
        ("operator", OPERATOR, &seen.operator),
        ("webhook", WEBHOOK, &seen.webhook),
        ("webhook CA", WEBHOOK_CA, &seen.webhook_ca),
    ];
    let check = |(name, deployment, replicas): (_, _, &Reading<Replicas>)| {
        Some(images(name, deployment, replicas.found()?, system))
    };
    parts.into_iter().filter_map(check).collect()
}

fn ready(name: &'static str, deployment: &str, replicas: &Reading<Replicas>, system: &str) -> Finding {
    let replicas = match replicas {
        Reading::Found(replicas) => replicas,
        Reading::Absent => {
            let message = format!("there is no Deployment {deployment} in {system}");
            return Finding::failed(name, Reason::ComponentMissing, message).with_mends(
                "kubectl apply --server-side -k manifests/base\nif it is in another namespace: --system-namespace",
            );
        }
        other => return Finding::gap(name, other.gap().unwrap_or(Gap::Absent)),
    };
    let Replicas { wanted, ready, not_ready, .. } = replicas;
    let why = some(not_ready.iter().map(|(pod, why)| format!("{pod}: {why}")));
    let why = if why.is_empty() { String::new() } else { format!("; {why}") };
    let hint = format!("kubectl describe pods -n {system} -l app.kubernetes.io/name={deployment}");
    if *wanted == 0 {
        let message = format!("Deployment {deployment} is scaled to 0 replicas");
        return Finding::failed(name, Reason::ComponentNotReady, message)
            .with_mends(format!("kubectl scale -n {system} deployment/{deployment} --replicas={REPLICAS}"));
    }
    if *ready == 0 {
        let message = format!("no replica is ready, of {wanted}{why}");
        return Finding::failed(name, Reason::ComponentNotReady, message).with_mends(hint);
    }
    if ready < wanted {
        let message = format!("{ready} of {wanted} replicas are ready{why}");
        return Finding::warning(name, Reason::ReplicasMissing, message).with_mends(hint);
    }
    Finding::ok(name, format!("{ready} of {wanted} replicas are ready"))
}

fn leads(leader: &Reading<Leader>, system: &str, now: Timestamp) -> Finding {
    let name = "leader";
    let hint = format!("kubectl logs -n {system} deployment/{OPERATOR}");
    let Leader { renewed, duration, .. } = match leader {
        Reading::Found(leader) if leader.holder.is_some() => leader,
        Reading::Found(_) | Reading::Absent => {
            let message = "no replica of the operator leads: nothing is written, and no authority is renewed";
            return Finding::failed(name, Reason::NoLeader, message).with_mends(hint);
        }
        other => return Finding::gap(name, other.gap().unwrap_or(Gap::Absent)),
    };
    let pod = leader.found().and_then(Leader::pod).unwrap_or_default();
    let Some(renewed) = renewed else { return Finding::skipped(name, "the Lease has no time") };
    if now.duration_since(*renewed).as_secs() > *duration {
        let message = format!("{pod} renewed the Lease {}, and a Lease lasts {duration}s", relative(*renewed, now));
        return Finding::failed(name, Reason::LeaseStale, message).with_mends(hint);
    }
    if *renewed > now + AHEAD {
        let message = format!("the clock of {pod} is {} ahead of the API server's", age(now, *renewed));
        return Finding::warning(name, Reason::ReplicaClockDiffers, message)
            .with_mends("timedatectl status, on the node of that pod");
    }
    Finding::ok(name, format!("{pod} leads, and renewed the Lease {}", relative(*renewed, now)))
}

fn issuer(endpoints: &Reading<usize>, system: &str) -> Finding {
    match endpoints {
        Reading::Found(0) | Reading::Absent => {
            let message = format!(
                "the Service {ISSUER_SERVICE} has no endpoint that is ready: no pod gets or renews credentials"
            );
            Finding::failed("issuer", Reason::IssuerUnreachable, message).with_mends(format!(
                "kubectl get endpointslices -n {system} -l kubernetes.io/service-name={ISSUER_SERVICE}"
            ))
        }
        Reading::Found(endpoints) => {
            Finding::ok("issuer", format!("the Service {ISSUER_SERVICE} has {}", count(*endpoints, "ready endpoint")))
        }
        other => Finding::gap("issuer", other.gap().unwrap_or(Gap::Absent)),
    }
}

fn published(missing: &Reading<Vec<&'static str>>, system: &str) -> Finding {
    let name = "settings";
    let config_map = control_plane::CONFIG_MAP;
    let message = match missing {
        Reading::Found(missing) if missing.is_empty() => {
            return Finding::ok(name, format!("the ConfigMap {config_map} has the issuer's address and roots"));
        }
        Reading::Found(missing) => format!("the ConfigMap {config_map} lacks {}", missing.join(", ")),
        Reading::Absent => format!("there is no ConfigMap {config_map}: the webhook cannot inject agents"),
        other => return Finding::gap(name, other.gap().unwrap_or(Gap::Absent)),
    };
    Finding::failed(name, Reason::ControlPlaneNotPublished, message)
        .with_mends(format!("kubectl logs -n {system} deployment/{OPERATOR}"))
}

fn images(name: &'static str, deployment: &str, replicas: &Replicas, system: &str) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    let wanted = some(&replicas.images);
    if replicas.running.iter().any(|image| !replicas.images.contains(image)) {
        let message = format!("pods run {}, and the Deployment has {wanted}", some(&replicas.running));
        return Finding::warning(name, Reason::ImagesDiffer, message)
            .with_mends(format!("kubectl rollout status -n {system} deployment/{deployment}"));
    }
    let other = replicas.images.iter().filter_map(|image| release(image)).find(|release| !same_minor(release, own));
    match other {
        Some(release) => {
            let message = format!("it is of release {release}, and this kubectl countersign of {own}");
            Finding::warning(name, Reason::VersionsDiffer, message).with_mends(format!(
                "install kubectl countersign {release}, as it decides as the operator of that release"
            ))
        }
        None => Finding::ok(name, wanted),
    }
}

/// The tag of an image, if it is a version.
fn release(image: &str) -> Option<String> {
    let without_digest = image.split('@').next().unwrap_or(image);
    let (_, tag) = without_digest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))?;
    let tag = tag.strip_prefix('v').unwrap_or(tag);
    let numbers: Vec<&str> = tag.split('.').collect();
    let is_version = numbers.len() >= 2 && numbers.iter().take(2).all(|part| part.parse::<u32>().is_ok());
    is_version.then(|| tag.to_owned())
}

fn same_minor(one: &str, other: &str) -> bool {
    one.split('.').take(2).eq(other.split('.').take(2))
}

#[cfg(test)]
mod tests;
