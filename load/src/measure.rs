//! Measurements: the issue rate with a given number of callers, and the time in which a pod's change reaches its agent.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    cluster::Cluster,
    figures::{Figures, Samples},
    machine::{CpuSnapshot, Shares, cpu_of},
    operator::Operator,
    pod::SWITCH,
    streams::{Issue, OpenStream},
};

/// The number of timed changes of a pod.
const CHANGES: usize = 800;

/// The name of the API server's program.
const API_SERVER: &str = "kube-apiserver";

/// The result of issuing for a while.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) spans: Samples,
    /// Refused by a limit.
    pub(crate) refused: usize,
    pub(crate) took: Duration,
    /// The CPU time of all operators.
    pub(crate) cpu: Duration,
    /// The CPU time of this program, including its callers.
    callers_cpu: Duration,
    /// The use by all other programs meanwhile.
    others: Shares,
}

impl Issued {
    /// Combined with an earlier result.
    pub(crate) fn after(mut self, before: Option<Self>) -> Self {
        if let Some(before) = before {
            self.spans.append(before.spans);
            self.refused += before.refused;
            self.took += before.took;
            self.cpu += before.cpu;
            self.callers_cpu += before.callers_cpu;
            self.others = self.others.and(before.others);
        }
        self
    }

    pub(crate) fn rate(&self) -> f64 {
        self.spans.len() as f64 / self.took.as_secs_f64()
    }

    /// Microseconds of the operators' CPU for one issue.
    pub(crate) fn cpu_per_issue(&self) -> f64 {
        self.per_issue(self.cpu)
    }

    /// Microseconds of CPU of the operators and the callers for one issue: the total cost for the machine.
    pub(crate) fn cpu_with_callers(&self) -> f64 {
        self.per_issue(self.cpu + self.callers_cpu)
    }

    fn per_issue(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / (self.spans.len().max(1)) as f64
    }

    /// Prints the result of `name`.
    pub(crate) fn print(&mut self, figures: &Figures, name: &str) {
        figures.print(&format!("{name}, rate"), self.rate(), "1/s");
        figures.print(&format!("{name}, p50"), self.spans.millis(0.50), "ms");
        figures.print(&format!("{name}, p99"), self.spans.millis(0.99), "ms");
        figures.print(&format!("{name}, operator CPU"), self.cpu_per_issue(), "us");
        figures.print(&format!("{name}, callers' CPU"), self.per_issue(self.callers_cpu), "us");
        let api_server = self.others.of(API_SERVER);
        figures.print(&format!("{name}, the API server had"), api_server, "cores");
        let rest = self.others.all() - api_server + self.others.stolen();
        figures.print(&format!("{name}, everything else had"), rest, "cores");
        if self.refused > 0 {
            figures.print(&format!("{name}, refused by a limit"), self.refused as f64, "issues");
        }
    }
}

/// Issues with this many concurrent callers, each of which cycles through its share of `streams`, because the rate of one
/// stream is limited. Returns the streams.
pub(crate) async fn issue(
    operators: &[&Operator],
    streams: Vec<OpenStream>,
    callers: usize,
    span: Duration,
) -> Result<(Issued, Vec<OpenStream>)> {
    let mut shares: Vec<Vec<OpenStream>> = (0..callers).map(|_| Vec::new()).collect();
    for (number, stream) in streams.into_iter().enumerate() {
        shares.get_mut(number % callers).context("a caller for each share")?.push(stream);
    }
    let cpu = || -> Result<Duration> { operators.iter().map(|operator| Ok(operator.usage()?.cpu)).sum() };
    let own = std::process::id();
    let measured = operators.iter().map(|operator| operator.id()).chain([own]).collect();
    let (look, callers_cpu, before, begun) = (CpuSnapshot::now()?, cpu_of(own)?, cpu()?, Instant::now());
    let mut running = JoinSet::new();
    for share in shares {
        running.spawn(call(share, begun + span));
    }
    let (mut spans, mut refused, mut streams) = (Samples::default(), 0, Vec::new());
    while let Some(ended) = running.join_next().await {
        let (taken, turned_away, share) = ended??;
        spans.extend(taken);
        refused += turned_away;
        streams.extend(share);
    }
    let took = begun.elapsed();
    if spans.len() == 0 {
        bail!("no issue of {callers} callers succeeded, {refused} were refused");
    }
    let cpu = cpu()?.saturating_sub(before);
    let callers_cpu = cpu_of(own)?.saturating_sub(callers_cpu);
    let others = CpuSnapshot::now()?.since(&look, &measured);
    Ok((Issued { spans, refused, took, cpu, callers_cpu, others }, streams))
}

async fn call(mut streams: Vec<OpenStream>, until: Instant) -> Result<(Vec<Duration>, usize, Vec<OpenStream>)> {
    let (mut spans, mut refused) = (Vec::new(), 0);
    'all: loop {
        for stream in &mut streams {
            if Instant::now() >= until {
                break 'all;
            }
            match stream.issue().await? {
                Issue::Issued(span) => spans.push(span),
                Issue::Refused => refused += 1,
            }
        }
    }
    Ok((spans, refused, streams))
}

/// Adds and removes pods' entitlement by a label, and times each addition from the API server's answer to the pushed state.
/// A state that arrives before the answer counts as 0.
pub(crate) async fn changes(cluster: &Cluster, streams: &mut [OpenStream]) -> Result<Samples> {
    let mut spans = Vec::new();
    for round in 0..CHANGES.div_ceil(streams.len().max(1)) {
        for stream in streams.iter_mut() {
            let entitled = round % 2 == 1;
            let span = change(cluster, stream, entitled).await?;
            // Removal of an entitlement is pushed with a deliberate delay.
            if entitled {
                spans.push(span);
            }
        }
    }
    let mut samples = Samples::default();
    samples.extend(spans);
    Ok(samples)
}

async fn change(cluster: &Cluster, stream: &mut OpenStream, entitled: bool) -> Result<Duration> {
    let pod = stream.proven.pod.clone();
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &pod.namespace);
    let patch = json!({"metadata": {"labels": {SWITCH: if entitled { "on" } else { "off" }}}});
    let patching = async {
        pods.patch_metadata(&pod.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        anyhow::Ok(Instant::now())
    };
    let pushed = async {
        let state = stream.state().await?;
        if state.identities.is_empty() == entitled {
            bail!("pod {} was told the opposite of what its label says", pod.name);
        }
        Ok(Instant::now())
    };
    let both = async { tokio::try_join!(patching, pushed) };
    let (answered, pushed) = tokio::time::timeout(Duration::from_secs(30), both)
        .await
        .with_context(|| format!("no state within 30 s of a change of pod {}", pod.name))??;
    Ok(pushed.saturating_duration_since(answered))
}
