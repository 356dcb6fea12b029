//! The observed side of the cluster: one file a resource, each a watch with backoff that feeds what changed to the index.
//! One object that cannot be decoded stalls nothing: it counts as absent, and is named in the log.

use std::{collections::HashSet, fmt::Debug, sync::Arc, time::Duration};

use backon::ExponentialBuilder;
use futures::StreamExt;
use kube::{
    Api, Resource,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        utils::{Backoff, ResetTimerBackoff},
        watcher::{self, ExponentialBackoff},
    },
};
use serde::de::DeserializeOwned;

use crate::metrics::Metrics;

pub mod deletions;
pub mod journals;
pub mod namespaces;
pub mod pods;
pub mod protobuf;
pub mod stored;
pub mod trust_domains;
pub mod workload_identities;

/// How long a broken watch waits before its first try, and at most; as much again by chance.
///
/// client-go's half a minute is kind to a server whom ten thousand ask, and leaves what is new unseen for a minute after an
/// outage. Here only replicas ask, few and without a herd.
const FIRST_WAIT: Duration = Duration::from_millis(400);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What a watch decodes.
pub trait Decoded: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static {
    /// What becomes of it.
    type Object;

    /// The object, or why it is none.
    ///
    /// # Errors
    /// Where the API server stores something that is no such object.
    fn object(self) -> Result<Self::Object, String>;
}

/// Objects of our own kinds, which a later version may have written.
impl<K> Decoded for DeserializeGuard<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    type Object = K;

    fn object(self) -> Result<K, String> {
        self.0.map_err(|invalid| invalid.error)
    }
}

/// What a watch tells: objects come and go, and now and then the whole list was seen.
pub trait Sink<K>: Send {
    /// Whether [`Self::listed`] is told what is present: for very many objects that alone would fill memory.
    const NEEDS_PRESENT: bool = true;

    /// Everything that exists is about to be listed.
    fn listing(&mut self) {}

    /// The object exists and looks like this.
    fn applied(&mut self, object: K);

    /// The object is gone, or is there but cannot be decoded.
    fn gone(&mut self, object: &ObjectKey);

    /// Everything that exists was listed; what is not among `present` is gone.
    fn listed(&mut self, present: &HashSet<ObjectKey>);
}

/// Which object: two of the same name differ in `uid`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl ObjectKey {
    /// The key of an object.
    #[must_use]
    pub fn of(object: &impl Resource) -> Self {
        Self {
            namespace: object.meta().namespace.clone().unwrap_or_default(),
            name: object.meta().name.clone().unwrap_or_default(),
            uid: object.meta().uid.clone().unwrap_or_default(),
        }
    }
}

/// Follows every object of `api` for as long as the process lives. A server that cannot stream the first list is asked for
/// pages.
pub async fn follow<D: Decoded>(
    what: &'static str,
    api: Api<D>,
    mut config: watcher::Config,
    mut sink: impl Sink<D::Object>,
    metrics: Arc<Metrics>,
) {
    let mut present = HashSet::new();
    loop {
        let mut events = std::pin::pin!(watcher::watcher(api.clone(), config.clone()).backoff(backoff()));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => feed(what, event, &mut present, &mut sink, &metrics),
                Err(error) if streams_lists(&config) && is_refused_as_invalid(&error) => {
                    tracing::info!(what, "the API server streams no lists; asking for pages");
                    config.initial_list_strategy = watcher::InitialListStrategy::ListWatch;
                    break;
                }
                Err(error) => tracing::warn!(what, %error, "watch failed; retrying"),
            }
        }
    }
}

fn backoff() -> impl Backoff {
    /// What held for so long was no lucky try.
    const HELD: Duration = Duration::from_secs(120);
    let waits = ExponentialBuilder::new().with_min_delay(FIRST_WAIT).with_max_delay(LONGEST_WAIT).with_jitter();
    ResetTimerBackoff::new(ExponentialBackoff::from(waits.without_max_times()), HELD)
}

fn streams_lists(config: &watcher::Config) -> bool {
    config.initial_list_strategy == watcher::InitialListStrategy::StreamingList
}

/// What an API server without the feature `WatchList` answers to who asks for it.
fn is_refused_as_invalid(error: &watcher::Error) -> bool {
    const UNPROCESSABLE: u16 = 422;
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == UNPROCESSABLE)
}

