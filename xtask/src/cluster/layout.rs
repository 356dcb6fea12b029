//! Where a cluster is: its addresses, which follow from its number, and its folders, which follow from its name.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::components::Extent;
use crate::build;

/// The bridge on the machine that joins the nodes of all clusters, and the machine's address on it.
pub(super) const BRIDGE: &str = "countersign";
pub(super) const HOST_IP: &str = "10.99.0.1";

/// Clusters have numbers from 1 to this.
pub(super) const MAX_NUMBER: u8 = 9;

/// A cluster's name and number, and all that follows from them.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(super) root: PathBuf,
    pub(super) name: String,
    pub(super) number: u8,
}

impl Layout {
    /// The node's address.
    pub(super) fn node_ip(&self) -> String {
        node_ip(self.number)
    }

    /// The pods' addresses, in CIDR form.
    pub(super) fn pods(&self) -> String {
        pods(self.number)
    }

    /// The services' addresses, in CIDR form.
    pub(super) fn services(&self) -> String {
        format!("10.{}.0.0/16", 200_u16 + u16::from(self.number))
    }

    /// The first service address, which Kubernetes gives to its own API.
    pub(super) fn api_ip(&self) -> String {
        format!("10.{}.0.1", 200_u16 + u16::from(self.number))
    }

    /// The link on the machine whose other end is the node's `eth0`.
    pub(super) fn link(&self) -> String {
        link(self.number)
    }

    /// The cgroup below which the cluster's pods are, relative to the hierarchy's mount.
    pub(super) fn cgroup(&self) -> String {
        cgroup(&self.name)
    }

    /// All that the cluster keeps.
    pub(super) fn dir(&self) -> PathBuf {
        dir(&self.root, &self.name)
    }

    pub(super) fn pki(&self) -> PathBuf {
        self.dir().join("pki")
    }

    pub(super) fn config(&self) -> PathBuf {
        self.dir().join("config")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir().join("log")
    }

    pub(super) fn lib(&self) -> PathBuf {
        self.dir().join("lib")
    }

    /// The administrator's.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    /// Who asked the API server for what, a JSON object a line.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.log().join("audit.log")
    }

    /// While this file is there, the component of that name is not started again when it ends.
    pub(super) fn held(&self, component: &str) -> PathBuf {
        self.dir().join("held").join(component)
    }

    pub(super) fn bin(&self) -> PathBuf {
        build::bin(&self.root)
    }
}

pub(super) fn node_ip(number: u8) -> String {
    format!("10.99.0.{}", u16::from(number) + 1)
}

pub(super) fn pods(number: u8) -> String {
    format!("10.{}.0.0/16", 100_u16 + u16::from(number))
}

pub(super) fn link(number: u8) -> String {
    format!("{BRIDGE}-{number}")
}

pub(super) fn cgroup(name: &str) -> String {
    format!("countersign-{name}")
}

/// The folder of a cluster by its name.
pub(super) fn dir(root: &Path, name: &str) -> PathBuf {
    root.join("target/cluster").join(name)
}

/// A name is a host name's label, and not that of the folder with the programs.
pub(super) fn check_name(name: &str) -> Result<()> {
    let label = !name.is_empty()
        && name.len() <= 40
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !label || name == "bin" {
        bail!("`{name}` cannot be a cluster's name: use a-z, 0-9 and -, at most 40, and not `bin`");
    }
    Ok(())
}

/// What is written down about a cluster under way: enough to tell whether it still is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) number: u8,
    /// Pid 1 of the cluster's namespaces, as the machine sees it.
    pub(super) init: u32,
    /// When it was started, in clock ticks after boot: tells it from another process of the same id.
    pub(super) started: u64,
    /// Of the machine's boot.
    pub(super) boot: String,
    /// How much of it was started.
    #[serde(default)]
    pub(super) extent: Extent,
}

impl State {
    /// What is written down, if anything.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join("state.json")).ok()?).ok()
    }

    /// Of a process that runs now.
    pub(super) fn of(number: u8, init: u32, extent: Extent) -> Result<Self> {
        let started = start_time(init).with_context(|| format!("the cluster's init ({init}) has ended"))?;
        Ok(Self { number, init, started, boot: boot_id()?, extent })
    }

    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        fs::write(dir.join("state.json"), serde_json::to_vec(self)?).context("writing the cluster's state.json")
    }

    /// Whether that very process still runs.
    pub(super) fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot) && start_time(self.init) == Some(self.started)
    }
}

fn boot_id() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot's id")?;
    Ok(id.trim().to_owned())
}

/// Field 22 of `/proc/PID/stat` (proc(5)); none when there is no such process, or it is a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name, may hold spaces and brackets.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_of_the_same_id() {
        let me = State::of(1, std::process::id(), Extent::Whole).unwrap();
        assert!(me.is_alive());
        assert!(!State { started: me.started + 1, ..me.clone() }.is_alive());
        assert!(!State { boot: "another".to_owned(), ..me }.is_alive());
    }

    #[test]
    fn clusters_share_no_address_and_no_folder() {
        let layout = |name: &str, number| Layout { root: "/r".into(), name: name.to_owned(), number };
        let (a, b) = (layout("a", 1), layout("b", 2));
        assert_ne!(a.node_ip(), b.node_ip());
        assert_ne!(a.pods(), b.pods());
        assert_ne!(a.services(), b.services());
        assert_ne!(a.link(), b.link());
        assert_ne!(a.dir(), b.dir());
        assert_ne!(a.cgroup(), b.cgroup());
        assert!((1..=MAX_NUMBER).all(|n| node_ip(n) != HOST_IP && link(n).len() <= 15));
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in ["", "bin", "a/b", "..", "-a", "a-", "A", "a b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("countersign").is_ok());
    }
}
