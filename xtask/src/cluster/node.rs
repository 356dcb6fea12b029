//! Pid 1 of a cluster's namespaces: prepares them, starts the components, and restarts those that end. Killing it ends the
//! cluster.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::components::{self, Component};
use super::host;
use super::layout::{self, Layout, MAX_NUMBER};
use super::state::Extent;
use crate::kube::Kubectl;
use crate::sh::{Run as _, cmd, pause, wait_for};

/// The kubelet sets these for the whole machine, so it gets copies of them.
const SYSCTLS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// The delay before a component that ended is restarted.
const RESTART: Duration = Duration::from_secs(1);

/// The interval of checks for ended and released components.
const TICK: Duration = Duration::from_millis(50);

/// Becomes the cluster's node; returns only with an error.
pub(crate) fn init(layout: &Layout, extent: Extent) -> Result<()> {
    host::make_cgroups(&layout.cgroup())?;
    mounts(layout)?;
    network(layout)?;
    configuration(layout)?;
    let mut running = HashMap::new();
    for component in components::storage_and_api(layout, extent) {
        start(layout, &mut running, component)?;
    }
    api_is_ready(layout, extent)?;
    for component in components::the_rest(layout, extent) {
        start(layout, &mut running, component)?;
    }
    watch(layout, running)
}

/// Files of the cluster go to its folder; its mounts are visible to its pods and not to the machine.
fn mounts(layout: &Layout) -> Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_SHARED | MsFlags::MS_REC, none).context("sharing mounts with pods")?;
    bind(&layout.lib(), Path::new("/var/lib"))?;
    bind(&layout.log(), Path::new("/var/log"))?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).context("mounting /run")?;
    fs::create_dir_all("/run/lock")?;
    fs::write("/proc/sys/kernel/hostname", &layout.name).context("setting the host name")?;
    for name in SYSCTLS {
        let (real, copy) = (Path::new("/proc/sys").join(name), Path::new("/run/sysctl").join(name));
        if let Some(parent) = copy.parent() {
            fs::create_dir_all(parent)?;
        }
        let value = fs::read(&real).with_context(|| format!("reading {}", real.display()))?;
        fs::write(&copy, value)?;
        bind(&copy, &real)?;
    }
    Ok(())
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    let none: Option<&str> = None;
    mount(Some(from), to, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("binding {} over {}", from.display(), to.display()))
}

/// The node reaches the machine and the other clusters; everything else is unreachable.
fn network(layout: &Layout) -> Result<()> {
    let ip = |args: &[&str]| cmd("ip", args).quiet();
    ip(&["link", "set", "lo", "up"])?;
    let there = || Ok(cmd("ip", ["link", "show", "eth0"]).succeeds().then_some(()));
    wait_for("the node has its eth0", Duration::from_secs(20), there)?;
    ip(&["address", "add", &format!("{}/24", layout.node_ip()), "dev", "eth0"])?;
    ip(&["link", "set", "eth0", "up"])?;
    ip(&["route", "add", "unreachable", "default"])?;
    // The API server calls webhooks at their service addresses: without a route, the kernel refuses an address before
    // kube-proxy's rules apply.
    ip(&["route", "add", &layout.services(), "dev", "eth0", "src", &layout.node_ip()])?;
    for other in (1..=MAX_NUMBER).filter(|number| *number != layout.number) {
        ip(&["route", "add", &layout::pods(other), "via", &layout::node_ip(other)])?;
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("letting the node forward")
}

/// Instantiates the templates of `e2e/cluster/config`.
fn configuration(layout: &Layout) -> Result<()> {
    let config = layout.config();
    let values = [
        ("@BIN@", layout.bin().display().to_string()),
        ("@PKI@", layout.pki().display().to_string()),
        ("@CONFIG@", config.display().to_string()),
        ("@CGROUP@", layout.cgroup()),
        ("@IP@", layout.node_ip()),
        ("@PODS@", layout.pods()),
    ];
    let templates = layout.root.join("e2e/cluster/config");
    for entry in fs::read_dir(&templates).with_context(|| format!("reading {}", templates.display()))? {
        let entry = entry?;
        let template = fs::read_to_string(entry.path())?;
        let text = values.iter().fold(template, |text, (word, value)| text.replace(word, value));
        fs::write(config.join(entry.file_name()), text)?;
    }
    fs::write(config.join("resolv.conf"), "")?;
    fs::create_dir_all("/var/lib/cni/net.d")?;
    fs::copy(config.join("cni.conflist"), "/var/lib/cni/net.d/10-countersign.conflist")?;
    Ok(())
}

fn api_is_ready(layout: &Layout, extent: Extent) -> Result<()> {
    let kubectl = Kubectl { program: layout.bin().join("kubectl"), kubeconfig: layout.kubeconfig() };
    kubectl.wait_for_api(Duration::from_secs(120))?;
    if extent == Extent::ApiServer {
        return Ok(());
    }
    let socket = || Ok(Path::new("/run/containerd/containerd.sock").exists().then_some(()));
    wait_for("containerd listens", Duration::from_secs(60), socket)
}

#[allow(clippy::zombie_processes, reason = "`watch` waits for every child, of ours and of pods alike")]
fn start(layout: &Layout, running: &mut HashMap<i32, Component>, component: Component) -> Result<()> {
    let path = layout.log().join(format!("{}.log", component.name));
    let log = OpenOptions::new().create(true).append(true).open(&path);
    let log = log.with_context(|| format!("opening {}", path.display()))?;
    let search = std::env::var("PATH").unwrap_or_default();
    let child = Command::new(layout.bin().join(component.name))
        .args(&component.args)
        .env("PATH", format!("{}:{search}", layout.bin().display()))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", component.name))?;
    running.insert(i32::try_from(child.id())?, component);
    Ok(())
}

/// Reaps every process that ends, as pid 1 must. A component that ends is restarted a second later, or once it is released.
fn watch(layout: &Layout, mut running: HashMap<i32, Component>) -> Result<()> {
    let mut ended: Vec<(Component, Instant)> = Vec::new();
    loop {
        let status = waitpid(None, Some(WaitPidFlag::WNOHANG)).context("waiting for the cluster's processes")?;
        match status {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) => {
                if let Some(component) = running.remove(&pid.as_raw()) {
                    crate::progress::say(format!("{} ended ({status:?}) and is started again", component.name));
                    ended.push((component, Instant::now() + RESTART));
                }
            }
            WaitStatus::StillAlive => {
                let due = |(component, at): &(Component, Instant)| {
                    *at <= Instant::now() && !layout.held(component.name).exists()
                };
                for (component, _) in ended.extract_if(.., |one| due(one)) {
                    start(layout, &mut running, component)?;
                }
                pause(TICK);
            }
            _ => {}
        }
    }
}
