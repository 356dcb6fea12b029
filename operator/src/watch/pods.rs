//! Pods, pruned while they are decoded: of a hundred thousand of them the index needs labels, the account, whether they
//! ended, and the containers' names and images. See [`super::protobuf`].

use std::{borrow::Cow, collections::HashSet, sync::Arc};

use countersign_contract::metadata::annotation;
use countersign_core::entitlement::PodFacts;
use jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    core::{NamespaceResourceScope, ObjectMeta},
    runtime::watcher,
};
use serde::Deserialize;

use super::{Decoded, ObjectKey, Sink, follow, protobuf};
use crate::metrics::{Metrics, Object};
use countersign_index::{Index, PodRecord, SharedIndex};
use countersign_issuer::freshness::{Freshness, Moment, View};
use countersign_runtime::readiness::ReadinessCheck;

/// The part of a pod that is decoded. Lenient: whatever the API server stores decodes.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodLite {
    /// Names, labels, deletion.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Account and containers.
    #[serde(default)]
    pub spec: PodSpecLite,
    /// Phase.
    #[serde(default)]
    pub status: PodStatusLite,
}

/// Of a pod's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpecLite {
    /// The service account's name.
    #[serde(default)]
    pub service_account_name: String,
    /// The application's containers.
    #[serde(default)]
    pub containers: Vec<ContainerLite>,
    /// Init containers, the native sidecars among them.
    #[serde(default)]
    pub init_containers: Vec<ContainerLite>,
}

/// Of a container.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ContainerLite {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its image as written in the spec.
    #[serde(default)]
    pub image: String,
}

/// Of a pod's status.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodStatusLite {
    /// Pending, Running, Succeeded, Failed or Unknown.
    #[serde(default)]
    pub phase: String,
}

impl Decoded for PodLite {
    type Object = Self;

    fn object(self) -> Result<Self, String> {
        Ok(self)
    }
}

impl Resource for PodLite {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl From<PodLite> for PodRecord {
    fn from(pod: PodLite) -> Self {
        let meta = pod.metadata;
        let noted = |name| meta.annotations.as_ref().and_then(|all| all.get(name));
        let injected = noted(annotation::INJECTED).is_some();
        let renewal = noted(annotation::RENEW_AFTER).map_or(0, |text| renewal(text));
        let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        // Whoever makes a pod may write anything here: what is kept is no more than the names of its containers.
        // Pods injected before an upgrade have the annotation of release 0.1, which is read for one more release.
        let marked = noted(annotation::STALE_MOUNTS).or_else(|| noted(annotation::LEGACY_STALE_MOUNTS));
        let marked = marked.filter(|_| injected).map_or("", String::as_str);
        let is_marked = |container: &&ContainerLite| marked.split(',').any(|name| name == container.name);
        let never_refreshes = containers.clone().filter(is_marked).map(|container| container.name.clone()).collect();
        Self {
            facts: PodFacts {
                namespace: meta.namespace.unwrap_or_default(),
                name: meta.name.unwrap_or_default(),
                uid: meta.uid.unwrap_or_default(),
                service_account: pod.spec.service_account_name,
                labels: meta.labels.unwrap_or_default(),
                containers: containers.clone().map(|container| container.name.clone()).collect(),
                renewal,
            },
            ended: matches!(pod.status.phase.as_str(), "Succeeded" | "Failed"),
            deleted_at: meta.deletion_timestamp.map(|time| time.0),
            injected,
            never_refreshes,
            images: containers.map(|container| container.image.clone()).collect(),
        }
    }
}

/// Milliseconds of a time; 0 of what is no time, or one before 1970. It is never compared with a clock.
fn renewal(text: &str) -> u64 {
    text.parse::<Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok()).unwrap_or(0)
}

/// Follows every pod of the cluster. The first list is streamed: the API server writes while we read, and neither holds it.
pub async fn watch(
    client: Client,
    index: SharedIndex,
    freshness: Freshness,
    listed: ReadinessCheck,
    metrics: Arc<Metrics>,
) {
    let api: Api<PodLite> = Api::all(protobuf::client(client));
    let sink = Pods { index, freshness: freshness.clone(), listed, metrics: metrics.clone() };
    follow("pods", api, watcher::Config::default().streaming_lists(), sink, freshness, metrics).await;
}

struct Pods {
    index: SharedIndex,
    freshness: Freshness,
    listed: ReadinessCheck,
    metrics: Arc<Metrics>,
}

impl Sink<PodLite> for Pods {
    const NEEDS_PRESENT: bool = false;

