//! The complete run, from an empty API server to the last figure.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    Options, baseline,
    cluster::Cluster,
    crowd::Crowd,
    dataset::{self, Dataset, FLIPS},
    figures::Figures,
    fill,
    foreign::Foreign,
    hostile, install, machine,
    measure::{self, Issued},
    operator::{Installed, Operator},
    relay::Relay,
    rotation::Rotation,
    rounds::FEW,
    sessions::Agents,
    streams::{ControlPlane, OpenStream},
    tokens::{self, Proven},
};

/// Streams over which the callers issue: the number of streams of one address and the rate of one stream are limited.
const STREAMS: usize = 384;

/// The number of alternations between one replica and two.
const ROUNDS: usize = 4;

/// Numbers of concurrent callers.
const CALLERS: [usize; 3] = [1, 8, 32];

/// The number of relays between agents and operators: each may have as many open files as this program, and each agent
/// takes two.
const RELAYS: u8 = 3;

const MIB: f64 = 1024.0 * 1024.0;

pub(crate) async fn run(options: &Options, figures: &Figures) -> Result<()> {
    raise_file_limit(options.agents)?;
    let (cluster, dataset) = (Cluster::connect().await?, options.dataset());
    // In memory, as the agents' volumes are.
    let dir = tempfile::Builder::new().prefix("countersign-load-").tempdir_in(memory())?;
    let kubeconfig = install::install(&cluster, &options.rbac, dir.path()).await?;
    let installed = Installed {
        binary: options.operator.canonicalize().context("the operator's binary; is it built?")?,
        kubeconfig,
        dir: dir.path().to_owned(),
    };
    if let Some(size) = options.crowd {
        fill::fill(&cluster, dataset.first(STREAMS), options.parallel).await?;
        let (dir, parallel) = (dir.path(), options.parallel);
        return Crowd { cluster: &cluster, figures, installed: &installed, dir, parallel, size }.measure().await;
    }
    let run = Run { options, figures, cluster, dataset, installed, dir: dir.path() };
    if options.foreign_only {
        fill::fill(&run.cluster, run.federated(), options.parallel).await?;
        return run.foreign().await;
    }
    if !options.full_only && !options.agents_only {
        fill::fill(&run.cluster, dataset.first(STREAMS), options.parallel).await?;
        if !options.fill_only {
            run.few().await?;
        }
    }
    fill::fill(&run.cluster, dataset, options.parallel).await?;
    if options.fill_only {
        return Ok(());
    }
    run.full().await?;
    run.foreign().await
}

struct Run<'a> {
    options: &'a Options,
    figures: &'a Figures,
    cluster: Cluster,
    dataset: Dataset,
    installed: Installed,
    dir: &'a Path,
}

