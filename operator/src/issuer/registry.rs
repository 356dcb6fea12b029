//! Who streams now: one stream for each (pod uid, session); caps for each pod and in all, and for each address on what has
//! proven no pod yet; and how many may begin in a time, since each begins with a token to verify.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::record::{AgentInfo, StreamRecord};
use crate::rate::{Rate, Turnstile};

/// How many streams may be open at the same time, and how many may begin.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Of one pod: one for each container and one for the pod.
    pub per_pod: usize,
    /// From one address, of those that have proven no pod yet.
    pub per_address: usize,
    /// In all.
    pub total: usize,
    /// New ones from one address.
    pub begin_per_address: Rate,
    /// New ones in all.
    pub begin: Rate,
}

impl Default for StreamLimits {
    fn default() -> Self {
        let rate = |each, burst| Rate { each: Duration::from_millis(each), burst };
        Self { per_pod: 32, per_address: 1024, total: 200_000, begin_per_address: rate(2, 500), begin: rate(1, 1000) }
    }
}

/// Why a stream is not let in. The caps are there for the issuer's sake: asking later may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The pod's cap.
    #[error("the pod holds {0} streams, as many as a pod may")]
    Pod(usize),
    /// The address's cap.
    #[error("the address holds {0} streams that have proven no pod, as many as an address may")]
    Address(usize),
    /// The issuer's cap.
    #[error("the issuer holds as many streams as it may")]
    Total,
    /// Too many begin.
    #[error("more streams begin than the issuer takes up at a time")]
    TooSoon(Duration),
}

/// All open streams of this replica.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: StreamLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    total: usize,
    /// Streams that have proven no pod yet.
    by_address: HashMap<IpAddr, usize>,
    begun: Option<Turnstile>,
    begun_by_address: HashMap<IpAddr, Turnstile>,
    by_pod: HashMap<String, HashMap<String, Holder>>,
}

#[derive(Debug)]
struct Holder {
    stream: u64,
    displaced: CancellationToken,
    record: Arc<StreamRecord>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(limits: StreamLimits) -> Self {
        Self(Arc::new(Inner { limits, state: Mutex::default() }))
    }

    /// Lets a connection's stream in before it said who it is.
    ///
    /// # Errors
    /// When a cap is reached.
    pub fn admit(&self, address: IpAddr, now: Instant) -> Result<Admission, Full> {
        let mut state = self.0.state.lock();
        let here = state.by_address.get(&address).copied().unwrap_or(0);
        if state.total >= self.0.limits.total {
            return Err(Full::Total);
        }
        if here >= self.0.limits.per_address {
            return Err(Full::Address(here));
        }
        state.begin(address, &self.0.limits, now).map_err(Full::TooSoon)?;
        state.total += 1;
        state.by_address.insert(address, here + 1);
        Ok(Admission { registry: self.clone(), address, proven: false })
    }

    /// Makes a stream the one of its session; an older one is told through its token and `true` is in the answer.
    ///
    /// # Errors
    /// When the pod's cap is reached.
    pub fn hold(&self, pod_uid: &str, session: &str, agent: AgentInfo) -> Result<(Hold, bool), Full> {
        let mut state = self.0.state.lock();
        state.next += 1;
        let stream = state.next;
        let sessions = state.by_pod.entry(pod_uid.to_owned()).or_default();
        if !sessions.contains_key(session) && sessions.len() >= self.0.limits.per_pod {
            return Err(Full::Pod(sessions.len()));
        }
        let displaced = CancellationToken::new();
        let record = Arc::new(StreamRecord::new(pod_uid, agent));
        let holder = Holder { stream, displaced: displaced.clone(), record: Arc::clone(&record) };
        let older = sessions.insert(session.to_owned(), holder);
        if let Some(older) = &older {
            older.displaced.cancel();
        }
        let hold = Hold { registry: self.clone(), session: session.to_owned(), stream, displaced, record };
        Ok((hold, older.is_some()))
    }

    /// Every stream that holds its session now.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Arc<StreamRecord>> {
        let state = self.0.state.lock();
        state.by_pod.values().flat_map(HashMap::values).map(|holder| Arc::clone(&holder.record)).collect()
    }
}

impl State {
    /// The address's share first: who comes too often alone must not use up what is everyone's.
    fn begin(&mut self, address: IpAddr, limits: &StreamLimits, now: Instant) -> Result<(), Duration> {
        const REMEMBERED: usize = 4096;
        if self.begun_by_address.len() >= REMEMBERED {
            self.begun_by_address.retain(|_, turnstile| !turnstile.is_full(now));
        }
        let here = self.begun_by_address.entry(address).or_insert_with(|| Turnstile::new(limits.begin_per_address));
        here.pass(now)?;
        self.begun.get_or_insert_with(|| Turnstile::new(limits.begin)).pass(now)
    }

