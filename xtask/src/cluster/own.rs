//! A cluster of our own on this machine: start it, find it, load images, and end it without leftovers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::layout::{self, Layout};
use super::leftovers::Leftovers;
use super::state::{Extent, State};
use super::{host, pki};
use crate::image::{self, Content};
use crate::kube::Kubectl;
use crate::progress::{Progress, say};
use crate::sh::{Run as _, cmd, wait_for};
use crate::{build, deps};

/// The sandbox image of pods; its name is in `e2e/cluster/config/containerd.toml`.
const PAUSE: &str = "countersign.local/pause:1";

/// Starts a cluster, or returns the healthy one of this name; a broken one is recreated.
pub(super) fn up(root: &Path, name: &str, extent: Extent) -> Result<Layout> {
    layout::check_name(name)?;
    deps::root()?;
    deps::for_cluster()?;
    build::cluster_programs(root)?;
    let _lock = lock(root)?;
    if let Some(layout) = running(root, name) {
        if is_well(&layout, extent) {
            say(format!("==> cluster {name} is up"));
            return Ok(layout);
        }
        say(format!("==> cluster {name} is up, but not well or not as asked for, and is remade"));
    }
    remove(root, name)?;
    let layout = Layout { root: root.to_owned(), name: name.to_owned(), number: host::free_number()? };
    let progress = Progress::start(format!("start cluster {name}"));
    if let Err(error) = start(&layout, extent) {
        let logs = tails(&layout);
        remove(root, name).context("removing the cluster that did not start")?;
        return Err(error.context(format!("the cluster did not start; its logs end with\n{logs}")));
    }
    progress.done(format!("node {} is ready", layout.node_ip()));
    Ok(layout)
}

/// Ends a cluster and removes everything of it, also leftovers of one that does not run. Fails if anything is left.
pub(super) fn down(root: &Path, name: &str) -> Result<()> {
    layout::check_name(name)?;
    deps::root()?;
    let _lock = lock(root)?;
    let progress = Progress::start(format!("end cluster {name}"));
    let leftovers = Leftovers::of(root, name);
    remove(root, name)?;
    leftovers.wait_until_gone()?;
    progress.done("nothing is left");
    Ok(())
}

/// The cluster of this name, if its init is running.
pub(super) fn running(root: &Path, name: &str) -> Option<Layout> {
    let state = State::read(&layout::dir(root, name))?;
    let layout = Layout { root: root.to_owned(), name: name.to_owned(), number: state.number };
    state.is_alive().then_some(layout)
}

/// Loads an image archive into a cluster.
pub(super) fn load(layout: &Layout, tar: &Path) -> Result<()> {
    let state = State::read(&layout.dir()).with_context(|| format!("cluster {} is not up", layout.name))?;
    // The socket is on the cluster's own /run, visible to its init.
    let socket = format!("/proc/{}/root/run/containerd/containerd.sock", state.init);
    let tar = tar.to_str().with_context(|| format!("{} is not UTF-8", tar.display()))?;
    let args = ["--address", &socket, "--namespace", "k8s.io", "images", "import", "--local", tar];
    cmd(layout.bin().join("ctr"), args).quiet()
}

/// The cluster's `kubectl`.
pub(super) fn kubectl(layout: &Layout) -> Kubectl {
    Kubectl { program: layout.bin().join("kubectl"), kubeconfig: layout.kubeconfig() }
}

