//! Resources on the machine while a cluster runs, removed when it ends: a bridge shared by all clusters, a link, two
//! routes, and cgroups.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::layout::{BRIDGE, HOST_IP, Layout, MAX_NUMBER, link};
use crate::sh::{Run as _, cmd, wait_for};

const CGROUPS: &str = "/sys/fs/cgroup";

/// The lowest number that no cluster on this machine uses.
pub(super) fn free_number() -> Result<u8> {
    match (1..=MAX_NUMBER).find(|number| !link_exists(&link(*number))) {
        Some(number) => Ok(number),
        None => {
            bail!("{MAX_NUMBER} clusters run on this machine, which is all there can be; end one")
        }
    }
}

/// The bridge has no masquerading or forwarding: nodes reach each other and the machine, and nothing else.
pub(super) fn make_bridge() -> Result<()> {
    if !link_exists(BRIDGE) {
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["address", "add", &format!("{HOST_IP}/24"), "dev", BRIDGE])?;
    }
    ip(&["link", "set", BRIDGE, "up"])
}

/// Creates `eth0` in the namespaces of `init`, and the machine's routes to the cluster's pods and services.
pub(super) fn connect(layout: &Layout, init: u32) -> Result<()> {
    let (link, init) = (layout.link(), init.to_string());
    ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &init])?;
    ip(&["link", "set", &link, "master", BRIDGE, "up"])?;
    for range in [layout.pods(), layout.services()] {
        ip(&["route", "replace", &range, "via", &layout.node_ip()])?;
    }
    Ok(())
}

/// Removes the routes and the link.
pub(super) fn disconnect(layout: &Layout) -> Result<()> {
    for range in [layout.pods(), layout.services()] {
        cmd("ip", ["route", "del", &range, "via", &layout.node_ip()]).succeeds();
    }
    if link_exists(&layout.link()) {
        // It may be deleted at this moment, with the namespace of its other end.
        cmd("ip", ["link", "del", &layout.link()]).succeeds();
    }
    let limit = Duration::from_secs(10);
    wait_for("the cluster's link is gone", limit, || Ok((!link_exists(&layout.link())).then_some(())))
}

/// Removes the bridge after the last cluster.
pub(super) fn remove_unused_bridge() -> Result<()> {
    match unused_bridge() {
        Some(bridge) => ip(&["link", "del", bridge]),
        None => Ok(()),
    }
}

/// Creates the parent of the kubelet's cgroups: in each hierarchy of version 1, or in the one of version 2.
pub(super) fn make_cgroups(name: &str) -> Result<()> {
    let hierarchies = hierarchies()?;
    for hierarchy in &hierarchies {
        let dir = hierarchy.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    }
    if is_v2() {
        return Ok(());
    }
    // A new cpuset of version 1 is empty, and no process can run in it.
    let cpuset = Path::new(CGROUPS).join("cpuset");
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = cpuset.join(name).join(file);
        fs::read(cpuset.join(file))
            .and_then(|value| fs::write(&own, value))
            .with_context(|| format!("filling in {}", own.display()))?;
    }
    Ok(())
}

/// Removes the cgroup and everything below it, which is possible shortly after the last process has ended.
pub(super) fn remove_cgroups(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let dir = hierarchy.join(name);
        wait_for("the cluster's cgroups are gone", Duration::from_secs(20), || {
            remove_tree(&dir).with_context(|| format!("removing {}", dir.display()))?;
            Ok(Some(()))
        })?;
    }
    Ok(())
}

/// Removes only folders, leaves first: files of a cgroup cannot be removed and disappear with it.
fn remove_tree(dir: &Path) -> std::io::Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

/// The cgroups of this name in all hierarchies.
pub(super) fn cgroups(name: &str) -> Result<Vec<PathBuf>> {
    Ok(hierarchies()?.into_iter().map(|hierarchy| hierarchy.join(name)).filter(|dir| dir.exists()).collect())
}

/// The kernel's index of a link, which a later link of the same name does not have; `None` if there is no link.
pub(super) fn link_index(name: &str) -> Option<u32> {
    fs::read_to_string(Path::new("/sys/class/net").join(name).join("ifindex")).ok()?.trim().parse().ok()
}

/// The bridge, if it connects no cluster any more.
pub(super) fn unused_bridge() -> Option<&'static str> {
    let used = (1..=MAX_NUMBER).any(|number| link_exists(&link(number)));
    (link_exists(BRIDGE) && !used).then_some(BRIDGE)
}

/// The machine's routes, one a line.
pub(super) fn routes() -> Result<String> {
    cmd("ip", ["-4", "route", "show", "table", "all"]).read()
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    if is_v2() {
        return Ok(vec![PathBuf::from(CGROUPS)]);
    }
    let mut dirs = Vec::new();
    for entry in fs::read_dir(CGROUPS).with_context(|| format!("reading {CGROUPS}"))? {
        let entry = entry?;
        // `cpu` may be a link to `cpu,cpuacct`.
        if entry.file_type()?.is_dir() {
            dirs.push(entry.path());
        }
    }
    Ok(dirs)
}

fn is_v2() -> bool {
    Path::new(CGROUPS).join("cgroup.controllers").exists()
}

fn link_exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

fn ip(args: &[&str]) -> Result<()> {
    cmd("ip", args).quiet()
}
