//! Ends pods whose deletion is over: of that no watch tells while a finalizer, or a node that is gone, keeps the object.

use std::time::Duration;

use crate::{
    clock::{Clock, agreement::Agreement},
    index::SharedIndex,
};

/// The longest time between two looks: a pod may be told of whose end is near, and a clock may be set.
const LOOK: Duration = Duration::from_secs(1);

/// Looks no more often than this, when many end one after the other.
const LEAST: Duration = Duration::from_millis(100);

/// Tells the index the time, for as long as the process lives. While the clock is off nobody ends by it.
pub async fn follow(index: SharedIndex, clock: Clock, agreement: Agreement) {
    loop {
        let next = index.read(crate::index::Index::next_deletion);
        let wait = next.map_or(LOOK, |at| clock.until(at));
        tokio::time::sleep(wait.clamp(LEAST, LOOK)).await;
        if agreement.ensure().is_ok() {
            index.update(|index| index.tell_time(clock.now()));
        }
    }
}
