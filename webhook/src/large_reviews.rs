//! The budget of large reviews. What a pod's author makes large must not cost others: large reviews share places and bytes of
//! their own, which ordinary ones never need, and each namespace has few of the places at a time, so that those of another
//! namespace come in turn.

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
/// How many large reviews are in memory at the same time.
pub const PLACES: usize = 8;
/// How many bytes these have together: four of the longest.
pub const BYTES: usize = 4 * LONGEST_REVIEW;
/// How many of the places one namespace has at the same time.
pub const PLACES_OF_A_NAMESPACE: usize = 2;
/// How many large reviews of one namespace are here at the same time, waiting for a place or in one.
pub const MOST_OF_A_NAMESPACE: usize = 32;
/// How many large reviews are here at the same time, waiting for a place or in one.
pub const MOST: usize = 128;
/// How long a review waits for its place. API servers give a webhook 5 s for all.
pub const WAIT: Duration = Duration::from_secs(2);

/// Bytes are counted in units of so many.
const UNIT: usize = 1024;

/// Places and bytes for large reviews.
#[derive(Debug)]
pub struct LargeReviews {
    here: Arc<Here>,
    places: Arc<Semaphore>,
    units: Arc<Semaphore>,
    /// Large reviews are judged one after the other, so that a processor is left for ordinary ones.
    judge: Arc<Semaphore>,
}

/// Why a large review gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// Too many of its namespace are here.
    #[error(
        "{MOST_OF_A_NAMESPACE} other objects of this namespace whose reviews are larger than 64 KiB are being admitted: try again, or make the object smaller"
    )]
    Namespace,
    /// Too many are here.
    #[error(
        "{MOST} other objects whose reviews are larger than 64 KiB are being admitted: try again, or make the object smaller"
    )]
    All,
    /// It waited for too long.
    #[error(
        "objects whose reviews are larger than 64 KiB are admitted one after another, and {WAIT:?} were not enough for those before this one: try again, or make the object smaller"
    )]
    Wait,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _units: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
    _of_namespace: OwnedSemaphorePermit,
    _here: Member,
}

impl LargeReviews {
    /// All places are free.
    #[must_use]
    pub fn new() -> Self {
        Self {
            here: Arc::default(),
            places: Arc::new(Semaphore::new(PLACES)),
            units: Arc::new(Semaphore::new(BYTES / UNIT)),
            judge: Arc::new(Semaphore::new(1)),
        }
    }

    /// Bytes of the budget that are free.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.units.available_permits() * UNIT
    }

    /// How many large reviews are here: in a place, or waiting for one.
    #[must_use]
    pub fn here(&self) -> usize {
        self.here.lock().count
    }

    /// Waits for a place for a review of at most `length` bytes. Those of a namespace come in the order of their arrival, and
    /// so do the first of all namespaces.
    pub(crate) async fn place(&self, namespace: &str, length: usize) -> Result<Place, Busy> {
        let (member, of_namespace) = Here::enter(&self.here, namespace)?;
        let units = u32::try_from(length.min(BYTES).div_ceil(UNIT)).unwrap_or(u32::MAX);
        let acquired = timeout(WAIT, async {
            let of_namespace = of_namespace.acquire_owned().await?;
            let place = self.places.clone().acquire_owned().await?;
            let units = self.units.clone().acquire_many_owned(units).await?;
            Ok::<_, AcquireError>((of_namespace, place, units))
        });
        match acquired.await {
            Ok(Ok((of_namespace, place, units))) => {
                Ok(Place { _units: units, _place: place, _of_namespace: of_namespace, _here: member })
            }
            // The semaphores are never closed.
            Ok(Err(_)) | Err(_) => Err(Busy::Wait),
        }
    }

    /// Waits until no other large review is judged.
    pub(crate) async fn judge(&self) -> Option<OwnedSemaphorePermit> {
        self.judge.clone().acquire_owned().await.ok()
    }
}

impl Default for LargeReviews {
    fn default() -> Self {
        Self::new()
    }
}

/// The large reviews that are here, by namespace.
#[derive(Debug, Default)]
struct Here(Mutex<Namespaces>);

#[derive(Debug, Default)]
struct Namespaces {
    count: usize,
    of: HashMap<String, Share>,
}

/// What a namespace has of the budget.
#[derive(Debug)]
struct Share {
    count: usize,
    places: Arc<Semaphore>,
}

