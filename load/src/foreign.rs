//! Federation with connected agents: the time from the poll that sees a change of a remote trust domain's bundle until the last agent
//! has acknowledged it, and the operator's memory of a stream whose identity federates with ten remote trust domains.

use std::path::Path;

use anyhow::{Context as _, Result};
use countersign_core::id::TrustDomain as TrustDomainName;
use tempfile::TempDir;

use crate::{
    bundle_endpoint::BundleEndpoint,
    cluster::Cluster,
    counts::{Counts, Timeline},
    cpu_cost::CpuMeter,
    dataset::{self, Dataset, PEERS, POLLED},
    figures::{Figures, say},
    operator::{Installed, Operator},
    relay::Relay,
    remotes,
    rounds::{ROUNDS, Round, Rounds, check},
    sessions::Agents,
    streams::ControlPlane,
    tokens::{self, Proven},
    waits::{TIMEOUT, until, until_counted, until_leading, until_still},
};

/// Measurements of memory with foreign bundles and without.
const PAIRS: usize = 5;

const KIB: f64 = 1024.0;

/// The inputs of the measurement.
pub(crate) struct Foreign<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) figures: &'a Figures,
    pub(crate) installed: &'a Installed,
    /// The folder of the agents' files.
    pub(crate) dir: &'a Path,
    pub(crate) parallel: usize,
    /// What the API server is filled with, or the first part of it: an agent for each pod.
    pub(crate) dataset: Dataset,
}

/// An operator with its agents.
struct Connected {
    operator: Operator,
    relays: Vec<Relay>,
    agents: Agents,
    /// Of the agents.
    _files: TempDir,
    /// Resident memory of the operator with the agents less that without, bytes for each agent.
    memory: f64,
}

impl Foreign<'_> {
    /// Measures with operators of its own. No other may run.
    pub(crate) async fn measure(&self) -> Result<()> {
        let endpoint = BundleEndpoint::start(remotes::document(POLLED)?).await?;
        remotes::apply_polled(self.cluster, &endpoint).await?;
        let length = remotes::apply_peers(self.cluster).await?;
        let pods = self.pods().await?;
        self.changes(&endpoint, &pods).await?;
        self.figures.print(&format!("documents of {PEERS} foreign bundles"), length as f64 / KIB, "KiB");
        self.memory(&pods).await
    }

    async fn pods(&self) -> Result<Vec<Proven>> {
        let operator = self.installed.start("foreign").await?;
        let control_plane = ControlPlane::read(self.cluster).await?;
        let pods = (0..self.dataset.pods).map(|number| self.dataset.pod(number)).collect();
        let pods = tokens::tokens(self.cluster, &control_plane.audience, pods, self.parallel).await?;
        stop(operator).await?;
        Ok(pods)
    }

    /// Changes of the bundle that is polled.
    async fn changes(&self, endpoint: &BundleEndpoint, pods: &[Proven]) -> Result<()> {
        let connected = self.connect(&[POLLED.to_owned()], pods).await?;
        until_counted(&connected.operator).await?;
        let count = pods.len() as u64;
        let wanted = Counts { pushed: count, acknowledged: count, issued: 0 };
        let what = "change of a foreign bundle";
        let mut rounds = Rounds::measure(what, wanted, async || connected.round(endpoint, wanted).await).await?;
        let change = format!("{what}, {count} agents");
        rounds.acknowledged.print(self.figures, &format!("{change}: acknowledged"));
        rounds.cost.print(self.figures, &change, pods.len() * ROUNDS);
        connected.stop().await
    }

    /// The memory of a stream without foreign bundles and with those of all peers, in turn: it varies from one operator to the next.
    async fn memory(&self, pods: &[Proven]) -> Result<()> {
        let peers: Vec<String> = (0..PEERS).map(dataset::peer).collect();
        let (mut without, mut with, mut more) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 1..=PAIRS {
            let [none, all] = [self.memory_with(&[], pods).await?, self.memory_with(&peers, pods).await?];
            say(format_args!("pair {pair} of {PAIRS}: {none:.2} KiB a stream, {all:.2} with {PEERS} foreign bundles"));
            without.push(none);
            with.push(all);
            more.push(all - none);
        }
        let name = "operator memory a stream";
        self.figures.print(&format!("{name}, no foreign bundle"), median(without), "KiB");
        self.figures.print(&format!("{name}, {PEERS} foreign bundles"), median(with), "KiB");
        let [least, most] = [f64::min, f64::max].map(|pick| more.iter().copied().reduce(pick).unwrap_or(f64::NAN));
        self.figures.print(&format!("{name}, for {PEERS} foreign bundles"), median(more), "KiB");
        self.figures.print(&format!("{name}, for {PEERS} foreign bundles, least pair"), least, "KiB");
        self.figures.print(&format!("{name}, for {PEERS} foreign bundles, greatest pair"), most, "KiB");
        Ok(())
    }

    async fn memory_with(&self, foreign: &[String], pods: &[Proven]) -> Result<f64> {
        let connected = self.connect(foreign, pods).await?;
        let memory = connected.memory / KIB;
        connected.stop().await?;
        Ok(memory)
    }

    /// A new operator with an agent for each pod, which has the bundles of these foreign trust domains and no others.
    async fn connect(&self, foreign: &[String], pods: &[Proven]) -> Result<Connected> {
        remotes::federate(self.cluster, self.dataset, foreign, self.parallel).await?;
        // The first one writes the statuses that follow from it.
        let first = self.installed.start("foreign-first").await?;
        until_leading(&first).await?;
        first.settle().await?;
        stop(first).await?;
        let operator = self.installed.start("foreign").await?;
        let control_plane = ControlPlane::read(self.cluster).await?;
        until_leading(&operator).await?;
        operator.settle().await?;
        let before = operator.usage()?.resident;
        let relays = vec![Relay::start(0, operator.issuer)?];
        // Their own, so that no agent finds what an earlier one left.
        let files = TempDir::with_prefix_in("agents-", self.dir)?;
        let mut agents = Agents::start(&control_plane, &relays, pods, files.path())?;
        agents.ready().await?;
        until_bundles(&agents, foreign).await?;
        operator.settle().await?;
        let memory = operator.usage()?.resident.saturating_sub(before) as f64 / pods.len() as f64;
        Ok(Connected { operator, relays, agents, _files: files, memory })
    }
}

