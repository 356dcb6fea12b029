//! Who streams now: one stream for each (pod uid, session), and of a pod either the one session of the whole pod or those of
//! its containers, never both: an agent serves its pod in one way, so a stream of the other way is not of the same agent. The
//! newest wins, in both cases, and an event says so: whoever took over silently could otherwise stay unseen, and whoever came
//! first could keep the agent out. Caps for each pod and in all, and for each address on what has
//! proven no pod yet; and how many may begin in a time, since each begins with a token to verify.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    addresses::EndedStreams,
    record::{AgentInfo, StreamRecord},
};
use countersign_runtime::fair_share::FairShare;
use countersign_runtime::rate::{Rate, ReservingLimiter};

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
    /// New ones in all, each of which may present a token.
    pub begin: Rate,
    /// Those of them that have proven a pod, in all; namespaces share it.
    pub begin_proven: Rate,
    /// Signatures in all; namespaces share it.
    pub signatures: Rate,
}

/// What the issuer signs a second with one processor, about: the half of what it could.
const SIGNATURES_PER_PROCESSOR: u32 = 4000;

impl Default for StreamLimits {
    fn default() -> Self {
        let rate = |each, burst| Rate { each: Duration::from_millis(each), burst };
        let processors = std::thread::available_parallelism().map_or(1, |all| u32::try_from(all.get()).unwrap_or(1));
        let signatures = SIGNATURES_PER_PROCESSOR.saturating_mul(processors);
        Self {
            per_pod: 32,
            per_address: 1024,
            total: 200_000,
            begin_per_address: rate(2, 500),
            // Verifying a token takes a small part of what the rest of a stream's begin does.
            begin: Rate { each: Duration::from_micros(125), burst: 8000 },
            begin_proven: rate(1, 1000),
            signatures: Rate { each: Duration::from_secs(1) / signatures, burst: 2 * signatures },
        }
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
    proven: Mutex<FairShare>,
    signatures: Mutex<FairShare>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    total: usize,
    /// Streams that have proven no pod yet.
    by_address: HashMap<IpAddr, usize>,
    begun: Option<ReservingLimiter>,
    begun_by_address: HashMap<IpAddr, ReservingLimiter>,
    by_pod: HashMap<String, HashMap<String, Holder>>,
    ended: EndedStreams,
    /// The last stream of each session that has none here now, while its agent may use what it was issued.
    departed: HashMap<(String, String), Arc<StreamRecord>>,
}

#[derive(Debug)]
struct Holder {
    stream: u64,
    superseded: CancellationToken,
    record: Arc<StreamRecord>,
}

/// A stream has its session.
#[derive(Debug)]
pub struct Registered {
    /// For as long as the stream lives.
    pub registration: Registration,
    /// Streams that gave way.
    pub superseded: Vec<Superseded>,
    /// Other addresses from which streams of the pod come, or came within the last minute.
    pub elsewhere: Vec<IpAddr>,
}

/// A stream that gave way to a newer one of its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superseded {
    /// Its session.
    pub session: String,
    /// From where it came.
    pub address: Option<IpAddr>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(limits: StreamLimits) -> Self {
        Self(Arc::new(Inner {
            limits,
            state: Mutex::default(),
            proven: Mutex::new(FairShare::new(limits.begin_proven)),
            signatures: Mutex::new(FairShare::new(limits.signatures)),
        }))
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

    /// Lets a stream go on that has shown a token of a pod of this namespace. Namespaces get equal shares.
    ///
    /// # Errors
    /// When too many of its namespace begin.
    pub fn begin(&self, namespace: &str, now: Instant) -> Result<(), Full> {
        self.0.proven.lock().take(namespace, 1, now).map_err(Full::TooSoon)
    }

    /// Takes signatures of a namespace's share. Namespaces get equal shares.
    ///
    /// # Errors
    /// The time after which to come back, when its namespace asks for too many.
    pub(super) fn lease_signatures(&self, namespace: &str, amount: u32, now: Instant) -> Result<(), Duration> {
        self.0.signatures.lock().take(namespace, amount, now)
    }

    /// Makes a stream the one of its session. Those that it displaces are told through their tokens, and are in the answer.
    ///
    /// # Errors
    /// When the pod's cap is reached.
    pub fn register(
        &self,
        pod_uid: &str,
        session: &str,
        address: Option<IpAddr>,
        agent: AgentInfo,
        now: Instant,
    ) -> Result<Registered, Full> {
        let address = address.map(|address| address.to_canonical());
        let mut state = self.0.state.lock();
        let State { next, by_pod, ended, departed, .. } = &mut *state;
        departed.remove(&(pod_uid.to_owned(), session.to_owned()));
        *next += 1;
        let stream = *next;
        let sessions = by_pod.entry(pod_uid.to_owned()).or_default();
        let stays = |name: &str| name != session && name.is_empty() == session.is_empty();
        let staying = sessions.keys().filter(|name| stays(name)).count();
        if staying >= self.0.limits.per_pod {
            return Err(Full::Pod(staying));
        }
        let open = sessions.values().filter_map(|holder| holder.record.address);
        let mut elsewhere: Vec<_> =
            open.chain(ended.of(pod_uid, now)).filter(|other| Some(*other) != address).collect();
        elsewhere.sort_unstable();
        elsewhere.dedup();
        elsewhere.retain(|_| address.is_some());
        let superseded: Vec<_> = sessions
            .extract_if(|name, _| !stays(name))
            .map(|(session, holder)| {
                holder.superseded.cancel();
                Superseded { session, address: holder.record.address }
            })
            .collect();
        let token = CancellationToken::new();
        let record = Arc::new(StreamRecord::new(pod_uid, session, address, agent));
        let holder = Holder { stream, superseded: token.clone(), record: Arc::clone(&record) };
        sessions.insert(session.to_owned(), holder);
        let registration =
            Registration { registry: self.clone(), session: session.to_owned(), stream, superseded: token, record };
        Ok(Registered { registration, superseded, elsewhere })
    }

    /// Each pod that has an open stream, or had one within the last minute, with the addresses these came from.
    #[must_use]
    pub fn addresses(&self, now: Instant) -> HashMap<Arc<str>, BTreeSet<IpAddr>> {
        let ended = self.0.state.lock().ended.all(now);
        let mut addresses: HashMap<Arc<str>, BTreeSet<IpAddr>> = HashMap::new();
        let open = self.snapshot();
        let open = open.iter().filter_map(|record| Some((Arc::from(record.pod_uid.as_str()), record.address?)));
        for (uid, address) in open.chain(ended) {
            addresses.entry(uid).or_default().insert(address);
        }
        addresses
    }

    /// Every stream that holds its session now.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Arc<StreamRecord>> {
        let state = self.0.state.lock();
        state.by_pod.values().flat_map(HashMap::values).map(|holder| Arc::clone(&holder.record)).collect()
    }

