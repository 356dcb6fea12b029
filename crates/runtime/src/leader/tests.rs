//! Elections over a store in memory that fences as the API server does. Time is tokio's and stands still unless it is moved.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use countersign_core::lease::{LeaseConfig, Record};
use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::LeaderMetrics;
use super::{
    Election, Leadership, NotLeading, gained,
    store::{LeaseError, LeaseStore, StoredLease},
};
use crate::{
    clock::Clock,
    clock_skew::{ClockMetrics, ClockSkewMonitor},
    readiness::Readiness,
};

/// What every replica's requests go to.
#[derive(Clone, Default)]
struct Stores {
    stored: Arc<Mutex<Option<StoredLease>>>,
    writes: Arc<AtomicU64>,
}

/// One replica's way to it.
#[derive(Clone, Default)]
struct Way {
    stores: Stores,
    cut: Arc<AtomicBool>,
}

impl Way {
    async fn reached(&self) {
        if self.cut.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

impl LeaseStore for Way {
    fn read(&self) -> BoxFuture<'_, Result<Option<StoredLease>, LeaseError>> {
        Box::pin(async move {
            self.reached().await;
            Ok(self.stores.stored.lock().clone())
        })
    }

    fn write<'a>(
        &'a self,
        record: &'a Record,
        over: Option<&'a str>,
    ) -> BoxFuture<'a, Result<StoredLease, LeaseError>> {
        Box::pin(async move {
            self.reached().await;
            let mut stored = self.stores.stored.lock();
            if stored.as_ref().map(|stored| stored.version.as_str()) != over {
                return Err(LeaseError::Conflict);
            }
            let version = (self.stores.writes.fetch_add(1, Ordering::SeqCst) + 1).to_string();
            Ok(stored.insert(StoredLease { record: record.clone(), version }).clone())
        })
    }
}

struct Replica {
    way: Way,
    leadership: Leadership,
    clock_skew: ClockSkewMonitor,
    stop: CancellationToken,
    metrics: LeaderMetrics,
    task: tokio::task::JoinHandle<()>,
}

fn clock() -> Clock {
    let start = Instant::now();
    Clock::new(move || Timestamp::UNIX_EPOCH + start.elapsed())
}

fn clock_skew(clock: &Clock) -> ClockSkewMonitor {
    ClockSkewMonitor::new(clock.clone(), Readiness::default().check("the clock agrees"), ClockMetrics::default())
}

fn replica(id: &str, stores: &Stores, clock: &Clock) -> Replica {
    let way = Way { stores: stores.clone(), cut: Arc::default() };
    let clock_skew = clock_skew(clock);
    let (leadership, stop, metrics) =
        (Leadership::new(clock.clone(), clock_skew.clone()), CancellationToken::new(), LeaderMetrics::default());
    let election = Election::new(
        id.to_owned(),
        LeaseConfig::DEFAULT,
        Box::new(way.clone()),
        leadership.clone(),
        clock.clone(),
        metrics.clone(),
    );
    let task = tokio::spawn(election.run(std::future::ready(()), stop.clone()));
    Replica { way, leadership, clock_skew, stop, metrics, task }
}

fn holder(stores: &Stores) -> String {
    stores.stored.lock().as_ref().map(|stored| stored.record.holder.clone()).unwrap_or_default()
}

