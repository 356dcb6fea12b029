//! How old what this replica knows of the cluster is. Each view (what one watch has told, and the cluster's token keys) is
//! confirmed by the API server now and then; nothing is issued from a view that was not confirmed for [`MAX_VIEW_AGE`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelValue;
use tokio::time::Instant;

use crate::metrics::IssuerMetrics;
use countersign_runtime::clock::Clock;
use countersign_runtime::readiness::ReadinessCheck;

/// How old a view may be that is issued from. Far above what an API server that is restarted or upgraded takes: meanwhile
/// credentials are renewed from what is known.
pub const MAX_VIEW_AGE: Duration = Duration::from_secs(15 * 60);

/// How often the ages are published and compared with the bound.
const PUBLISH_EACH: Duration = Duration::from_secs(1);

/// By so much the clock may go back without having been set.
const CORRECTED_MILLISECONDS: i64 = 5_000;

/// A part of what is known of the cluster, confirmed on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum View {
    /// Pods.
    Pods,
    /// Namespaces.
    Namespaces,
    /// TrustDomains.
    TrustDomains,
    /// WorkloadIdentities.
    WorkloadIdentities,
    /// The authorities' journals.
    Journals,
    /// The keys which sign service account tokens.
    TokenKeys,
}

impl View {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Pods, Self::Namespaces, Self::TrustDomains, Self::WorkloadIdentities, Self::Journals, Self::TokenKeys];
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pods => "pods",
            Self::Namespaces => "namespaces",
            Self::TrustDomains => "TrustDomains",
            Self::WorkloadIdentities => "WorkloadIdentities",
            Self::Journals => "the authorities' journals",
            Self::TokenKeys => "the cluster's token keys",
        })
    }
}

/// A moment by two clocks: the wall's goes on while the machine is suspended, and may be set; the monotonic one is never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    wall: Timestamp,
    monotonic: Instant,
}

/// A view is too old to issue from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this replica's view of {view} {}; it issues nothing from a view older than {}s. Check its connection to the API server",
    last_confirmed(.age),
    MAX_VIEW_AGE.as_secs()
)]
pub struct StaleView {
    /// Which view.
    pub view: View,
    /// The time since its last confirmation; the longest there is when it was never confirmed.
    pub age: Duration,
}

fn last_confirmed(age: &Duration) -> String {
    if *age == Duration::MAX {
        "has not been confirmed since the replica started or its clock was set back".to_owned()
    } else {
        format!("was last confirmed {}s ago", age.as_secs())
    }
}

/// The ages of all views, shared by those who confirm and those who rely on them.
#[derive(Clone)]
pub struct Freshness(Arc<Inner>);

struct Inner {
    clock: Clock,
    /// What the monotonic times of confirmations count from.
    start: Instant,
    confirmed: [Confirmation; View::ALL.len()],
}

/// The last confirmation, in milliseconds of both clocks.
struct Confirmation {
    wall: AtomicI64,
    monotonic: AtomicI64,
}

/// Before any time.
const NEVER: i64 = i64::MIN;

impl Freshness {
    /// No view was confirmed yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let never = || Confirmation { wall: AtomicI64::new(NEVER), monotonic: AtomicI64::new(NEVER) };
        Self(Arc::new(Inner { clock, start: Instant::now(), confirmed: std::array::from_fn(|_| never()) }))
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment { wall: self.0.clock.now(), monotonic: Instant::now() }
    }

    /// At `at` the view was what the API server had.
    pub fn confirm(&self, view: View, at: Moment) {
        let confirmation = self.confirmation(view);
        confirmation.wall.store(at.wall.as_millisecond(), Ordering::Release);
        confirmation.monotonic.store(self.since_start(at), Ordering::Release);
    }

    /// The time since the last confirmation by whichever clock says more; the longest there is when there was none, or only
    /// one by a clock that was set back since.
    #[must_use]
    pub fn age(&self, view: View) -> Duration {
        self.age_at(view, self.now())
    }

    /// The time since `at`, as [`Self::age`].
    #[must_use]
    pub fn since(&self, at: Moment) -> Duration {
        let now = self.now();
        elapsed(at.wall.as_millisecond(), now.wall.as_millisecond())
            .map_or(Duration::MAX, |wall| wall.max(now.monotonic.saturating_duration_since(at.monotonic)))
    }

    /// Nothing when every view is young enough to issue from.
    ///
    /// # Errors
    /// Of those that are not, the first in the order of [`View::ALL`].
    pub fn ensure(&self) -> Result<(), StaleView> {
        let now = self.now();
        let ages = View::ALL.into_iter().map(|view| (view, self.age_at(view, now)));
        match ages.into_iter().find(|(_, age)| *age > MAX_VIEW_AGE) {
            Some((view, age)) => Err(StaleView { view, age }),
            None => Ok(()),
        }
    }

    /// Publishes the ages as metrics, and in the replica's readiness whether it can issue, for as long as the process lives.
    pub async fn publish(self, check: ReadinessCheck, metrics: Arc<IssuerMetrics>) {
        let mut before = None;
        loop {
            for view in View::ALL {
                metrics.view_age(view, self.age(view));
            }
            let fresh = self.ensure();
            match fresh {
                Ok(()) => check.pass(),
                Err(_) => check.fail(),
            }
            match (before, &fresh) {
                (Some(true), Err(stale)) => {
                    tracing::error!(%stale, "this replica issues nothing until it is confirmed");
                }
                (Some(false), Ok(())) => tracing::info!("every view of the cluster is fresh"),
                _ => {}
            }
            before = Some(fresh.is_ok());
            tokio::time::sleep(PUBLISH_EACH).await;
        }
    }

    fn age_at(&self, view: View, now: Moment) -> Duration {
        let confirmation = self.confirmation(view);
        let wall = confirmation.wall.load(Ordering::Acquire);
        if wall == NEVER {
            return Duration::MAX;
        }
        let Some(by_wall) = elapsed(wall, now.wall.as_millisecond()) else {
            // For good: it would be young again once the clock had caught up.
            let _ = confirmation.wall.compare_exchange(wall, NEVER, Ordering::AcqRel, Ordering::Acquire);
            return Duration::MAX;
        };
        let monotonic = self.since_start(now).saturating_sub(confirmation.monotonic.load(Ordering::Acquire));
        by_wall.max(Duration::from_millis(u64::try_from(monotonic).unwrap_or(0)))
    }

    fn since_start(&self, at: Moment) -> i64 {
        i64::try_from(at.monotonic.saturating_duration_since(self.0.start).as_millis()).unwrap_or(i64::MAX)
    }

    fn confirmation(&self, view: View) -> &Confirmation {
        let [pods, namespaces, trust_domains, workload_identities, journals, token_keys] = &self.0.confirmed;
        match view {
            View::Pods => pods,
            View::Namespaces => namespaces,
            View::TrustDomains => trust_domains,
            View::WorkloadIdentities => workload_identities,
            View::Journals => journals,
            View::TokenKeys => token_keys,
        }
    }
}

