//! `kubectl` on one cluster: apply, wait and read.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::sh::{Run as _, cmd, wait_for};

/// A cluster, by its kubeconfig.
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

    /// Applies a kustomization server-side: fields of other owners that it does not name stay unchanged.
    pub(crate) fn apply(&self, dir: &Path) -> Result<()> {
        if !dir.join("kustomization.yaml").is_file() {
            bail!("there is no kustomization.yaml in {}", dir.display());
        }
        self.cmd(&["apply", "--server-side", "--force-conflicts", "--kustomize"]).arg(dir).quiet()
    }

    /// Applies a text of YAML or JSON documents server-side.
    pub(crate) fn apply_text(&self, text: &str) -> Result<()> {
        let mut command = self.cmd(&["apply", "--server-side", "--force-conflicts", "--filename", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("starting kubectl")?;
        child.stdin.take().context("kubectl's input")?.write_all(text.as_bytes()).context("writing to kubectl")?;
        ensure!(child.wait()?.success(), "kubectl apply failed");
        Ok(())
    }

    /// Deletes the objects of a kustomization; missing ones are ignored.
    pub(crate) fn delete(&self, dir: &Path) -> Result<()> {
        self.cmd(&["delete", "--ignore-not-found", "--wait", "--kustomize"]).arg(dir).quiet()
    }

    /// Waits until every CustomResourceDefinition in the files of a folder is served.
    pub(crate) fn wait_for_crds(&self, dir: &Path) -> Result<()> {
        self.cmd(&["wait", "--for=condition=Established", "--timeout=60s", "--filename"]).arg(dir).quiet()
    }

    /// Waits until every Deployment of a namespace is rolled out; the error includes the output of its pods.
    pub(crate) fn wait_for_rollouts(&self, namespace: &str, limit: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", limit.as_secs());
        let names = self.cmd(&["get", "deployments", "--namespace", namespace, "--output=name"]).read()?;
        for name in names.lines() {
            let rollout = self.cmd(&["rollout", "status", "--namespace", namespace, &timeout, name]).quiet();
            rollout.with_context(|| format!("{name} in {namespace} is not ready\n{}", self.explain(namespace)))?;
        }
        Ok(())
    }

    /// Restarts every Deployment of a namespace, because its images changed under the same names.
    pub(crate) fn restart(&self, namespace: &str) -> Result<()> {
        self.cmd(&["rollout", "restart", "deployment", "--namespace", namespace]).quiet()
    }

    /// Whether an object exists.
    pub(crate) fn exists(&self, kind: &str, name: &str) -> bool {
        self.cmd(&["get", kind, name]).succeeds()
    }

    /// The API server's version, if it answers.
    pub(crate) fn server_version(&self) -> Option<String> {
        let text = self.cmd(&["get", "--raw=/version"]).read().ok()?;
        let version: Value = serde_json::from_str(&text).ok()?;
        Some(version.get("gitVersion")?.as_str()?.to_owned())
    }

    /// Waits until the API server is ready to serve.
    pub(crate) fn wait_for_api(&self, limit: Duration) -> Result<()> {
        wait_for("the API server is ready", limit, || Ok(self.is_ready().then_some(())))
    }

    /// Whether the API server is ready to serve.
    pub(crate) fn is_ready(&self) -> bool {
        self.cmd(&["get", "--raw=/readyz", "--request-timeout=3s"]).succeeds()
    }

    /// Pods and the latest events of a namespace, for debugging.
    fn explain(&self, namespace: &str) -> String {
        let pods = self.cmd(&["get", "pods", "--namespace", namespace, "--output=wide"]).read();
        let events = self.cmd(&["get", "events", "--namespace", namespace, "--sort-by=.lastTimestamp"]).read();
        let events = events.unwrap_or_default();
        let last: Vec<&str> = events.lines().rev().take(15).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        format!("{}\n{}", pods.unwrap_or_default(), last.join("\n"))
    }
}
