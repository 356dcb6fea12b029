//! A namespace and a trust domain for each test, deleted afterwards; if the test fails, their state is printed first.

#![allow(clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    panic::AssertUnwindSafe,
};

use anyhow::{Context as _, Result};
use countersign_contract::{environment::test::KEEP, objects::journal::trust_domain_secret};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, Secret};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams, LogParams},
};

use crate::{
    Cluster,
    apply::delete,
    cluster::{AUTHORITIES, ours},
};

/// The isolated environment of one test.
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// The test's own namespace. Pods in it are injected, and must pass the pod security standard *restricted*.
    pub namespace: String,
    /// The name of the test's own TrustDomain, which the test creates.
    pub trust_domain: String,
}

/// Runs a test in its own namespace, which is deleted afterwards. With `COUNTERSIGN_E2E_KEEP` set, it is kept if the test
/// fails.
///
/// # Panics
/// The test failed.
pub async fn scenario(name: &str, test: impl AsyncFnOnce(&World) -> Result<()>) {
    let world = World::new(name).await.expect("a world for the test");
    world.create_namespace().await.expect("a namespace for the test");
    world.run(test).await;
}

/// As [`scenario`], but the test creates the namespace.
///
/// # Panics
/// The test failed.
pub async fn scenario_without_namespace(name: &str, test: impl AsyncFnOnce(&World) -> Result<()>) {
    World::new(name).await.expect("a world for the test").run(test).await;
}

impl World {
    /// Chooses unique names for a test; creates nothing.
    ///
    /// # Errors
    /// There is no cluster.
    pub async fn new(name: &str) -> Result<Self> {
        Ok(Self::on(Cluster::connect().await?, name))
    }

    /// As [`Self::new`], on this cluster.
    #[must_use]
    pub fn on(cluster: Cluster, name: &str) -> Self {
        let unique = format!("{:08x}", RandomState::new().build_hasher().finish() & 0xffff_ffff);
        Self { cluster, namespace: format!("e2e-{name}-{unique}"), trust_domain: format!("{name}-{unique}.e2e.test") }
    }

    /// The test's namespace as YAML.
    #[must_use]
    pub fn namespace_yaml(&self) -> String {
        format!(
            "---
apiVersion: v1
kind: Namespace
metadata:
  name: {}
  labels:
    countersign.dev/inject: sidecar
    pod-security.kubernetes.io/enforce: restricted
",
            self.namespace
        )
    }

    /// Creates the test's namespace.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn create_namespace(&self) -> Result<()> {
        self.cluster.apply(&self.namespace_yaml()).await.map(drop)
    }

    /// Pods of the test's namespace.
    #[must_use]
    pub fn pods(&self) -> Api<Pod> {
        self.cluster.api(&self.namespace)
    }

    async fn run(self, test: impl AsyncFnOnce(&World) -> Result<()>) {
        let outcome = AssertUnwindSafe(test(&self)).catch_unwind().await;
        let failed = !matches!(outcome, Ok(Ok(())));
        if failed {
            self.print_state().await;
        }
        if !(failed && std::env::var_os(KEEP).is_some()) {
            self.end().await.expect("what the test made is taken away");
        }
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => panic!("{error:#}"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Deletes the namespace, the TrustDomain and its journal, without waiting for their deletion to finish.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn end(&self) -> Result<()> {
        delete(&Api::<Namespace>::all(self.cluster.client.clone()), &self.namespace)
            .await
            .context("delete the namespace")?;
        delete(&self.cluster.trust_domains().await?, &self.trust_domain).await.context("delete the TrustDomain")?;
        let journal = trust_domain_secret(&self.trust_domain);
        delete(&self.cluster.api::<Secret>(AUTHORITIES), &journal).await.context("delete the journal")
    }

    /// Prints the state of the test's objects and logs, for debugging a failure.
    #[expect(clippy::print_stderr, reason = "this is what a failed test has to say")]
    pub(crate) async fn print_state(&self) {
        eprintln!("--- {} ---", self.namespace);
        for kind in ["TrustDomain", "WorkloadIdentity"] {
            if let Ok(api) = self.cluster.kind(&ours(kind), &self.namespace).await
                && let Ok(objects) = api.list(&ListParams::default()).await
            {
                let mine = |object: &DynamicObject| {
                    object.metadata.namespace.is_some() || object.name_any() == self.trust_domain
                };
                for object in objects.items.iter().filter(|object| mine(object)) {
                    let status = object.data.get("status").map(ToString::to_string).unwrap_or_default();
                    eprintln!("{kind} {}: {status}", object.name_any());
                }
            }
        }
        if let Ok(events) = self.cluster.api::<Event>(&self.namespace).list(&ListParams::default()).await {
            for event in events {
                let about = event.involved_object.name.unwrap_or_default();
                eprintln!("event {about}: {} {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default());
            }
        }
        for pod in self.pods().list(&ListParams::default()).await.into_iter().flatten() {
            let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
            eprintln!("pod {}: {phase}", pod.name_any());
            let spec = pod.spec.clone().unwrap_or_default();
            for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
                let what =
                    LogParams { container: Some(container.name.clone()), tail_lines: Some(30), ..LogParams::default() };
                let logs = self.pods().logs(&pod.name_any(), &what).await.unwrap_or_else(|error| error.to_string());
                eprintln!("logs {}/{}:\n{logs}", pod.name_any(), container.name);
            }
        }
    }
}