/// The time between two moments of the wall's clock, milliseconds; `None` when it was set back between them.
fn elapsed(from: i64, to: i64) -> Option<Duration> {
    match u64::try_from(to.saturating_sub(from)) {
        Ok(elapsed) => Some(Duration::from_millis(elapsed)),
        Err(_) if from.saturating_sub(to) < CORRECTED_MILLISECONDS => Some(Duration::ZERO),
        Err(_) => None,
    }
}

impl fmt::Debug for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(View::ALL.map(|view| (view, self.age(view)))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Freshness, MAX_VIEW_AGE, StaleView, View};
    use countersign_runtime::clock::Clock;
    use jiff::Timestamp;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicI64, Ordering},
        },
        time::Duration,
    };
    use tokio::time::advance;

    /// By a wall's clock that the test sets.
    fn freshness() -> (Freshness, Arc<AtomicI64>) {
        let wall = Arc::new(AtomicI64::new(1_000));
        let read = wall.clone();
        let clock = Clock::new(move || Timestamp::from_second(read.load(Ordering::SeqCst)).expect("a time"));
        (Freshness::new(clock), wall)
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_is_as_old_as_its_confirmation_and_one_by_a_clock_set_back_since_counts_for_nothing() {
        let (freshness, wall) = freshness();
        assert_eq!(freshness.age(View::Pods), Duration::MAX);
        wall.store(4_600, Ordering::SeqCst);
        freshness.confirm(View::Pods, freshness.now());
        for (now, age) in [
            (4_610, Duration::from_secs(10)),
            (4_600, Duration::ZERO),
            (4_596, Duration::ZERO),
            (4_595, Duration::MAX),
            (1_000, Duration::MAX),
            (4_610, Duration::MAX),
        ] {
            wall.store(now, Ordering::SeqCst);
            assert_eq!(freshness.age(View::Pods), age, "{now}");
        }
        wall.store(1_001, Ordering::SeqCst);
        freshness.confirm(View::Pods, freshness.now());
        wall.store(1_003, Ordering::SeqCst);
        assert_eq!(freshness.age(View::Pods), Duration::from_secs(2));
        assert_eq!(freshness.age(View::Namespaces), Duration::MAX, "each view has an age of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_that_says_more_decides_how_old_a_view_is() {
        let (freshness, wall) = freshness();
        let begin = freshness.now();
        freshness.confirm(View::Journals, begin);
        // The wall's clock is held back little by little.
        advance(Duration::from_secs(100)).await;
        wall.store(998, Ordering::SeqCst);
        assert_eq!(freshness.age(View::Journals), Duration::from_secs(100));
        assert_eq!(freshness.since(begin), Duration::from_secs(100));
        // The machine was suspended, of which the monotonic clock knows nothing.
        wall.store(5_000, Ordering::SeqCst);
        assert_eq!(freshness.age(View::Journals), Duration::from_secs(4_000));
        assert_eq!(freshness.since(begin), Duration::from_secs(4_000));
        wall.store(500, Ordering::SeqCst);
        assert_eq!(freshness.since(begin), Duration::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn one_view_that_is_too_old_is_enough_and_is_named() {
        for view in View::ALL {
            let freshness = Freshness::new(Clock::new(|| Timestamp::UNIX_EPOCH));
            for other in View::ALL.into_iter().filter(|other| *other != view) {
                freshness.confirm(other, freshness.now());
            }
            let stale = freshness.ensure().expect_err("a view was never confirmed");
            assert_eq!(stale, StaleView { view, age: Duration::MAX });
            let old = freshness.now();
            freshness.confirm(view, old);
            assert_eq!(freshness.ensure(), Ok(()));
            advance(MAX_VIEW_AGE).await;
            for other in View::ALL.into_iter().filter(|other| *other != view) {
                freshness.confirm(other, freshness.now());
            }
            assert_eq!(freshness.ensure(), Ok(()), "the bound itself is allowed");
            advance(Duration::from_secs(1)).await;
            let stale = freshness.ensure().expect_err("too old");
            assert_eq!(stale, StaleView { view, age: MAX_VIEW_AGE + Duration::from_secs(1) });
            let message = stale.to_string();
            assert!(message.contains(&format!("view of {view} was last confirmed 901s ago")), "{message}");
        }
    }
}
