//! How an agent's build stands to this operator. Every agent released in the last twelve months is served; one that is
//! older, or lacks what is required, is served as far as it understands, counted, and told of once.

use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;

use super::record::AgentInfo;
use crate::metrics::IssuerMetrics;

/// How many minor versions back an agent is not outdated: a release a quarter, for twelve months.
pub const SUPPORTED_MINORS: u64 = 4;

/// What every agent must be able to do beyond version 1 of the protocol.
pub const REQUIRED: &[&str] = &[];

/// How long a release is supported, for messages.
const SUPPORTED: Duration = Duration::from_secs(365 * 24 * 3600);

/// Major and minor version of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Changes with what is incompatible.
    pub major: u64,
    /// Changes with each release.
    pub minor: u64,
}

impl Version {
    /// Reads `major.minor` and whatever comes after it; `None` where it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().strip_prefix('v').unwrap_or(text.trim());
        let mut parts = text.split(['.', '-', '+']);
        let mut number = || parts.next().filter(|part| part.len() <= 6)?.parse().ok();
        Some(Self { major: number()?, minor: number()? })
    }

    /// This operator's.
    #[must_use]
    pub fn own() -> Self {
        Self::parse(env!("CARGO_PKG_VERSION")).unwrap_or(Self { major: 0, minor: 0 })
    }
}

/// How an agent stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupportStatus {
    /// As it should be: of the same time, or newer.
    Current,
    /// To be replaced: why.
    Outdated(String),
}

/// By what agents are judged; [`SupportPolicy::default`] outside of tests.
#[derive(Clone, Copy, Debug)]
pub struct SupportPolicy {
    /// The operator's version, from which is counted back.
    pub own: Version,
    /// What every agent must be able to do.
    pub required: &'static [&'static str],
}

impl Default for SupportPolicy {
    fn default() -> Self {
        Self { own: Version::own(), required: REQUIRED }
    }
}

impl SupportPolicy {
    /// How an agent stands to this.
    #[must_use]
    pub fn judge(&self, agent: &AgentInfo) -> SupportStatus {
        judge(agent, self.own, self.required)
    }
}

/// Judges an agent by what it says of itself. One whose version cannot be read is current unless it lacks what is required.
#[must_use]
fn judge(agent: &AgentInfo, own: Version, required: &[&str]) -> SupportStatus {
    let lacks = required.iter().find(|name| !agent.capabilities.iter().any(|known| known == *name));
    if let Some(name) = lacks {
        return SupportStatus::Outdated(format!("the agent cannot {name:?}, which this operator needs; {WHAT_TO_DO}"));
    }
    let Some(version) = Version::parse(&agent.version) else { return SupportStatus::Current };
    let oldest = Version { major: own.major, minor: own.minor.saturating_sub(SUPPORTED_MINORS) };
    if version >= oldest {
        return SupportStatus::Current;
    }
    let (months, Version { major, minor }) = (SUPPORTED.as_secs() / (30 * 24 * 3600), oldest);
    let found = format!("{}.{}", version.major, version.minor);
    SupportStatus::Outdated(format!(
        "the agent is of version {found}, and {major}.{minor} is the oldest of the last {months} months; {WHAT_TO_DO}"
    ))
}

const WHAT_TO_DO: &str = "restart the pod to have today's injected";

/// An agent as it is counted for as long as its session is open.
#[derive(Debug)]
pub struct CountedAgent(Vec<Gauge>);

impl CountedAgent {
    /// Counts an agent.
    #[must_use]
    pub fn new(metrics: &IssuerMetrics, agent: &AgentInfo, standing: &SupportStatus) -> Self {
        let version = Version::parse(&agent.version).map(|version| format!("{}.{}", version.major, version.minor));
        let mut gauges = vec![metrics.agents(version)];
        if matches!(standing, SupportStatus::Outdated(_)) {
            gauges.push(metrics.agents_outdated.clone());
        }
        for gauge in &gauges {
            gauge.inc();
        }
        Self(gauges)
    }
}

impl Drop for CountedAgent {
    fn drop(&mut self) {
        for gauge in &self.0 {
            gauge.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AgentInfo, CountedAgent, IssuerMetrics, SUPPORTED_MINORS, SupportStatus, Version, judge};

    fn version(text: &str) -> AgentInfo {
        AgentInfo::new(text, &[])
    }

    #[test]
    fn a_version_is_read_tolerantly() {
        let v = |major, minor| Some(Version { major, minor });
        for (text, read) in [
            ("0.1.0", v(0, 1)),
            ("v1.2.3", v(1, 2)),
            (" 1.2 ", v(1, 2)),
            ("1.2.3-rc.1+build", v(1, 2)),
            ("1.2-dirty", v(1, 2)),
            ("1.2.3.4.5", v(1, 2)),
            ("", None),
            ("1", None),
            ("main", None),
            ("1.x", None),
            ("-1.2", None),
            ("99999999999999999999.1", None),
            ("1.9999999", None),
        ] {
            assert_eq!(Version::parse(text), read, "{text:?}");
        }
        assert!(Version::parse(env!("CARGO_PKG_VERSION")).is_some());
    }

    #[test]
    fn an_agent_is_outdated_beyond_the_supported_window_and_not_before() {
        let own = Version { major: 1, minor: 10 };
        let outdated = |text: &str| matches!(judge(&version(text), own, &[]), SupportStatus::Outdated(_));
        assert!(!outdated(&format!("1.{}.0", own.minor - SUPPORTED_MINORS)));
        assert!(outdated(&format!("1.{}.9", own.minor - SUPPORTED_MINORS - 1)));
        assert!(outdated("0.99.0"));
        for newer in ["1.10.0", "1.11.0", "2.0.0", "unknown"] {
            assert!(!outdated(newer), "{newer}");
        }
        let SupportStatus::Outdated(why) = judge(&version("1.2.0"), own, &[]) else { panic!("outdated") };
        assert!(why.contains("1.2") && why.contains("1.6") && why.contains("restart"), "{why}");
    }

    #[test]
    fn an_agent_that_lacks_what_is_required_is_outdated() {
        let own = Version::own();
        let agent = AgentInfo::new("0.1.0", &["move".to_owned(), "something new".to_owned()]);
        assert_eq!(judge(&agent, own, &["move"]), SupportStatus::Current);
        let SupportStatus::Outdated(why) = judge(&agent, own, &["move", "fly"]) else { panic!("outdated") };
        assert!(why.contains("fly"), "{why}");
    }

    #[test]
    fn an_agent_is_counted_while_its_session_is_open() {
        let metrics = IssuerMetrics::default();
        let counted = CountedAgent::new(&metrics, &version("0.1.7"), &SupportStatus::Outdated(String::new()));
        assert_eq!((metrics.agents(Some("0.1".to_owned())).get(), metrics.agents_outdated.get()), (1, 1));
        drop(counted);
        assert_eq!((metrics.agents(Some("0.1".to_owned())).get(), metrics.agents_outdated.get()), (0, 0));
    }
}