fn start(layout: &Layout, extent: Extent) -> Result<()> {
    for dir in [layout.lib(), layout.log()] {
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    }
    pki::make(layout)?;
    host::make_bridge()?;
    let init = start_init(layout, extent)?;
    State::of(layout.number, init, extent)?.write(&layout.dir())?;
    host::connect(layout, init)?;

    let kubectl = kubectl(layout);
    let alive = || running(&layout.root, &layout.name).is_some();
    if extent == Extent::ApiServer {
        return wait_for("the API server is ready", Duration::from_secs(120), || {
            Ok((!alive() || kubectl.is_ready()).then_some(()))
        });
    }
    wait_for("the node is registered", Duration::from_secs(120), || {
        Ok((!alive() || kubectl.exists("node", &layout.name)).then_some(()))
    })?;
    if !alive() {
        bail!("the cluster's init has ended");
    }
    load(layout, &pause_image(layout)?)?;
    let node = format!("node/{}", layout.name);
    kubectl.cmd(&["wait", "--for=condition=Ready", "--timeout=120s", &node]).quiet()?;
    wait_for("the default service account is there", Duration::from_secs(60), || {
        Ok(kubectl.exists("serviceaccount", "default").then_some(()))
    })
}

/// Starts `xtask node-init` in new namespaces; returns its process id on the machine.
#[allow(clippy::zombie_processes, reason = "it outlives this program, whose parent then takes it")]
fn start_init(layout: &Layout, extent: Extent) -> Result<u32> {
    let log = File::create(layout.log().join("node.log")).context("making node.log")?;
    let mut outer = Command::new("setsid");
    outer
        .args(["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().context("finding this program")?)
        .args(["node-init", "--name", &layout.name, "--number", &layout.number.to_string()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    if extent == Extent::ApiServer {
        outer.arg("--api-server-only");
    }
    let outer = outer.spawn().context("starting the cluster's init")?.id();
    wait_for("the cluster's init runs", Duration::from_secs(10), || Ok(child_of(outer)))
}

/// A process whose parent is `parent` (field 4 of `/proc/PID/stat`).
fn child_of(parent: u32) -> Option<u32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let of: u32 = rest.split_ascii_whitespace().nth(1)?.parse().ok()?;
        (of == parent).then_some(pid)
    })
}

fn pause_image(layout: &Layout) -> Result<PathBuf> {
    let tar = layout.dir().join("pause.tar");
    image::write(&tar, PAUSE, &Content::binary(&layout.bin().join("pause"), image::READABLE))?;
    Ok(tar)
}

/// Whether it has this extent, and all its components answer.
fn is_well(layout: &Layout, extent: Extent) -> bool {
    let kubectl = kubectl(layout);
    if State::read(&layout.dir()).is_none_or(|state| state.extent != extent) {
        return false;
    }
    if extent == Extent::ApiServer {
        return kubectl.is_ready();
    }
    let node = format!("node/{}", layout.name);
    kubectl.is_ready() && kubectl.cmd(&["wait", "--for=condition=Ready", "--timeout=10s", &node]).succeeds()
}

/// Ends and removes everything of a cluster.
fn remove(root: &Path, name: &str) -> Result<()> {
    let dir = layout::dir(root, name);
    if let Some(state) = State::read(&dir) {
        if state.is_alive() {
            // Pid 1 of its namespace: the kernel ends all other processes with it.
            kill(Pid::from_raw(i32::try_from(state.init)?), Signal::SIGKILL).context("ending the cluster's init")?;
            wait_for("the cluster's processes have ended", Duration::from_secs(30), || {
                Ok((!state.is_alive()).then_some(()))
            })?;
        }
        let layout = Layout { root: root.to_owned(), name: name.to_owned(), number: state.number };
        host::disconnect(&layout)?;
    }
    host::remove_unused_bridge()?;
    host::remove_cgroups(&layout::cgroup(name))?;
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    Ok(())
}

/// Two concurrent commands would choose the same number.
fn lock(root: &Path) -> Result<File> {
    let dir = root.join("target/cluster");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let file = File::create(dir.join(".lock")).context("making the lock file")?;
    file.lock().context("waiting for another command to end")?;
    Ok(file)
}

/// The last lines of every log.
fn tails(layout: &Layout) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(layout.log()).into_iter().flatten().flatten() {
        let log = fs::read(entry.path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let last: Vec<&str> = log.lines().rev().take(3).collect();
        for line in last.into_iter().rev() {
            text.push_str(&format!("{}: {line}\n", entry.file_name().display()));
        }
    }
    text
}
