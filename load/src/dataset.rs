//! The objects that the API server is filled with: their numbers, names and content. Everything is derived from an index, so that
//! an interrupted fill can be resumed.

use serde_json::{Value, json};

/// The number of namespaces over which objects are distributed.
pub(crate) const NAMESPACES: usize = 100;

/// The trust domain of all identities.
pub(crate) const TRUST_DOMAIN: &str = "load.example.org";

/// The namespace, account and label of the pods whose entitlement is changed.
pub(crate) const FLIP: &str = "load-flip";

/// The number of pods in [`FLIP`].
pub(crate) const FLIPS: usize = 8;

/// The namespace whose WorkloadIdentities all overlap, and the account of its only pod.
pub(crate) const CROWD: &str = "load-crowd";

/// The remote trust domain whose bundle is polled.
pub(crate) const POLLED: &str = "polled.example";

/// The number of remote trust domains whose bundles are in their TrustDomains.
pub(crate) const PEERS: usize = 10;

/// The number of objects of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dataset {
    pub(crate) pods: usize,
    pub(crate) identities: usize,
    pub(crate) nodes: usize,
}

/// A pod's name and the objects that it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) account: String,
    pub(crate) node: String,
    /// Its index among the pods of its account.
    pub(crate) rank: usize,
}

impl Dataset {
    /// The part with the first `pods` pods, on the same nodes.
    pub(crate) fn first(self, pods: usize) -> Self {
        Self { pods: self.pods.min(pods), identities: self.identities.min(pods), nodes: self.nodes }
    }

    pub(crate) fn pod(self, number: usize) -> PodName {
        let (identity, rank) = (number % self.identities, number / self.identities);
        PodName {
            namespace: namespace_of(identity),
            name: format!("app-{identity:05}-{rank:03}"),
            account: account(identity),
            node: node(number % self.nodes),
            rank,
        }
    }
}

pub(crate) fn namespace(number: usize) -> String {
    format!("load-{number:03}")
}

/// The namespace of an identity.
pub(crate) fn namespace_of(identity: usize) -> String {
    namespace(identity % NAMESPACES)
}

pub(crate) fn account(identity: usize) -> String {
    format!("app-{identity:05}")
}

pub(crate) fn node(number: usize) -> String {
    format!("node-{number:04}")
}

/// A pod of [`FLIP`].
pub(crate) fn flip(number: usize) -> PodName {
    PodName {
        namespace: FLIP.to_owned(),
        name: format!("flip-{number}"),
        account: FLIP.to_owned(),
        node: node(0),
        rank: number,
    }
}

pub(crate) fn namespace_object(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace",
           "metadata": {"name": name, "labels": {"countersign-load": "true"}}})
}

pub(crate) fn account_object(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
}

/// The identity of an account's pods, or of those with a label.
pub(crate) fn identity_object(account: &str, label: Option<(&str, &str)>) -> Value {
    let mut selector = json!({"serviceAccounts": [account]});
    if let (Some((key, value)), Some(selector)) = (label, selector.as_object_mut()) {
        selector.insert("matchLabels".to_owned(), json!({key: value}));
    }
    json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
        "metadata": {"name": account},
        "spec": {"trustDomain": TRUST_DOMAIN, "selector": selector},
    })
}

/// One of many identities of the same pod, each of which could render any other's id.
pub(crate) fn crowd_identity_object(number: usize) -> Value {
    json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
        "metadata": {"name": format!("crowd-{number:05}")},
        "spec": {"trustDomain": TRUST_DOMAIN, "path": "/ns/{namespace}/pod/{podName}", "selector": {"serviceAccounts": [CROWD]}},
    })
}

/// The pod of [`CROWD`].
pub(crate) fn crowd_pod() -> PodName {
    PodName { namespace: CROWD.to_owned(), name: "crowd".to_owned(), account: CROWD.to_owned(), node: node(0), rank: 0 }
}

/// A remote trust domain with its bundle in the TrustDomain.
pub(crate) fn peer(number: usize) -> String {
    format!("peer-{number}.example")
}

pub(crate) fn trust_domain_object() -> Value {
    let foreign: Vec<String> = (0..PEERS).map(peer).chain([POLLED.to_owned()]).collect();
    json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": {"name": TRUST_DOMAIN},
        "spec": {"authority": {}, "grants": [
            {"namespaces": {"matchLabels": {"countersign-load": "true"}},
             "paths": ["/ns/{namespace}/sa/{serviceAccount}", "/ns/{namespace}/pod/{podName}"],
             "federatesWith": foreign},
        ]},
    })
}

/// The TrustDomain of a remote trust domain; `source` says where its bundle comes from.
pub(crate) fn remote_object(name: &str, source: &Value) -> Value {
    let mut remote = json!({"namespaces": {"matchLabels": {"countersign-load": "true"}}});
    if let (Some(remote), Some(source)) = (remote.as_object_mut(), source.as_object()) {
        remote.extend(source.clone());
    }
    json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": {"name": name}, "spec": {"remote": remote},
    })
}

pub(crate) fn node_object(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": name,
            "node.kubernetes.io/instance-type": "m5.2xlarge", "topology.kubernetes.io/zone": "eu-1a",
        }},
        "spec": {"providerID": format!("load:///{name}")},
    })
}

#[cfg(test)]
mod tests {
    use super::Dataset;
    use std::collections::BTreeSet;

    #[test]
    fn every_pod_has_a_name_of_its_own() {
        let dataset = Dataset { pods: 2_345, identities: 777, nodes: 10 };
        let names: BTreeSet<_> =
            (0..dataset.pods).map(|n| dataset.pod(n)).map(|pod| (pod.namespace, pod.name)).collect();
        assert_eq!(names.len(), dataset.pods);
    }

    #[test]
    fn the_first_pods_are_the_same_in_a_small_dataset_and_in_the_whole() {
        let dataset = Dataset { pods: 5_000, identities: 600, nodes: 10 };
        let few = dataset.first(512);
        assert!((0..512).all(|number| few.pod(number) == dataset.pod(number)));
    }
}
