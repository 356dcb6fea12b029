//! Output of the demo: which client called which server with which SVID, from the JSON lines that its pods print.

mod proofs;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use countersign_contract::metadata::annotation;
use countersign_contract::objects::{AUTHORITIES_NAMESPACE, journal::trust_domain_secret};
use jiff::Timestamp;
use serde::Deserialize;

use crate::kube::Kubectl;
use crate::progress::say;
use crate::sh::{Run as _, wait_for};

/// The namespace of the demo.
pub(crate) const NAMESPACE: &str = "countersign-demo";

/// Its Deployments; each name is also the value of its pods' label `app` and the name of their container.
const WORKLOADS: [&str; 2] = ["caller", "callee"];

/// From `manifests/demo`: the trust domain, and the lifetime of its SVIDs.
const TRUST_DOMAIN: &str = "demo.countersign.dev";
const LIFE: Duration = Duration::from_secs(10 * 60);

/// The beginning of the subjects of trust domains' authorities; random digits follow.
const AUTHORITY: &str = "O=Countersign, CN=authority ";

/// The tolerated clock difference between the issuer and this machine.
const SKEW: Duration = Duration::from_secs(30);

/// A handshake that both sides accepted, as reported by one of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Handshake {
    event: String,
    local: String,
    peer: String,
    /// The serial of the workload's own leaf, hexadecimal.
    serial: String,
    issuer: String,
    /// RFC 3339.
    not_after: String,
}

impl Handshake {
    /// Whether it is between a workload of this id and a peer of that one.
    pub(crate) fn is_between(&self, local: &str, peer: &str) -> bool {
        self.local == local && self.peer == peer
    }
}

/// Authorities outlive the demo. If there are some of an earlier TrustDomain of the demo, the current one adopts them.
pub(crate) fn adopt_authorities(kubectl: &Kubectl) -> Result<()> {
    let output = format!("jsonpath={{.metadata.annotations.{}}}", annotation::TRUST_DOMAIN_UID.replace('.', r"\."));
    let secret = trust_domain_secret(TRUST_DOMAIN);
    let get_owner =
        ["get", "secret", &secret, "--namespace", AUTHORITIES_NAMESPACE, "--ignore-not-found", "--output", &output];
    let owner = kubectl.cmd(&get_owner).read()?;
    let uid = kubectl.cmd(&["get", "trustdomain", TRUST_DOMAIN, "--output", "jsonpath={.metadata.uid}"]).read()?;
    if owner.is_empty() || owner == uid {
        return Ok(());
    }
    let annotation = format!("{}={owner}", annotation::ADOPT_AUTHORITIES);
    kubectl.cmd(&["annotate", "--overwrite", "trustdomain", TRUST_DOMAIN, &annotation]).quiet()
}

/// Prints the newest handshake of each workload and its SVID; waits for the first one.
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
    check(&seen, Timestamp::now())?;
    proofs::report(kubectl)
}

/// Checks that each workload has the expected identity, called the other, and has a valid SVID of the demo's trust domain.
fn check(seen: &[(&str, Handshake)], now: Timestamp) -> Result<()> {
    for (workload, handshake) in seen {
        let id = format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{workload}");
        ensure!(handshake.local == id, "{workload} is {} instead of {id}", handshake.local);
        ensure!(!handshake.serial.is_empty(), "the SVID of {workload} has no serial number");
        let issuer = &handshake.issuer;
        ensure!(issuer.contains(AUTHORITY), "the SVID of {workload} is issued by {issuer}, which is no {AUTHORITY}…");
        let until = &handshake.not_after;
        let end: Timestamp = until.parse().with_context(|| format!("the end of {workload}'s SVID: {until}"))?;
        ensure!(end > now, "the SVID of {workload} has expired at {until}");
        ensure!(end <= now + LIFE + SKEW, "the SVID of {workload} is good until {until}, for more than {LIFE:?}");
    }
    let [(_, one), (_, other)] = seen else { bail!("the demo has two workloads") };
    if (&one.local, &one.peer) != (&other.peer, &other.local) {
        bail!("the two sides disagree on who they are: {one:?} and {other:?}");
    }
    Ok(())
}

pub(crate) fn newest(kubectl: &Kubectl, workload: &str) -> Result<Option<Handshake>> {
    let selector = format!("app={workload}");
    let args = ["logs", "--namespace", NAMESPACE, "--selector", &selector, "--container", workload, "--tail=200"];
    Ok(last_handshake(&kubectl.cmd(&args).read()?))
}

/// The last line that is a handshake; other lines are ignored.
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

    /// The output of a healthy demo, with SVIDs valid for nine minutes from `now`.
    fn both(now: Timestamp) -> [(&'static str, Handshake); 2] {
        let id = |workload| format!("spiffe://demo.countersign.dev/ns/countersign-demo/sa/{workload}");
        let handshake = |local, peer| Handshake {
            event: "handshake".to_owned(),
            local: id(local),
            peer: id(peer),
            serial: "0a".to_owned(),
            issuer: "O=Countersign, CN=authority 0123456789abcdef".to_owned(),
            not_after: (now + Duration::from_secs(540)).to_string(),
        };
        [("caller", handshake("caller", "callee")), ("callee", handshake("callee", "caller"))]
    }

    #[test]
    fn what_the_demo_should_show_is_accepted_and_any_other_thing_is_named() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        check(&both(now), now).unwrap();
        let wrong = |change: fn(&mut [(&str, Handshake); 2])| {
            let mut seen = both(now);
            change(&mut seen);
            format!("{:#}", check(&seen, now).unwrap_err())
        };
        let said = [
            (wrong(|[(_, one), _]| one.local = "spiffe://other/x".to_owned()), "caller is spiffe://other/x instead of"),
            (wrong(|[_, (_, other)]| other.serial.clear()), "no serial number"),
            (wrong(|[_, (_, other)]| other.issuer = "CN=other".to_owned()), "issued by CN=other"),
            (wrong(|[_, (_, other)]| other.not_after = "soon".to_owned()), "the end of callee's SVID: soon"),
            (wrong(|[_, (_, other)]| other.not_after = "2025-12-31T23:59:59Z".to_owned()), "has expired"),
            (wrong(|[_, (_, other)]| other.not_after = "2026-01-01T00:10:31Z".to_owned()), "for more than"),
            (wrong(|[(_, one), _]| one.peer = "spiffe://other/x".to_owned()), "disagree"),
        ];
        for (error, part) in said {
            assert!(error.contains(part), "{error}");
        }
    }
}
