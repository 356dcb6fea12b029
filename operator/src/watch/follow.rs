//! Follows one kind of object: a list, then a watch that is resumed whenever it ends. kube's own watcher does the same but
//! does not expose bookmarks, which distinguish a quiet watch from a dead one: the API server sends one about every minute
//! (`allowWatchBookmarks`).

use std::{collections::HashSet, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use kube::{
    Api,
    api::{ListParams, WatchParams},
    core::{Status, WatchEvent},
    runtime::{utils::Backoff, watcher},
};
use tokio::time::timeout;

use super::{Decoded, ObjectKey, Sink, apply, backoff};
use crate::metrics::Metrics;
use countersign_issuer::freshness::{Freshness, Moment};

/// How long a watch may say nothing before it counts as dead: two bookmarks did not come.
pub(super) const LONGEST_SILENCE: Duration = Duration::from_secs(150);

/// After how many watches in a row that opened and said nothing all is listed anew. Bookmarks are sent at the server's
/// discretion, a list is of what is most recent in any case.
const SILENT_WATCHES: u32 = 2;

/// How long the API server may take to answer: a page of a list, or that a watch has begun.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// How long the API server is asked to keep a watch open, seconds.
const WATCH_SECONDS: u32 = 290;

/// The annotation of the bookmark at the end of a streamed list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

type Events<D> = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<D>>> + Send>>;

/// Why a list or a watch ended before its time.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("the list failed: {0}")]
    List(kube::Error),
    #[error("the watch could not begin: {0}")]
    Open(kube::Error),
    #[error("the watch broke off: {0}")]
    Broken(kube::Error),
    #[error("the API server ended the watch: {} (code {})", .0.message, .0.code)]
    Ended(Box<Status>),
    #[error("no answer within {}s", ANSWER_TIME.as_secs())]
    NoAnswer,
    #[error("the watch said nothing for {}s, or this process stood still for so long", LONGEST_SILENCE.as_secs())]
    Silent,
    #[error("the watch ended without having said anything")]
    Empty,
    #[error("the streamed list ended before it was complete")]
    Incomplete,
    #[error("the API server left the resourceVersion out")]
    NoVersion,
}

impl FollowError {
    /// Whether what was missed can only be had by a list.
    fn needs_list(&self) -> bool {
        const GONE: u16 = 410;
        match self {
            Self::Ended(_) | Self::NoVersion | Self::Incomplete | Self::Broken(kube::Error::SerdeError(_)) => true,
            Self::Open(kube::Error::Api(status)) => status.code == GONE,
            Self::List(_) | Self::Open(_) | Self::Broken(_) | Self::NoAnswer | Self::Silent | Self::Empty => false,
        }
    }

    /// What an API server without the feature `WatchList` answers to who asks for a streamed list.
    fn is_refused_as_invalid(&self) -> bool {
        const UNPROCESSABLE: u16 = 422;
        matches!(self, Self::Open(kube::Error::Api(status)) if status.code == UNPROCESSABLE)
    }
}

/// Follows every object of `api` for as long as the process lives. A server that cannot stream the first list is asked for
/// pages.
pub async fn follow<D: Decoded>(
    what: &'static str,
    api: Api<D>,
    config: watcher::Config,
    sink: impl Sink<D::Object>,
    freshness: Freshness,
    metrics: Arc<Metrics>,
) {
    Follower { what, api, config, sink, freshness, metrics, version: None, silent: 0 }.run().await;
}

struct Follower<D: Decoded, S> {
    what: &'static str,
    api: Api<D>,
    config: watcher::Config,
    sink: S,
    freshness: Freshness,
    metrics: Arc<Metrics>,
    /// From which resourceVersion to watch; none: from a list.
    version: Option<String>,
    /// How many watches in a row have opened and said nothing.
    silent: u32,
}

impl<D: Decoded, S: Sink<D::Object>> Follower<D, S> {
    async fn run(&mut self) {
        let mut waits = backoff();
        loop {
            let Err(error) = self.once().await else {
                waits.reset();
                continue;
            };
            if self.version.is_none() && self.streams_lists() && error.is_refused_as_invalid() {
                tracing::info!(what = self.what, "the API server streams no lists; asking for pages");
                self.config.initial_list_strategy = watcher::InitialListStrategy::ListWatch;
                continue;
            }
            tracing::warn!(what = self.what, %error, "watch failed; retrying");
            if error.needs_list() || self.silent >= SILENT_WATCHES {
                self.version = None;
            }
            // Its waits have no end.
            tokio::time::sleep(waits.next().unwrap_or(super::LONGEST_WAIT)).await;
        }
    }

    fn streams_lists(&self) -> bool {
        self.config.initial_list_strategy == watcher::InitialListStrategy::StreamingList
    }

