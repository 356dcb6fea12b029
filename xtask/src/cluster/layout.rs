//! Addresses of a cluster, derived from its number, and its folders, derived from its name.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::build;

/// The bridge on the machine that connects the nodes of all clusters, and the machine's address on it.
pub(super) const BRIDGE: &str = "countersign";
pub(super) const HOST_IP: &str = "10.99.0.1";

/// The highest number of a cluster; the lowest is 1.
pub(super) const MAX_NUMBER: u8 = 9;

/// A cluster's name and number, from which everything else is derived.
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

    /// The parent cgroup of the cluster's pods, relative to the hierarchy's mount.
    pub(super) fn cgroup(&self) -> String {
        cgroup(&self.name)
    }

    /// The folder with all files of the cluster.
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

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    /// The API server's audit log, one JSON object a line.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.log().join("audit.log")
    }

    /// While this file exists, the component is not restarted when it ends.
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

/// The folder of the cluster of this name.
pub(super) fn dir(root: &Path, name: &str) -> PathBuf {
    root.join("target/cluster").join(name)
}

/// A name must be a host name label, and differ from the folder of the programs.
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

#[cfg(test)]
mod tests {
    use super::*;

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
