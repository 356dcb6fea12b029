//! Which replica writes. `core::lease` decides; this carries it out against the API server. Whoever writes asks
//! [`Leadership::ensure`] right before: a process that stood still finds by the time that it no longer leads. Behind that
//! check each write is fenced by the object's resourceVersion.

mod election;
mod store;

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tokio::{sync::watch, time::Instant};

use crate::{clock::Clock, clock_skew::ClockSkewMonitor};

pub use election::Election;
pub use store::{LeaseError, LeaseStore, StoredLease};

/// Whether this replica leads; shared by all who write.
#[derive(Clone)]
pub struct Leadership(Arc<Shared>);

struct Shared {
    /// The end of it unless the lease is renewed, by the monotonic clock and by the wall's: a machine that was suspended
    /// may find only the latter moved.
    until: Mutex<Option<(Instant, Timestamp)>>,
    leads: watch::Sender<bool>,
    clock: Clock,
    clock_skew: ClockSkewMonitor,
}

/// The metrics of leadership.
#[derive(Clone, Debug, Default)]
pub struct LeaderMetrics {
    /// 1 while this replica leads.
    pub leader: Gauge,
    /// How often this replica began or ceased to lead.
    pub transitions: Counter,
}

impl LeaderMetrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("leader", "1 while this replica leads", self.leader.clone());
        registry.register("leader_transitions", "Times this replica began or ceased to lead", self.transitions.clone());
    }
}

/// Another replica writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica does not hold the lease, or its clock is off: another one writes")]
pub struct NotLeading;

impl Leadership {
    /// Of a replica that does not lead.
    #[must_use]
    pub fn new(clock: Clock, clock_skew: ClockSkewMonitor) -> Self {
        Self(Arc::new(Shared { until: Mutex::new(None), leads: watch::Sender::new(false), clock, clock_skew }))
    }

    /// Whether this replica leads at this moment.
    #[must_use]
    pub fn leads(&self) -> bool {
        let until = *self.0.until.lock();
        let in_time = until.is_some_and(|(instant, wall)| Instant::now() < instant && self.0.clock.now() < wall);
        in_time && self.clock_agrees()
    }

    /// Whether this replica's clock can be relied on: if not it must not lead.
    fn clock_agrees(&self) -> bool {
        self.0.clock_skew.ensure().is_ok()
    }

    /// To be asked right before each write.
    ///
    /// # Errors
    /// [`NotLeading`] when this replica must not write.
    pub fn ensure(&self) -> Result<(), NotLeading> {
        if self.leads() { Ok(()) } else { Err(NotLeading) }
    }

    /// Whether this replica led when that was last published: what is queued meanwhile is queued for it, even if the process was
    /// paused and its lease has ended since.
    #[must_use]
    pub fn last_published(&self) -> bool {
        *self.0.leads.borrow()
    }

    /// Publishes when leadership begins and ends. A value may be old by the time it is read; [`Self::ensure`] never is.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.leads.subscribe()
    }

    /// Leads until then; the answer is whether that is a change.
    fn set(&self, until: Option<(Instant, Timestamp)>) -> bool {
        *self.0.until.lock() = until;
        let leads = self.leads();
        self.0.leads.send_if_modified(|current| std::mem::replace(current, leads) != leads)
    }

    /// For tests: leads for so long, as if elected; no time at all: leads no longer.
    #[doc(hidden)]
    pub fn lead_for(&self, time: std::time::Duration) {
        self.set(Some((Instant::now() + time, self.0.clock.now() + time)));
    }
}

/// Waits until leadership was gained; at once when it is there and was not noticed yet.
pub async fn gained(leads: &mut watch::Receiver<bool>) {
    loop {
        // The sender lives as long as the process.
        if leads.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if *leads.borrow_and_update() {
            return;
        }
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leadership").field(&self.leads()).finish()
    }
}

#[cfg(test)]
mod tests;
