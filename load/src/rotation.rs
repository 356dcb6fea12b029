//! Rotation with connected agents: the time from a change of the trust domain's bundle until the last agent has acknowledged it,
//! and from a taint until everything that the tainted authority signed has been renewed.
//!
//! Acknowledgements are counted by the operator's counter (see [`rounds`](crate::rounds)), since the status of the TrustDomain is
//! written only seconds later. No authority takes over meanwhile: a spare is in the bundle for 15 minutes before it signs, and every
//! round of bundle changes replaces it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use countersign_core::id::TrustDomain as TrustDomainName;
use countersign_crds::{AuthorityKind, AuthorityState, TrustDomain};
use jiff::Timestamp;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    baseline,
    cluster::Cluster,
    counts::{Counts, Timeline},
    cpu_cost::CpuMeter,
    dataset::TRUST_DOMAIN,
    figures::Figures,
    operator::Operator,
    relay::Relay,
    rounds::{FEW, ROUNDS, Round, Rounds, check},
    sessions::Agents,
    waits::{TIMEOUT, until_connected, until_counted, until_leading, until_still},
};

/// The inputs of the measurement.
#[derive(Debug)]
pub(crate) struct Rotation<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) figures: &'a Figures,
    /// The only operator that runs.
    pub(crate) operator: &'a Operator,
    pub(crate) relays: &'a [Relay],
    /// Duration of a measurement of the floor.
    pub(crate) span: Duration,
}

/// A change of `spec.authority`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The spare authorities are replaced, so the bundle has other keys. Nothing is renewed.
    Bundle,
    /// The active X.509 authority is tainted: its spare signs at once, a new spare is in the bundle, and agents renew.
    Taint,
}

impl Rotation<'_> {
    /// Measures with all agents, then with [`FEW`] of them.
    pub(crate) async fn measure(&self, mut agents: Agents) -> Result<()> {
        until_leading(self.operator).await?;
        until_counted(self.operator).await?;
        if agents.len() > FEW {
            self.bundle_changes(&agents).await?;
            agents.keep(FEW);
            until_connected(self.operator, agents.len()).await?;
            until_counted(self.operator).await?;
        }
        self.bundle_changes(&agents).await?;
        self.taints(&agents).await
    }

    async fn bundle_changes(&self, agents: &Agents) -> Result<()> {
        let mut rounds = self.rounds(Change::Bundle, agents).await?;
        let change = format!("bundle change, {} agents", agents.len());
        rounds.acknowledged.print(self.figures, &format!("{change}: acknowledged"));
        rounds.cost.print(self.figures, &change, agents.len() * ROUNDS);
        Ok(())
    }

    async fn taints(&self, agents: &Agents) -> Result<()> {
        let before = baseline::measure(self.span).await?;
        let mut rounds = self.rounds(Change::Taint, agents).await?;
        // The speed of the machine just before and just after.
        let floor = f64::midpoint(before, baseline::measure(self.span).await?);
        let change = format!("taint, {} agents", agents.len());
        rounds.issued.print(self.figures, &format!("{change}: leaf issued"));
        rounds.acknowledged.print(self.figures, &format!("{change}: acknowledged"));
        rounds.cost.print(self.figures, &change, agents.len() * ROUNDS);
        self.figures.print("floor on all processors, taint", floor, "us");
        let each = rounds.issued.last.millis(0.5) * 1000.0 / agents.len() as f64;
        self.figures.print(&format!("{change}: leaf issued, last, time a leaf"), each, "us");
        Ok(())
    }

    async fn rounds(&self, change: Change, agents: &Agents) -> Result<Rounds> {
        let count = agents.len() as u64;
        let issued = if change == Change::Taint { count } else { 0 };
        let wanted = Counts { pushed: count, acknowledged: count, issued };
        Rounds::measure(&format!("{change:?}"), wanted, async || self.round(change, agents, wanted).await).await
    }

    async fn round(&self, change: Change, agents: &Agents, wanted: Counts) -> Result<Result<Round, String>> {
        let trust_domain: TrustDomainName = TRUST_DOMAIN.parse()?;
        let (_, newest) = agents.bundle_sequences(&trust_domain);

        let before = until_still(self.operator).await?;
        let authority = self.authority(change).await?;
        let meter = CpuMeter::begin(self.operator, self.relays)?;
        let patch = Patch::Merge(json!({"spec": {"authority": authority}}));
        let domains: Api<TrustDomain> = Api::all(self.cluster.client.clone());
        domains.patch(TRUST_DOMAIN, &PatchParams::default(), &patch).await.context("patching the TrustDomain")?;
        let timeline = Timeline::follow(self.operator.http, Instant::now(), before, wanted, TIMEOUT).await?;
        let cost = meter.end()?;

        let (oldest, _) = agents.bundle_sequences(&trust_domain);
        Ok(check(timeline.end(), wanted.acknowledged, newest, oldest).map(|()| Round { timeline, cost }))
    }

    /// What is patched into `spec.authority`.
    async fn authority(&self, change: Change) -> Result<Value> {
        match change {
            // In whole seconds, as authorities are prepared: the new spare is not of a time before it.
            Change::Bundle => {
                let now = Timestamp::from_second(Timestamp::now().as_second())?;
                Ok(json!({"rotation": {"after": now.to_string()}}))
            }
            Change::Taint => {
                let domains: Api<TrustDomain> = Api::all(self.cluster.client.clone());
                let domain = domains.get(TRUST_DOMAIN).await.context("reading the TrustDomain")?;
                let mut tainted = domain.spec.authority.unwrap_or_default().tainted;
                let mut authorities = domain.status.unwrap_or_default().authorities.into_iter();
                let active =
                    authorities.find(|one| one.kind == AuthorityKind::X509 && one.state == AuthorityState::Active);
                tainted.push(active.context("the status names no active X.509 authority")?.id);
                Ok(json!({"tainted": tainted}))
            }
        }
    }
}
