//! Operations on a cluster of our own that break it: they end, pause and hold components, signal containers, and enter the
//! node's network. `crate::fault` decides what is broken and for how long.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::layout::{self, Layout};
use super::own;
use super::state::State;
use crate::sh::wait_for;

/// The components that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Component {
    /// The store of the API server.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// The node's agent.
    Kubelet,
    /// Creates the pods of Deployments.
    KubeControllerManager,
    /// Assigns pods to nodes.
    KubeScheduler,
}

/// The node of a running cluster.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    layout: Layout,
    init: u32,
}

impl Component {
    /// The program's name.
    fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::Kubelet => "kubelet",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
        }
    }
}

impl Node {
    /// Finds the node of our own cluster of this name, which must be running.
    pub(crate) fn find(root: &Path, name: &str) -> Result<Self> {
        layout::check_name(name)?;
        let layout = own::running(root, name).with_context(|| {
            format!("there is no cluster {name} of our own; only such a one can be broken: `cargo xtask cluster up`")
        })?;
        let state = State::read(&layout.dir()).with_context(|| format!("cluster {name} has ended"))?;
        Ok(Self { layout, init: state.init })
    }

    /// The node's address.
    pub(crate) fn address(&self) -> String {
        self.layout.node_ip()
    }

    /// The service address of the API server.
    pub(crate) fn api_address(&self) -> String {
        self.layout.api_ip()
    }

    /// A file of the cluster's keys and certificates.
    pub(crate) fn pki(&self, file: &str) -> PathBuf {
        self.layout.pki().join(file)
    }

    /// Ends a component and prevents its restart until [`Self::release`], which must be called even after an error.
    pub(crate) fn hold(&self, component: Component) -> Result<()> {
        let marker = self.layout.held(component.name());
        if let Some(dir) = marker.parent() {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        fs::write(&marker, "").with_context(|| format!("writing {}", marker.display()))?;
        // The node may have been about to start it: it has ended once it is absent twice in a row.
        let mut absent = 0;
        wait_for(&format!("{} has ended", component.name()), Duration::from_secs(10), || {
            let processes = self.processes(component);
            signal(&processes, Signal::SIGKILL)?;
            absent = if processes.is_empty() { absent + 1 } else { 0 };
            Ok((absent == 2).then_some(()))
        })
    }

    /// Kills a component, and waits until the node has restarted it and the cluster's API is ready.
    pub(crate) fn end(&self, component: Component) -> Result<()> {
        let before = self.running(component)?;
        signal(&before, Signal::SIGKILL)?;
        wait_for(&format!("{} has ended", component.name()), Duration::from_secs(10), || {
            let still = child_processes(self.init).into_iter().any(|pid| before.contains(&pid));
            Ok((!still).then_some(()))
        })?;
        self.release(component)
    }

    /// Allows a held component to restart, and waits until the cluster's API is ready.
    pub(crate) fn release(&self, component: Component) -> Result<()> {
        self.release_all(&[component])
    }

    /// As [`Self::release`], for several, which may need each other.
    pub(crate) fn release_all(&self, components: &[Component]) -> Result<()> {
        for component in components {
            let marker = self.layout.held(component.name());
            if marker.exists() {
                fs::remove_file(&marker).with_context(|| format!("removing {}", marker.display()))?;
            }
        }
        for component in components {
            wait_for(&format!("{} runs", component.name()), Duration::from_secs(20), || {
                Ok((!self.processes(*component).is_empty()).then_some(()))
            })?;
        }
        self.well()
    }

    /// The folder of etcd's data.
    pub(crate) fn etcd_data(&self) -> PathBuf {
        self.layout.lib().join("etcd")
    }

    /// Waits until the cluster's API is ready.
    pub(crate) fn well(&self) -> Result<()> {
        own::kubectl(&self.layout).wait_for_api(Duration::from_secs(120))
    }

    /// The processes of a component; an error if there are none.
    pub(crate) fn running(&self, component: Component) -> Result<Vec<u32>> {
        let all = self.processes(component);
        if all.is_empty() {
            bail!("{} does not run in cluster {}", component.name(), self.layout.name);
        }
        Ok(all)
    }

    fn processes(&self, component: Component) -> Vec<u32> {
        let name = component.name();
        child_processes(self.init).into_iter().filter(|pid| program(*pid) == name).collect()
    }

    /// The processes of a container, by the id in its pod's status.
    pub(crate) fn processes_of_container(&self, id: &str) -> Result<Vec<u32>> {
        let id = id.trim_start_matches("containerd://");
        if id.len() < 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            bail!("`{id}` is no container's id: see `containerID` in the status of its pod");
        }
        let group = format!("/{}/", self.layout.cgroup());
        let ours = |pid: &u32| {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            groups.lines().any(|line| line.contains(&group) && line.ends_with(id))
        };
        let all: Vec<u32> = all_processes().into_iter().filter(ours).collect();
        if all.is_empty() {
            bail!("container {id} has no process in cluster {}", self.layout.name);
        }
        Ok(all)
    }

    /// Moves this thread, and threads that it starts later, into the node's network namespace.
    pub(crate) fn enter_network(&self) -> Result<()> {
        let path = format!("/proc/{}/ns/net", self.init);
        let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).context("entering the node's network")
    }
}

/// Sends a signal to processes; those that have ended are ignored.
pub(crate) fn signal(processes: &[u32], signal: Signal) -> Result<()> {
    for &process in processes {
        match kill(Pid::from_raw(i32::try_from(process)?), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("sending {signal} to process {process}")),
        }
    }
    Ok(())
}

fn all_processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Processes whose parent is `parent` (field 4 of `/proc/PID/stat`).
fn child_processes(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace());
        fields.and_then(|mut fields| fields.nth(1)?.parse().ok()) == Some(parent)
    };
    all_processes().into_iter().filter(is_child).collect()
}

/// The file name of the program that a process was started with.
fn program(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let path = String::from_utf8_lossy(first).into_owned();
    Path::new(&path).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_parent_and_its_program() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let found = child_processes(std::process::id());
        assert!(found.contains(&child.id()));
        // Between fork and exec it has the parent's command line.
        wait_for("it is itself", Duration::from_secs(5), || Ok((program(child.id()) == "sleep").then_some(())))
            .unwrap();
        signal(&[child.id()], Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        signal(&[child.id()], Signal::SIGKILL).unwrap();
        assert_eq!(program(child.id()), "");
    }
}
