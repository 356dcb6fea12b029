//! The sockets that this process opens, other than those of connections to known ports.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    time::Duration,
};

use tokio::{sync::oneshot, task::JoinHandle, time::interval};

/// Between two looks; a connection that is closed before the next one is not seen.
const EVERY: Duration = Duration::from_millis(10);

/// Watches until it is asked.
pub(crate) struct Sockets {
    stop: oneshot::Sender<()>,
    task: JoinHandle<usize>,
}

impl Sockets {
    /// From now on. Connections to and from `ports` do not count.
    pub(crate) fn watch(ports: &[u16]) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let (before, ports) = (own(), ports.to_vec());
        let task = tokio::spawn(async move {
            let (mut tick, mut to_ports, mut others) = (interval(EVERY), BTreeSet::new(), BTreeSet::new());
            while stopped.try_recv().is_err() {
                tick.tick().await;
                let new: Vec<_> =
                    own().into_iter().filter(|one| !before.contains(one) && !to_ports.contains(one)).collect();
                if new.is_empty() {
                    continue;
                }
                // One that is not connected yet is in no table: it is found by the next look.
                let connections = ports_of_connections();
                for inode in new {
                    let ports_of_it = connections.get(&inode);
                    if ports_of_it.is_some_and(|both| both.iter().any(|port| ports.contains(port))) {
                        others.remove(&inode);
                        to_ports.insert(inode);
                    } else {
                        others.insert(inode);
                    }
                }
            }
            others.len()
        });
        Self { stop, task }
    }

    /// How many were opened, and stops.
    pub(crate) async fn opened(self) -> usize {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

/// The sockets of this process, of any kind, by their inodes.
fn own() -> BTreeSet<u64> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter_map(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

/// Local and remote port of each connection of this network namespace, by inode (proc_pid_net(5)).
fn ports_of_connections() -> HashMap<u64, [u16; 2]> {
    let text = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    let connection = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        Some((columns.get(9)?.parse().ok()?, [port(columns.get(1)?)?, port(columns.get(2)?)?]))
    };
    text.lines().skip(1).filter_map(connection).collect()
}
