//! What the controllers share: each works only where this replica leads, and looks at everything once it does.

use std::time::Duration;

use futures::{Stream, stream};
use kube::runtime::controller::Action;
use tokio::sync::watch;

use countersign_runtime::leader::{Leadership, gained};

/// How soon to look again where leadership has run out and was not lost yet: it may be renewed.
const UNSURE: Duration = Duration::from_secs(1);

/// What to do instead where this replica does not lead: nothing, for everything is looked at when it does.
pub(super) fn elsewhere(leadership: &Leadership) -> Action {
    if leadership.last_published() { Action::requeue(UNSURE) } else { Action::await_change() }
}

/// What `all` says, each time this replica begins to lead.
pub(super) fn on_gain<T, F: Fn() -> T>(leadership: &Leadership, all: F) -> impl Stream<Item = T> + use<T, F> {
    let mut leads = leadership.subscribe();
    leads.mark_changed();
    stream::unfold((leads, all), |(mut leads, all): (watch::Receiver<bool>, _)| async move {
        gained(&mut leads).await;
        let found = all();
        Some((found, (leads, all)))
    })
}
