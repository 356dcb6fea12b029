//! The budget of large reviews, so that large objects of one user do not delay others: large reviews share slots and bytes that
//! ordinary ones never need, and each namespace may use only a few slots at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::admission::LONGEST_REVIEW;

/// The longest review that is an ordinary one, in bytes.
pub const LONGEST_ORDINARY: usize = 64 * 1024;
/// The most large reviews in memory at the same time.
pub const SLOTS: usize = 8;
/// The most bytes of these together: four of the longest.
pub const BYTES: usize = 4 * LONGEST_REVIEW;
/// The most slots of one namespace at the same time.
pub const SLOTS_PER_NAMESPACE: usize = 2;
/// The most large reviews of one namespace in flight at the same time, waiting for a slot or in one.
pub const MOST_IN_FLIGHT_PER_NAMESPACE: usize = 32;
/// The most large reviews in flight at the same time, waiting for a slot or in one.
pub const MOST_IN_FLIGHT: usize = 128;
/// Timeout for a slot. API servers wait 5 s for a webhook in all.
pub const SLOT_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes are counted in units of this size.
const UNIT: usize = 1024;

/// Slots and bytes for large reviews.
#[derive(Debug)]
pub struct LargeReviews {
    in_flight: Arc<InFlight>,
    slots: Arc<Semaphore>,
    units: Arc<Semaphore>,
    /// Large reviews are evaluated one at a time, so that a processor is left for ordinary ones.
    evaluate: Arc<Semaphore>,
}

/// Why a large review gets no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// Too many of its namespace are in flight.
    #[error(
        "{MOST_IN_FLIGHT_PER_NAMESPACE} other objects of this namespace whose reviews are larger than 64 KiB are being admitted: try again, or make the object smaller"
    )]
    Namespace,
    /// Too many are in flight.
    #[error(
        "{MOST_IN_FLIGHT} other objects whose reviews are larger than 64 KiB are being admitted: try again, or make the object smaller"
    )]
    All,
    /// It got no slot in time.
    #[error(
        "objects whose reviews are larger than 64 KiB are admitted one after another, and {SLOT_TIMEOUT:?} were not enough for those before this one: try again, or make the object smaller"
    )]
    Wait,
}

/// A slot, released on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    _units: OwnedSemaphorePermit,
    _slot: OwnedSemaphorePermit,
    _of_namespace: OwnedSemaphorePermit,
    _guard: InFlightGuard,
}

impl LargeReviews {
    /// With all slots free.
    #[must_use]
    pub fn new() -> Self {
        Self {
            in_flight: Arc::default(),
            slots: Arc::new(Semaphore::new(SLOTS)),
            units: Arc::new(Semaphore::new(BYTES / UNIT)),
            evaluate: Arc::new(Semaphore::new(1)),
        }
    }

    /// The free bytes of the budget.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.units.available_permits() * UNIT
    }

    /// The large reviews in flight: in a slot, or waiting for one.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.lock().count
    }

    /// Waits for a slot for a review of at most `length` bytes. Slots are granted in order of arrival, first within each
    /// namespace and then among namespaces.
    pub(crate) async fn slot(&self, namespace: &str, length: usize) -> Result<Slot, Busy> {
        let (guard, of_namespace) = InFlight::add(&self.in_flight, namespace)?;
        let units = u32::try_from(length.min(BYTES).div_ceil(UNIT)).unwrap_or(u32::MAX);
        let acquired = timeout(SLOT_TIMEOUT, async {
            let of_namespace = of_namespace.acquire_owned().await?;
            let slot = self.slots.clone().acquire_owned().await?;
            let units = self.units.clone().acquire_many_owned(units).await?;
            Ok::<_, AcquireError>((of_namespace, slot, units))
        });
        match acquired.await {
            Ok(Ok((of_namespace, slot, units))) => {
                Ok(Slot { _units: units, _slot: slot, _of_namespace: of_namespace, _guard: guard })
            }
            // The semaphores are never closed.
            Ok(Err(_)) | Err(_) => Err(Busy::Wait),
        }
    }

    /// Waits until no other large review is evaluated.
    pub(crate) async fn evaluate(&self) -> Option<OwnedSemaphorePermit> {
        self.evaluate.clone().acquire_owned().await.ok()
    }
}

impl Default for LargeReviews {
    fn default() -> Self {
        Self::new()
    }
}

/// The large reviews in flight, by namespace.
#[derive(Debug, Default)]
struct InFlight(Mutex<Namespaces>);

#[derive(Debug, Default)]
struct Namespaces {
    count: usize,
    of: HashMap<String, Share>,
}

/// The reviews and slots of one namespace.
#[derive(Debug)]
struct Share {
    count: usize,
    slots: Arc<Semaphore>,
}

