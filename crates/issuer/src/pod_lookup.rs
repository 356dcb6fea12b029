//! Reads a pod that the index does not know yet: an agent may connect before the watch event of its pod arrives. Concurrent
//! lookups of one pod share a read, absent pods are remembered for a while, and concurrent reads are limited.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use crate::metrics::IssuerMetrics;
use countersign_index::{PodRecord, SharedIndex};

/// How long a pod that was not there counts as absent without another read.
const NEGATIVE: Duration = Duration::from_secs(3);

/// How long a pod read live counts as alive before the watch has confirmed it.
const PROVISIONAL: Duration = Duration::from_secs(60);

/// Reads at the same time.
const CONCURRENT: usize = 16;

/// Reads under way and absences remembered; beyond it the issuer says it is overloaded.
const REMEMBERED: usize = 4096;

/// Reads one pod from the API server.
pub trait PodSource: Send + Sync {
    /// The pod, or `None` when there is none of that name. The error is for a person to read.
    fn read<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Option<PodRecord>, String>>;
}

/// Which pod is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupOutcome {
    /// The pod exists; the index has it now.
    Present,
    /// It does not exist, or another of its name does.
    Absent,
    /// It cannot be said now: too many reads, or the API server does not answer.
    Unknown,
}

/// Live reads of pods, shared by all sessions.
pub struct PodLookup {
    source: Box<dyn PodSource>,
    index: SharedIndex,
    metrics: Arc<IssuerMetrics>,
    concurrent: Semaphore,
    looks: Mutex<HashMap<PodKey, Look>>,
}

enum Look {
    UnderWay(watch::Receiver<Option<LookupOutcome>>),
    AbsentSince(Instant),
}

enum Turn {
    Answered(LookupOutcome),
    Wait(watch::Receiver<Option<LookupOutcome>>),
    Read(watch::Sender<Option<LookupOutcome>>),
}

impl PodLookup {
    /// No look so far.
    #[must_use]
    pub fn new(source: Box<dyn PodSource>, index: SharedIndex, metrics: Arc<IssuerMetrics>) -> Self {
        Self { source, index, metrics, concurrent: Semaphore::new(CONCURRENT), looks: Mutex::default() }
    }

    /// Looks for a pod; what is found is in the index afterwards.
    pub async fn fetch(&self, wanted: &PodKey, now: Timestamp) -> LookupOutcome {
        match self.turn(wanted) {
            Turn::Answered(found) => found,
            Turn::Wait(mut answer) => {
                // The reader gave up (its stream ended) when the sender is gone without an answer.
                answer.wait_for(Option::is_some).await.ok().and_then(|found| *found).unwrap_or(LookupOutcome::Unknown)
            }
            Turn::Read(answer) => {
                let unfinished = Unfinished { live: self, wanted };
                let found = self.read(wanted, now).await;
                std::mem::forget(unfinished);
                self.conclude(wanted, found);
                answer.send_replace(Some(found));
                found
            }
        }
    }

    fn turn(&self, wanted: &PodKey) -> Turn {
        let mut looks = self.looks.lock();
        match looks.get(wanted) {
            Some(Look::UnderWay(answer)) => return Turn::Wait(answer.clone()),
            Some(Look::AbsentSince(since)) if since.elapsed() < NEGATIVE => {
                return Turn::Answered(LookupOutcome::Absent);
            }
            Some(Look::AbsentSince(_)) | None => {}
        }
        if looks.len() >= REMEMBERED {
            looks.retain(|_, look| match look {
                Look::UnderWay(_) => true,
                Look::AbsentSince(since) => since.elapsed() < NEGATIVE,
            });
            if looks.len() >= REMEMBERED {
                return Turn::Answered(LookupOutcome::Unknown);
            }
        }
        let (sender, receiver) = watch::channel(None);
        looks.insert(wanted.clone(), Look::UnderWay(receiver));
        Turn::Read(sender)
    }

    async fn read(&self, wanted: &PodKey, now: Timestamp) -> LookupOutcome {
        // Never closed, so this only waits.
        let Ok(_permit) = self.concurrent.acquire().await else { return LookupOutcome::Unknown };
        self.metrics.live_reads.inc();
        match self.source.read(&wanted.namespace, &wanted.name).await {
            Ok(Some(pod)) if pod.facts.uid == wanted.uid => {
                let until = now.checked_add(PROVISIONAL).unwrap_or(now);
                self.index.update(|index| index.apply_live_pod(pod, until, now));
                LookupOutcome::Present
            }
            Ok(_) => LookupOutcome::Absent,
            Err(error) => {
                tracing::warn!(namespace = wanted.namespace, pod = wanted.name, error, "pod cannot be read");
                LookupOutcome::Unknown
            }
        }
    }

