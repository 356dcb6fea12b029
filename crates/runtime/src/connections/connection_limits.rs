//! Limits of connections, per address and in all. Connections that have authenticated nobody yet are limited most. Among these,
//! the one whose peer has been silent longest is evicted for the newest: a handshake takes milliseconds, so the oldest is one
//! that stalls. Connections waiting on the server are never evicted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::ConnectionMetrics;

/// What peers may hold open.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Handshakes that compute at the same time. What waits for a peer's bytes is not among them.
    pub handshakes: usize,
    /// How long a handshake may take.
    pub handshake_time: Duration,
    /// Connections of one address that have proven nothing yet.
    pub waiting_per_address: usize,
    /// Connections that have proven nothing yet, in all.
    pub waiting: usize,
    /// Connections of one address. Pods on the host's network share their node's; behind some networks all share one.
    pub per_address: usize,
    /// Connections in all.
    pub total: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            // The other half of the processors is for those who are in.
            handshakes: std::thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2)),
            handshake_time: Duration::from_secs(5),
            waiting_per_address: 1024,
            waiting: 4096,
            per_address: 16_384,
            total: 100_000,
        }
    }
}

/// Every connection, and who must go first.
#[derive(Clone, Debug)]
pub struct ConnectionLimiter(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    limits: ConnectionLimits,
    metrics: ConnectionMetrics,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    total: usize,
    /// That have proven nothing yet.
    unauthenticated: usize,
    /// Of them, those whose peers' bytes are waited for, in the order of their last ones.
    waiting: BTreeMap<u64, (IpAddr, CancellationToken)>,
    addresses: HashMap<IpAddr, PerAddress>,
}

#[derive(Debug, Default)]
struct PerAddress {
    all: usize,
    unauthenticated: usize,
    waiting: BTreeSet<u64>,
}

impl ConnectionLimiter {
    /// Nobody is connected.
    #[must_use]
    pub fn new(limits: ConnectionLimits, metrics: ConnectionMetrics) -> Self {
        Self(Arc::new(Counts { limits, metrics, state: Mutex::default() }))
    }

    /// A permit for a new connection. The one that waits longest gives its own up where there is none left; `None` when
    /// nobody waits.
    #[must_use]
    pub fn try_admit(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let limits = &self.0.limits;
        let mut state = self.0.state.lock();
        let (here, unauthenticated) =
            state.addresses.get(&address).map_or((0, 0), |here| (here.all, here.unauthenticated));
        if unauthenticated >= limits.waiting_per_address || here >= limits.per_address {
            let oldest = state.addresses.get(&address).and_then(|here| here.waiting.first().copied());
            self.evict(&mut state, oldest)?;
        }
        if state.unauthenticated >= limits.waiting || state.total >= limits.total {
            let oldest = state.waiting.keys().next().copied();
            self.evict(&mut state, oldest)?;
        }
        let evicted = CancellationToken::new();
        state.total += 1;
        state.unauthenticated += 1;
        let here = state.addresses.entry(address).or_default();
        here.all += 1;
        here.unauthenticated += 1;
        let stage = Mutex::new(Stage::Waiting(state.wait(address, &evicted)));
        self.0.metrics.open.inc();
        Some(ConnectionPermit { limiter: self.clone(), address, stage, evicted })
    }

    fn evict(&self, state: &mut State, number: Option<u64>) -> Option<()> {
        let (address, evicted) = state.waiting.get(&number?)?.clone();
        evicted.cancel();
        state.forget(address, Stage::Waiting(number?));
        self.0.metrics.evicted.inc();
        Some(())
    }
}

