//! The observed side of the cluster: one file a resource, each a watch with backoff that feeds what changed to the index.
//! One object that cannot be decoded stalls nothing: it counts as absent, and is named in the log.

use std::{collections::HashSet, fmt::Debug, time::Duration};

use backon::ExponentialBuilder;
use kube::{
    Resource,
    core::DeserializeGuard,
    runtime::{
        utils::{Backoff, ResetTimerBackoff},
        watcher::ExponentialBackoff,
    },
};
use serde::de::DeserializeOwned;

pub use self::follow::follow;
use crate::metrics::Metrics;
use countersign_issuer::freshness::Moment;

pub mod deletions;
mod follow;
pub mod journals;
pub mod namespaces;
pub mod pods;
pub mod protobuf;
pub mod remote_bundles;
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

    /// Everything told so far is what the API server had at that moment: after a list, and after each event or bookmark.
    fn confirmed(&mut self, _: Moment) {}
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

fn backoff() -> impl Backoff {
    /// What held for so long was no lucky try.
    const HELD: Duration = Duration::from_secs(120);
    let waits = ExponentialBuilder::new().with_min_delay(FIRST_WAIT).with_max_delay(LONGEST_WAIT).with_jitter();
    ResetTimerBackoff::new(ExponentialBackoff::from(waits.without_max_times()), HELD)
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
    use super::{LONGEST_WAIT, backoff};

    #[test]
    fn a_broken_watch_waits_longer_and_longer_yet_never_long() {
        let waits: Vec<_> = backoff().take(50).collect();
        assert_eq!(waits.len(), 50, "it gives up");
        assert!(waits.iter().all(|wait| *wait <= 2 * LONGEST_WAIT), "{waits:?}");
        assert!(waits.iter().skip(10).all(|wait| *wait >= LONGEST_WAIT), "{waits:?}");
    }
}
