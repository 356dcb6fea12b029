//! Several replicas of the operator: all issue, one writes status, and another takes over when that one is lost.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use countersign_contract::{network::port, objects::OPERATOR};
use countersign_e2e::{
    World,
    cluster::SYSTEM,
    faults::alone,
    fixture::PodSpec,
    pods::is_ready,
    wait::{DEFAULT_TIMEOUT, until, watch},
};
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod};
use kube::{
    Resource as _, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::Request,
};
use serde_json::{Value, json};

/// A lease of 15 s, checked every 2 s.
const TAKE_OVER: Duration = Duration::from_secs(30);

/// A lease that was released.
const HAND_OVER: Duration = Duration::from_secs(15);

/// R25, R87: one test, because it kills replicas that other tests need.
#[tokio::test]
async fn all_replicas_issue_and_another_writes_when_the_leader_is_gone() {
    alone("replicas", async |world| {
        let replicas = whole(world, 2).await?;
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("many", "")).await?;
        world.cluster.apply(&PodSpec::hold("many").deployment(&world.namespace, 12)).await?;
        world.ready_pods("many", 12).await?;
        let before = counted_status(world, 12).await?;
        assert_eq!(before["pods"]["notInjected"], 0, "{before}");
        assert_eq!(before["outdatedAgents"], 0, "{before}");
        assert!(before["nextExpiry"].is_string(), "{before}");
        for replica in &replicas {
            let (sessions, issued) =
                (metric(world, replica, "countersign_sessions").await?, issued(world, replica).await?);
            ensure!(sessions > 0.0 && issued > 0.0, "{replica} has {sessions} sessions and issued {issued}");
        }
        let leader = leader(world).await?;
        let leads: Vec<_> = leading(world, &replicas).await?;
        assert_eq!(leads, std::slice::from_ref(&leader), "one leads, and it is the Lease's holder");

        // Killed: its lease must expire.
        world.cluster.api::<Pod>(SYSTEM).delete(&leader, &DeleteParams::default().grace_period(0)).await?;
        let second = until("another leads", TAKE_OVER, async || other(world, &leader).await).await?;
        scale(world, 11).await?;
        counted_status(world, 11).await?;

        // Terminated: it releases its lease.
        whole(world, 2).await?;
        world.cluster.api::<Pod>(SYSTEM).delete(&second, &DeleteParams::default()).await?;
        until("another leads", HAND_OVER, async || other(world, &second).await).await?;
        scale(world, 12).await?;
        counted_status(world, 12).await?;
        whole(world, 2).await.map(drop)
    })
    .await;
}

/// The names of the replicas, once exactly that many exist and all are ready.
async fn whole(world: &World, replicas: usize) -> Result<Vec<String>> {
    until(&format!("{replicas} operators are ready"), DEFAULT_TIMEOUT, async || {
        let named = ListParams::default().labels(&format!("app.kubernetes.io/name={OPERATOR}"));
        let pods = world.cluster.api::<Pod>(SYSTEM).list(&named).await?.items;
        let ready = pods.iter().filter(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none()).count();
        Ok((ready == replicas && pods.len() == replicas).then(|| pods.iter().map(|pod| pod.name_any()).collect()))
    })
    .await
}

/// The pod that holds the Lease.
async fn leader(world: &World) -> Result<String> {
    let lease = world.cluster.api::<Lease>(SYSTEM).get(OPERATOR).await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity).context("nobody holds the Lease")?;
    Ok(holder.split('_').next().unwrap_or_default().to_owned())
}

async fn other(world: &World, than: &str) -> Result<Option<String>> {
    Ok(leader(world).await.ok().filter(|leader| leader != than))
}

async fn leading(world: &World, replicas: &[String]) -> Result<Vec<String>> {
    let mut leading = Vec::new();
    for replica in replicas {
        if metric(world, replica, "countersign_leader").await? > 0.0 {
            leading.push(replica.clone());
        }
    }
    Ok(leading)
}

/// The status of the WorkloadIdentity once it counts this many pods as selected and served.
async fn counted_status(world: &World, pods: u32) -> Result<Value> {
    let identities = world.cluster.workload_identities(&world.namespace).await?;
    let mut status = Value::Null;
    until(&format!("the status says {pods} matched and served"), DEFAULT_TIMEOUT, async || {
        status = identities.get("many").await?.data["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let is = |type_: &str| conditions.iter().any(|one| one["type"] == type_ && one["status"] == "True");
        let counts = &status["pods"];
        ensure!(
            counts["matched"] == pods && counts["served"] == pods && is("StatsComplete") && is("Ready"),
            "it says {status}"
        );
        Ok(Some(()))
    })
    .await?;
    Ok(status)
}

async fn scale(world: &World, replicas: u32) -> Result<()> {
    let deployments = world.cluster.api::<Deployment>(&world.namespace);
    let patch = json!({ "spec": { "replicas": replicas } });
    deployments.patch("many", &PatchParams::default(), &Patch::Merge(patch)).await?;
    let scaled = |deployment: &Deployment| {
        let available = deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
        u32::try_from(available).is_ok_and(|available| available == replicas)
    };
    watch(&deployments, "many", "scaled", scaled).await.map(drop)
}

async fn issued(world: &World, replica: &str) -> Result<f64> {
    metric(world, replica, "countersign_issued_total{kind=\"X509\"}").await
}

/// The value of a replica's metric; zero if absent.
async fn metric(world: &World, replica: &str, name: &str) -> Result<f64> {
    let pods = Request::new(Pod::url_path(&(), Some(SYSTEM)));
    let request = pods.get_subresource("proxy/metrics", &format!("{replica}:{}", port::HTTP))?;
    let text = world.cluster.client.request_text(request).await.with_context(|| format!("metrics of {replica}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
    Ok(value.unwrap_or(0.0))
}
