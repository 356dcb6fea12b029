//! Measures how much the agent delays the start of a pod, from its creation to its application's first instruction: pods
//! with the agent and the same pods without it, one after the other and at a fixed rate. Pods with an idle native sidecar
//! show how much of the delay Kubernetes adds for any sidecar that blocks the start of the application.
//!
//! Runs on the cluster of `KUBECONFIG`, whose clock must be that of this machine. Prints one figure a line,
//! `{"name","value","unit"}`, on standard output; other output goes to standard error.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use countersign_e2e::{World, apply::documents, fixture::PodSpec, pods::is_event, scenario, wait::until};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

/// Enough for a node with a long backlog.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
/// Pods of one kind that run before they are deleted.
const BATCH: usize = 25;

#[derive(Debug, Parser)]
struct Args {
    /// Pods of each kind, one after the other.
    #[arg(long, default_value_t = 200)]
    pods: usize,
    /// Pods of each kind, at the rate.
    #[arg(long, default_value_t = 200)]
    herd: usize,
    /// Pods created each second.
    #[arg(long, default_value_t = 20)]
    rate: u32,
}

/// With the agent, without it, or with another sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    With,
    Without,
    Idle,
}

/// When the application ends.
#[derive(Clone, Copy, Debug)]
enum Ends {
    /// It is deleted: its end must not disturb the next start.
    Never,
    /// After its first instruction: a node has not enough CPU for many running pods.
    AtOnce,
}

const KINDS: [Kind; 3] = [Kind::Without, Kind::Idle, Kind::With];

/// A sidecar with the same shape as the agent and as many volumes, which is idle: its hook ends at once.
const IDLE: &str = "volumes:
- {name: token, projected: {sources: [{serviceAccountToken: {path: token, audience: idle.example, expirationSeconds: 3600}}]}}
- {name: one, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
- {name: two, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
- {name: none, emptyDir: {sizeLimit: 1Mi}}
initContainers:
- name: idle
  image: countersign.local/demo:dev
  imagePullPolicy: IfNotPresent
  restartPolicy: Always
  args: [hold]
  lifecycle: {postStart: {exec: {command: [/countersign-demo, ls, /dev/shm]}}}
  resources: {requests: {cpu: 10m, memory: 12Mi}, limits: {memory: 12Mi}}
  volumeMounts:
  - {name: token, mountPath: /token, readOnly: true}
  - {name: one, mountPath: /one}
  - {name: two, mountPath: /two}
  - {name: none, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
    seccompProfile: {type: RuntimeDefault}
";

#[tokio::main]
async fn main() {
    let args = Args::parse();
    scenario("starts", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("starter", "")).await?;
        one_after_the_other(world, args.pods).await?;
        at_a_rate(world, args.herd, args.rate).await
    })
    .await;
}

async fn one_after_the_other(world: &World, count: usize) -> Result<()> {
    let mut took: BTreeMap<Kind, Vec<f64>> = BTreeMap::new();
    for number in 0..count {
        if number % BATCH == 0 {
            // The node may still be deleting earlier pods: this pod waits for that, and is not counted.
            let name = format!("before-{number}");
            create(world, &name, Kind::Without, Ends::Never).await?;
            world.ready(&name).await?;
        }
        for kind in KINDS {
            let name = format!("{}-{number}", kind.name());
            let created = create(world, &name, kind, Ends::Never).await?;
            world.ready(&name).await?;
            took.entry(kind).or_default().push(first_instruction(world, &name, kind).await? - created);
        }
        if number % BATCH == BATCH - 1 {
            eprintln!("{} of {count} pods of each kind", number + 1);
            clear(world).await?;
        }
    }
    clear(world).await?;
    report(&format!("pod start, {count} one after the other"), &took);
    Ok(())
}

async fn at_a_rate(world: &World, count: usize, rate: u32) -> Result<()> {
    let mut took: BTreeMap<Kind, Vec<f64>> = BTreeMap::new();
    for kind in KINDS {
        let (begin, mut created) = (Instant::now(), BTreeMap::new());
        for number in 0..count {
            let due = Duration::from_secs(1) * u32::try_from(number)? / rate;
            sleep_until(begin + due).await;
            let name = format!("{}-{number}", kind.name());
            let at = create(world, &name, kind, Ends::AtOnce).await?;
            created.insert(name, at);
        }
        eprintln!("{count} pods {} were created in {:.1} s", kind.name(), begin.elapsed().as_secs_f64());
        for name in created.keys() {
            world.succeeded(name).await?;
        }
        eprintln!("and had ended after {:.1} s", begin.elapsed().as_secs_f64());
        for (name, at) in created {
            took.entry(kind).or_default().push(first_instruction(world, &name, kind).await? - at);
        }
        clear(world).await?;
    }
    report(&format!("pod start, {count} at {rate}/s"), &took);
    Ok(())
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::With => "with",
            Self::Without => "without",
            Self::Idle => "idle",
        }
    }
}