impl Connected {
    async fn round(&self, endpoint: &BundleEndpoint, wanted: Counts) -> Result<Result<Round, String>> {
        let polled: TrustDomainName = POLLED.parse()?;
        let (_, newest) = self.agents.bundle_sequences(&polled);
        let before = until_still(&self.operator).await?;
        endpoint.publish(remotes::document(POLLED)?);
        let sent = tokio::time::timeout(TIMEOUT, endpoint.sent()).await.context("waiting for a poll")??;
        // Only now: what the agents use while they wait for the poll is no cost of the change.
        let meter = CpuMeter::begin(&self.operator, &self.relays)?;
        let timeline = Timeline::follow(self.operator.http, sent, before, wanted, TIMEOUT).await?;
        let cost = meter.end()?;
        let (oldest, _) = self.agents.bundle_sequences(&polled);
        Ok(check(timeline.end(), wanted.acknowledged, newest, oldest).map(|()| Round { timeline, cost }))
    }

    async fn stop(self) -> Result<()> {
        drop(self.agents);
        stop(self.operator).await
    }
}

/// Stops an operator so that the next one leads at once.
async fn stop(operator: Operator) -> Result<()> {
    operator.terminate()?;
    operator.stopped().await
}

/// Waits until each agent publishes the bundles of these foreign trust domains.
async fn until_bundles(agents: &Agents, foreign: &[String]) -> Result<()> {
    for name in foreign {
        let trust_domain: TrustDomainName = name.parse()?;
        until("waiting for foreign bundles", TIMEOUT, async || {
            let (oldest, _) = agents.bundle_sequences(&trust_domain);
            Ok(if oldest > 0 { Ok(()) } else { Err(format!("an agent has no bundle of {name}")) })
        })
        .await?;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
