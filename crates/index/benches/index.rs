//! The index with 10,000 identities and 100,000 pods: what a session's look-up costs, what one pod's change costs beside the
//! same in a small cluster, and what a pod takes in memory. With `--json` each figure is a line `{"name","value","unit"}`.
//! A small argument `--pods N` scales it down.

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

use countersign_policy as policy;
use std::time::{Duration, Instant};

use countersign_index::{Entitlement, Index, PodRecord};
use serde_json::json;

const IDENTITIES: usize = 10_000;
const NAMESPACES: usize = 100;
const ROUNDS: usize = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let as_json = arguments.iter().any(|argument| argument == "--json");
    let pods = arguments.iter().position(|argument| argument == "--pods").and_then(|at| arguments.get(at + 1));
    let pods: usize = pods.map_or(Ok(100_000), |pods| pods.parse())?;

    let mut small = filled(pods / 100)?;
    let small_change = changes(&mut small, pods / 100);
    drop(small);

    let begin = Instant::now();
    let mut index = filled(0)?;
    let before = resident()?;
    for number in 0..pods {
        index.apply_pod(pod(number));
    }
    let (filling, each) = (begin.elapsed(), resident()?.saturating_sub(before) as f64 / pods as f64);
    let look_up = median(|round| {
        let uid = uid(round * 7_919 % pods);
        let begin = Instant::now();
        let entitlement = index.entitlement(&uid, "");
        let took = begin.elapsed();
        assert!(matches!(entitlement, Entitlement::Entitled(_)), "every pod is entitled");
        took
    });
    let change = changes(&mut index, pods);

    let figures = [
        ("index: identities of one pod, 10,000 identities, p50", look_up.as_secs_f64() * 1e6, "µs"),
        ("index: change of one pod, 10,000 identities, p50", change.as_secs_f64() * 1e6, "µs"),
        ("index: change of one pod, a hundredth of the pods, p50", small_change.as_secs_f64() * 1e6, "µs"),
        ("index: memory of a pod", each, "bytes"),
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

/// What it costs that a pod's labels change.
fn changes(index: &mut Index, pods: usize) -> Duration {
    median(|round| {
        let mut record = pod(round * 7_919 % pods);
        record.facts.labels.insert("round".to_owned(), round.to_string());
        let begin = Instant::now();
        index.apply_pod(record);
        begin.elapsed()
    })
}

/// What this process has in memory, bytes (field 2 of `/proc/self/statm`, pages of 4 KiB).
fn resident() -> Result<u64, Box<dyn std::error::Error>> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    Ok(pages.split_ascii_whitespace().nth(1).unwrap_or_default().parse::<u64>()? * 4096)
}

fn filled(pods: usize) -> Result<Index, serde_json::Error> {
    let mut index = Index::default();
    index.apply_domain(policy::trust_domain(
        &serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
            "metadata": {"name": "example.org", "uid": "td", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"authority": {}, "grants": [
                {"namespaces": {"matchLabels": {"team": "a"}}, "paths": ["/ns/{namespace}/sa/{serviceAccount}"]},
            ]},
        }))?,
        "",
    ));
    for namespace in 0..NAMESPACES {
        index.apply_namespace(&format!("ns-{namespace}"), [("team".to_owned(), "a".to_owned())].into());
    }
    for number in 0..IDENTITIES {
        index.apply_identity(policy::workload_identity(&serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
            "metadata": {
                "name": format!("id-{number}"), "namespace": format!("ns-{}", number % NAMESPACES),
                "uid": format!("id-{number}"), "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"trustDomain": "example.org", "selector": {"serviceAccounts": [format!("sa-{number}")]}},
        }))?));
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
    for (key, value) in [
        ("app.kubernetes.io/name", format!("app-{identity}")),
        ("app.kubernetes.io/part-of", "shop".to_owned()),
        ("app.kubernetes.io/managed-by", "Helm".to_owned()),
        ("app.kubernetes.io/version", "2.41.7".to_owned()),
        ("pod-template-hash", format!("{identity:09x}")),
    ] {
        pod.facts.labels.insert(key.to_owned(), value);
    }
    for (name, image) in [
        ("app", "registry.example.org/shop/app:2.41.7"),
        ("proxy", "registry.example.org/proxy:1.31.0"),
        ("countersign-agent", "registry.example.org/platform/countersign/agent:1.4.2"),
    ] {
        pod.facts.containers.push(name.to_owned());
        pod.images.push(image.to_owned());
    }
    pod
}

fn median(mut measure: impl FnMut(usize) -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS).map(&mut measure).collect();
    times.sort_unstable();
    times.get(ROUNDS / 2).copied().unwrap_or_default()
}
