//! Which pods of files get which identity. Pure.

use std::path::PathBuf;

use anyhow::Result;
use countersign_index::Entitlement;
use kube::ResourceExt as _;
use serde::Serialize;

use crate::{
    Options, Outcome, files,
    objects::{Objects, asks_for_injection, sessions, uid},
    output::{self, Page},
};

/// Say which of the pods in these files get which identity. No cluster is asked. Exit code 1 if a pod that would be injected gets
/// none.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// YAML with TrustDomains, WorkloadIdentities, Namespaces, Pods and what makes pods; may be repeated.
    #[arg(long, short, required = true)]
    filename: Vec<PathBuf>,
}

pub(super) fn run(Args { filename }: &Args, options: &Options) -> Result<Outcome> {
    let report = report(&files::read(filename)?);
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
    /// `namespace/name`, with the container where that has a session of its own.
    pod: String,
    /// Whether it or its namespace asks for injection.
    injected: bool,
    /// Empty: it gets none.
    ids: Vec<String>,
    /// Why it gets none.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

fn report(objects: &Objects) -> Report {
    let index = objects.index("");
    let mut pods = Vec::new();
    for pod in &objects.pods {
        let injected = asks_for_injection(objects.injection(pod).as_deref());
        for session in sessions(pod) {
            let mut name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
            if !session.is_empty() {
                name = format!("{name}, container {session}");
            }
            let (ids, reason, message) = match index.entitlement(&uid(pod), &session) {
                Entitlement::Entitled(entitled) => {
                    (entitled.iter().map(|one| one.id.to_string()).collect(), None, None)
                }
                Entitlement::None(absence) => (Vec::new(), Some(absence.reason.to_owned()), Some(absence.message)),
                Entitlement::Gone => (Vec::new(), Some("Gone".to_owned()), None),
            };
            pods.push(Line { pod: name, injected, ids, reason, message });
        }
    }
    Report { pods }
}

impl Report {
    /// Whether every pod that is injected gets an identity.
    fn is_well(&self) -> bool {
        self.pods.iter().all(|line| !line.injected || !line.ids.is_empty())
    }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        if self.pods.is_empty() {
            return page.line("The files have no pods, and nothing that makes pods.");
        }
        page.table(
            &["POD", "IDENTITIES"],
            self.pods.iter().map(|line| {
                let (reason, message) =
                    (line.reason.as_deref().unwrap_or_default(), line.message.as_deref().unwrap_or_default());
                let gets =
                    if line.ids.is_empty() { format!("none: {message} ({reason})") } else { line.ids.join("\n") };
                let not_injected = if line.injected { "" } else { " (does not ask for injection)" };
                vec![line.pod.clone(), gets + not_injected]
            }),
        );
    }
}

#[cfg(test)]
mod tests {
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
        let ids: Vec<_> =
            report.pods.iter().map(|line| (line.pod.as_str(), line.ids.join(","), line.reason.clone())).collect();
        assert_eq!(
            ids,
            [
                ("shop/orders", "spiffe://shop.example/ns/shop/sa/orders".to_owned(), None),
                ("shop/report", String::new(), Some("ServiceAccountNotSelected".to_owned())),
            ]
        );
        assert!(!report.is_well(), "the job would wait for an identity");
    }
}