fn feed<D: Decoded, S: Sink<D::Object>>(
    what: &'static str,
    event: watcher::Event<D>,
    present: &mut HashSet<ObjectKey>,
    sink: &mut S,
    metrics: &Metrics,
) {
    match event {
        watcher::Event::Init => {
            present.clear();
            sink.listing();
        }
        watcher::Event::InitApply(object) => {
            if S::NEEDS_PRESENT {
                present.insert(ObjectKey::of(&object));
            }
            apply(what, object, sink, metrics);
        }
        watcher::Event::InitDone => {
            sink.listed(present);
            *present = HashSet::new();
            tracing::debug!(what, "listed");
        }
        watcher::Event::Apply(object) => apply(what, object, sink, metrics),
        watcher::Event::Delete(object) => sink.gone(&ObjectKey::of(&object)),
    }
}

fn apply<D: Decoded>(what: &'static str, object: D, sink: &mut impl Sink<D::Object>, metrics: &Metrics) {
    let key = ObjectKey::of(&object);
    match object.object() {
        Ok(object) => sink.applied(object),
        Err(error) => {
            metrics.undecodable.inc();
            tracing::warn!(
                what,
                namespace = key.namespace,
                name = key.name,
                error,
                "object cannot be decoded and counts as absent; correct or delete it"
            );
            sink.gone(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_WAIT, ObjectKey, Sink, backoff, feed, is_refused_as_invalid};
    use crate::metrics::Metrics;
    use k8s_openapi::api::core::v1::Namespace;
    use kube::{
        core::{DeserializeGuard, Status, error_boundary::InvalidObject},
        runtime::watcher::{Error, Event},
    };
    use std::collections::HashSet;

    #[derive(Default)]
    struct Log(Vec<String>);

    impl Sink<Namespace> for Log {
        fn applied(&mut self, object: Namespace) {
            self.0.push(format!("applied {}", object.metadata.name.unwrap_or_default()));
        }
        fn gone(&mut self, object: &ObjectKey) {
            self.0.push(format!("gone {}", object.name));
        }
        fn listed(&mut self, present: &HashSet<ObjectKey>) {
            let mut names: Vec<_> = present.iter().map(|key| key.name.as_str()).collect();
            names.sort_unstable();
            self.0.push(format!("listed {}", names.join(",")));
        }
    }

    fn namespace(name: &str) -> Namespace {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        namespace
    }

    fn valid(name: &str) -> DeserializeGuard<Namespace> {
        DeserializeGuard(Ok(namespace(name)))
    }

    fn invalid(name: &str) -> DeserializeGuard<Namespace> {
        let metadata = namespace(name).metadata;
        DeserializeGuard(Err(InvalidObject { error: "no spec".to_owned(), metadata }))
    }

    #[test]
    fn only_a_refusal_of_the_question_itself_leads_to_another() {
        let answered = |code| {
            let status = Status { code, ..Status::default() };
            Error::WatchStartFailed(kube::Error::Api(status.boxed()))
        };
        assert!(is_refused_as_invalid(&answered(422)));
        assert!([403, 429, 500, 410].into_iter().all(|code| !is_refused_as_invalid(&answered(code))));
        assert!(!is_refused_as_invalid(&Error::NoResourceVersion));
    }

    #[test]
    fn a_broken_watch_waits_longer_and_longer_yet_never_long() {
        let waits: Vec<_> = backoff().take(50).collect();
        assert_eq!(waits.len(), 50, "it gives up");
        assert!(waits.iter().all(|wait| *wait <= 2 * LONGEST_WAIT), "{waits:?}");
        assert!(waits.iter().skip(10).all(|wait| *wait >= LONGEST_WAIT), "{waits:?}");
    }

    #[test]
    fn a_list_replaces_what_was_and_an_object_that_cannot_be_decoded_counts_as_absent() {
        let (metrics, mut log, mut present) = (Metrics::new(), Log::default(), HashSet::new());
        for event in [
            Event::Init,
            Event::InitApply(valid("a")),
            Event::InitApply(invalid("b")),
            Event::InitApply(valid("c")),
            Event::InitDone,
            Event::Apply(invalid("a")),
            Event::Delete(valid("c")),
        ] {
            feed("namespaces", event, &mut present, &mut log, &metrics);
        }
        let expected = ["applied a", "gone b", "applied c", "listed a,b,c", "gone a", "gone c"];
        assert_eq!(log.0, expected);
        assert_eq!(metrics.undecodable.get(), 2);
    }
}
