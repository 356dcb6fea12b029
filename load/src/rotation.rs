//! Rotation with connected agents: the time from a change of the trust domain's bundle until the last agent has acknowledged it,
//! and from a taint until everything that the tainted authority signed has been renewed.
//!
//! Acknowledgements are counted where they arrive: by the operator's counter, since the status of the TrustDomain is written only
//! seconds later. The counter does not say of which bundle they are. Before a change nothing is in flight, so while the operator has
//! pushed exactly one State to each agent and received exactly one acknowledgement from each, all of them are of the State with
//! this bundle. A round in which anything else was pushed is discarded; so is one after which an agent does not publish the new
//! bundle. No authority takes over meanwhile: a spare is in the bundle for 15 minutes before it signs, and every round of bundle
//! changes replaces it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
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
    cpu_cost::{CpuCost, CpuMeter},
    dataset::TRUST_DOMAIN,
    figures::{Figures, Samples, say},
    operator::Operator,
    relay::Relay,
    sessions::Agents,
};

/// The agents that stay for the measurements with few of them.
const FEW: usize = 1_000;

/// Changes of each kind.
const ROUNDS: usize = 5;

/// Changes of each kind at most, with those that were discarded.
const ATTEMPTS: usize = 8;

/// Timeout for a change to be acknowledged by all agents, and for conditions before it.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Timeout for the leader to write the statuses of all identities.
const STATUS_TIMEOUT: Duration = Duration::from_secs(600);

/// For how long nothing may have been in flight before a change. It is longer than the 5 s for which a spare is published before
/// it may sign unannounced, and than the 2 s after a change in which the leader asks for acknowledgements.
const STILL: Duration = Duration::from_secs(6);

/// Longer than the time between two counts of the streams, from which the leader writes statuses.
const COUNTED: Duration = Duration::from_secs(32);

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

/// When something arrived from a part of the agents, over several rounds.
#[derive(Debug, Default)]
struct Milestones {
    first: Samples,
    half: Samples,
    most: Samples,
    last: Samples,
}

/// The rounds of a change.
#[derive(Debug, Default)]
struct Rounds {
    acknowledged: Milestones,
    issued: Milestones,
    cost: CpuCost,
}

