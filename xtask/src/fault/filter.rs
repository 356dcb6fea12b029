//! Packet filter rules in the node's network, in a table of their own that is deleted when the fault ends.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::sh::{Run as _, cmd};

/// A table of this program.
#[derive(Debug)]
pub(super) struct Filter {
    table: String,
}

impl Filter {
    /// Drops packets from these pods to a service, before kube-proxy's rules apply.
    pub(super) fn drop(from: &[Ipv4Addr], to: SocketAddrV4) -> Result<Self> {
        let (from, address, port) = (list(from), to.ip(), to.port());
        let rule = format!("ip saddr {{ {from} }} ip daddr {address} tcp dport {port} drop");
        Self::make("type filter hook prerouting priority raw", &rule)
    }

    /// Redirects connections of these pods from a service's address to another, before kube-proxy's rules apply.
    pub(super) fn divert(from: &[Ipv4Addr], service: &str, to: &str) -> Result<Self> {
        let rule = format!("ip saddr {{ {} }} ip daddr {service} tcp dport 443 dnat to {to}", list(from));
        Self::make("type nat hook prerouting priority dstnat - 10", &rule)
    }

    /// Deletes the rules.
    pub(super) fn remove(self) -> Result<()> {
        cmd("nft", ["delete", "table", "ip", &self.table]).quiet()
    }

    fn make(hook: &str, rule: &str) -> Result<Self> {
        let table = format!("fault-{}", std::process::id());
        let mut nft = Command::new("nft");
        let mut nft = nft.args(["--file", "-"]).stdin(Stdio::piped()).spawn().context("starting nft")?;
        let mut input = nft.stdin.take().context("nft reads nothing")?;
        writeln!(input, "table ip {table} {{\n chain c {{\n {hook};\n {rule}\n }}\n}}")
            .context("writing rules to nft")?;
        drop(input);
        let status = nft.wait().context("waiting for nft")?;
        if !status.success() {
            bail!("nft did not take the rules: {status}");
        }
        Ok(Self { table })
    }
}

/// Ends the connections of these pods to the API server, with a reset on both sides.
pub(super) fn end_connections(to: &str, of: &[Ipv4Addr]) -> Result<()> {
    for pod in of {
        let (pod, source) = (pod.to_string(), format!("{to}:6443"));
        cmd("ss", ["--kill", "--tcp", "state", "established", "src", &source, "dst", &pod]).quiet()?;
    }
    Ok(())
}

fn list(addresses: &[Ipv4Addr]) -> String {
    addresses.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ")
}
