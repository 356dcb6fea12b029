//! The index with 10,000 identities and 100,000 pods: what a session's look-up costs, and what one pod's change costs. With
//! `--json` each figure is a line `{"name","value","unit"}`. A small argument `--pods N` scales it down.

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::time::{Duration, Instant};

use countersign_operator::index::{Entitlement, Index, PodRecord};
use serde_json::json;

const IDENTITIES: usize = 10_000;
const NAMESPACES: usize = 100;
const ROUNDS: usize = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let as_json = arguments.iter().any(|argument| argument == "--json");
    let pods = arguments.iter().position(|argument| argument == "--pods").and_then(|at| arguments.get(at + 1));
    let pods: usize = pods.map_or(Ok(100_000), |pods| pods.parse())?;

    let begin = Instant::now();
    let mut index = filled(pods)?;
    let filling = begin.elapsed();
    let look_up = median(|round| {
        let uid = uid(round * 7_919 % pods);
        let begin = Instant::now();
        let entitlement = index.entitlement(&uid, "");
        let took = begin.elapsed();
        assert!(matches!(entitlement, Entitlement::Entitled(_)), "every pod is entitled");
        took
    });
    let change = median(|round| {
        let number = round * 7_919 % pods;
        let mut record = pod(number);
        record.facts.labels.insert("round".to_owned(), round.to_string());
        let begin = Instant::now();
        index.apply_pod(record);
        begin.elapsed()
    });

    let figures = [
        ("index: identities of one pod, 10,000 identities, p50", look_up.as_secs_f64() * 1e6, "µs"),
        ("index: change of one pod, 10,000 identities, p50", change.as_secs_f64() * 1e6, "µs"),
        ("index: filling with all pods and identities", filling.as_secs_f64(), "s"),
    ];
    for (name, value, unit) in figures {
        if as_json {
            println!("{}", json!({"name": name, "value": value, "unit": unit}));
        } else {
            println!("{name}: {value:.2} {unit} ({pods} pods)");
        }
    }
    Ok(())
}

fn filled(pods: usize) -> Result<Index, serde_json::Error> {
    let mut index = Index::new(String::new());
    index.apply_domain(&serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": {"name": "example.org", "uid": "td", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"authority": {}, "grants": [
            {"namespaces": {"matchLabels": {"team": "a"}}, "paths": ["/ns/{namespace}/sa/{serviceAccount}"]},
        ]},
    }))?);
    for namespace in 0..NAMESPACES {
        index.apply_namespace(&format!("ns-{namespace}"), [("team".to_owned(), "a".to_owned())].into());
    }
    for number in 0..IDENTITIES {
        index.apply_identity(serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
            "metadata": {
                "name": format!("id-{number}"), "namespace": format!("ns-{}", number % NAMESPACES),
                "uid": format!("id-{number}"), "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"trustDomain": "example.org", "selector": {"serviceAccounts": [format!("sa-{number}")]}},
        }))?);
    }
    for number in 0..pods {
        index.apply_pod(pod(number));
    }
    Ok(index)
}

fn uid(number: usize) -> String {
    format!("00000000-0000-0000-0000-{number:012}")
}

fn pod(number: usize) -> PodRecord {
    let identity = number % IDENTITIES;
    let mut pod = PodRecord { injected: true, ..PodRecord::default() };
    pod.facts.namespace = format!("ns-{}", identity % NAMESPACES);
    pod.facts.name = format!("pod-{number}");
    pod.facts.uid = uid(number);
    pod.facts.service_account = format!("sa-{identity}");
    pod.facts.labels.insert("app".to_owned(), format!("app-{identity}"));
    pod.facts.containers = vec!["app".to_owned(), "countersign-agent".to_owned()];
    pod
}

fn median(mut measure: impl FnMut(usize) -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS).map(&mut measure).collect();
    times.sort_unstable();
    times.get(ROUNDS / 2).copied().unwrap_or_default()
}