impl State {
    fn wait(&mut self, address: IpAddr, evicted: &CancellationToken) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, (address, evicted.clone()));
        self.addresses.entry(address).or_default().waiting.insert(self.next);
        self.next
    }

    fn stop_waiting(&mut self, address: IpAddr, number: u64) {
        self.waiting.remove(&number);
        if let Some(here) = self.addresses.get_mut(&address) {
            here.waiting.remove(&number);
        }
    }

    fn mark_authenticated(&mut self, address: IpAddr) {
        self.unauthenticated = self.unauthenticated.saturating_sub(1);
        if let Some(here) = self.addresses.get_mut(&address) {
            here.unauthenticated = here.unauthenticated.saturating_sub(1);
        }
    }

    /// Takes a connection out of every count.
    fn forget(&mut self, address: IpAddr, stage: Stage) {
        if let Stage::Waiting(number) = stage {
            self.stop_waiting(address, number);
        }
        if stage != Stage::Authenticated {
            self.mark_authenticated(address);
        }
        self.total = self.total.saturating_sub(1);
        if let Some(here) = self.addresses.get_mut(&address) {
            here.all = here.all.saturating_sub(1);
            if here.all == 0 {
                self.addresses.remove(&address);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its peer's bytes are waited for.
    Waiting(u64),
    /// This many steps wait for us: streams of one connection may at the same time.
    Guarded(usize),
    Authenticated,
}

/// A place among the connections; given back when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    limiter: ConnectionLimiter,
    address: IpAddr,
    stage: Mutex<Stage>,
    evicted: CancellationToken,
}

/// For as long as a connection waits for us, it makes room for nobody.
#[derive(Debug)]
pub struct EvictionGuard<'a>(&'a ConnectionPermit);

impl ConnectionPermit {
    /// From where the connection came.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Resolves when the connection must make room.
    pub fn evicted(&self) -> WaitForCancellationFuture<'_> {
        self.evicted.cancelled()
    }

    /// The peer has said what it must: the rest of this step is ours.
    #[must_use]
    pub fn guard_from_eviction(&self) -> EvictionGuard<'_> {
        let mut state = self.limiter.0.state.lock();
        let mut stage = self.stage.lock();
        match *stage {
            Stage::Waiting(number) if !self.evicted.is_cancelled() => {
                state.stop_waiting(self.address, number);
                *stage = Stage::Guarded(1);
            }
            Stage::Guarded(steps) => *stage = Stage::Guarded(steps.saturating_add(1)),
            Stage::Waiting(_) | Stage::Authenticated => {}
        }
        EvictionGuard(self)
    }

    /// A stream of the connection has proven a pod: it makes room for nobody any more.
    pub fn mark_authenticated(&self) {
        let mut state = self.limiter.0.state.lock();
        let mut stage = self.stage.lock();
        if *stage == Stage::Authenticated || self.evicted.is_cancelled() {
            return;
        }
        if let Stage::Waiting(number) = *stage {
            state.stop_waiting(self.address, number);
        }
        state.mark_authenticated(self.address);
        *stage = Stage::Authenticated;
    }
}

