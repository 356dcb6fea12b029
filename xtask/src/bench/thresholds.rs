//! The thresholds of all figures, one table for each part of the bench.

/// The threshold of a figure.
pub(super) struct Threshold {
    pub(super) figure: &'static str,
    /// The figure of the same run that it is compared with.
    pub(super) yardstick: Option<&'static str>,
    pub(super) aim: Option<Aim>,
}

pub(super) enum Aim {
    /// At most this, in the figure's unit.
    Value(f64),
    /// At most this many times the yardstick.
    Ratio(f64),
}

const fn value(figure: &'static str, most: f64) -> Threshold {
    Threshold { figure, yardstick: None, aim: Some(Aim::Value(most)) }
}

const fn beside(figure: &'static str, yardstick: &'static str, most: f64) -> Threshold {
    Threshold { figure, yardstick: Some(yardstick), aim: Some(Aim::Value(most)) }
}

const fn ratio(figure: &'static str, yardstick: &'static str, most: f64) -> Threshold {
    Threshold { figure, yardstick: Some(yardstick), aim: Some(Aim::Ratio(most)) }
}

const fn measured(figure: &'static str, yardstick: &'static str) -> Threshold {
    Threshold { figure, yardstick: Some(yardstick), aim: None }
}

/// A part of the bench, which is run as a whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The benches of the workspace, and the image.
    Core,
    /// `--load`.
    Load,
    /// `--crowd`.
    Crowd,
    /// `--foreign`, and the last part of `--load`.
    Foreign,
    /// `--starts`.
    Starts,
}

impl Part {
    /// The thresholds of its figures.
    pub(super) fn thresholds(self) -> &'static [Threshold] {
        match self {
            Self::Core => CORE,
            Self::Load => LOAD,
            Self::Crowd => CROWD,
            Self::Foreign => FOREIGN,
            Self::Starts => STARTS,
        }
    }
}

const CORE: &[Threshold] = &[
    // At least 85 % of the floor's rate is at most 1 / 0.85 of its time.
    ratio("issue", "floor", 1.0 / 0.85),
    beside("webhook handler, 8 KB pod, p99", "parse and write the same review, p99", 1000.0),
    measured("webhook handler, 8 KB pod, p50", "parse and write the same review, p50"),
    // Half of the webhook's limit.
    value("webhook memory, 64 large reviews at once", 64.0),
    // API servers wait 5 s for a webhook.
    beside("ordinary review among 64 large ones, p99", "ordinary review over TLS, at rest, p99", 1000.0),
    measured("ordinary review among 64 large ones, p50", "ordinary review over TLS, at rest, p50"),
    ratio(
        "index: change of one pod, 10,000 identities, p50",
        "index: change of one pod, a hundredth of the pods, p50",
        3.0,
    ),
    beside("agent start to file, p99", "agent start and end without work, p99", 30.0),
    measured("agent start to file, p50", "agent start and end without work, p50"),
    value("agent memory after 20 renewals, with its files", 6.0),
    value("agent CPU at rest, a minute", 10.0),
    value("agent image", 6.0),
    ratio("issue over a stream, 8 callers, issuer CPU", "floor", 1.6),
    ratio("handshake, both sides verify X509-SVIDs", "handshake, both sides verify by webpki", 1.05),
    ratio("JWT-SVID validated", "signature of the JWT-SVID verified", 1.3),
    value("decision over 1,000 path patterns", 5.0),
    // At least 85 % of the rate at which the operations of cryptography alone are done.
    ratio("WIT and WPT verified", "two signatures verified, of WIT and WPT", 1.0 / 0.85),
    ratio("WIT and HTTP signature verified, body of 1 KiB", "two signatures verified, and 1 KiB hashed", 1.0 / 0.85),
    ratio("WIT issued for a CSR", "a signature verified, and one made", 1.0 / 0.85),
    beside("request at 200/s, WPT: added, p50", "request at 200/s without layers, p50", 10.0),
    beside("request at 200/s, WPT: added, p99", "request at 200/s without layers, p99", 10.0),
    beside("request at 200/s, HTTP signature: added, p50", "request at 200/s without layers, p50", 10.0),
    beside("request at 200/s, HTTP signature: added, p99", "request at 200/s without layers, p99", 10.0),
    value("calls to others meanwhile", 0.0),
    measured("WPT made by the agent's socket, p50", "WPT made in process, p50"),
    measured("WPT made by the agent's socket, p99", "WPT made in process, p99"),
    measured("WPT verified by the agent's socket, p50", "WPT verified in process, p50"),
    measured("WPT verified by the agent's socket, p99", "WPT verified in process, p99"),
    measured("HTTP signature made by the agent's socket, p50", "HTTP signature made in process, p50"),
    measured("HTTP signature made by the agent's socket, p99", "HTTP signature made in process, p99"),
    measured("HTTP signature verified by the agent's socket, p50", "HTTP signature verified in process, p50"),
    measured("HTTP signature verified by the agent's socket, p99", "HTTP signature verified in process, p99"),
    measured("handshakes while ten trust domains are replaced", "replacements of ten trust domains"),
    value("handshakes that failed meanwhile", 0.0),
];