/// Creates a pod, and returns its creation time in milliseconds.
async fn create(world: &World, name: &str, kind: Kind, ends: Ends) -> Result<f64> {
    let labels = match kind {
        Kind::With => "",
        Kind::Without | Kind::Idle => "countersign.dev/inject: 'false'",
    };
    let arguments: &[&str] = match ends {
        Ends::Never => &["first-instruction"],
        Ends::AtOnce => &["first-instruction", "--exit"],
    };
    let spec = PodSpec {
        labels,
        restart: "Never",
        more: if kind == Kind::Idle { IDLE } else { "" },
        ..PodSpec::demo(name, arguments).account("starter")
    };
    let mut objects = documents(&spec.pod(&world.namespace))?;
    let mut pod: Pod = objects.pop().context("a pod is the last")?.try_parse()?;
    // An ordinary pod mounts the API token: the kubelet waits 300 ms for the first volume of a pod, whatever its kind.
    pod.spec.get_or_insert_default().automount_service_account_token = None;
    for object in &objects {
        world.cluster.apply_object(object).await?;
    }
    let now = milliseconds(Timestamp::now());
    world.pods().create(&PostParams::default(), &pod).await.with_context(|| format!("create {name}"))?;
    Ok(now)
}

/// The time of its first instruction, in milliseconds.
async fn first_instruction(world: &World, name: &str, kind: Kind) -> Result<f64> {
    let said = world.app_output(name).await?;
    let line =
        said.iter().find(|line| is_event(line, "first-instruction")).with_context(|| format!("{name} said nothing"))?;
    let present = line.get("present").and_then(Value::as_bool);
    ensure!(present == Some(kind == Kind::With), "{name}: {line}");
    let at = line.get("at").and_then(Value::as_str).with_context(|| format!("{name} did not say when"))?;
    Ok(milliseconds(at.parse()?))
}

async fn clear(world: &World) -> Result<()> {
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    world.pods().delete_collection(&now, &ListParams::default()).await.context("delete the pods")?;
    until("no pod is left", DEFAULT_TIMEOUT, async || {
        Ok(world.pods().list(&ListParams::default()).await?.items.is_empty().then_some(()))
    })
    .await
}

fn report(what: &str, took: &BTreeMap<Kind, Vec<f64>>) {
    for (name, share) in [("p50", 0.50), ("p99", 0.99)] {
        let of = |kind: Kind| quantile(took.get(&kind).map(Vec::as_slice).unwrap_or_default(), share);
        let (with, without, idle) = (of(Kind::With), of(Kind::Without), of(Kind::Idle));
        let parts = [
            ("without us", without),
            ("with us", with),
            ("added", with - without),
            ("added by an idle sidecar", idle - without),
        ];
        for (part, value) in parts {
            println!("{}", json!({ "name": format!("{what}: {part}, {name}"), "value": value, "unit": "ms" }));
        }
    }
}

fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of this century fit")]
fn milliseconds(at: Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1000.0
}
