//! Ends pods whose deletion is over: of that no watch tells while a finalizer, or a node that is gone, keeps the object.

use std::time::Duration;

use countersign_index::SharedIndex;
use countersign_runtime::{clock::Clock, clock_skew::ClockSkewMonitor};

/// The longest time between two looks: a pod may be told of whose end is near, and a clock may be set.
const LOOK: Duration = Duration::from_secs(1);

/// Looks no more often than this, when many end one after the other.
const LEAST: Duration = Duration::from_millis(100);

/// Tells the index the time, for as long as the process lives. While the clock is off nobody ends by it.
pub async fn follow(index: SharedIndex, clock: Clock, clock_skew: ClockSkewMonitor) {
    loop {
        let next = index.read(countersign_index::Index::next_deletion);
        let wait = next.map_or(LOOK, |at| clock.until(at));
        tokio::time::sleep(wait.clamp(LEAST, LOOK)).await;
        if clock_skew.ensure().is_ok() {
            index.update(|index| index.tell_time(clock.now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_index::{Entitlement, IdentityKey, Index, PodRecord};
    use countersign_policy as policy;
    use jiff::Timestamp;
    use serde_json::json;

    // A watch tells of the deletion once; that it is over nobody tells. The clock may be set back in between.
    #[test]
    fn a_pod_ends_a_minute_after_its_deletion_by_the_time_alone() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let mut index = Index::default();
        index.apply_identity(policy::workload_identity(&serde_json::from_value(json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
                "metadata": {"name": "cart", "namespace": "shop", "uid": "w", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"trustDomain": "example.org", "selector": {"serviceAccounts": ["cart"]}},
            }))
            .expect("a WorkloadIdentity")));
        let key = IdentityKey { namespace: "shop".to_owned(), name: "cart".to_owned() };
        let mut deleted = PodRecord { deleted_at: Some(at(1_030)), ..PodRecord::default() };
        deleted.facts.namespace = "shop".to_owned();
        (deleted.facts.name, deleted.facts.uid) = ("cart-0".to_owned(), "u".to_owned());
        deleted.facts.service_account = "cart".to_owned();
        let seen = |index: &mut Index, second| {
            index.tell_time(at(second));
            (index.entitlement("u", "") == Entitlement::Gone, index.identity(&key).map(|view| view.matched))
        };
        index.tell_time(at(1_000));
        index.apply_pod(deleted.clone());
        assert_eq!(seen(&mut index, 1_089), (false, Some(1)));
        assert_eq!(index.next_deletion(), Some(at(1_090)));
        assert_eq!((index.alive("u", at(1_089)), index.alive("u", at(1_090))), (true, false));
        assert_eq!(seen(&mut index, 1_090), (true, Some(0)));
        deleted.facts.labels.insert("seen".to_owned(), "again".to_owned());
        index.apply_pod(deleted);
        assert_eq!(seen(&mut index, 1_091), (true, Some(0)), "what is told of it later does not bring it back");
        assert_eq!(seen(&mut index, 1_050), (false, Some(1)), "the clock was wrong");
        index.remove_pod("u");
        assert_eq!((seen(&mut index, 2_000), index.next_deletion()), ((true, Some(0)), None));
    }
}
