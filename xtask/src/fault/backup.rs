//! A backup of etcd that is put back later, as after a disaster: whatever was written since is lost.

use std::fs;
use std::io::BufRead as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::tell;
use crate::cluster::{Component, Node};
use crate::sh::{Run as _, cmd};

/// What acts on what it has read from etcd. After a restore it is started anew (Kubernetes: Operating etcd clusters, Restoring
/// an etcd cluster).
const READERS: [Component; 4] =
    [Component::KubeApiserver, Component::KubeControllerManager, Component::KubeScheduler, Component::Kubelet];

pub(super) fn run(node: &Node) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("etcd-backup-").tempdir().context("making a folder for the backup")?;
    let (data, backup) = (node.etcd_data(), folder.path());
    stopped(node, &[Component::Etcd], || copy(&data, backup))?;
    tell(&json!({ "state": "under way" }));
    for line in std::io::stdin().lock().lines() {
        match line.context("reading standard input")?.as_str() {
            "restore" => {
                let all = [&[Component::Etcd], READERS.as_slice()].concat();
                stopped(node, &all, || {
                    fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))?;
                    fs::create_dir(&data).with_context(|| format!("making {}", data.display()))?;
                    copy(backup, &data)
                })?;
            }
            other => bail!("`{other}` is no command: `restore` is"),
        }
        tell(&json!({ "state": "restored" }));
    }
    Ok(())
}

/// Copies what is in a folder into another.
fn copy(from: &Path, to: &Path) -> Result<()> {
    cmd("cp", ["--archive", "--no-target-directory"]).args([from, to]).quiet()
}

/// Does something while components are stopped. They start again also after an error.
fn stopped(node: &Node, components: &[Component], act: impl FnOnce() -> Result<()>) -> Result<()> {
    let held = components.iter().try_for_each(|component| node.hold(*component));
    let done = held.and_then(|()| act());
    node.release_all(components)?;
    done
}