    fn conclude(&self, wanted: &PodKey, found: LookupOutcome) {
        let mut looks = self.looks.lock();
        match found {
            LookupOutcome::Absent => looks.insert(wanted.clone(), Look::AbsentSince(Instant::now())),
            LookupOutcome::Present | LookupOutcome::Unknown => looks.remove(wanted),
        };
    }
}

/// Takes a look back whose reader went away in the middle, so that the next asker reads.
struct Unfinished<'a> {
    live: &'a PodLookup,
    wanted: &'a PodKey,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.live.conclude(self.wanted, LookupOutcome::Unknown);
    }
}

impl std::fmt::Debug for PodLookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodLookup").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{BoxFuture, CONCURRENT, LookupOutcome, NEGATIVE, PodKey, PodLookup, PodRecord, PodSource, REMEMBERED};
    use crate::metrics::IssuerMetrics;
    use countersign_index::{Index, SharedIndex};
    use futures::{FutureExt, future::join_all};
    use jiff::Timestamp;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    use tokio::sync::Semaphore;

    /// An API server that knows no pod and answers as many questions as there are permits.
    #[derive(Clone)]
    struct Server {
        under_way: Arc<AtomicUsize>,
        answers: Arc<Semaphore>,
    }

    impl PodSource for Server {
        fn read<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Option<PodRecord>, String>> {
            Box::pin(async move {
                self.under_way.fetch_add(1, Ordering::SeqCst);
                self.answers.acquire().await.map_err(|error| error.to_string())?.forget();
                self.under_way.fetch_sub(1, Ordering::SeqCst);
                Ok(None)
            })
        }
    }

    fn server() -> (PodLookup, Server) {
        let server = Server { under_way: Arc::default(), answers: Arc::new(Semaphore::new(0)) };
        let index = SharedIndex::new(Index::default());
        (PodLookup::new(Box::new(server.clone()), index, Arc::new(IssuerMetrics::default())), server)
    }

    fn wanted(number: usize) -> PodKey {
        PodKey { namespace: "shop".to_owned(), name: format!("pod-{number}"), uid: number.to_string() }
    }

    #[tokio::test]
    async fn sixteen_pods_are_read_at_a_time_and_the_others_wait_for_their_turn() {
        let (live, server) = server();
        let pods: Vec<_> = (0..40).map(wanted).collect();
        let mut looks = Box::pin(join_all(pods.iter().map(|pod| live.fetch(pod, Timestamp::UNIX_EPOCH))));
        assert!((&mut looks).now_or_never().is_none());
        assert_eq!((CONCURRENT, server.under_way.load(Ordering::SeqCst)), (16, 16));
        server.answers.add_permits(4);
        assert!((&mut looks).now_or_never().is_none());
        assert_eq!(server.under_way.load(Ordering::SeqCst), 16, "as many as were answered began");
        server.answers.add_permits(36);
        assert_eq!(looks.await, [LookupOutcome::Absent; 40]);
        assert_eq!(live.metrics.live_reads.get(), 40);
    }

    // However many pods are made up, what is kept of them has an end.
    #[tokio::test(start_paused = true)]
    async fn beyond_four_thousand_absences_nothing_is_read_until_some_are_forgotten() {
        let (live, server) = server();
        server.answers.add_permits(REMEMBERED + 1);
        for number in 0..REMEMBERED {
            assert_eq!(live.fetch(&wanted(number), Timestamp::UNIX_EPOCH).await, LookupOutcome::Absent);
        }
        let reads = || (REMEMBERED, live.metrics.live_reads.get());
        let one_more = wanted(REMEMBERED);
        assert_eq!(live.fetch(&one_more, Timestamp::UNIX_EPOCH).await, LookupOutcome::Unknown);
        assert_eq!(reads(), (4096, 4096), "it was not read");
        tokio::time::advance(NEGATIVE).await;
        assert_eq!(live.fetch(&one_more, Timestamp::UNIX_EPOCH).await, LookupOutcome::Absent);
        assert_eq!(reads(), (4096, 4097));
        assert_eq!(live.looks.lock().len(), 1, "the others are forgotten");
    }
}
