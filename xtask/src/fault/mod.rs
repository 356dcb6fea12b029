//! `cargo xtask fault`: breaks a part of our own cluster, for the fault tests.
//!
//! A fault lasts as long as standard input is open, so that it never outlives the test that requested it. Standard output
//! has one JSON object a line: one when the fault is in effect, one for each line read, and one when the fault is over and
//! the cluster responds again.

mod backup;
mod clock;
mod etcd;
mod filter;
mod proxy;
mod seal;

use std::io::{BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cluster::{self, Component, Node, signal};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The cluster's name.
    #[arg(long, default_value = cluster::DEFAULT)]
    name: String,
    #[command(subcommand)]
    fault: Fault,
}

#[derive(Debug, clap::Subcommand)]
enum Fault {
    /// End a component, and prevent its restart.
    Stop { component: Component },
    /// Pause the processes of a component or of a container: their connections stay open without answers.
    Pause(Victim),
    /// Kill a component or a container. The command waits for the restart of a component; a container may be restarted.
    Kill(Victim),
    /// Set a container's clock ahead by this many seconds, or back if negative.
    Clock {
        /// The container's id, as in its pod's status.
        #[arg(long)]
        container: String,
        #[arg(long, allow_hyphen_values = true)]
        ahead: i64,
    },
    /// Prevent a container's processes from making files in a directory.
    Seal {
        /// The container's id, as in its pod's status.
        #[arg(long)]
        container: String,
        /// As the container sees it.
        #[arg(long)]
        directory: PathBuf,
    },
    /// Drop packets from pods to a service, without any error to either side.
    Block {
        /// The pods' addresses.
        #[arg(long = "pod", required = true)]
        pods: Vec<Ipv4Addr>,
        /// The service's address and port.
        #[arg(long)]
        to: SocketAddrV4,
    },
    /// Run a proxy between pods and the API server. Lines on standard input: `pass`, `slow MILLISECONDS`, `answer STATUS`,
    /// `mute RESOURCE` (answers for it have a head and no content), `cut` (end all connections), `count`.
    Between {
        /// The pods' addresses.
        #[arg(long = "pod", required = true)]
        pods: Vec<Ipv4Addr>,
    },
    /// Compact etcd's history to the newest revision.
    Compact,
    /// Back etcd up. The line `restore` on standard input puts the backup back, and starts all that reads from it anew.
    Backup,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Victim {
    component: Option<Component>,
    /// The container's id, as in its pod's status.
    #[arg(long)]
    container: Option<String>,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let node = Node::find(root, &options.name)?;
    match &options.fault {
        Fault::Stop { component } => {
            let held = node.hold(*component);
            if held.is_ok() {
                while_asked();
            }
            node.release(*component)?;
            held?;
        }
        Fault::Pause(victim) => {
            let processes = victim.processes(&node)?;
            signal(&processes, Signal::SIGSTOP)?;
            while_asked();
            signal(&processes, Signal::SIGCONT)?;
            if victim.component.is_some() {
                node.well()?;
            }
        }
        Fault::Kill(Victim { component: Some(component), .. }) => node.end(*component)?,
        Fault::Kill(victim) => signal(&victim.processes(&node)?, Signal::SIGKILL)?,
        Fault::Clock { container, ahead } => {
            let processes = node.processes_of_container(container)?;
            let set: Vec<_> = processes.into_iter().map(|process| clock::Clock::set(process, *ahead)).collect();
            if set.iter().all(Result::is_ok) {
                while_asked();
            }
            let restored: Vec<_> = set.iter().flatten().map(clock::Clock::restore).collect();
            restored.into_iter().collect::<Result<()>>()?;
            set.into_iter().collect::<Result<Vec<_>>>()?;
        }
        Fault::Seal { container, directory } => {
            let processes = node.processes_of_container(container)?;
            let sealed = seal::Sealed::new(processes.first().copied().unwrap_or_default(), directory)?;
            while_asked();
            sealed.restore()?;
        }
        Fault::Block { pods, to } => {
            node.enter_network()?;
            let filter = filter::Filter::drop(pods, *to)?;
            while_asked();
            filter.remove()?;
        }
        Fault::Between { pods } => {
            node.enter_network()?;
            proxy::run(&node, pods)?;
        }
        Fault::Compact => {
            node.enter_network()?;
            etcd::compact()?;
        }
        Fault::Backup => backup::run(&node)?,
    }
    tell(&json!({ "state": "over" }));
    Ok(())
}

impl Victim {
    fn processes(&self, node: &Node) -> Result<Vec<u32>> {
        match (self.component, &self.container) {
            (Some(component), _) => node.running(component),
            (None, Some(id)) => node.processes_of_container(id),
            (None, None) => bail!("name a component, or a container"),
        }
    }
}

/// Reports that the fault is in effect, and returns once standard input has ended.
fn while_asked() {
    tell(&json!({ "state": "under way" }));
    for line in std::io::stdin().lock().lines() {
        if line.is_err() {
            break;
        }
        tell(&json!({ "state": "under way" }));
    }
}

/// Prints a line. A closed standard output is ignored, so that the fault is still undone.
fn tell(line: &Value) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