impl Rotation<'_> {
    /// Measures with all agents, then with [`FEW`] of them.
    pub(crate) async fn measure(&self, mut agents: Agents) -> Result<()> {
        self.until_leading().await?;
        self.until_counted().await?;
        if agents.len() > FEW {
            self.bundle_changes(&agents).await?;
            agents.keep(FEW);
            self.until_connected(agents.len()).await?;
            self.until_counted().await?;
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
        let (mut rounds, mut done) = (Rounds::default(), 0);
        for _ in 0..ATTEMPTS {
            let (timeline, cost) = match self.round(change, agents).await? {
                Ok(round) => round,
                Err(why) => {
                    say(format_args!("{change:?}: a round is discarded: {why}"));
                    continue;
                }
            };
            rounds.acknowledged.add(&timeline, |counts| counts.acknowledged, agents.len())?;
            if change == Change::Taint {
                rounds.issued.add(&timeline, |counts| counts.issued, agents.len())?;
            }
            rounds.cost = cost.after(rounds.cost);
            done += 1;
            say(format_args!("{change:?}, round {done} of {ROUNDS}: all {} agents have acknowledged", agents.len()));
            if done == ROUNDS {
                return Ok(rounds);
            }
        }
        bail!("{change:?}: of {ATTEMPTS} rounds only {done} could be used, and {ROUNDS} are needed")
    }

    /// One change with all its acknowledgements. The error is why the round must be discarded.
    async fn round(&self, change: Change, agents: &Agents) -> Result<Result<(Timeline, CpuCost), String>> {
        let trust_domain: TrustDomainName = TRUST_DOMAIN.parse()?;
        let (_, newest) = agents.bundle_sequences(&trust_domain);
        let count = agents.len() as u64;
        let issued = if change == Change::Taint { count } else { 0 };
        let wanted = Counts { pushed: count, acknowledged: count, issued };

        let before = self.until_still().await?;
        let authority = self.authority(change).await?;
        let meter = CpuMeter::begin(self.operator, self.relays)?;
        let patch = Patch::Merge(json!({"spec": {"authority": authority}}));
        let domains: Api<TrustDomain> = Api::all(self.cluster.client.clone());
        domains.patch(TRUST_DOMAIN, &PatchParams::default(), &patch).await.context("patching the TrustDomain")?;
        let timeline = Timeline::follow(self.operator.http, Instant::now(), before, wanted, TIMEOUT).await?;
        let cost = meter.end()?;

        let (oldest, _) = agents.bundle_sequences(&trust_domain);
        Ok(check(timeline.end(), count, newest, oldest).map(|()| (timeline, cost)))
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

    async fn until_leading(&self) -> Result<()> {
        until("waiting for leadership", TIMEOUT, async || {
            let leads = self.operator.metric("countersign_leader").await?;
            Ok(if leads == 1.0 { Ok(()) } else { Err("the operator does not lead".to_owned()) })
        })
        .await
    }

    async fn until_connected(&self, agents: usize) -> Result<()> {
        until("waiting for the other agents' sessions to end", TIMEOUT, async || {
            let open = self.operator.metric("countersign_sessions").await?;
            Ok(if open == agents as f64 { Ok(()) } else { Err(format!("{open} sessions are open, not {agents}")) })
        })
        .await
    }

    /// Waits until nothing was pushed, issued or acknowledged for [`STILL`].
    async fn until_still(&self) -> Result<Counts> {
        let (mut last, mut since) = (Counts::read(self.operator.http).await?, Instant::now());
        until("waiting until nothing is in flight", TIMEOUT, async || {
            let now = Counts::read(self.operator.http).await?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            Ok(if since.elapsed() >= STILL { Ok(now) } else { Err(format!("the counts still change: {now:?}")) })
        })
        .await
    }

    /// Waits until the leader has written the statuses that follow from the present streams: until it has counted the streams and
    /// hardly reconciled anything since the count before.
    async fn until_counted(&self) -> Result<()> {
        const HARDLY: f64 = 32.0;
        let reconciles =
            async || anyhow::Ok(self.operator.http.metrics().await?.sum("countersign_reconcile_seconds_count"));
        let (begun, mut last, mut since) = (Instant::now(), reconciles().await?, Instant::now());
        let counted = until("waiting until statuses are written", STATUS_TIMEOUT, async || {
            let now = reconciles().await?;
            if now - last > HARDLY {
                (last, since) = (now, Instant::now());
            }
            let missing = || format!("{:.0} reconciles within {:?}", now - last, since.elapsed());
            Ok(if since.elapsed() >= COUNTED { Ok(()) } else { Err(missing()) })
        });
        counted.await?;
        say(format_args!("statuses are written after {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(())
    }
}

impl Milestones {
    fn add(&mut self, timeline: &Timeline, count: impl Fn(&Counts) -> u64, agents: usize) -> Result<()> {
        let parts = [&mut self.first, &mut self.half, &mut self.most, &mut self.last];
        for (samples, wanted) in parts.into_iter().zip(ranks(agents)) {
            let reached = timeline.reached(&count, wanted).context("a round ends when everything was counted")?;
            samples.extend([reached]);
        }
        Ok(())
    }

    /// Prints the medians of all rounds, and the slowest round.
    fn print(&mut self, figures: &Figures, name: &str) {
        let parts = [("first", &mut self.first), ("p50", &mut self.half), ("p99", &mut self.most)];
        for (part, samples) in parts {
            figures.print(&format!("{name}, {part}"), samples.millis(0.5) / 1000.0, "s");
        }
        figures.print(&format!("{name}, last"), self.last.millis(0.5) / 1000.0, "s");
        figures.print(&format!("{name}, last, slowest round"), self.last.millis(1.0) / 1000.0, "s");
    }
}

/// Whether what was counted can only be of one State for each agent: `newest` is the newest sequence of the bundle that an agent
/// published before the change, `oldest` the oldest one afterwards.
fn check(counts: Counts, agents: u64, newest: u64, oldest: u64) -> Result<(), String> {
    if counts.pushed != agents || counts.acknowledged != agents {
        return Err(format!("one State and one acknowledgement were expected of each of {agents} agents: {counts:?}"));
    }
    if oldest <= newest {
        return Err(format!("an agent publishes sequence {oldest}, and {newest} was published before the change"));
    }
    Ok(())
}

/// How many agents have answered at the first answer, at 50 %, at 99 % and at the last.
fn ranks(agents: usize) -> [u64; 4] {
    [1, agents.div_ceil(2), (agents * 99).div_ceil(100), agents].map(|rank| rank as u64)
}

/// Waits until `look` finds what it looks for; until then it says what is missing.
async fn until<T>(
    what: &str,
    timeout: Duration,
    mut look: impl AsyncFnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let (begun, mut tick) = (Instant::now(), tokio::time::interval(Duration::from_millis(250)));
    loop {
        tick.tick().await;
        match look().await? {
            Ok(found) => return Ok(found),
            Err(missing) if begun.elapsed() > timeout => bail!("{what}: after {timeout:?} {missing}"),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, check, ranks};

    #[test]
    fn a_round_counts_only_if_each_agent_got_one_state_and_has_the_new_bundle() {
        let counts = Counts { pushed: 20, acknowledged: 20, issued: 3 };
        assert_eq!(check(counts, 20, 7, 8), Ok(()));
        assert!(check(counts, 20, 8, 8).unwrap_err().contains("sequence 8"));
        assert!(check(Counts { pushed: 21, ..counts }, 20, 7, 8).unwrap_err().contains("pushed: 21"));
        assert!(check(Counts { acknowledged: 21, ..counts }, 20, 7, 8).unwrap_err().contains("acknowledged: 21"));
    }

    #[test]
    fn a_part_of_the_agents_is_rounded_up() {
        assert_eq!(ranks(10_000), [1, 5_000, 9_900, 10_000]);
        assert_eq!(ranks(1_000), [1, 500, 990, 1_000]);
        assert_eq!(ranks(3), [1, 2, 3, 3]);
    }
}
