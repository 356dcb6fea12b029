//! What each replica of the operator measures of itself, from its metrics by the API server's proxy: its clock, and how old its view of
//! the cluster is.

use std::time::Duration;

use countersign_contract::{network::port, objects::OPERATOR};
use countersign_reasons::Reason;
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::{
    cluster::Cluster,
    finding::Finding,
    reading::{Gap, Reading, Right},
    times,
};

/// A clock that is off by less is within the tolerance of tokens and certificates.
const TOLERANCE: f64 = 5.0;

/// Token keys are fetched every 5 minutes, and a silent watch is asked after 2.5: a view as old as this is late. Above 15 minutes
/// nothing is issued.
const OLD_VIEW: f64 = 420.0;

/// What a replica measures, in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Replica {
    pod: String,
    clock_offset: Option<f64>,
    /// The oldest of its views.
    view_age: Option<f64>,
    outdated_agents: Option<f64>,
}

pub(super) async fn observe(cluster: &Cluster, system: &str) -> Reading<Vec<Replica>> {
    let selector = format!("app.kubernetes.io/name={OPERATOR}");
    let pods: Reading<Vec<Pod>> = cluster.read_labelled(system, &selector).await;
    let pods = match pods {
        Reading::Found(pods) => pods,
        other => return other.map(|_| Vec::new()),
    };
    let mut replicas = Vec::new();
    for pod in pods.iter().filter(|pod| crate::installation::why_not_ready(pod).is_none()) {
        let name = pod.name_any();
        let path = format!("/api/v1/namespaces/{system}/pods/{name}:{}/proxy/metrics", port::HTTP);
        let request = match Request::get(path).body(Vec::new()) {
            Ok(request) => request,
            Err(error) => return Reading::Failed(error.to_string()),
        };
        let right = || Right::new("get", "pods/proxy", Some(system));
        match Reading::from(cluster.client.request_text(request).await, right) {
            Reading::Found(metrics) => replicas.push(replica(name, &metrics)),
            other => return other.map(|_| Vec::new()),
        }
    }
    Reading::Found(replicas)
}

fn replica(pod: String, metrics: &str) -> Replica {
    Replica {
        pod,
        clock_offset: largest(metrics, "countersign_clock_offset_seconds"),
        view_age: largest(metrics, "countersign_view_age_seconds"),
        outdated_agents: largest(metrics, "countersign_agents_outdated"),
    }
}

/// The sample of a metric that is farthest from 0, whatever its labels.
fn largest(metrics: &str, name: &str) -> Option<f64> {
    let samples = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest,
        };
        value.strip_prefix(' ')?.split(' ').next()?.parse::<f64>().ok()
    });
    samples.max_by(|one, other| one.abs().total_cmp(&other.abs()))
}

pub(super) fn checks(replicas: &Reading<Vec<Replica>>, system: &str) -> Vec<Finding> {
    let replicas = match replicas {
        Reading::Found(replicas) => replicas,
        // A network policy may keep the API server from this port: that is no problem of the installation.
        Reading::Failed(message) => {
            return vec![Finding::skipped("metrics", format!("not readable: {message}"))];
        }
        other => return vec![Finding::gap("metrics", other.gap().unwrap_or(Gap::Absent))],
    };
    let problems: Vec<Finding> = replicas.iter().flat_map(|replica| problems(replica, system)).collect();
    match replicas.len() {
        0 => vec![Finding::skipped("metrics", "no replica of the operator is ready")],
        _ if problems.is_empty() => {
            vec![Finding::ok(
                "metrics",
                "the operator's replicas agree with the API server on time, and their views are fresh",
            )]
        }
        _ => problems,
    }
}

fn problems(replica: &Replica, system: &str) -> Vec<Finding> {
    let Replica { pod, clock_offset, view_age, .. } = replica;
    let length = |seconds: f64| times::length(Duration::try_from_secs_f64(seconds.abs()).unwrap_or(Duration::MAX));
    let mut problems = Vec::new();
    if let Some(offset) = clock_offset.filter(|offset| offset.abs() > TOLERANCE) {
        let side = if offset < 0.0 { "behind" } else { "ahead of" };
        let message = format!("the clock of {pod} is {} {side} the API server's", length(offset));
        let hint = "timedatectl status, on the node of that pod and on the nodes of the control plane";
        problems.push(Finding::warning("clock", Reason::ReplicaClockDiffers, message).with_mends(hint));
    }
    if let Some(age) = view_age.filter(|age| *age > OLD_VIEW) {
        let message =
            format!("the view that {pod} has of the cluster is {} old; above 15m it issues nothing", length(age));
        let hint = format!("kubectl logs -n {system} {pod}\nfor what its watches wait for");
        problems.push(Finding::warning("view", Reason::ViewStale, message).with_mends(hint));
    }
    problems
}

/// How many agents the replicas count as outdated.
pub(super) fn outdated_agents(replicas: &[Replica]) -> f64 {
    replicas.iter().filter_map(|replica| replica.outdated_agents).sum()
}

#[cfg(test)]
mod tests {
    use super::{Replica, checks, replica};
    use crate::{
        output::Mark,
        reading::{Reading, Right},
    };

    const METRICS: &str = r#"# TYPE countersign_view_age_seconds gauge
countersign_view_age_seconds{view="pods"} 0.5
countersign_view_age_seconds{view="journals"} 480.25
countersign_clock_offset_seconds -61.0
countersign_agents_outdated 3
countersign_agents_outdated_other 9
"#;

    #[test]
    fn the_worst_sample_of_each_metric_is_read() {
        let expected = Replica {
            pod: "a".to_owned(),
            clock_offset: Some(-61.0),
            view_age: Some(480.25),
            outdated_agents: Some(3.0),
        };
        assert_eq!(replica("a".to_owned(), METRICS), expected);
    }

    #[test]
    fn a_wrong_clock_and_an_old_view_are_warnings() {
        let found = checks(&Reading::Found(vec![replica("a".to_owned(), METRICS)]), "countersign-system");
        let codes: Vec<_> = found.iter().filter_map(|check| check.code()).collect();
        assert_eq!(codes, ["CS5051", "CS5052"], "{found:?}");
        assert!(found[0].message.contains("1m 1s behind"), "{found:?}");
    }

    #[test]
    fn metrics_that_cannot_be_read_are_no_problem() {
        let right = Right::new("get", "pods/proxy", Some("countersign-system"));
        for replicas in [Reading::Forbidden(right), Reading::Failed("timeout".to_owned()), Reading::Found(vec![])] {
            assert_eq!(checks(&replicas, "countersign-system")[0].mark, Mark::Skipped);
        }
    }
}
