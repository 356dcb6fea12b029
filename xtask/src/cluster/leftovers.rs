//! Everything of a cluster that is visible on the machine: recorded before the cluster ends, and checked afterwards.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::host;
use super::layout::{self, Layout};
use super::state::State;
use crate::sh::wait_for;

/// The kinds of namespaces that each cluster has.
const NAMESPACES: [&str; 5] = ["mnt", "net", "pid", "uts", "ipc"];

/// Timeout for the last processes to end after the cluster's init.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What identifies a cluster on the machine, besides its folder and its cgroups.
#[derive(Debug)]
pub(super) struct Leftovers {
    name: String,
    dir: PathBuf,
    /// The namespaces of its init, if that ran.
    namespaces: Vec<Namespace>,
    network: Option<Network>,
}

/// A namespace, kept from being removed: the kernel gives the number of a removed one to the next that anybody makes, such
/// as a pod of another cluster.
#[derive(Debug)]
struct Namespace {
    /// In the form of `/proc`: `net:[4026531840]`.
    link: PathBuf,
    _open: File,
}

/// The network of a cluster. Its number may be reused as soon as it is free, so the link is identified by the kernel's index.
#[derive(Debug)]
struct Network {
    layout: Layout,
    index: Option<u32>,
}

impl Leftovers {
    /// Records the cluster of this name, if there is one.
    pub(super) fn of(root: &Path, name: &str) -> Self {
        let dir = layout::dir(root, name);
        let state = State::read(&dir);
        let init = state.as_ref().filter(|state| state.is_alive()).map(|state| state.init);
        let layout = state.map(|state| Layout { root: root.to_owned(), name: name.to_owned(), number: state.number });
        Self {
            name: name.to_owned(),
            dir,
            namespaces: init.map(namespaces).unwrap_or_default(),
            network: layout.map(|layout| Network { index: host::link_index(&layout.link()), layout }),
        }
    }

    /// Waits until the cluster has no process, link, route, mount, cgroup or file; the error names what is left.
    pub(super) fn wait_until_gone(&self) -> Result<()> {
        wait_for(&format!("nothing of cluster {} is left", self.name), TIMEOUT, || {
            let left = self.left()?;
            if !left.is_empty() {
                bail!("left of cluster {}: {}", self.name, left.join(", "));
            }
            Ok(Some(()))
        })
    }

    fn left(&self) -> Result<Vec<String>> {
        let mut left = processes_in(&self.namespaces);
        if let Some(network) = &self.network {
            left.extend(network.left()?);
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the machine's mounts")?;
        // The kernel reports mount points with links resolved.
        let dir = self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone());
        left.extend(mounts_below(&mounts, &dir).map(|mount| format!("mount {mount}")));
        let cgroups = host::cgroups(&layout::cgroup(&self.name))?;
        left.extend(cgroups.iter().map(|dir| format!("cgroup {}", dir.display())));
        if self.dir.symlink_metadata().is_ok() {
            left.push(format!("folder {}", self.dir.display()));
        }
        Ok(left)
    }
}

impl Network {
    fn left(&self) -> Result<Vec<String>> {
        let (name, now) = (self.layout.link(), host::link_index(&self.layout.link()));
        if now.is_some() && now != self.index {
            // Another cluster has the number now, and with it these addresses.
            return Ok(Vec::new());
        }
        let mut left: Vec<_> = now.iter().map(|_| format!("link {name}")).collect();
        left.extend(host::unused_bridge().map(|bridge| format!("link {bridge}")));
        let routes = host::routes()?;
        left.extend(routes_of(&routes, &self.layout).map(|route| format!("route {route}")));
        Ok(left)
    }
}

/// The namespaces of a process, except those that it shares with this program.
fn namespaces(process: u32) -> Vec<Namespace> {
    let path = |process: &str, kind: &str| PathBuf::from(format!("/proc/{process}/ns/{kind}"));
    let own = |kind| {
        let path_of_process = path(&process.to_string(), kind);
        let link = fs::read_link(&path_of_process).ok()?;
        let shared = fs::read_link(path("self", kind)).ok().as_ref() == Some(&link);
        Some(Namespace { link, _open: File::open(path_of_process).ok()? }).filter(|_| !shared)
    };
    NAMESPACES.into_iter().filter_map(own).collect()
}

/// Every process in one of these namespaces. Ended processes and zombies are in none.
fn processes_in(namespaces: &[Namespace]) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let inside = |entry: &fs::DirEntry| {
        let of = |kind| fs::read_link(entry.path().join("ns").join(kind)).ok();
        NAMESPACES.into_iter().filter_map(of).any(|link| namespaces.iter().any(|namespace| namespace.link == link))
    };
    let number = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let say = |entry: fs::DirEntry| {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        Some(format!("process {} ({})", number(&entry)?, name.trim_end()))
    };
    entries.filter(|entry| number(entry).is_some() && inside(entry)).filter_map(say).collect()
}