impl Run<'_> {
    /// Measures an operator with few pods, for comparison with the full dataset.
    async fn few(&self) -> Result<()> {
        let operator = self.installed.start("few").await?;
        let control_plane = ControlPlane::read(&self.cluster).await?;
        let pods = self.proven(&control_plane, 0..STREAMS.min(self.dataset.pods)).await?;
        operator.settle().await?;
        let memory = operator.usage()?.resident;
        self.figures.print("operator with few pods, memory", memory as f64 / MIB, "MiB");
        let streams = OpenStream::open_all(&control_plane, operator.issuer, pods.clone(), self.dir).await?;
        self.issue(&operator, streams, "few pods").await?;
        hostile::measure(&control_plane, operator.issuer, &pods, self.dir, self.figures).await
    }

    async fn full(&self) -> Result<()> {
        // The first start writes the statuses of all identities; a later start is measured.
        let first = self.installed.start("first").await?;
        first.settle().await?;
        let control_plane = ControlPlane::read(&self.cluster).await?;
        drop(first);
        let operator = self.installed.start("full").await?;
        self.figures.print("pods", self.dataset.pods as f64, "pods");
        self.figures.print("WorkloadIdentities", self.dataset.identities as f64, "objects");
        self.figures.print("operator start to ready", operator.ready_after.as_secs_f64(), "s");
        self.figures.print("operator start to ready, CPU", operator.usage()?.cpu.as_secs_f64(), "s");
        operator.settle().await?;
        let usage = operator.usage()?;
        self.figures.print("operator memory without streams", usage.resident as f64 / MIB, "MiB");
        self.figures.print("operator peak memory without streams", usage.peak as f64 / MIB, "MiB");

        let agents = self.options.agents.clamp(1, self.dataset.pods);
        let proven = self.proven(&control_plane, 0..agents.max(STREAMS.min(self.dataset.pods))).await?;
        let mut streams = Vec::new();
        if !self.options.agents_only {
            let few: Vec<Proven> = proven.iter().take(STREAMS).cloned().collect();
            streams = OpenStream::open_all(&control_plane, operator.issuer, few, self.dir).await?;
            streams = self.issue(&operator, streams, "all pods").await?;
            self.changes(&control_plane, &operator).await?;
        }
        let other = self.installed.start("other").await?;
        other.settle().await?;
        if !self.options.agents_only {
            self.two(&control_plane, &operator, &other, streams).await?;
        }
        self.agents(&control_plane, proven.get(..agents).unwrap_or_default(), operator, &other).await
    }

    /// Measures the rate with each number of callers.
    async fn issue(&self, operator: &Operator, mut streams: Vec<OpenStream>, among: &str) -> Result<Vec<OpenStream>> {
        // Filling the API server and requesting tokens keeps it busy for minutes.
        machine::rest().await?;
        let span = Duration::from_secs(self.options.seconds);
        (_, streams) = measure::issue(&[operator], streams, 8, Duration::from_secs(1)).await?;
        let before = baseline::measure(span).await?;
        for callers in CALLERS {
            let issued;
            (issued, streams) = measure::issue(&[operator], streams, callers, span).await?;
            let mut issued = issued;
            let plural = if callers == 1 { "caller" } else { "callers" };
            let name = format!("issue over a stream, {among}, {callers} {plural}");
            issued.print(self.figures, &name);
            if callers == 8 {
                // The speed of the machine just before and just after.
                let baseline = f64::midpoint(before, baseline::measure(span).await?);
                self.figures.print(&format!("floor on all processors, {among}"), baseline, "us");
                let time = 1e6 / issued.rate();
                self.figures.print(&format!("{name}, time an issue"), time, "us");
                self.figures.print(&format!("{name}, time an issue to the floor"), time / baseline, "ratio");
                let name = format!("{name}, CPU of operator and callers");
                self.figures.print(&name, issued.cpu_with_callers(), "us");
            }
        }
        Ok(streams)
    }

    /// Measures whether an issue costs more with two replicas than with one. The measurements alternate, because the speed
    /// of a processor varies with its neighbours and over time, and use separate streams, because each has its own rate
    /// limit.
    async fn two(
        &self,
        control_plane: &ControlPlane,
        operator: &Operator,
        other: &Operator,
        mut streams: Vec<OpenStream>,
    ) -> Result<()> {
        let mut by_two = streams.split_off(streams.len() / 2);
        let moved = by_two.split_off(by_two.len() / 2).into_iter().map(|stream| stream.proven).collect();
        by_two.extend(OpenStream::open_all(control_plane, other.issuer, moved, self.dir).await?);
        machine::rest().await?;
        let span = Duration::from_secs(self.options.seconds);
        let (mut one, mut two): (Option<Issued>, Option<Issued>) = (None, None);
        for _ in 0..ROUNDS {
            let more;
            (more, streams) = measure::issue(&[operator], streams, 8, span).await?;
            one = Some(more.after(one));
            let more;
            (more, by_two) = measure::issue(&[operator, other], by_two, 8, span).await?;
            two = Some(more.after(two));
        }
        for (issued, replicas) in [(one, "one of two replicas"), (two, "two replicas")] {
            if let Some(mut issued) = issued {
                issued.print(self.figures, &format!("issue over a stream, {replicas}, 8 callers"));
            }
        }
        Ok(())
    }

    async fn changes(&self, control_plane: &ControlPlane, operator: &Operator) -> Result<()> {
        let pods = (0..FLIPS).map(dataset::flip).collect();
        let proven = tokens::tokens(&self.cluster, &control_plane.audience, pods, self.options.parallel).await?;
        let mut streams = OpenStream::open_all(control_plane, operator.issuer, proven, self.dir).await?;
        let mut samples = measure::changes(&self.cluster, &mut streams).await?;
        self.figures.print("change of a pod to the push on its stream, p50", samples.millis(0.50), "ms");
        self.figures.print("change of a pod to the push on its stream, p99", samples.millis(0.99), "ms");
        Ok(())
    }

    /// Real agents: the operator's cost of each, the time in which all of them move to another operator, and rotation there.
    async fn agents(
        &self,
        control_plane: &ControlPlane,
        pods: &[Proven],
        operator: Operator,
        other: &Operator,
    ) -> Result<()> {
        let before = operator.usage()?;
        let mut relays = (0..RELAYS).map(|number| Relay::start(number, operator.issuer)).collect::<Result<Vec<_>>>()?;
        let files = self.dir.join("agents");
        let mut agents = Agents::start(control_plane, &relays, pods, &files)?;
        let took = agents.ready().await?;
        self.figures.print("agents", pods.len() as f64, "agents");
        self.figures.print("agents: first connection of all", took.as_secs_f64(), "s");
        operator.settle().await?;
        let usage = operator.usage()?;
        let each = usage.resident.saturating_sub(before.resident) as f64 / pods.len() as f64;
        self.figures.print("operator memory with all agents", usage.resident as f64 / MIB, "MiB");
        let allowed = 300.0 + pods.len() as f64 * 32.0 / 1024.0;
        self.figures.print("300 MiB and 32 KiB a stream", allowed, "MiB");
        self.figures.print("operator memory a stream", each / 1024.0, "KiB");

        relays.iter_mut().try_for_each(|relay| relay.lead_to(other.issuer))?;
        let begun = Instant::now();
        operator.terminate()?;
        let wanted = pods.len() as f64;
        let mut look = tokio::time::interval(Duration::from_millis(100));
        loop {
            look.tick().await;
            let open = other.metric("countersign_sessions").await?;
            if open >= wanted {
                break;
            }
            if begun.elapsed() > Duration::from_secs(180) {
                bail!("{open} of {wanted} agents came back within {:?}", begun.elapsed());
            }
        }
        self.figures.print("re-connection of all agents after a roll-out", begun.elapsed().as_secs_f64(), "s");
        let without = pods.len() - agents.ready_now();
        self.figures.print("agents without an identity during a roll-out", without as f64, "agents");
        operator.stopped().await?;
        let (cluster, figures, span) = (&self.cluster, self.figures, Duration::from_secs(self.options.seconds));
        Rotation { cluster, figures, operator: other, relays: &relays, span }.measure(agents).await
    }

    /// The part of the dataset whose identities federate, with an agent for each pod.
    fn federated(&self) -> Dataset {
        self.dataset.first(self.options.agents.clamp(1, FEW))
    }

    async fn foreign(&self) -> Result<()> {
        let (cluster, figures, installed) = (&self.cluster, self.figures, &self.installed);
        let (dir, parallel, dataset) = (self.dir, self.options.parallel, self.federated());
        Foreign { cluster, figures, installed, dir, parallel, dataset }.measure().await
    }

    async fn proven(&self, control_plane: &ControlPlane, numbers: std::ops::Range<usize>) -> Result<Vec<Proven>> {
        let pods = numbers.map(|number| self.dataset.pod(number)).collect();
        tokens::tokens(&self.cluster, &control_plane.audience, pods, self.options.parallel).await
    }
}

/// Each agent has a socket in this process. The operator and the relays inherit the limit.
fn raise_file_limit(agents: usize) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = agents as u64 + 2_000;
    if hard < wanted {
        bail!("{agents} agents need {wanted} open files, and {hard} are allowed: raise it (ulimit -n), or take fewer");
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising the limit of open files")
}

fn memory() -> &'static Path {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory } else { Path::new("/tmp") }
}
