//! The CPU time that something costs the operator and the agents, and what all other programs used meanwhile.

use std::time::Duration;

use anyhow::Result;

use crate::{
    figures::Figures,
    machine::{CpuSnapshot, Shares, cpu_of},
    operator::Operator,
    relay::Relay,
};

/// CPU times over a period.
#[derive(Debug, Default)]
pub(crate) struct CpuCost {
    programs: Programs,
    others: Shares,
}

/// The CPU times of the programs that take part.
#[derive(Clone, Copy, Debug, Default)]
struct Programs {
    operator: Duration,
    /// Of this program, which runs all agents and reads the operator's metrics.
    agents: Duration,
    /// Of what is a Service in a cluster, and costs neither the operator nor the agents anything there.
    relays: Duration,
}

/// A period that has begun.
#[derive(Debug)]
pub(crate) struct CpuMeter<'a> {
    operator: &'a Operator,
    relays: &'a [Relay],
    begin: Programs,
    others: CpuSnapshot,
}

impl<'a> CpuMeter<'a> {
    pub(crate) fn begin(operator: &'a Operator, relays: &'a [Relay]) -> Result<Self> {
        let (begin, others) = (Programs::now(operator, relays)?, CpuSnapshot::now()?);
        Ok(Self { operator, relays, begin, others })
    }

    pub(crate) fn end(self) -> Result<CpuCost> {
        let programs = Programs::now(self.operator, self.relays)?.since(self.begin);
        let ids = self.relays.iter().map(Relay::id).chain([self.operator.id(), std::process::id()]);
        Ok(CpuCost { programs, others: CpuSnapshot::now()?.since(&self.others, &ids.collect()) })
    }
}

impl CpuCost {
    /// Combined with an earlier period.
    pub(crate) fn after(self, before: Self) -> Self {
        Self { programs: self.programs.and(before.programs), others: self.others.and(before.others) }
    }

    /// Prints the cost of `name`, which is that of `agents` agents.
    pub(crate) fn print(&self, figures: &Figures, name: &str, agents: usize) {
        let Programs { operator, agents: own, relays } = self.programs;
        for (program, cpu) in [("operator CPU", operator), ("agents' CPU", own), ("relays' CPU", relays)] {
            let each = cpu.as_secs_f64() * 1e6 / agents.max(1) as f64;
            figures.print(&format!("{name}: {program} an agent"), each, "us");
        }
        let others = self.others.all() + self.others.stolen();
        figures.print(&format!("{name}: everything else had"), others, "cores");
    }
}

impl Programs {
    /// Their CPU times so far.
    fn now(operator: &Operator, relays: &[Relay]) -> Result<Self> {
        let relays = relays.iter().map(|relay| cpu_of(relay.id())).sum::<Result<_>>()?;
        Ok(Self { operator: cpu_of(operator.id())?, agents: cpu_of(std::process::id())?, relays })
    }

    fn since(self, before: Self) -> Self {
        Self {
            operator: self.operator.saturating_sub(before.operator),
            agents: self.agents.saturating_sub(before.agents),
            relays: self.relays.saturating_sub(before.relays),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            operator: self.operator + other.operator,
            agents: self.agents + other.agents,
            relays: self.relays + other.relays,
        }
    }
}
