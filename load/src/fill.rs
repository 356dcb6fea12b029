//! Fills the API server: in parallel, with bounded concurrency, and resumable.

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use crate::{
    cluster::{Cluster, Collection},
    dataset::{self, CROWD, Dataset, FLIP, FLIPS, NAMESPACES},
    figures::Progress,
    pod,
};

/// Creates the missing objects of `dataset`.
pub(crate) async fn fill(cluster: &Cluster, dataset: Dataset, parallel: usize) -> Result<()> {
    let filling = Filling { cluster, parallel };
    let namespaces = (0..NAMESPACES).map(dataset::namespace).chain([FLIP.to_owned()]);
    let namespaces: Vec<_> = namespaces.map(|name| dataset::namespace_object(&name)).collect();
    filling.cluster_wide("namespaces", Collection::core(None, "namespaces"), namespaces).await?;
    let nodes = (0..dataset.nodes).map(|number| dataset::node_object(&dataset::node(number))).collect();
    filling.cluster_wide("nodes", Collection::core(None, "nodes"), nodes).await?;
    let domains = vec![dataset::trust_domain_object()];
    filling.cluster_wide("trust domains", Collection::ours(None, "trustdomains"), domains).await?;

    let identities = |namespace: usize| (namespace..dataset.identities).step_by(NAMESPACES).collect();
    let account = |number| dataset::account_object(&dataset::account(number));
    filling.in_namespaces("service accounts", "serviceaccounts", Collection::core, identities, account).await?;
    let identity = |number| dataset::identity_object(&dataset::account(number), None);
    filling.in_namespaces("WorkloadIdentities", "workloadidentities", Collection::ours, identities, identity).await?;
    let pods = |namespace| {
        let here = move |number: &usize| number % dataset.identities % NAMESPACES == namespace;
        (0..dataset.pods).filter(here).collect()
    };
    filling.in_namespaces("pods", "pods", Collection::core, pods, |number| pod::object(&dataset.pod(number))).await?;
    flips(cluster).await
}

/// The pods whose entitlement is switched, and their identity.
async fn flips(cluster: &Cluster) -> Result<()> {
    let here = Some(FLIP);
    cluster.create(&Collection::core(here, "serviceaccounts"), &dataset::account_object(FLIP)).await?;
    let identity = dataset::identity_object(FLIP, Some((pod::SWITCH, "on")));
    cluster.create(&Collection::ours(here, "workloadidentities"), &identity).await?;
    for number in 0..FLIPS {
        cluster.create(&Collection::core(here, "pods"), &pod::object(&dataset::flip(number))).await?;
    }
    Ok(())
}

/// A namespace with one pod and `size` identities for it.
pub(crate) async fn crowd(cluster: &Cluster, size: usize, parallel: usize) -> Result<()> {
    let here = Some(CROWD);
    cluster.create(&Collection::core(None, "namespaces"), &dataset::namespace_object(CROWD)).await?;
    cluster.create(&Collection::core(here, "serviceaccounts"), &dataset::account_object(CROWD)).await?;
    cluster.create(&Collection::core(here, "pods"), &pod::object(&dataset::crowd_pod())).await?;
    let identities = Collection::ours(here, "workloadidentities");
    let objects = (0..size).map(|number| (identities.clone(), dataset::crowd_identity_object(number)));
    Filling { cluster, parallel }.create_all("overlapping WorkloadIdentities", objects).await
}

struct Filling<'a> {
    cluster: &'a Cluster,
    parallel: usize,
}

impl Filling<'_> {
    async fn cluster_wide(&self, what: &str, collection: Collection, objects: Vec<Value>) -> Result<()> {
        self.create_all(what, objects.into_iter().map(|object| (collection.clone(), object))).await
    }

    /// Creates the objects of each namespace, by index; a namespace that already has as many is skipped.
    async fn in_namespaces(
        &self,
        what: &str,
        plural: &str,
        collection: impl Fn(Option<&str>, &str) -> Collection,
        numbers: impl Fn(usize) -> Vec<usize>,
        object: impl Fn(usize) -> Value,
    ) -> Result<()> {
        let mut missing = Vec::new();
        for number in 0..NAMESPACES {
            let (collection, numbers) = (collection(Some(&dataset::namespace(number)), plural), numbers(number));
            if !numbers.is_empty() && self.cluster.count(&collection).await? < numbers.len() {
                missing.extend(numbers.into_iter().map(|number| (collection.clone(), number)));
            }
        }
        // Objects are built lazily: all at once would fill the memory.
        self.create_all(what, missing.into_iter().map(|(collection, number)| (collection, object(number)))).await
    }

    async fn create_all(&self, what: &str, objects: impl ExactSizeIterator<Item = (Collection, Value)>) -> Result<()> {
        let total = objects.len();
        if total == 0 {
            return Ok(());
        }
        let mut progress = Progress::new(what, total);
        let mut done = 0;
        let creations = stream::iter(objects)
            .map(|(collection, object)| async move { self.cluster.create(&collection, &object).await });
        let mut creations = std::pin::pin!(creations.buffer_unordered(self.parallel));
        while creations.try_next().await?.is_some() {
            done += 1;
            progress.at(done);
        }
        progress.done(done);
        Ok(())
    }
}
