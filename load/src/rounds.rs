//! Changes with connected agents, in rounds: when the first, half, 99 % and the last of the agents had answered.
//!
//! Acknowledgements are counted where they arrive, by the operator's counter, which does not say of which State they are. Before a
//! change nothing is in flight, so while the operator has pushed exactly one State to each agent and received exactly one
//! acknowledgement from each, all of them are of the State with this change. A round in which anything else was pushed is
//! discarded; so is one after which an agent does not publish the new bundle.

use anyhow::{Context as _, Result, bail};

use crate::{
    counts::{Counts, Timeline},
    cpu_cost::CpuCost,
    figures::{Figures, Samples, say},
};

/// The agents of measurements with few of them.
pub(crate) const FEW: usize = 1_000;

/// Changes of each kind.
pub(crate) const ROUNDS: usize = 5;

/// Changes of each kind at most, with those that were discarded.
const ATTEMPTS: usize = 8;

/// One change with all its acknowledgements.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) timeline: Timeline,
    pub(crate) cost: CpuCost,
}

/// The rounds of a change.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) acknowledged: Milestones,
    /// Empty if the change makes nobody renew.
    pub(crate) issued: Milestones,
    pub(crate) cost: CpuCost,
}

/// When something arrived from a part of the agents, over several rounds.
#[derive(Debug, Default)]
pub(crate) struct Milestones {
    first: Samples,
    half: Samples,
    most: Samples,
    pub(crate) last: Samples,
}

impl Rounds {
    /// Repeats `round`, after which the counts have grown by `wanted`, until [`ROUNDS`] could be used. The inner error of `round` is
    /// why it must be discarded.
    pub(crate) async fn measure(
        what: &str,
        wanted: Counts,
        mut round: impl AsyncFnMut() -> Result<Result<Round, String>>,
    ) -> Result<Self> {
        let (mut rounds, mut done, agents) = (Self::default(), 0, wanted.acknowledged);
        for _ in 0..ATTEMPTS {
            let Round { timeline, cost } = match round().await? {
                Ok(round) => round,
                Err(why) => {
                    say(format_args!("{what}: a round is discarded: {why}"));
                    continue;
                }
            };
            rounds.acknowledged.add(&timeline, |counts| counts.acknowledged, agents)?;
            if wanted.issued > 0 {
                rounds.issued.add(&timeline, |counts| counts.issued, wanted.issued)?;
            }
            rounds.cost = cost.after(rounds.cost);
            done += 1;
            say(format_args!("{what}, round {done} of {ROUNDS}: all {agents} agents have acknowledged"));
            if done == ROUNDS {
                return Ok(rounds);
            }
        }
        bail!("{what}: of {ATTEMPTS} rounds only {done} could be used, and {ROUNDS} are needed")
    }
}

impl Milestones {
    fn add(&mut self, timeline: &Timeline, count: impl Fn(&Counts) -> u64, agents: u64) -> Result<()> {
        let parts = [&mut self.first, &mut self.half, &mut self.most, &mut self.last];
        for (samples, wanted) in parts.into_iter().zip(ranks(agents)) {
            let reached = timeline.reached(&count, wanted).context("a round ends when everything was counted")?;
            samples.extend([reached]);
        }
        Ok(())
    }

    /// Prints the medians of all rounds, and the slowest round.
    pub(crate) fn print(&mut self, figures: &Figures, name: &str) {
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
pub(crate) fn check(counts: Counts, agents: u64, newest: u64, oldest: u64) -> Result<(), String> {
    if counts.pushed != agents || counts.acknowledged != agents {
        return Err(format!("one State and one acknowledgement were expected of each of {agents} agents: {counts:?}"));
    }
    if oldest <= newest {
        return Err(format!("an agent publishes sequence {oldest}, and {newest} was published before the change"));
    }
    Ok(())
}

/// How many agents have answered at the first answer, at 50 %, at 99 % and at the last.
fn ranks(agents: u64) -> [u64; 4] {
    [1, agents.div_ceil(2), (agents * 99).div_ceil(100), agents]
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
