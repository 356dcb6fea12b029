//! The cost of a namespace full of overlapping WorkloadIdentities to a pod of another namespace: the time from its first
//! connection to its certificate, and the operator's memory. One tenant must not delay another (R48).

use std::{path::Path, time::Instant};

use anyhow::{Context as _, Result, bail};

use crate::{
    cluster::{Cluster, Collection},
    dataset::{self, PodName},
    figures::{Figures, Samples},
    fill,
    operator::{Installed, Operator},
    pod,
    streams::{ControlPlane, Issue, OpenStream},
    tokens,
};

/// The number of pods of another namespace that are timed in each round.
const NEWCOMERS: usize = 100;

const MIB: f64 = 1024.0 * 1024.0;

/// The inputs of the measurement.
pub(crate) struct Crowd<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) figures: &'a Figures,
    pub(crate) installed: &'a Installed,
    /// The folder of the agents' roots.
    pub(crate) dir: &'a Path,
    pub(crate) parallel: usize,
    /// The number of WorkloadIdentities of the crowded namespace.
    pub(crate) size: usize,
}

impl Crowd<'_> {
    /// Times pods of another namespace before the crowd exists, while it is created, afterwards, and after a restart of the
    /// operator.
    pub(crate) async fn measure(&self) -> Result<()> {
        let operator = self.installed.start("uncrowded").await?;
        let control_plane = ControlPlane::read(self.cluster).await?;
        operator.settle().await?;
        let before = operator.usage()?;
        self.newcomers(&control_plane, &operator, "undisturbed").await?;

        let filling = fill::crowd(self.cluster, self.size, self.parallel);
        let meanwhile = self.newcomers(&control_plane, &operator, "while identities are created elsewhere");
        tokio::try_join!(filling, meanwhile)?;
        operator.settle().await?;
        self.newcomers(&control_plane, &operator, "beside a crowded namespace").await?;
        let after = operator.usage()?;
        self.figures.print("identities of a crowded namespace", self.size as f64, "objects");
        self.figures.print("operator memory, undisturbed", before.resident as f64 / MIB, "MiB");
        self.figures.print("operator memory, beside a crowded namespace", after.resident as f64 / MIB, "MiB");
        self.figures.print("operator peak memory, beside a crowded namespace", after.peak as f64 / MIB, "MiB");
        let cpu = after.cpu.saturating_sub(before.cpu);
        self.figures.print("operator CPU for a crowded namespace", cpu.as_secs_f64(), "s");
        drop(operator);

        let operator = self.installed.start("crowded").await?;
        self.figures.print("operator start to ready, crowded", operator.ready_after.as_secs_f64(), "s");
        Ok(())
    }

    /// Times pods of another namespace, one after the other, from the first connection to the certificate.
    async fn newcomers(&self, control_plane: &ControlPlane, operator: &Operator, when: &str) -> Result<()> {
        let mut samples = Samples::default();
        for number in 0..NEWCOMERS {
            let pod = PodName {
                namespace: dataset::namespace_of(0),
                name: format!("newcomer-{}-{number:03}", when.replace(' ', "-")),
                account: dataset::account(0),
                node: dataset::node(0),
                rank: number,
            };
            let pods = Collection::core(Some(&pod.namespace), "pods");
            self.cluster.create(&pods, &pod::object(&pod)).await?;
            let mut proven = tokens::tokens(self.cluster, &control_plane.audience, vec![pod], 1).await?;
            let proven = proven.pop().context("a token for each pod")?;
            let begun = Instant::now();
            let mut stream = OpenStream::open(control_plane, operator.issuer, proven, self.dir).await?;
            if stream.issue().await? == Issue::Refused {
                bail!("the certificate of a pod elsewhere was refused by a limit");
            }
            samples.extend([begun.elapsed()]);
        }
        for (name, share) in [("p50", 0.50), ("p99", 0.99)] {
            self.figures.print(&format!("time to identity, {when}, {name}"), samples.millis(share), "ms");
        }
        Ok(())
    }
}