async fn leads(replica: &Replica) {
    let mut leads = replica.leadership.subscribe();
    leads.mark_changed();
    tokio::time::timeout(Duration::from_secs(60), gained(&mut leads)).await.expect("it leads");
    assert_eq!(replica.leadership.ensure(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn the_first_leads_and_renews_and_the_second_follows() {
    let (stores, clock) = (Stores::default(), clock());
    let first = replica("a", &stores, &clock);
    leads(&first).await;
    let second = replica("b", &stores, &clock);
    let writes = stores.writes.load(Ordering::SeqCst);
    let end = Instant::now() + Duration::from_secs(120);
    while Instant::now() < end {
        tokio::time::advance(Duration::from_millis(500)).await;
        assert!(first.leadership.leads() && !second.leadership.leads());
    }
    assert_eq!(holder(&stores), "a");
    let renewals = stores.writes.load(Ordering::SeqCst) - writes;
    assert!((30..=70).contains(&renewals), "{renewals} renewals in 120 s");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_another_starts() {
    let (stores, clock) = (Stores::default(), clock());
    let first = replica("a", &stores, &clock);
    leads(&first).await;
    let second = replica("b", &stores, &clock);
    first.way.cut.store(true, Ordering::SeqCst);
    let cut = Instant::now();
    while !second.leadership.leads() {
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(!(first.leadership.leads() && second.leadership.leads()), "both lead");
        assert!(cut.elapsed() < Duration::from_secs(25), "nobody took over");
    }
    assert!(cut.elapsed() >= Duration::from_secs(10));
    assert_eq!(first.leadership.ensure(), Err(NotLeading));
    assert!(!*first.leadership.subscribe().borrow(), "it was told");
    assert_eq!(
        (holder(&stores), stores.stored.lock().as_ref().map(|stored| stored.record.transitions)),
        ("b".to_owned(), Some(1))
    );
    assert_eq!((first.metrics.leader.get(), first.metrics.transitions.get()), (0, 2));
}

// A process that stood still runs no timer: the time alone must tell.
#[tokio::test(start_paused = true)]
async fn a_leader_that_stood_still_finds_before_a_write_that_it_leads_no_longer() {
    let clock = clock();
    let leadership = Leadership::new(clock.clone(), clock_skew(&clock));
    let deadline = Duration::from_secs(10);
    leadership.set(Some((Instant::now() + deadline, clock.now() + deadline)));
    assert_eq!(leadership.ensure(), Ok(()));
    tokio::time::advance(deadline).await;
    assert!(*leadership.subscribe().borrow(), "nothing ran that could have noticed");
    assert_eq!(leadership.ensure(), Err(NotLeading));
}

// Suspended machines may find only the wall's clock moved.
#[tokio::test(start_paused = true)]
async fn either_clock_ends_leadership() {
    for (wall, leads) in [(0, true), (3600, false), (-3600, true)] {
        let start = Instant::now();
        let jump = Arc::new(Mutex::new(jiff::SignedDuration::ZERO));
        let clock = {
            let jump = jump.clone();
            Clock::new(move || Timestamp::from_second(1_800_000_000).unwrap() + start.elapsed() + *jump.lock())
        };
        let leadership = Leadership::new(clock.clone(), clock_skew(&clock));
        leadership.set(Some((Instant::now() + Duration::from_secs(10), clock.now() + Duration::from_secs(10))));
        *jump.lock() = jiff::SignedDuration::from_secs(wall);
        assert_eq!(leadership.leads(), leads, "the wall's clock jumps by {wall} s");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!leadership.leads());
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_told_to_stop_gives_the_lease_up_and_another_leads_at_once() {
    let (stores, clock) = (Stores::default(), clock());
    let first = replica("a", &stores, &clock);
    leads(&first).await;
    let second = replica("b", &stores, &clock);
    tokio::time::sleep(Duration::from_secs(5)).await;
    first.stop.cancel();
    first.task.await.unwrap();
    assert!(!first.leadership.leads());
    assert_eq!(holder(&stores), "", "given up");
    let begin = Instant::now();
    leads(&second).await;
    assert!(begin.elapsed() <= Duration::from_secs(2));
}

// What it would write of authorities, dated by a wrong clock, would stay.
#[tokio::test(start_paused = true)]
async fn a_leader_whose_clock_is_off_gives_the_lease_up_and_takes_part_again_once_it_agrees() {
    let (stores, clock) = (Stores::default(), clock());
    let first = replica("a", &stores, &clock);
    leads(&first).await;
    let second = replica("b", &stores, &clock);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let off = |by: i64| {
        let now = clock.now();
        first.clock_skew.observe(now, now, now - jiff::SignedDuration::from_secs(by));
    };
    off(3_600);
    assert_eq!(first.leadership.ensure(), Err(NotLeading), "at once");
    let begin = Instant::now();
    leads(&second).await;
    assert!(begin.elapsed() <= Duration::from_secs(4), "the other need not wait: {:?}", begin.elapsed());
    assert!(!*first.leadership.subscribe().borrow(), "it was told");
    second.stop.cancel();
    second.task.await.unwrap();
    off(-3_600);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!first.leadership.leads() && holder(&stores).is_empty(), "nobody takes it by a wrong clock");
    off(0);
    leads(&first).await;
}

// As on a machine that was suspended: its time is over when it finds its clock off.
#[tokio::test(start_paused = true)]
async fn a_leader_that_lapsed_before_its_clock_was_found_off_is_told_that_it_leads_no_longer() {
    let (stores, clock) = (Stores::default(), clock());
    let replica = replica("a", &stores, &clock);
    leads(&replica).await;
    replica.way.cut.store(true, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(10)).await;
    let now = clock.now();
    replica.clock_skew.observe(now, now, now - jiff::SignedDuration::from_secs(3_600));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!*replica.leadership.subscribe().borrow(), "it was told");
    assert_eq!(replica.metrics.leader.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_fit_takes_no_part() {
    let (stores, clock) = (Stores::default(), clock());
    let way = Way { stores: stores.clone(), cut: Arc::default() };
    let (leadership, stop) = (Leadership::new(clock.clone(), clock_skew(&clock)), CancellationToken::new());
    let election = Election::new(
        "a".to_owned(),
        LeaseConfig::DEFAULT,
        Box::new(way),
        leadership.clone(),
        clock,
        LeaderMetrics::default(),
    );
    let task = tokio::spawn(election.run(std::future::pending(), stop.clone()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!leadership.leads() && stores.stored.lock().is_none());
    stop.cancel();
    task.await.unwrap();
}