/// The mount points at or below a folder, in `/proc/self/mountinfo` (field 5, proc_pid_mountinfo(5)).
fn mounts_below<'a>(mounts: &'a str, dir: &'a Path) -> impl Iterator<Item = &'a str> {
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(move |mount| Path::new(mount).starts_with(dir))
}

/// Routes to the cluster's pods and services, and routes via its node.
fn routes_of<'a>(routes: &'a str, layout: &Layout) -> impl Iterator<Item = &'a str> {
    let (ranges, node) = ([layout.pods(), layout.services()], layout.node_ip());
    routes.lines().map(str::trim).filter(move |route| {
        let mut words = route.split_ascii_whitespace();
        words.clone().next().is_some_and(|to| ranges.iter().any(|range| range == to)) || words.any(|word| word == node)
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn leftovers(dir: &Path) -> Leftovers {
        let name = format!("unseen-{}", std::process::id());
        Leftovers { name, dir: dir.to_owned(), namespaces: Vec::new(), network: None }
    }

    #[test]
    fn a_folder_that_is_left_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("gone");
        assert_eq!(leftovers(&folder).left().unwrap(), [""; 0]);
        fs::create_dir(&folder).unwrap();
        assert_eq!(leftovers(&folder).left().unwrap(), [format!("folder {}", folder.display())]);
    }

    /// A process in a UTS namespace of its own, ended with this value.
    struct InNamespace(Child);

    impl InNamespace {
        fn start() -> Self {
            let this = Self(Command::new("unshare").args(["--uts", "sleep", "600"]).spawn().unwrap());
            crate::sh::wait_for("the process has its namespace", Duration::from_secs(10), || {
                Ok((namespaces(this.0.id()).len() == 1).then_some(()))
            })
            .unwrap();
            this
        }
    }

    impl Drop for InNamespace {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_process_that_is_left_is_named_by_the_namespace_it_is_in() {
        assert!(namespaces(std::process::id()).is_empty(), "what the machine's processes share is no cluster's");
        let process = InNamespace::start();
        let found = processes_in(&namespaces(process.0.id()));
        let named = format!("process {} (", process.0.id());
        assert!(found.len() == 1 && found.iter().all(|found| found.starts_with(&named)), "{found:?}");
        assert_eq!(processes_in(&[]), [""; 0]);
    }

    #[test]
    fn a_process_in_a_namespace_made_afterwards_is_not_taken_for_one_that_is_left() {
        let ended = InNamespace::start();
        let namespaces = namespaces(ended.0.id());
        drop(ended);
        let later = [InNamespace::start(), InNamespace::start()];
        assert_eq!(processes_in(&namespaces), [""; 0], "{:?}", later.map(|process| process.0.id()));
    }

    #[test]
    fn a_mount_that_is_left_is_named_and_its_neighbours_are_not() {
        let mounts = "36 35 98:0 / / rw - ext4 /dev/root rw\n\
                      37 36 0:5 / /r/target/cluster/test rw - tmpfs tmpfs rw\n\
                      38 36 0:6 / /r/target/cluster/test/lib/x rw master:1 - tmpfs tmpfs rw\n\
                      39 36 0:7 / /r/target/cluster/test-2/lib rw - tmpfs tmpfs rw\n";
        let found: Vec<_> = mounts_below(mounts, Path::new("/r/target/cluster/test")).collect();
        assert_eq!(found, ["/r/target/cluster/test", "/r/target/cluster/test/lib/x"]);
    }

    #[test]
    fn a_route_that_is_left_is_named_and_those_of_other_clusters_are_not() {
        let layout = Layout { root: "/r".into(), name: "test".to_owned(), number: 1 };
        let other = "default via 192.0.2.1 dev eth0 \n10.102.0.0/16 via 10.99.0.3 dev countersign \n\
                     local 10.99.0.1 dev countersign table local src 10.99.0.1 \n10.99.0.0/24 dev countersign \n";
        assert_eq!(routes_of(other, &layout).collect::<Vec<_>>(), [""; 0]);
        let left = ["10.101.0.0/16 via 10.99.0.2 dev countersign", "10.201.0.0/16 dev x", "10.7.0.0/16 via 10.99.0.2"];
        let all = format!("{other}{}\n", left.join(" \n"));
        assert_eq!(routes_of(&all, &layout).collect::<Vec<_>>(), left);
    }
}
