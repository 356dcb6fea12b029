//! CPU and memory of the agent's container, chosen so that the pod keeps its QoS class: a Guaranteed pod stays Guaranteed, and
//! a pod whose containers all have limits, as a ResourceQuota demands, keeps that property.
//!
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>

use std::{fmt, str::FromStr};

use countersign_contract::pod::AGENT;
use serde_json::{Value, json};

use super::pod_fields::{list, name};

/// JSON pointer of a container's CPU limit.
const CPU_LIMIT: &str = "/resources/limits/cpu";

/// CPU in thousandths of a core, as Kubernetes writes it: `10m`, `2`, `0.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MilliCpu(u32);

/// Text that is not a valid quantity of CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no quantity of CPU above 0 such as `10m`, `1` or `0.5`, in whole thousandths of a core")]
pub struct NoMilliCpu;

impl FromStr for MilliCpu {
    type Err = NoMilliCpu;

    fn from_str(text: &str) -> Result<Self, NoMilliCpu> {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let milli = if let Some(milli) = text.strip_suffix('m') {
            digits(milli).then(|| milli.parse().ok()).flatten()
        } else {
            let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
            let is_number = digits(whole) && digits(part) && (1..=3).contains(&part.len());
            is_number.then(|| format!("{whole}{part:0<3}").parse().ok()).flatten()
        };
        milli.filter(|milli| *milli > 0).map(Self).ok_or(NoMilliCpu)
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}m", self.0)
    }
}

/// The resources of the agent. Memory is in MiB, without the memory volumes, which are added.
#[derive(Clone, Copy, Debug)]
pub struct AgentResources {
    /// CPU request.
    pub cpu: MilliCpu,
    /// CPU limit in pods whose containers have one; also the request if the pod is Guaranteed.
    pub cpu_limit: MilliCpu,
    /// Memory request.
    pub memory_mib: u32,
    /// Memory limit; also the request if the pod is Guaranteed.
    pub memory_limit_mib: u32,
}

impl Default for AgentResources {
    /// Requests slightly above the usual consumption, limits several times as high, and enough CPU to start within a few
    /// hundredths of a second.
    fn default() -> Self {
        Self { cpu: MilliCpu(10), cpu_limit: MilliCpu(100), memory_mib: 10, memory_limit_mib: 30 }
    }
}

impl AgentResources {
    /// Refuses values that the API server would refuse in every pod.
    ///
    /// # Errors
    /// A request is above its limit; the message names it.
    pub fn check(&self) -> Result<(), String> {
        if self.cpu > self.cpu_limit {
            return Err(format!("the agent's CPU request {} is above its limit {}", self.cpu, self.cpu_limit));
        }
        if self.memory_mib > self.memory_limit_mib {
            let (request, limit) = (self.memory_mib, self.memory_limit_mib);
            return Err(format!("the agent's memory request {request} MiB is above its limit {limit} MiB"));
        }
        Ok(())
    }
}

/// The resource limits of the pod's own containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bounds {
    /// The pod itself has resources, which the sum of its containers' must not exceed.
    Pod,
    /// Each container's requests are its limits.
    Guaranteed,
    /// Each container has a CPU limit.
    Limited,
    /// None of these.
    Loose,
}

/// The agent's `resources`; `None` if the pod itself has resources. `volumes_mib`: the size limit of its memory volumes.
pub(super) fn resources(pod: &Value, volumes_mib: u32, requested: &AgentResources) -> Option<Value> {
    let memory = |own: u32| format!("{}Mi", own.saturating_add(volumes_mib));
    let limit = memory(requested.memory_limit_mib);
    let requests = json!({ "cpu": requested.cpu.to_string(), "memory": memory(requested.memory_mib) });
    let all = json!({ "cpu": requested.cpu_limit.to_string(), "memory": limit });
    match bounds(pod) {
        Bounds::Pod => None,
        Bounds::Guaranteed => Some(json!({ "requests": all, "limits": all })),
        Bounds::Limited => Some(json!({ "requests": requests, "limits": all })),
        Bounds::Loose => Some(json!({ "requests": requests, "limits": { "memory": limit } })),
    }
}