impl Drop for EvictionGuard<'_> {
    fn drop(&mut self) {
        let permit = self.0;
        let mut state = permit.limiter.0.state.lock();
        let mut stage = permit.stage.lock();
        *stage = match *stage {
            Stage::Guarded(steps) if steps > 1 => Stage::Guarded(steps - 1),
            Stage::Guarded(_) => Stage::Waiting(state.wait(permit.address, &permit.evicted)),
            other => other,
        };
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        // Who was evicted is in no count any more.
        let mut state = self.limiter.0.state.lock();
        if !self.evicted.is_cancelled() {
            state.forget(self.address, *self.stage.lock());
        }
        drop(state);
        self.limiter.0.metrics.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::ConnectionMetrics;
    use super::{ConnectionLimiter, ConnectionLimits};
    use std::net::{IpAddr, Ipv4Addr};

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn limiter(limits: ConnectionLimits) -> ConnectionLimiter {
        ConnectionLimiter::new(limits, ConnectionMetrics::default())
    }

    #[test]
    fn of_an_address_the_one_that_waited_longest_makes_room() {
        let limiter = limiter(ConnectionLimits { waiting_per_address: 2, ..ConnectionLimits::default() });
        let other = limiter.try_admit(address(2)).expect("room");
        let [first, second, third] = [1, 1, 1].map(|last| limiter.try_admit(address(last)).expect("room"));
        assert!(first.evicted.is_cancelled(), "the oldest of its address");
        assert!(!other.evicted.is_cancelled(), "an older one of another address is left alone");
        assert!(!second.evicted.is_cancelled() && !third.evicted.is_cancelled());
        assert_eq!(limiter.0.metrics.evicted.get(), 1);
    }

    #[test]
    fn who_has_proven_a_pod_makes_room_for_nobody() {
        let limiter = limiter(ConnectionLimits { waiting_per_address: 1, waiting: 1, ..ConnectionLimits::default() });
        let proven = limiter.try_admit(address(1)).expect("room");
        proven.mark_authenticated();
        let _more = [1, 1, 2, 2].map(|last| limiter.try_admit(address(last)).expect("room"));
        assert!(!proven.evicted.is_cancelled());
    }

    // A herd that waits for its turn is not shown out by those who come after it.
    #[test]
    fn who_waits_for_us_makes_room_for_nobody_until_it_is_its_peers_turn_again() {
        let limiter = limiter(ConnectionLimits { waiting_per_address: 2, ..ConnectionLimits::default() });
        let [first, second] = [1, 1].map(|last| limiter.try_admit(address(last)).expect("room"));
        let (first_busy, second_busy) = (first.guard_from_eviction(), second.guard_from_eviction());
        assert!(limiter.try_admit(address(1)).is_none(), "nobody waits, and there are as many as may be");
        drop((second_busy, first_busy));
        let _third = limiter.try_admit(address(1)).expect("room");
        assert!(second.evicted.is_cancelled() && !first.evicted.is_cancelled(), "whose turn came back first");
        drop((first, second));
        assert_eq!(limiter.0.state.lock().unauthenticated, 1);
    }

    #[test]
    fn a_connection_of_several_streams_is_guarded_until_the_last_of_them_waits_for_its_peer() {
        let limiter = limiter(ConnectionLimits { waiting_per_address: 1, ..ConnectionLimits::default() });
        let first = limiter.try_admit(address(1)).expect("room");
        let (one, other) = (first.guard_from_eviction(), first.guard_from_eviction());
        drop(one);
        assert!(limiter.try_admit(address(1)).is_none(), "the other stream is still answered");
        drop(other);
        assert!(limiter.try_admit(address(1)).is_some() && first.evicted.is_cancelled());
        assert_eq!(limiter.0.state.lock().unauthenticated, 0);
    }

    #[test]
    fn in_all_the_one_that_waited_longest_makes_room() {
        let limiter = limiter(ConnectionLimits { waiting: 2, ..ConnectionLimits::default() });
        let [first, second, third] = [1, 2, 3].map(|last| limiter.try_admit(address(last)).expect("room"));
        assert!(first.evicted.is_cancelled() && !second.evicted.is_cancelled() && !third.evicted.is_cancelled());
    }

    #[test]
    fn an_address_and_all_together_hold_at_most_their_cap_and_get_it_back() {
        let limiter = limiter(ConnectionLimits { per_address: 2, total: 3, ..ConnectionLimits::default() });
        let mut kept: Vec<_> = [1, 1, 2].iter().map(|&last| limiter.try_admit(address(last)).expect("room")).collect();
        kept.iter().for_each(super::ConnectionPermit::mark_authenticated);
        assert!(limiter.try_admit(address(1)).is_none(), "the address is full");
        assert!(limiter.try_admit(address(3)).is_none(), "all together are");
        kept.remove(0);
        assert!(limiter.try_admit(address(1)).is_some());
        drop(kept);
        let state = limiter.0.state.lock();
        assert!(state.addresses.is_empty() && state.waiting.is_empty());
        assert_eq!((state.total, state.unauthenticated), (0, 0));
    }
}