    /// A list unless there is a version to go on from, and one watch to its end, which is no error where it said something.
    async fn once(&mut self) -> Result<(), FollowError> {
        let begin = self.freshness.now();
        let mut events = match self.version.clone() {
            Some(version) => self.open(&version, false).await?,
            None if self.streams_lists() => self.streamed_list(begin).await?,
            None => {
                let version = self.list().await?;
                self.confirm(begin);
                self.version = Some(version.clone());
                self.open(&version, false).await?
            }
        };
        // What comes next may have waited while this process stood still.
        let mut before = self.freshness.now();
        let mut said_something = false;
        loop {
            let event = match self.next(&mut events, before).await {
                Ok(Some(event)) => event,
                Ok(None) if said_something => return Ok(()),
                end => {
                    self.silent += u32::from(!said_something);
                    return Err(end.err().unwrap_or(FollowError::Empty));
                }
            };
            self.version = Some(self.handle(event)?);
            self.confirm(before);
            said_something = true;
            before = self.freshness.now();
        }
    }

    /// Everything there is, in pages; returns the version from which to watch.
    async fn list(&mut self) -> Result<String, FollowError> {
        let mut parameters = ListParams { limit: self.config.page_size, ..ListParams::default() };
        parameters.field_selector.clone_from(&self.config.field_selector);
        parameters.label_selector.clone_from(&self.config.label_selector);
        self.sink.listing();
        let mut present = HashSet::new();
        loop {
            let page = timeout(ANSWER_TIME, self.api.list(&parameters)).await.map_err(|_| FollowError::NoAnswer)?;
            let page = page.map_err(FollowError::List)?;
            for object in page.items {
                self.listed(object, &mut present);
            }
            parameters.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if parameters.continue_token.is_none() {
                let version = page.metadata.resource_version.filter(|version| !version.is_empty());
                let version = version.ok_or(FollowError::NoVersion)?;
                self.complete(&present);
                return Ok(version);
            }
        }
    }

    /// Everything there is, in events; returns those that come after it.
    async fn streamed_list(&mut self, begin: Moment) -> Result<Events<D>, FollowError> {
        // Version 0 is replaced where it is sent, see `protobuf::most_recent`.
        let mut events = self.open("0", true).await?;
        self.sink.listing();
        let mut present = HashSet::new();
        loop {
            match self.next(&mut events, self.freshness.now()).await?.ok_or(FollowError::Incomplete)? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => self.listed(object, &mut present),
                WatchEvent::Bookmark(bookmark) if bookmark.metadata.annotations.contains_key(INITIAL_EVENTS_END) => {
                    self.complete(&present);
                    self.confirm(begin);
                    self.version = Some(bookmark.metadata.resource_version);
                    return Ok(events);
                }
                WatchEvent::Bookmark(_) => {}
                // There is no such event in a list: what it is about cannot be told, so it is listed again.
                WatchEvent::Deleted(_) => return Err(FollowError::Incomplete),
                WatchEvent::Error(status) => return Err(FollowError::Ended(status.boxed())),
            }
        }
    }

    async fn open(&self, version: &str, send_initial_events: bool) -> Result<Events<D>, FollowError> {
        let parameters = WatchParams {
            label_selector: self.config.label_selector.clone(),
            field_selector: self.config.field_selector.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            send_initial_events,
        };
        let opened = timeout(ANSWER_TIME, self.api.watch(&parameters, version)).await;
        let events = opened.map_err(|_| FollowError::NoAnswer)?.map_err(FollowError::Open)?;
        Ok(events.boxed())
    }

    /// The next event, if it comes in time. One that may have been waiting since before the machine was suspended or the
    /// process stopped says nothing of now.
    async fn next(&self, events: &mut Events<D>, before: Moment) -> Result<Option<WatchEvent<D>>, FollowError> {
        let next = timeout(LONGEST_SILENCE, events.next()).await;
        if self.freshness.since(before) > LONGEST_SILENCE {
            return Err(FollowError::Silent);
        }
        next.map_err(|_| FollowError::Silent)?.transpose().map_err(FollowError::Broken)
    }

    /// Passes an event on; returns the version that was reached.
    fn handle(&mut self, event: WatchEvent<D>) -> Result<String, FollowError> {
        let version = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let version = object.meta().resource_version.clone();
                apply(self.what, object, &mut self.sink, &self.metrics);
                version
            }
            WatchEvent::Deleted(object) => {
                self.sink.gone(&ObjectKey::of(&object));
                object.meta().resource_version.clone()
            }
            WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
            WatchEvent::Error(status) => return Err(FollowError::Ended(status.boxed())),
        };
        version.filter(|version| !version.is_empty()).ok_or(FollowError::NoVersion)
    }

    fn listed(&mut self, object: D, present: &mut HashSet<ObjectKey>) {
        if S::NEEDS_PRESENT {
            present.insert(ObjectKey::of(&object));
        }
        apply(self.what, object, &mut self.sink, &self.metrics);
    }

    fn complete(&mut self, present: &HashSet<ObjectKey>) {
        self.sink.listed(present);
        tracing::debug!(what = self.what, "listed");
    }

    /// What was seen is what the API server had at that moment.
    fn confirm(&mut self, at: Moment) {
        self.silent = 0;
        self.sink.confirmed(at);
    }
}

#[cfg(test)]
mod tests;
