//! Which pods of files get which identity. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde::Serialize;

use super::gifts::{self, Gift, Kind, Session};
use crate::{
    Options, Outcome, files,
    finding::{self, Finding, Stated},
    objects::{Objects, asks_for_injection},
    output::{self, Page},
};

/// Say which of the pods in these files get which identity. No cluster is asked. Exit code 1 if a pod that would be injected gets
/// none.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// YAML with TrustDomains, WorkloadIdentities, Namespaces, Pods and what makes pods; files, folders or - for standard input; may be repeated.
    #[arg(long, short, required = true)]
    filename: Vec<PathBuf>,
    /// The value of {cluster} in paths.
    #[arg(long, default_value = "")]
    cluster_name: String,
    /// Write the result as JUnit XML to this file too, for CI.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

pub(super) fn run(Args { filename, cluster_name, junit: file }: &Args, options: &Options) -> Result<Outcome> {
    let mut objects = files::read(filename)?;
    objects.cluster.clone_from(cluster_name);
    let report = report(&objects);
    if let Some(file) = file {
        fs::write(file, junit(&report)).with_context(|| format!("writing {}", file.display()))?;
    }
    options.print(&report)?;
    Ok(if report.is_well() { Outcome::Well } else { Outcome::Problem })
}

/// One line for each session of each pod.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    pods: Vec<Line>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Line {
    /// `namespace/name`.
    pod: String,
    /// Where that has a session of its own.
    #[serde(skip_serializing_if = "String::is_empty")]
    container: String,
    /// Whether it or its namespace asks for injection.
    injected: bool,
    /// Empty: it gets none.
    ids: Vec<String>,
    /// What else it gets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    more: Vec<Gift>,
    /// Why it gets none.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "finding::as_cause_if_any")]
    cause: Option<Finding>,
}

/// Pure.
fn report(objects: &Objects) -> Report {
    let asks = |pod: &Pod| {
        let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        (name, asks_for_injection(objects.injection(pod).as_deref()))
    };
    let injected: BTreeMap<String, bool> = objects.pods.iter().map(asks).collect();
    let given = gifts::of(&objects.index(), &objects.pods);
    let pods = given.into_iter().map(|(Session { pod, container }, given)| {
        let injected = injected.get(&pod).copied().unwrap_or_default();
        let (cause, gifts) = match given {
            Ok(gifts) => (None, gifts),
            Err(cause) => (Some(cause), BTreeSet::new()),
        };
        let (ids, more): (Vec<Gift>, Vec<Gift>) = gifts.into_iter().partition(|gift| gift.kind == Kind::Identity);
        Line { pod, container, injected, ids: ids.into_iter().map(|gift| gift.value).collect(), more, cause }
    });
    Report { pods: pods.collect() }
}

impl Report {
    /// Whether every pod that is injected gets an identity.
    fn is_well(&self) -> bool {
        !self.pods.iter().any(Line::fails)
    }
}

impl Line {
    fn fails(&self) -> bool {
        self.injected && self.ids.is_empty()
    }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        if self.pods.is_empty() {
            return page.line("The files have no pods, and nothing that makes pods.");
        }
        page.table(
            &["POD", "GETS"],
            self.pods.iter().map(|line| {
                let container =
                    if line.container.is_empty() { String::new() } else { format!(" ({})", line.container) };
                let mut gets = line.ids.clone();
                gets.extend(line.more.iter().map(|gift| format!("{} {}", gift.kind.name(), gift.value)));
                gets.extend(line.cause.iter().map(|cause| format!("none: {}", cause.text())));
                if !line.injected {
                    gets.push("but neither it nor its namespace asks for injection".to_owned());
                }
                vec![line.pod.clone() + &container, gets.join("\n")]
            }),
        );
    }
}

/// As test runners of CI read it: <https://github.com/testmoapp/junitxml>.
fn junit(report: &Report) -> String {
    let failures = report.pods.iter().filter(|line| line.fails()).count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"policy\" tests=\"{}\" failures=\"{failures}\">\n",
        report.pods.len()
    );
    for line in &report.pods {
        let name = escaped(&if line.container.is_empty() {
            line.pod.clone()
        } else {
            format!("{} ({})", line.pod, line.container)
        });
        match line.cause.as_ref().filter(|_| line.fails()) {
            None => text.push_str(&format!("    <testcase classname=\"identity\" name=\"{name}\"/>\n")),
            Some(cause) => text.push_str(&format!(
                "    <testcase classname=\"identity\" name=\"{name}\">\n      <failure type=\"{}\" message=\"{}\"/>\n    </testcase>\n",
                cause.reason.as_ref().map(Stated::name).unwrap_or_default(),
                escaped(cause.plain_message())
            )),
        }
    }
    text + "  </testsuite>\n</testsuites>\n"
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").chars().filter(|one| !one.is_control() || *one == '\n').collect()
}

#[cfg(test)]
mod tests {
    use countersign_reasons::Reason;

    use super::*;

    const FILES: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {countersign.dev/inject: sidecar}}
---
apiVersion: countersign.dev/v1alpha1
kind: TrustDomain
metadata: {name: shop.example}
spec:
  authority: {}
  grants:
  - {namespaces: {matchNames: [shop]}, paths: ['/ns/{namespace}/**']}
---
apiVersion: countersign.dev/v1alpha1
kind: WorkloadIdentity
metadata: {name: orders, namespace: shop}
spec: {trustDomain: shop.example, selector: {serviceAccounts: [orders]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders, namespace: shop}
spec:
  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders}}
    spec: {serviceAccountName: orders, containers: [{name: app}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: report, namespace: shop}
spec:
  schedule: '@daily'
  jobTemplate: {spec: {template: {spec: {containers: [{name: app}]}}}}
"#;

    #[test]
    fn pods_of_files_get_what_the_operator_would_give_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("all.yaml");
        std::fs::write(&file, FILES).unwrap();
        let report = report(&files::read(&[file]).unwrap());
        let ids: Vec<_> = report
            .pods
            .iter()
            .map(|line| (line.pod.as_str(), line.ids.join(","), line.cause.as_ref().and_then(Finding::known_reason)))
            .collect();
        assert_eq!(
            ids,
            [
                ("shop/orders", "spiffe://shop.example/ns/shop/sa/orders".to_owned(), None),
                ("shop/report", String::new(), Some(Reason::ServiceAccountNotSelected)),
            ]
        );
        assert!(!report.is_well(), "the job would wait for an identity");

        let junit = junit(&report);
        assert!(junit.contains(r#"tests="2" failures="1""#), "{junit}");
        assert!(junit.contains(r#"<failure type="ServiceAccountNotSelected" message="none of the 1"#), "{junit}");
    }
}
