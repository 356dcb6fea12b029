//! What the demo shows: who talked to whom, and with which SVID, as its pods write it: a JSON object a line.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::kube::Kubectl;
use crate::progress::say;
use crate::sh::{Run as _, wait_for};

/// Where the demo runs.
pub(crate) const NAMESPACE: &str = "countersign-demo";

/// Its deployments; each labels its pods `app: <name>`, and so is its container called.
const WORKLOADS: [&str; 2] = ["caller", "callee"];

/// A handshake that both sides accepted, as one of them saw it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Handshake {
    event: String,
    local: String,
    peer: String,
    /// Of our leaf, hexadecimal.
    serial: String,
    issuer: String,
    /// RFC 3339.
    not_after: String,
}

/// Prints the newest handshake of each workload, and its SVID; waits for one that has none yet.
pub(crate) fn report(kubectl: &Kubectl) -> Result<()> {
    let mut seen = Vec::new();
    for workload in WORKLOADS {
        let what = format!("a handshake in the log of {workload}");
        let handshake = wait_for(&what, Duration::from_secs(60), || newest(kubectl, workload)).with_context(|| {
            format!("the demo's {workload} has talked to nobody; see `kubectl -n {NAMESPACE} logs`")
        })?;
        seen.push((workload, handshake));
    }
    say("\nWho talked to whom, over mTLS:");
    for (workload, handshake) in &seen {
        say(format!("  {workload:7} {} ⇄ {}", handshake.local, handshake.peer));
    }
    say("\nTheir SVIDs:");
    for (_, handshake) in &seen {
        say(format!("  {}", handshake.local));
        say(format!("    serial {}", handshake.serial));
        say(format!("    issued by {}, valid until {}", handshake.issuer, handshake.not_after));
    }
    let [(_, one), (_, other)] = seen.as_slice() else { bail!("the demo has two workloads") };
    if (&one.local, &one.peer) != (&other.peer, &other.local) {
        bail!("the two sides disagree on who they are: {one:?} and {other:?}");
    }
    Ok(())
}

fn newest(kubectl: &Kubectl, workload: &str) -> Result<Option<Handshake>> {
    let selector = format!("app={workload}");
    let args = ["logs", "--namespace", NAMESPACE, "--selector", &selector, "--container", workload, "--tail=200"];
    Ok(last_handshake(&kubectl.cmd(&args).read()?))
}

/// The last line that is a handshake; others are not ours to understand.
fn last_handshake(log: &str) -> Option<Handshake> {
    let mut handshakes = log.lines().filter_map(|line| serde_json::from_str::<Handshake>(line).ok());
    handshakes.rfind(|handshake| handshake.event == "handshake")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_handshake_counts_and_other_lines_do_not() {
        let line = |event: &str, serial: &str| {
            format!(
                r#"{{"event":"{event}","local":"spiffe://a/x","peer":"spiffe://a/y","serial":"{serial}","issuer":"CN=a","not_after":"2026-01-01T00:00:00Z","more":1}}"#
            )
        };
        let log = [line("handshake", "01"), line("handshake", "02"), line("sums", "03"), "no JSON".to_owned()];
        assert_eq!(last_handshake(&log.join("\n")).unwrap().serial, "02");
        assert_eq!(last_handshake("no JSON\n{}"), None);
    }
}