fn bounds(pod: &Value) -> Bounds {
    let is_set = |value: Option<&Value>| value.and_then(Value::as_object).is_some_and(|all| !all.is_empty());
    if ["/spec/resources/requests", "/spec/resources/limits"].iter().any(|at| is_set(pod.pointer(at))) {
        return Bounds::Pod;
    }
    let all = ["/spec/initContainers", "/spec/containers"].into_iter().flat_map(|at| list(pod, at));
    let own: Vec<&Value> = all.filter(|container| name(container) != AGENT).collect();
    let has = |container: &Value, limit: &str| container.pointer(limit).is_some();
    // A missing request equals the limit. The API server has normalized quantities before the webhook is called.
    let is_firm = |container: &Value, limit: &str, request: &str| {
        has(container, limit)
            && container.pointer(request).is_none_or(|request| Some(request) == container.pointer(limit))
    };
    if own.iter().all(|container| {
        is_firm(container, CPU_LIMIT, "/resources/requests/cpu")
            && is_firm(container, "/resources/limits/memory", "/resources/requests/memory")
    }) {
        return Bounds::Guaranteed;
    }
    if own.iter().all(|container| has(container, CPU_LIMIT)) { Bounds::Limited } else { Bounds::Loose }
}

#[cfg(test)]
mod tests {
    use super::{AgentResources, MilliCpu, resources};
    use serde_json::{Value, json};

    /// The agent's resources in a pod whose containers have these resources; the first one is an init container.
    fn given(containers: &[Value]) -> Value {
        let containers: Vec<Value> = containers.iter().map(|each| json!({ "name": "c", "resources": each })).collect();
        let (init, rest) = containers.split_at(1);
        let pod = json!({ "spec": { "initContainers": init, "containers": rest } });
        resources(&pod, 2, &AgentResources::default()).expect("resources")
    }

    #[test]
    fn an_ordinary_pods_agent_asks_for_little_and_has_cpu_when_it_is_there() {
        let loose = json!({ "requests": { "cpu": "10m", "memory": "12Mi" }, "limits": { "memory": "32Mi" } });
        let both = json!({ "limits": { "cpu": "1", "memory": "1Gi" } });
        assert_eq!(given(&[json!({}), json!({})]), loose);
        assert_eq!(given(&[json!({}), both.clone()]), loose);
        assert_eq!(given(&[both, json!({ "limits": { "memory": "1Gi" }, "requests": { "cpu": "1" } })]), loose);
    }

    #[test]
    fn a_pod_all_of_whose_containers_have_a_cpu_limit_stays_one() {
        let limited = json!({ "requests": { "cpu": "1" }, "limits": { "cpu": "2", "memory": "1Gi" } });
        let expected =
            json!({ "requests": { "cpu": "10m", "memory": "12Mi" }, "limits": { "cpu": "100m", "memory": "32Mi" } });
        assert_eq!(given(&[limited.clone(), limited]), expected);
    }

    #[test]
    fn a_guaranteed_pod_stays_guaranteed() {
        let all = json!({ "cpu": "100m", "memory": "32Mi" });
        let expected = json!({ "requests": all, "limits": all });
        let with_requests =
            json!({ "requests": { "cpu": "1", "memory": "1Gi" }, "limits": { "cpu": "1", "memory": "1Gi" } });
        let without = json!({ "limits": { "cpu": "1", "memory": "1Gi" } });
        assert_eq!(given(&[with_requests.clone(), without]), expected);
        let less = json!({ "requests": { "memory": "1Mi" }, "limits": { "cpu": "1", "memory": "1Gi" } });
        assert_ne!(given(&[with_requests, less]), expected);
    }

    // The sum of the containers' requests must not exceed the pod's.
    #[test]
    fn where_the_pod_as_a_whole_is_bounded_the_agent_asks_for_nothing() {
        let mut pod = json!({ "spec": { "containers": [{ "name": "c" }], "resources": { "limits": { "cpu": "1" } } } });
        assert_eq!(resources(&pod, 2, &AgentResources::default()), None);
        pod["spec"]["resources"] = json!({});
        assert!(resources(&pod, 2, &AgentResources::default()).is_some());
    }

    #[test]
    fn cpu_is_read_as_kubernetes_writes_it() {
        for (text, milli) in [("10m", 10), ("1", 1000), ("0.5", 500), ("1.25", 1250), ("0.001", 1)] {
            assert_eq!(text.parse(), Ok(MilliCpu(milli)), "{text}");
        }
        for text in ["", "m", "0", "0m", "-1", "+1m", "1.5m", "0.0001", "1.", ".5x", "1k", "1e3", " 1", "99999999999m"]
        {
            assert!(text.parse::<MilliCpu>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_request_above_its_limit_is_refused() {
        assert_eq!(AgentResources::default().check(), Ok(()));
        assert!(
            AgentResources { cpu: MilliCpu(101), ..AgentResources::default() }.check().unwrap_err().contains("101m")
        );
        assert!(AgentResources { memory_mib: 31, ..AgentResources::default() }.check().unwrap_err().contains("31 MiB"));
    }
}
