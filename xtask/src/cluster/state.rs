//! The stored state of a cluster: which components it has, and whether it still runs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The components with which a cluster is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Extent {
    /// A node on which pods run.
    #[default]
    Whole,
    /// Only etcd and the API server: stored objects stay unchanged, since no controller and no kubelet acts on them.
    ApiServer,
}

/// The stored state of a started cluster: enough to tell whether it still runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) number: u8,
    /// Pid 1 of the cluster's namespaces, as the machine sees it.
    pub(super) init: u32,
    /// Its start time in clock ticks after boot, which distinguishes it from a later process with the same id.
    pub(super) started: u64,
    /// The machine's boot id.
    pub(super) boot: String,
    /// The components that were started.
    #[serde(default)]
    pub(super) extent: Extent,
}

impl State {
    /// Reads the state, if there is any.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join("state.json")).ok()?).ok()
    }

    /// The state of a cluster whose init runs now.
    pub(super) fn of(number: u8, init: u32, extent: Extent) -> Result<Self> {
        let started = start_time(init).with_context(|| format!("the cluster's init ({init}) has ended"))?;
        Ok(Self { number, init, started, boot: boot_id()?, extent })
    }

    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        fs::write(dir.join("state.json"), serde_json::to_vec(self)?).context("writing the cluster's state.json")
    }

    /// Whether the same process still runs.
    pub(super) fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot) && start_time(self.init) == Some(self.started)
    }
}

fn boot_id() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot's id")?;
    Ok(id.trim().to_owned())
}

/// Field 22 of `/proc/PID/stat` (proc(5)); `None` if there is no such process, or it is a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name, may contain spaces and brackets.
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
}
