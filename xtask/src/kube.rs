//! `kubectl` on one cluster: what we apply, wait for and read.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::sh::{Run as _, cmd, wait_for};

/// A cluster, by its configuration file.
#[derive(Debug, Clone)]
pub(crate) struct Kubectl {
    pub(crate) program: PathBuf,
    /// One path, or several joined by colons, as in the environment variable.
    pub(crate) kubeconfig: PathBuf,
}

impl Kubectl {
    /// `kubectl ARGS`.
    pub(crate) fn cmd(&self, args: &[&str]) -> Command {
        let mut command = cmd(&self.program, args);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Applies a kustomization.
    pub(crate) fn apply(&self, dir: &Path) -> Result<()> {
        if !dir.join("kustomization.yaml").is_file() {
            bail!("there is no kustomization.yaml in {}", dir.display());
        }
        self.cmd(&["apply", "--kustomize"]).arg(dir).quiet()
    }

    /// Waits until every CustomResourceDefinition of ours is served.
    pub(crate) fn wait_for_crds(&self, names: &[&str]) -> Result<()> {
        let mut args = vec!["wait", "--for=condition=Established", "--timeout=60s"];
        let names: Vec<String> = names
            .iter()
            .map(|n| format!("customresourcedefinition/{n}"))
            .collect();
        args.extend(names.iter().map(String::as_str));
        self.cmd(&args).quiet()
    }

    /// Waits until every deployment of a namespace is rolled out; when one is not, the error says what its pods say.
    pub(crate) fn wait_for_rollouts(&self, namespace: &str, limit: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", limit.as_secs());
        let names = self
            .cmd(&[
                "get",
                "deployments",
                "--namespace",
                namespace,
                "--output=name",
            ])
            .read()?;
        for name in names.lines() {
            let rollout = self
                .cmd(&[
                    "rollout",
                    "status",
                    "--namespace",
                    namespace,
                    &timeout,
                    name,
                ])
                .quiet();
            rollout.with_context(|| {
                format!(
                    "{name} in {namespace} is not ready\n{}",
                    self.explain(namespace)
                )
            })?;
        }
        Ok(())
    }

    /// Restarts every deployment of a namespace: their images have changed under the same names.
    pub(crate) fn restart(&self, namespace: &str) -> Result<()> {
        self.cmd(&["rollout", "restart", "deployment", "--namespace", namespace])
            .quiet()
    }

    /// Whether an object is there.
    pub(crate) fn exists(&self, kind: &str, name: &str) -> bool {
        self.cmd(&["get", kind, name]).succeeds()
    }

    /// `kubectl get … --output=json`.
    pub(crate) fn get(&self, args: &[&str]) -> Result<Value> {
        let mut command = self.cmd(&["get", "--output=json"]);
        let text = command.args(args).read()?;
        serde_json::from_str(&text).context("reading kubectl's JSON")
    }

    /// Waits until the API server is ready to serve.
    pub(crate) fn wait_for_api(&self, limit: Duration) -> Result<()> {
        wait_for("the API server is ready", limit, || {
            Ok(self.is_ready().then_some(()))
        })
    }

    /// Whether the API server is ready to serve.
    pub(crate) fn is_ready(&self) -> bool {
        self.cmd(&["get", "--raw=/readyz", "--request-timeout=3s"])
            .succeeds()
    }

    /// Pods and the latest events of a namespace, for a person who must find out what is wrong.
    fn explain(&self, namespace: &str) -> String {
        let pods = self
            .cmd(&["get", "pods", "--namespace", namespace, "--output=wide"])
            .read();
        let events = self
            .cmd(&[
                "get",
                "events",
                "--namespace",
                namespace,
                "--sort-by=.lastTimestamp",
            ])
            .read();
        let events = events.unwrap_or_default();
        let last: Vec<&str> = events.lines().rev().take(15).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        format!("{}\n{}", pods.unwrap_or_default(), last.join("\n"))
    }
}