/// Counts one large review as in flight until dropped.
#[derive(Debug)]
struct InFlightGuard {
    in_flight: Arc<InFlight>,
    namespace: String,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, Namespaces> {
        // No code under the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more of `namespace`, and returns the slots of that namespace.
    fn add(in_flight: &Arc<Self>, namespace: &str) -> Result<(InFlightGuard, Arc<Semaphore>), Busy> {
        let mut namespaces = in_flight.lock();
        if namespaces.count >= MOST_IN_FLIGHT {
            return Err(Busy::All);
        }
        let share = namespaces
            .of
            .entry(namespace.to_owned())
            .or_insert_with(|| Share { count: 0, slots: Arc::new(Semaphore::new(SLOTS_PER_NAMESPACE)) });
        if share.count >= MOST_IN_FLIGHT_PER_NAMESPACE {
            return Err(Busy::Namespace);
        }
        share.count += 1;
        let slots = share.slots.clone();
        namespaces.count += 1;
        Ok((InFlightGuard { in_flight: in_flight.clone(), namespace: namespace.to_owned() }, slots))
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut namespaces = self.in_flight.lock();
        namespaces.count -= 1;
        if let Some(share) = namespaces.of.get_mut(&self.namespace) {
            share.count -= 1;
            if share.count == 0 {
                namespaces.of.remove(&self.namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::{
        BYTES, Busy, LargeReviews, MOST_IN_FLIGHT, MOST_IN_FLIGHT_PER_NAMESPACE, SLOTS, SLOTS_PER_NAMESPACE, Slot,
    };
    use crate::admission::LONGEST_REVIEW;

    /// A slot that is immediately free.
    fn at_once(reviews: &LargeReviews, namespace: &str, length: usize) -> Option<Slot> {
        reviews.slot(namespace, length).now_or_never().map(|slot| slot.expect("room to wait"))
    }

    #[tokio::test]
    async fn slots_and_bytes_are_never_exceeded() {
        let reviews = LargeReviews::new();
        let small: Vec<_> = (0..SLOTS).filter_map(|index| at_once(&reviews, &index.to_string(), 1)).collect();
        assert_eq!(small.len(), SLOTS);
        assert!(at_once(&reviews, "next", 1).is_none(), "all slots are taken");
        drop(small);
        let longest: Vec<_> =
            (0..SLOTS).map_while(|index| at_once(&reviews, &index.to_string(), LONGEST_REVIEW)).collect();
        assert_eq!((longest.len(), reviews.free_bytes()), (BYTES / LONGEST_REVIEW, 0));
        drop(longest);
        assert_eq!((reviews.free_bytes(), reviews.in_flight()), (BYTES, 0));
        assert!(reviews.in_flight.lock().of.is_empty(), "no namespace is reguarded");
    }

    #[tokio::test]
    async fn a_namespace_has_its_own_slots_and_no_more() {
        let reviews = LargeReviews::new();
        let taken: Vec<_> = (0..SLOTS).map_while(|_| at_once(&reviews, "flood", 1)).collect();
        assert_eq!(taken.len(), SLOTS_PER_NAMESPACE);
        assert!(at_once(&reviews, "shop", LONGEST_REVIEW).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_too_long_or_among_too_many_is_refused() {
        let reviews = LargeReviews::new();
        let _taken: Vec<_> = (0..SLOTS_PER_NAMESPACE).map_while(|_| at_once(&reviews, "flood", 1)).collect();
        let mut waiting: Vec<_> =
            (SLOTS_PER_NAMESPACE..MOST_IN_FLIGHT_PER_NAMESPACE).map(|_| Box::pin(reviews.slot("flood", 1))).collect();
        for each in &mut waiting {
            assert!(each.now_or_never().is_none());
        }
        assert_eq!(reviews.slot("flood", 1).await.err(), Some(Busy::Namespace));
        assert!(at_once(&reviews, "shop", 1).is_some());
        let others: Vec<_> = (MOST_IN_FLIGHT_PER_NAMESPACE..MOST_IN_FLIGHT)
            .map(|index| super::InFlight::add(&reviews.in_flight, &index.to_string()))
            .collect();
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(reviews.slot("shop", 1).await.err(), Some(Busy::All));
        drop(others);
        for each in waiting {
            assert_eq!(each.await.err(), Some(Busy::Wait));
        }
        assert_eq!(reviews.in_flight(), SLOTS_PER_NAMESPACE);
    }

    #[tokio::test]
    async fn the_next_one_comes_when_a_slot_is_given_back() {
        let reviews = LargeReviews::new();
        let mut taken: Vec<_> = (0..SLOTS_PER_NAMESPACE).map_while(|_| at_once(&reviews, "shop", 1)).collect();
        let mut next = Box::pin(reviews.slot("shop", 1));
        assert!((&mut next).now_or_never().is_none());
        taken.pop();
        assert!(next.now_or_never().is_some_and(|slot| slot.is_ok()));
    }
}