const LOAD: &[Threshold] = &[
    ratio("issue over a stream, few pods, 8 callers, operator CPU", "floor on all processors, few pods", 1.6),
    ratio("issue over a stream, all pods, 8 callers, operator CPU", "floor on all processors, all pods", 1.6),
    ratio(
        "issue over a stream, two replicas, 8 callers, operator CPU",
        "issue over a stream, one of two replicas, 8 callers, operator CPU",
        1.05,
    ),
    // A rate within 10 % is at most 1 / 0.9 of the time.
    ratio(
        "issue over a stream, all pods, 8 callers, time an issue",
        "issue over a stream, few pods, 8 callers, time an issue",
        1.0 / 0.9,
    ),
    // The same, relative to the machine's speed at the time.
    ratio(
        "issue over a stream, all pods, 8 callers, time an issue to the floor",
        "issue over a stream, few pods, 8 callers, time an issue to the floor",
        1.0 / 0.9,
    ),
    // The same, without the CPU time of other programs.
    ratio(
        "issue over a stream, all pods, 8 callers, CPU of operator and callers",
        "issue over a stream, few pods, 8 callers, CPU of operator and callers",
        1.0 / 0.9,
    ),
    ratio("honest session among 1000 hostile connections, p99", "honest session, undisturbed, p99", 2.0),
    value("operator start to ready", 10.0),
    value("operator memory without streams", 300.0),
    ratio("operator memory with all agents", "300 MiB and 32 KiB a stream", 1.0),
    // Stricter than the sum: only a part of what each stream may add.
    value("operator memory a stream", 32.0),
    value("change of a pod to the push on its stream, p99", 10.0),
    value("re-connection of all agents after a roll-out", 30.0),
    value("bundle change, 1000 agents: acknowledged, last", 1.0),
    value("bundle change, 10000 agents: acknowledged, last", 3.0),
    measured("taint, 1000 agents: leaf issued, last, time a leaf", "floor on all processors, taint"),
];

const CROWD: &[Threshold] = &[
    ratio("time to identity, beside a crowded namespace, p50", "time to identity, undisturbed, p50", 1.5),
    ratio("time to identity, beside a crowded namespace, p99", "time to identity, undisturbed, p99", 2.0),
    // The API server and its clients use both processors meanwhile.
    beside(
        "time to identity, while identities are created elsewhere, p99",
        "time to identity, undisturbed, p99",
        1000.0,
    ),
    value("operator memory, beside a crowded namespace", 300.0),
    value("operator start to ready, crowded", 10.0),
];

const FOREIGN: &[Threshold] = &[value("change of a foreign bundle, 1000 agents: acknowledged, p99", 1.0)];

const STARTS: &[Threshold] = &[
    beside(
        "pod start, 200 one after the other: added, p50",
        "pod start, 200 one after the other: added by an idle sidecar, p50",
        150.0,
    ),
    beside(
        "pod start, 200 one after the other: added, p99",
        "pod start, 200 one after the other: added by an idle sidecar, p99",
        400.0,
    ),
    beside("pod start, 200 at 20/s: added, p50", "pod start, 200 at 20/s: added by an idle sidecar, p50", 150.0),
    beside("pod start, 200 at 20/s: added, p99", "pod start, 200 at 20/s: added by an idle sidecar, p99", 400.0),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::{Aim, CORE};

    /// The default number of agents of the load driver.
    const STREAMS: u64 = 10_000;

    #[test]
    fn the_operators_limit_leaves_room_for_what_all_streams_may_take() {
        let limit = memory_limit("operator");
        let allowed = 300 + STREAMS * 32 / 1024;
        assert!(
            limit >= allowed,
            "{limit} MiB is less than the {allowed} MiB that one replica may take with all streams"
        );
    }

    #[test]
    fn large_reviews_may_take_half_of_the_webhooks_limit() {
        let figure = "webhook memory, 64 large reviews at once";
        let threshold = CORE.iter().find(|threshold| threshold.figure == figure).unwrap();
        let Some(Aim::Value(most)) = threshold.aim else { panic!("{figure} has no aim") };
        assert!(most * 2.0 <= memory_limit("webhook") as f64);
    }

    /// The memory limit of a component's container in its manifest, in MiB.
    fn memory_limit(component: &str) -> u64 {
        let path = format!("../manifests/base/{component}/deployment.yaml");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
        let deployment = documents.iter().find(|document| document["kind"] == "Deployment").unwrap();
        let limit = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"].as_str();
        let limit = limit.unwrap();
        match (limit.strip_suffix("Gi"), limit.strip_suffix("Mi")) {
            (Some(number), _) => number.parse::<u64>().unwrap() * 1024,
            (_, Some(number)) => number.parse().unwrap(),
            _ => panic!("the limit is {limit}"),
        }
    }
}