    fn prove(&mut self, address: IpAddr) {
        if let Some(here) = self.by_address.get_mut(&address) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

/// A stream's place among all; given back when dropped.
#[derive(Debug)]
pub struct Admission {
    registry: Registry,
    address: IpAddr,
    proven: bool,
}

impl Admission {
    /// Whether the stream has proven its pod.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// The stream has proven its pod: it counts no longer for its address.
    pub fn prove(&mut self) {
        if !std::mem::replace(&mut self.proven, true) {
            self.registry.0.state.lock().prove(self.address);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.registry.0.state.lock();
        state.total = state.total.saturating_sub(1);
        if !self.proven {
            state.prove(self.address);
        }
    }
}

/// A stream's hold on its session; given back when dropped, unless a newer stream has it by then.
#[derive(Debug)]
pub struct Hold {
    registry: Registry,
    session: String,
    stream: u64,
    displaced: CancellationToken,
    record: Arc<StreamRecord>,
}

impl Hold {
    /// Resolves when a newer stream took the session over.
    pub async fn displaced(&self) {
        self.displaced.cancelled().await;
    }

    /// What others may see of the stream.
    #[must_use]
    pub fn record(&self) -> &StreamRecord {
        &self.record
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.registry.0.state.lock();
        let Some(sessions) = state.by_pod.get_mut(&self.record.pod_uid) else { return };
        if sessions.get(&self.session).is_some_and(|holder| holder.stream == self.stream) {
            sessions.remove(&self.session);
        }
        if sessions.is_empty() {
            state.by_pod.remove(&self.record.pod_uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AgentInfo, Full, Registry, StreamLimits};
    use crate::rate::Rate;
    use std::{
        net::{IpAddr, Ipv4Addr},
        time::Duration,
    };
    use tokio::time::Instant;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_newer_stream_of_a_session_displaces_the_older_and_only_that() {
        let registry = Registry::new(StreamLimits::default());
        let (first, displaced) = registry.hold("uid", "", AgentInfo::default()).expect("room");
        assert!(!displaced);
        let (other, displaced) = registry.hold("uid", "app", AgentInfo::default()).expect("room");
        assert!(!displaced);
        let (second, displaced) = registry.hold("uid", "", AgentInfo::default()).expect("room");
        assert!(displaced && first.displaced.is_cancelled());
        assert!(!other.displaced.is_cancelled() && !second.displaced.is_cancelled());
        drop(first);
        let (_third, displaced) = registry.hold("uid", "", AgentInfo::default()).expect("room");
        assert!(displaced, "the older stream's end must not free the newer one's session");
    }

    #[test]
    fn nothing_is_kept_of_streams_that_ended() {
        let registry = Registry::new(StreamLimits::default());
        drop((
            registry.admit(HERE, Instant::now()).expect("room"),
            registry.hold("uid", "", AgentInfo::default()).expect("room"),
        ));
        let state = registry.0.state.lock();
        assert!(state.by_pod.is_empty() && state.by_address.is_empty() && state.total == 0);
    }

    #[test]
    fn a_snapshot_shows_each_session_by_its_newest_stream() {
        let registry = Registry::new(StreamLimits::default());
        let agent = |version| AgentInfo::new(version, &[]);
        let _older = registry.hold("uid", "", agent("0.1.0")).expect("room");
        let _newer = registry.hold("uid", "", agent("0.2.0")).expect("room");
        let _other = registry.hold("other", "", agent("0.1.0")).expect("room");
        let mut seen: Vec<_> =
            registry.snapshot().iter().map(|one| (one.pod_uid.clone(), one.agent.version.clone())).collect();
        seen.sort();
        assert_eq!(seen, [("other".to_owned(), "0.1.0".to_owned()), ("uid".to_owned(), "0.2.0".to_owned())]);
    }

    #[test]
    fn caps_hold_for_a_pod_an_address_and_in_all() {
        let (limits, now) = (StreamLimits::default(), Instant::now());
        let registry = Registry::new(StreamLimits { per_pod: 1, per_address: 2, total: 3, ..limits });
        let _kept = (
            registry.hold("uid", "a", AgentInfo::default()).expect("room"),
            registry.admit(HERE, now),
            registry.admit(HERE, now),
        );
        assert_eq!(registry.hold("uid", "b", AgentInfo::default()).err(), Some(Full::Pod(1)));
        assert!(registry.hold("uid", "a", AgentInfo::default()).is_ok());
        assert_eq!(registry.admit(HERE, now).err(), Some(Full::Address(2)));
        let _third = registry.admit(Ipv4Addr::new(10, 0, 0, 1).into(), now).expect("room");
        assert_eq!(registry.admit(Ipv4Addr::new(10, 0, 0, 2).into(), now).err(), Some(Full::Total));
    }

    #[test]
    fn a_stream_that_has_proven_its_pod_counts_no_longer_for_its_address() {
        let (limits, now) = (StreamLimits::default(), Instant::now());
        let registry = Registry::new(StreamLimits { per_address: 1, ..limits });
        let mut first = registry.admit(HERE, now).expect("room");
        assert_eq!(registry.admit(HERE, now).err(), Some(Full::Address(1)));
        first.prove();
        first.prove();
        let second = registry.admit(HERE, now).expect("room");
        drop(first);
        assert_eq!(registry.admit(HERE, now).err(), Some(Full::Address(1)), "the second still counts");
        drop(second);
        assert!(registry.0.state.lock().by_address.is_empty());
    }

    // One address that comes too often is put off, and the others' share is left to them.
    #[test]
    fn new_streams_come_at_a_rate_and_no_address_uses_up_the_others_share() {
        let now = Instant::now();
        let rate = |burst| Rate { each: Duration::from_secs(1), burst };
        let limits = StreamLimits { begin_per_address: rate(2), begin: rate(3), ..StreamLimits::default() };
        let registry = Registry::new(limits);
        let other = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let begun: Vec<_> = (0..10).filter_map(|_| registry.admit(HERE, now).ok()).collect();
        assert_eq!(begun.len(), 2);
        assert!(registry.admit(other, now).is_ok());
        assert_eq!(registry.admit(other, now).err(), Some(Full::TooSoon(Duration::from_secs(1))));
        assert!(registry.admit(other, now + Duration::from_secs(1)).is_ok());
    }
}
