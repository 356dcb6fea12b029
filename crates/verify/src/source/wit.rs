//! WIT-SVIDs and the bundles of their authorities, which are asked for only once somebody needs them: not every Workload API has them,
//! and not every workload may.

use std::sync::OnceLock;

use countersign_core::bundle::BundleSet;
use tokio::{runtime::Handle, task::JoinHandle};

use super::{
    current::Watched,
    streams::{self, Client},
    wit_svid::WitSvids,
};

/// Where WIT-SVIDs and their bundles come from.
pub(super) enum Wit {
    WorkloadApi(Box<Streams>),
    /// The bundle documents of a folder hold the authorities of every kind; no folder holds a WIT-SVID.
    #[cfg(feature = "files")]
    Folder(Watched<BundleSet>),
}

/// Two streams of a Workload API, each begun by the first who asks.
pub(super) struct Streams {
    /// That of the source: who asks first may be outside of one, or in another.
    runtime: Handle,
    client: Client,
    bundles: OnceLock<Followed<BundleSet>>,
    svids: OnceLock<Followed<WitSvids>>,
}

/// What a stream brings, and the task that follows it.
struct Followed<T> {
    watched: Watched<T>,
    task: JoinHandle<()>,
}

impl Wit {
    pub(super) fn from_workload_api(client: Client) -> Self {
        let (bundles, svids) = Default::default();
        Self::WorkloadApi(Box::new(Streams { runtime: Handle::current(), client, bundles, svids }))
    }

    pub(super) fn bundles(&self) -> &Watched<BundleSet> {
        match self {
            Self::WorkloadApi(streams) => streams.bundles(),
            #[cfg(feature = "files")]
            Self::Folder(bundles) => bundles,
        }
    }

    /// `None`: there is nowhere to get one from.
    pub(super) fn svids(&self) -> Option<&Watched<WitSvids>> {
        match self {
            Self::WorkloadApi(streams) => Some(streams.svids()),
            #[cfg(feature = "files")]
            Self::Folder(_) => None,
        }
    }
}

impl Streams {
    fn bundles(&self) -> &Watched<BundleSet> {
        let begin = || Followed::new(streams::wit_bundles(&self.runtime, self.client.clone()));
        &self.bundles.get_or_init(begin).watched
    }

    fn svids(&self) -> &Watched<WitSvids> {
        let bundles = self.bundles().clone();
        let begin = || Followed::new(streams::wit_svids(&self.runtime, self.client.clone(), bundles));
        &self.svids.get_or_init(begin).watched
    }
}

impl<T> Followed<T> {
    fn new((watched, task): (Watched<T>, JoinHandle<()>)) -> Self {
        Self { watched, task }
    }
}

impl<T> Drop for Followed<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
