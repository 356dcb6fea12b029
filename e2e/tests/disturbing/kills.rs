//! Operator, webhook and agents are killed at random under load: no call fails, no pod is left without its identity, and no
//! pod gets another's identity.

use std::time::Duration;

use anyhow::{Result, ensure};
use countersign_e2e::{
    World,
    apply::delete,
    cluster::SYSTEM,
    faults::{Faults, faulty, random_below, report_counts, soak_time},
    pods::{AGENT, container_statuses},
    replicas::{OPERATOR, WEBHOOK, running},
    wait::DEFAULT_TIMEOUT,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::json;
use tokio::time::{Instant, interval};

/// The interval between kills.
const PACE: Duration = Duration::from_millis(1500);
/// Pods of each account.
const REPLICAS: u32 = 2;
/// A container that was restarted this often is not killed again: Kubernetes would delay its restart for minutes, which is
/// not what is tested. Its pod may still be deleted and replaced.
const RESTARTS: i32 = 2;

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The pod of one of the two Deployments is deleted.
    Product(&'static str),
    /// The process of one of the two Deployments' containers.
    Process(&'static str),
    /// The process of an agent.
    Agent,
    /// A workload's pod is deleted; another replaces it.
    Workload,
}

/// The counts of kills.
#[derive(Debug, Default)]
struct Killed {
    operators: u64,
    webhooks: u64,
    agents: u64,
    workloads: u64,
}

/// R25: kills in random order.
async fn killing(world: &World, faults: &Faults, span: Duration) -> Result<()> {
    // Long enough for an agent that Kubernetes restarts after 20 s.
    world.cluster.apply(&world.trust_domain_yaml("x509: {svidTTL: 120s}")).await?;
    world.traffic("50ms").await?;
    let accounts: Vec<String> = (0..4).map(|number| format!("load-{number}")).collect();
    world.idle(&accounts, REPLICAS).await?;
    let replicas = usize::try_from(REPLICAS)?;
    world.each_has_its_own(&accounts, replicas, DEFAULT_TIMEOUT).await?;
    let before = world.traffic_continues(20).await?;

    let mut killed = Killed::default();
    let end = Instant::now() + span;
    let mut pace = interval(PACE);
    while Instant::now() < end {
        pace.tick().await;
        let victims = [
            Victim::Product(OPERATOR),
            Victim::Process(OPERATOR),
            Victim::Product(WEBHOOK),
            Victim::Process(WEBHOOK),
            Victim::Agent,
            Victim::Agent,
            Victim::Workload,
            Victim::Workload,
        ];
        let Some(victim) = victims.get(random_below(victims.len())) else { continue };
        kill(world, faults, &accounts, *victim, &mut killed).await?;
    }

    world.settled().await?;
    let pods = world.each_has_its_own(&accounts, replicas, DEFAULT_TIMEOUT * 4).await?;
    let during = world.traffic_since(before, 10 * span.as_secs(), DEFAULT_TIMEOUT).await?.since(before);
    let Killed { operators, webhooks, agents, workloads } = killed;
    ensure!(operators > 0 && webhooks > 0 && agents > 0 && workloads > 0, "not everything was killed: {killed:?}");
    let counts = json!({
        "seconds": span.as_secs(), "operators_killed": operators, "webhooks_killed": webhooks, "agents_killed": agents,
        "workloads_replaced": workloads, "pods_with_their_own_identity_after": pods,
    });
    report_counts("operator, webhook, agents killed at random", &during.counts(&counts))
}

async fn kill(world: &World, faults: &Faults, accounts: &[String], victim: Victim, killed: &mut Killed) -> Result<()> {
    match victim {
        Victim::Product(name) => {
            let pods = world.product(name).await?;
            let Some(pod) = pods.get(random_below(pods.len())) else { return Ok(()) };
            delete(&world.cluster.api::<Pod>(SYSTEM), &pod.name_any()).await?;
            killed.count(name);
        }
        Victim::Process(name) => {
            let pods = world.product(name).await?;
            let container = name.trim_start_matches("countersign-");
            if slain(faults, pods.get(random_below(pods.len())), container).await {
                killed.count(name);
            }
        }
        Victim::Agent => {
            let names = accounts.iter().map(String::as_str).chain(["server", "client"]).collect::<Vec<_>>();
            let Some(name) = names.get(random_below(names.len())) else { return Ok(()) };
            let pods = world.pods_of(name).await?;
            if slain(faults, pods.get(random_below(pods.len())), AGENT).await {
                killed.agents += 1;
            }
        }
        Victim::Workload => {
            let Some(account) = accounts.get(random_below(accounts.len())) else { return Ok(()) };
            let pods = world.pods_of(account).await?;
            let Some(pod) = pods.get(random_below(pods.len())) else { return Ok(()) };
            delete(&world.pods(), &pod.name_any()).await?;
            killed.workloads += 1;
        }
    }
    Ok(())
}

/// Kills the process of a pod's container; returns whether there was one.
async fn slain(faults: &Faults, pod: Option<&Pod>, container: &str) -> bool {
    let Some(pod) = pod else { return false };
    let restarts = container_statuses(pod).filter(|status| status.name == container).map(|status| status.restart_count);
    let Some(id) = running(pod, container).filter(|_| restarts.sum::<i32>() < RESTARTS) else { return false };
    // It may have ended meanwhile.
    faults.run_once(&["kill", "--container", &id]).await.is_ok()
}

impl Killed {
    fn count(&mut self, name: &str) {
        if name == OPERATOR {
            self.operators += 1;
        } else {
            self.webhooks += 1;
        }
    }
}

#[tokio::test]
async fn random_kills_under_load_cost_nothing() {
    faulty("kills", async |world, faults| killing(world, faults, Duration::from_secs(60)).await).await;
}

#[tokio::test]
#[ignore = "soak"]
async fn soak_random_kills_under_load_cost_nothing() {
    faulty("kills-long", async |world, faults| killing(world, faults, soak_time()).await).await;
}