    fn listing(&mut self) {
        self.index.update(Index::begin_pods);
    }

    fn applied(&mut self, pod: PodLite) {
        let size = self.index.update(|index| {
            index.apply_pod(pod.into());
            index.pod_count()
        });
        self.metrics.index_size(Object::Pods, size);
    }

    fn gone(&mut self, pod: &ObjectKey) {
        let size = self.index.update(|index| {
            index.remove_pod(&pod.uid);
            index.pod_count()
        });
        self.metrics.index_size(Object::Pods, size);
    }

    fn listed(&mut self, _: &HashSet<ObjectKey>) {
        self.index.update(Index::end_pods);
        self.listed.pass();
    }

    fn confirmed(&mut self, at: Moment) {
        self.freshness.confirm(View::Pods, at);
    }
}

#[cfg(test)]
mod tests {
    use super::{PodLite, PodRecord};
    use serde_json::json;

    #[test]
    fn of_a_pod_only_what_decides_is_kept() {
        let pod: PodLite = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "b"},
                         "annotations": {"countersign.dev/injected": "sidecar"}},
            "spec": {"serviceAccountName": "sa", "unknown": [1, 2],
                     "initContainers": [{"name": "agent", "image": "i:1", "restartPolicy": "Always"}],
                     "containers": [{"name": "app", "image": "i:2", "resources": {}}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1"},
        }))
        .expect("decodes");
        let record = PodRecord::from(pod);
        assert_eq!(record.facts.service_account, "sa");
        assert_eq!(record.facts.containers, ["app", "agent"]);
        assert_eq!(record.images, ["i:2", "i:1"]);
        assert!(record.injected && !record.ended);
    }

    #[test]
    fn a_pod_of_which_nothing_is_set_decodes() {
        let pod: PodLite = serde_json::from_value(json!({"metadata": {"name": "p"}})).expect("decodes");
        assert!(!PodRecord::from(pod).ended);
    }

    #[test]
    fn of_what_never_refreshes_the_pods_own_containers_are_kept() {
        let never_refreshes = |annotations: &serde_json::Value| {
            let pod = json!({"metadata": {"name": "p", "annotations": annotations},
                             "spec": {"containers": [{"name": "app"}, {"name": "web"}],
                                      "initContainers": [{"name": "init"}]}});
            PodRecord::from(serde_json::from_value::<PodLite>(pod).expect("decodes")).never_refreshes
        };
        let marked =
            |names: &str| json!({"countersign.dev/injected": "sidecar", "countersign.dev/stale-mounts": names});
        assert_eq!(never_refreshes(&marked("init,app,foreign")), ["app", "init"]);
        assert_eq!(never_refreshes(&marked("foreign")), [""; 0]);
        assert_eq!(never_refreshes(&json!({"countersign.dev/injected": "sidecar"})), [""; 0]);
        assert_eq!(never_refreshes(&json!({"countersign.dev/stale-mounts": "app"})), [""; 0], "it has no identity");
        let mut earlier = json!({"countersign.dev/injected": "sidecar", "countersign.dev/never-refreshes": "init"});
        assert_eq!(never_refreshes(&earlier), ["init"], "injected by an earlier release");
        earlier["countersign.dev/stale-mounts"] = json!("app");
        assert_eq!(never_refreshes(&earlier), ["app"], "the current name takes precedence");
    }

    #[test]
    fn a_renewal_is_asked_for_by_a_time_and_by_nothing_else() {
        let renewal = |value: serde_json::Value| {
            let pod = json!({"metadata": {"name": "p", "annotations": {"countersign.dev/renew-after": value}}});
            PodRecord::from(serde_json::from_value::<PodLite>(pod).expect("decodes")).facts.renewal
        };
        assert_eq!(renewal(json!("2026-09-21T14:13:20.001Z")), 1_790_000_000_001);
        for none in ["", "now", "1790000000", "1969-12-31T23:59:59Z"] {
            assert_eq!(renewal(json!(none)), 0, "{none}");
        }
    }

    #[test]
    fn a_pod_has_ended_once_it_succeeded_or_failed() {
        for (phase, ended) in
            [("Pending", false), ("Running", false), ("Unknown", false), ("Succeeded", true), ("Failed", true)]
        {
            let pod = json!({"metadata": {"name": "p"}, "status": {"phase": phase}});
            let pod: PodLite = serde_json::from_value(pod).expect("decodes");
            assert_eq!(PodRecord::from(pod).ended, ended, "{phase}");
        }
    }
}
