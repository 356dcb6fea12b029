//! The election: looks, takes, renews, and gives up on shutdown.

use std::time::Duration;

use countersign_core::lease::{Candidate, Decision, LeaseConfig, MonotonicTime, Record};
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    LeaderMetrics, Leadership,
    store::{LeaseError, LeaseStore, StoredLease},
};
use crate::clock::Clock;

/// How long one request may take; a leader gives up at its deadline if that comes before.
const REQUEST: Duration = Duration::from_secs(4);

/// How long the last request may take: others start without it, only later.
const RELEASE: Duration = Duration::from_secs(2);

/// One replica's part in the election.
pub struct Election {
    candidate: Candidate,
    store: Box<dyn LeaseStore>,
    leadership: Leadership,
    clock: Clock,
    metrics: LeaderMetrics,
    /// Where this process's monotonic time begins.
    start: Instant,
    /// Of the stored lease as last known; none: nothing is stored.
    version: Option<String>,
    /// Whether what is known of the lease is what we wrote last, so that it need not be read.
    current: bool,
    /// When the last successful renewal was sent, by the wall's clock.
    renewed: Timestamp,
}

impl Election {
    /// Of a candidate whose `id` is of this process alone.
    #[must_use]
    pub fn new(
        id: String,
        terms: LeaseConfig,
        store: Box<dyn LeaseStore>,
        leadership: Leadership,
        clock: Clock,
        metrics: LeaderMetrics,
    ) -> Self {
        let candidate = Candidate::new(id, terms);
        let renewed = clock.now();
        Self {
            candidate,
            store,
            leadership,
            clock,
            metrics,
            start: Instant::now(),
            version: None,
            current: false,
            renewed,
        }
    }

    /// Takes part from when `fit` resolves until `stop`, and gives the lease up then.
    pub async fn run(mut self, fit: impl Future<Output = ()>, stop: CancellationToken) {
        tokio::select! {
            () = fit => {}
            () = stop.cancelled() => return,
        }
        while !stop.is_cancelled() {
            let wait = self.turn().await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.release().await;
    }

    /// One look and what follows from it; the answer is how long there is nothing to do.
    async fn turn(&mut self) -> Duration {
        if !self.leadership.clock_agrees() {
            self.stand_back().await;
            return spread(self.candidate.terms().retry_period());
        }
        let result = self.look_and_act().await;
        self.publish();
        match result {
            Ok(()) => {}
            Err(LeaseError::Conflict) => return Duration::ZERO,
            Err(error) => tracing::warn!(%error, "leader election"),
        }
        let (now, terms) = (self.moment(), self.candidate.terms());
        match self.candidate.decide(now) {
            Decision::Hold { until } if self.current => now.until(until),
            Decision::Follow { until } => now.until(until).min(spread(terms.retry_period())),
            // What was due did not succeed.
            _ => spread(terms.retry_period()),
        }
    }

    /// The clock is off: the lease is given up, and then only read, since each answer tells whether the clock agrees again.
    async fn stand_back(&mut self) {
        if self.candidate.leads(self.moment()) {
            self.release().await;
        }
        self.current = false;
        // Also when its time was over before anybody could be told.
        self.publish();
        if let Err(error) = self.bounded(self.store.read()).await {
            tracing::warn!(%error, "leader election");
        }
    }

    async fn look_and_act(&mut self) -> Result<(), LeaseError> {
        if !self.current {
            let stored = self.bounded(self.store.read()).await?;
            self.version = stored.as_ref().map(|stored| stored.version.clone());
            self.candidate.observe(stored.map(|stored| stored.record), self.moment());
        }
        if matches!(self.candidate.decide(self.moment()), Decision::Acquire | Decision::Renew) {
            let (sent, wall) = (self.moment(), self.clock.now());
            let record = self.candidate.record(whole_micros(wall));
            // Whatever comes of it, what was known is known no longer.
            self.current = false;
            let stored = self.write(&record).await?;
            self.candidate.wrote(stored.record, sent);
            (self.version, self.current, self.renewed) = (Some(stored.version), true, wall);
        }
        Ok(())
    }

    async fn write(&self, record: &Record) -> Result<StoredLease, LeaseError> {
        self.bounded(self.store.write(record, self.version.as_deref())).await
    }

    async fn bounded<T>(&self, request: impl Future<Output = Result<T, LeaseError>>) -> Result<T, LeaseError> {
        let now = self.moment();
        let left = self.candidate.leads_until().filter(|_| self.candidate.leads(now)).map(|until| now.until(until));
        let limit = left.map_or(REQUEST, |left| left.min(REQUEST));
        tokio::time::timeout(limit, request).await.unwrap_or(Err(LeaseError::NoAnswer(limit)))
    }

    fn publish(&self) {
        let until = self.candidate.leads_until().map(|until| {
            let deadline = self.candidate.terms().renew_deadline();
            (Instant::now() + self.moment().until(until), self.renewed.saturating_add(deadline).unwrap_or(self.renewed))
        });
        if !self.leadership.set(until) {
            return;
        }
        let leads = self.leadership.leads();
        self.metrics.leader.set(i64::from(leads));
        self.metrics.transitions.inc();
        if leads {
            tracing::info!(id = self.candidate.id(), "this replica leads: it writes from now on");
        } else {
            tracing::info!(holder = self.candidate.holder(), "this replica leads no longer");
        }
    }

    async fn release(&mut self) {
        let led = self.candidate.leads(self.moment());
        let record = self.candidate.release(whole_micros(self.clock.now()));
        self.publish();
        let Some(record) = record.filter(|_| led && self.current) else { return };
        match tokio::time::timeout(RELEASE, self.write(&record)).await {
            Ok(Ok(_)) => tracing::info!("the lease is given up"),
            Ok(Err(error)) => tracing::warn!(%error, "the lease was not given up; another takes it when it has ended"),
            Err(_) => tracing::warn!("the lease was not given up in time; another takes it when it has ended"),
        }
    }

    fn moment(&self) -> MonotonicTime {
        MonotonicTime::since_start(self.start.elapsed())
    }
}

/// Replicas that start together should not ask together.
fn spread(span: Duration) -> Duration {
    span.mul_f64(rand::random_range(0.8..=1.0))
}

/// As precise as the API server stores it: what is read back must equal what was written.
fn whole_micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}
