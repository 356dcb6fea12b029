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

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    addresses::EndedStreams,
    record::{AgentInfo, StreamRecord},
};
use crate::{
    fair::FairShare,
    rate::{Rate, Turnstile},
};

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

/// How many signatures a stream takes from its namespace's share together, so that it rarely has to ask: streams share nothing
/// on the way from a request to its answer.
const LEASE: u32 = 8;

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
    begun: Option<Turnstile>,
    begun_by_address: HashMap<IpAddr, Turnstile>,
    by_pod: HashMap<String, HashMap<String, Holder>>,
    ended: EndedStreams,
}

#[derive(Debug)]
struct Holder {
    stream: u64,
    displaced: CancellationToken,
    record: Arc<StreamRecord>,
}

/// A stream has its session.
#[derive(Debug)]
pub struct Held {
    /// For as long as the stream lives.
    pub hold: Hold,
    /// Streams that gave way.
    pub displaced: Vec<Displaced>,
    /// Other addresses from which streams of the pod come, or came within the last minute.
    pub elsewhere: Vec<IpAddr>,
}

/// A stream that gave way to a newer one of its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Displaced {
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

    /// Makes a stream the one of its session. Those that it displaces are told through their tokens, and are in the answer.
    ///
    /// # Errors
    /// When the pod's cap is reached.
    pub fn hold(
        &self,
        pod_uid: &str,
        session: &str,
        address: Option<IpAddr>,
        agent: AgentInfo,
        now: Instant,
    ) -> Result<Held, Full> {
        let address = address.map(|address| address.to_canonical());
        let mut state = self.0.state.lock();
        let State { next, by_pod, ended, .. } = &mut *state;
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
        let displaced: Vec<_> = sessions
            .extract_if(|name, _| !stays(name))
            .map(|(session, holder)| {
                holder.displaced.cancel();
                Displaced { session, address: holder.record.address }
            })
            .collect();
        let token = CancellationToken::new();
        let record = Arc::new(StreamRecord::new(pod_uid, address, agent));
        let holder = Holder { stream, displaced: token.clone(), record: Arc::clone(&record) };
        sessions.insert(session.to_owned(), holder);
        let hold = Hold { registry: self.clone(), session: session.to_owned(), stream, displaced: token, record };
        Ok(Held { hold, displaced, elsewhere })
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

/// The signatures that a stream may ask for before it takes more of its namespace's share.
#[derive(Debug)]
pub struct SigningCredit {
    registry: Registry,
    left: u32,
}

impl SigningCredit {
    /// Of a stream that begins: its first certificate and token come with it.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self { registry, left: 2 }
    }

    /// Takes one; namespaces get equal shares.
    ///
    /// # Errors
    /// The time after which to come back, when its namespace asks for too many.
    pub fn take(&mut self, namespace: &str, now: Instant) -> Result<(), Duration> {
        if self.left == 0 {
            self.registry.0.signatures.lock().take(namespace, LEASE, now)?;
            self.left = LEASE;
        }
        self.left -= 1;
        Ok(())
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
        if let Some(address) = self.record.address {
            state.ended.remember(&self.record.pod_uid, address, Instant::now());
        }
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
    use super::{AgentInfo, Displaced, Full, Held, LEASE, Registry, SigningCredit, StreamLimits};
    use crate::{issuer::addresses::MEMORY, rate::Rate};
    use std::{
        net::{IpAddr, Ipv4Addr},
        time::Duration,
    };
    use tokio::time::Instant;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn hold(registry: &Registry, uid: &str, session: &str) -> Held {
        registry.hold(uid, session, Some(HERE), AgentInfo::default(), Instant::now()).expect("room")
    }

    fn sessions(held: &Held) -> Vec<&str> {
        let mut sessions: Vec<_> = held.displaced.iter().map(|one| one.session.as_str()).collect();
        sessions.sort_unstable();
        sessions
    }

    #[test]
    fn a_newer_stream_of_a_session_displaces_the_older_and_only_that() {
        let registry = Registry::new(StreamLimits::default());
        let first = hold(&registry, "uid", "app");
        let other = hold(&registry, "uid", "proxy");
        let elsewhere = hold(&registry, "other", "app");
        assert!([&first, &other, &elsewhere].iter().all(|held| held.displaced.is_empty()));
        let second = hold(&registry, "uid", "app");
        assert_eq!(second.displaced, [Displaced { session: "app".to_owned(), address: Some(HERE) }]);
        assert!(first.hold.displaced.is_cancelled());
        assert!([&other, &second, &elsewhere].iter().all(|held| !held.hold.displaced.is_cancelled()));
        drop(first);
        let third = hold(&registry, "uid", "app");
        assert_eq!(sessions(&third), ["app"], "the older stream's end must not free the newer one's session");
    }

    // A thief that names another session is neither beside the agent nor before it.
    #[test]
    fn the_session_of_the_pod_and_those_of_its_containers_displace_each_other() {
        let registry = Registry::new(StreamLimits { per_pod: 2, ..StreamLimits::default() });
        let whole = hold(&registry, "uid", "");
        let app = hold(&registry, "uid", "app");
        assert_eq!(sessions(&app), [""]);
        assert!(whole.hold.displaced.is_cancelled() && !app.hold.displaced.is_cancelled());
        let proxy = hold(&registry, "uid", "proxy");
        assert!(proxy.displaced.is_empty());
        let whole = hold(&registry, "uid", "");
        assert_eq!(sessions(&whole), ["app", "proxy"]);
        assert!(app.hold.displaced.is_cancelled() && proxy.hold.displaced.is_cancelled());
        drop((app, proxy));
        assert_eq!(sessions(&hold(&registry, "uid", "app")), [""], "their ends must not free what is not theirs");
    }

    #[test]
    fn streams_of_a_pod_from_several_addresses_are_noticed_also_when_one_has_just_ended() {
        let (registry, begin) = (Registry::new(StreamLimits::default()), Instant::now());
        let from = |uid: &str, session: &str, last: u8, now| {
            registry.hold(uid, session, Some(address(last)), AgentInfo::default(), now).expect("room")
        };
        let first = from("uid", "app", 1, begin);
        let beside = from("uid", "app", 1, begin);
        let other = from("other", "app", 2, begin);
        assert!([&first, &beside, &other].iter().all(|held| held.elsewhere.is_empty()));
        let thief = from("uid", "proxy", 3, begin);
        assert_eq!(thief.elsewhere, [address(1)]);
        let mapped = IpAddr::V6(Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped());
        let again = registry.hold("other", "app", Some(mapped), AgentInfo::default(), begin).expect("room");
        assert!(again.elsewhere.is_empty(), "it is the same address");
        let seen: Vec<_> = registry.addresses(begin).remove("uid").into_iter().flatten().collect();
        assert_eq!(seen, [address(1), address(3)]);

        drop((thief, first, beside));
        let now = Instant::now();
        assert_eq!(from("uid", "", 4, now).elsewhere, [address(1), address(3)], "within a minute");
        assert!(registry.addresses(now).contains_key("uid"));
        let later = Instant::now() + MEMORY;
        assert!(from("uid", "", 5, later).elsewhere.is_empty());
        drop((other, again));
        assert!(registry.addresses(Instant::now() + MEMORY).is_empty());
    }

    #[test]
    fn nothing_is_kept_of_streams_that_ended_but_for_a_minute_their_addresses() {
        let registry = Registry::new(StreamLimits::default());
        drop((registry.admit(HERE, Instant::now()).expect("room"), hold(&registry, "uid", "")));
        assert!(registry.addresses(Instant::now() + MEMORY).is_empty());
        let state = registry.0.state.lock();
        assert!(state.by_pod.is_empty() && state.by_address.is_empty() && state.total == 0);
    }

    #[test]
    fn a_snapshot_shows_each_session_by_its_newest_stream() {
        let registry = Registry::new(StreamLimits::default());
        let hold = |uid: &str, version: &str| {
            registry.hold(uid, "", None, AgentInfo::new(version, &[]), Instant::now()).expect("room")
        };
        let _older = hold("uid", "0.1.0");
        let _newer = hold("uid", "0.2.0");
        let _other = hold("other", "0.1.0");
        let mut seen: Vec<_> =
            registry.snapshot().iter().map(|one| (one.pod_uid.clone(), one.agent.version.clone())).collect();
        seen.sort();
        assert_eq!(seen, [("other".to_owned(), "0.1.0".to_owned()), ("uid".to_owned(), "0.2.0".to_owned())]);
    }

    #[test]
    fn caps_hold_for_a_pod_an_address_and_in_all() {
        let (limits, now) = (StreamLimits::default(), Instant::now());
        let registry = Registry::new(StreamLimits { per_pod: 1, per_address: 2, total: 3, ..limits });
        let _kept = (hold(&registry, "uid", "a"), registry.admit(HERE, now), registry.admit(HERE, now));
        let second = registry.hold("uid", "b", Some(HERE), AgentInfo::default(), now);
        assert_eq!(second.err(), Some(Full::Pod(1)));
        hold(&registry, "uid", "a");
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

    #[test]
    fn a_namespace_that_asks_for_signatures_without_end_leaves_the_others_their_share() {
        let now = Instant::now();
        let signatures = Rate { each: Duration::from_millis(1), burst: 800 };
        let registry = Registry::new(StreamLimits { signatures, ..StreamLimits::default() });
        let credit = || SigningCredit::new(registry.clone());
        let mut herd: Vec<_> = (0..100).map(|_| credit()).collect();
        let signed: usize =
            herd.iter_mut().map(|one| (0..100).filter(|_| one.take("hostile", now).is_ok()).count()).sum();
        assert_eq!(signed, 800 + 100 * 2);
        let wait = herd[0].take("hostile", now).expect_err("its share is used up");
        assert!(wait >= Duration::from_millis(u64::from(LEASE)), "{wait:?}");
        let mut other = credit();
        assert_eq!((0..100).filter(|_| other.take("shop", now).is_ok()).count(), 100);
    }

    #[test]
    fn a_stream_asks_for_its_share_once_for_many_signatures() {
        let now = Instant::now();
        let registry = Registry::new(StreamLimits::default());
        let mut credit = SigningCredit::new(registry.clone());
        let held = registry.0.signatures.lock();
        assert!(credit.take("shop", now).is_ok() && credit.take("shop", now).is_ok(), "the first come with the stream");
        drop(held);
        assert!(credit.take("shop", now).is_ok());
        let _held = registry.0.signatures.lock();
        assert_eq!((1..LEASE).filter(|_| credit.take("shop", now).is_ok()).count(), 7);
    }

    #[test]
    fn a_namespaces_herd_of_new_streams_leaves_the_others_their_share() {
        let now = Instant::now();
        let begin_proven = Rate { each: Duration::from_millis(1), burst: 100 };
        let registry = Registry::new(StreamLimits { begin_proven, ..StreamLimits::default() });
        assert_eq!((0..1000).filter(|_| registry.begin("hostile", now).is_ok()).count(), 100);
        assert!(matches!(registry.begin("hostile", now), Err(Full::TooSoon(_))));
        assert_eq!((0..20).filter(|_| registry.begin("shop", now).is_ok()).count(), 20);
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