/// One large review that is here, until it is dropped.
#[derive(Debug)]
struct Member {
    here: Arc<Here>,
    namespace: String,
}

impl Here {
    fn lock(&self) -> MutexGuard<'_, Namespaces> {
        // Nothing that could panic is done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more of `namespace`, whose places are returned.
    fn enter(here: &Arc<Self>, namespace: &str) -> Result<(Member, Arc<Semaphore>), Busy> {
        let mut namespaces = here.lock();
        if namespaces.count >= MOST {
            return Err(Busy::All);
        }
        let share = namespaces
            .of
            .entry(namespace.to_owned())
            .or_insert_with(|| Share { count: 0, places: Arc::new(Semaphore::new(PLACES_OF_A_NAMESPACE)) });
        if share.count >= MOST_OF_A_NAMESPACE {
            return Err(Busy::Namespace);
        }
        share.count += 1;
        let places = share.places.clone();
        namespaces.count += 1;
        Ok((Member { here: here.clone(), namespace: namespace.to_owned() }, places))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut namespaces = self.here.lock();
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

    use super::{BYTES, Busy, LargeReviews, MOST, MOST_OF_A_NAMESPACE, PLACES, PLACES_OF_A_NAMESPACE, Place};
    use crate::admission::LONGEST_REVIEW;

    /// A place that is free now.
    fn at_once(reviews: &LargeReviews, namespace: &str, length: usize) -> Option<Place> {
        reviews.place(namespace, length).now_or_never().map(|place| place.expect("room to wait"))
    }

    #[tokio::test]
    async fn places_and_bytes_are_never_exceeded() {
        let reviews = LargeReviews::new();
        let small: Vec<_> = (0..PLACES).filter_map(|index| at_once(&reviews, &index.to_string(), 1)).collect();
        assert_eq!(small.len(), PLACES);
        assert!(at_once(&reviews, "next", 1).is_none(), "all places are taken");
        drop(small);
        let longest: Vec<_> =
            (0..PLACES).map_while(|index| at_once(&reviews, &index.to_string(), LONGEST_REVIEW)).collect();
        assert_eq!((longest.len(), reviews.free_bytes()), (BYTES / LONGEST_REVIEW, 0));
        drop(longest);
        assert_eq!((reviews.free_bytes(), reviews.here()), (BYTES, 0));
        assert!(reviews.here.lock().of.is_empty(), "no namespace is remembered");
    }

    #[tokio::test]
    async fn a_namespace_has_its_own_places_and_no_more() {
        let reviews = LargeReviews::new();
        let taken: Vec<_> = (0..PLACES).map_while(|_| at_once(&reviews, "flood", 1)).collect();
        assert_eq!(taken.len(), PLACES_OF_A_NAMESPACE);
        assert!(at_once(&reviews, "shop", LONGEST_REVIEW).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_too_long_or_among_too_many_is_told() {
        let reviews = LargeReviews::new();
        let _taken: Vec<_> = (0..PLACES_OF_A_NAMESPACE).map_while(|_| at_once(&reviews, "flood", 1)).collect();
        let mut waiting: Vec<_> =
            (PLACES_OF_A_NAMESPACE..MOST_OF_A_NAMESPACE).map(|_| Box::pin(reviews.place("flood", 1))).collect();
        for each in &mut waiting {
            assert!(each.now_or_never().is_none());
        }
        assert_eq!(reviews.place("flood", 1).await.err(), Some(Busy::Namespace));
        assert!(at_once(&reviews, "shop", 1).is_some());
        let others: Vec<_> =
            (MOST_OF_A_NAMESPACE..MOST).map(|index| super::Here::enter(&reviews.here, &index.to_string())).collect();
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(reviews.place("shop", 1).await.err(), Some(Busy::All));
        drop(others);
        for each in waiting {
            assert_eq!(each.await.err(), Some(Busy::Wait));
        }
        assert_eq!(reviews.here(), PLACES_OF_A_NAMESPACE);
    }

    #[tokio::test]
    async fn the_next_one_comes_when_a_place_is_given_back() {
        let reviews = LargeReviews::new();
        let mut taken: Vec<_> = (0..PLACES_OF_A_NAMESPACE).map_while(|_| at_once(&reviews, "shop", 1)).collect();
        let mut next = Box::pin(reviews.place("shop", 1));
        assert!((&mut next).now_or_never().is_none());
        taken.pop();
        assert!(next.now_or_never().is_some_and(|place| place.is_ok()));
    }
}