    /// The last streams of sessions that have none here any more, and whose agents may still use what they were issued. Those of
    /// pods that have ended are forgotten.
    #[must_use]
    pub fn departed(&self, now: Timestamp, is_alive: impl Fn(&str) -> bool) -> Vec<Arc<StreamRecord>> {
        let mut state = self.0.state.lock();
        state.departed.retain(|(uid, _), record| record.in_use_until() > Some(now) && is_alive(uid));
        state.departed.values().cloned().collect()
    }
}

impl State {
    /// The address's share first: who comes too often alone must not use up what is everyone's.
    fn begin(&mut self, address: IpAddr, limits: &StreamLimits, now: Instant) -> Result<(), Duration> {
        const REMEMBERED: usize = 4096;
        if self.begun_by_address.len() >= REMEMBERED {
            self.begun_by_address.retain(|_, limiter| !limiter.is_full(now));
        }
        let here =
            self.begun_by_address.entry(address).or_insert_with(|| ReservingLimiter::new(limits.begin_per_address));
        here.acquire(now)?;
        self.begun.get_or_insert_with(|| ReservingLimiter::new(limits.begin)).acquire(now)
    }

    fn mark_authenticated(&mut self, address: IpAddr) {
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
    pub fn is_authenticated(&self) -> bool {
        self.proven
    }

    /// The stream has proven its pod: it counts no longer for its address.
    pub fn mark_authenticated(&mut self) {
        if !std::mem::replace(&mut self.proven, true) {
            self.registry.0.state.lock().mark_authenticated(self.address);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.registry.0.state.lock();
        state.total = state.total.saturating_sub(1);
        if !self.proven {
            state.mark_authenticated(self.address);
        }
    }
}

/// A stream's hold on its session; given back when dropped, unless a newer stream has it by then.
#[derive(Debug)]
pub struct Registration {
    registry: Registry,
    session: String,
    stream: u64,
    superseded: CancellationToken,
    record: Arc<StreamRecord>,
}

impl Registration {
    /// Resolves when a newer stream took the session over.
    pub async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    /// What others may see of the stream.
    #[must_use]
    pub fn record(&self) -> &StreamRecord {
        &self.record
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.registry.0.state.lock();
        if let Some(address) = self.record.address {
            state.ended.remember(&self.record.pod_uid, address, Instant::now());
        }
        let Some(sessions) = state.by_pod.get_mut(&self.record.pod_uid) else { return };
        let was_last = sessions.get(&self.session).is_some_and(|holder| holder.stream == self.stream);
        if was_last {
            sessions.remove(&self.session);
        }
        if sessions.is_empty() {
            state.by_pod.remove(&self.record.pod_uid);
        }
        if was_last && self.record.in_use_until().is_some() && state.departed.len() < self.registry.0.limits.total {
            let key = (self.record.pod_uid.clone(), self.session.clone());
            state.departed.insert(key, Arc::clone(&self.record));
        }
    }
}

#[cfg(test)]
mod tests;
