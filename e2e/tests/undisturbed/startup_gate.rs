//! A pod that waits for its identity reports why, and can be deleted.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use std::time::Duration;

use countersign_e2e::{
    apply::delete,
    fixture::PodSpec,
    pods::{AGENT, APP, container_statuses},
    scenario,
    wait::{gone, watch},
};
use k8s_openapi::api::core::v1::Pod;

/// The termination message of a container of the pod.
fn last_words<'a>(pod: &'a Pod, container: &str) -> Option<&'a str> {
    let status = container_statuses(pod).find(|status| status.name == container)?;
    let ended = status.state.iter().chain(&status.last_state).find_map(|state| state.terminated.as_ref())?;
    ended.message.as_deref()
}

/// Whether the agent has reported that there is no identity for the pod.
fn is_held(pod: &Pod) -> bool {
    last_words(pod, AGENT).is_some_and(|words| words.contains("WorkloadIdentity"))
}

#[tokio::test]
async fn a_held_pod_does_not_start_its_application_and_says_why() {
    scenario("startup-gate", async |world| {
        world.cluster.apply(&PodSpec::hold("nobody").pod(&world.namespace)).await?;
        let pod = watch(&world.pods(), "nobody", "held, with a reason", is_held).await?;
        let app = container_statuses(&pod).find(|status| status.name == APP).expect("the application's status");
        assert_eq!(app.started, Some(false), "the application must not have started");
        assert_eq!(app.restart_count, 0);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_held_pod_can_be_deleted() {
    scenario("let-go", async |world| {
        world.cluster.apply(&PodSpec::hold("nobody").pod(&world.namespace)).await?;
        // Its agent has run and blocks the application, so the pod is not merely starting.
        let pod = watch(&world.pods(), "nobody", "held, with a reason", is_held).await?;
        assert_eq!(pod.metadata.deletion_timestamp, None);
        delete(&world.pods(), "nobody").await?;
        // One `wait` of 20 s may be running, then the grace period.
        gone(&world.pods(), "nobody", Duration::from_secs(45)).await
    })
    .await;
}
