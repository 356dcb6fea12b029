//! Pods that came, changed, ended and went.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{Index, pods::PodRecord};

impl Index {
    /// All pods are about to be listed.
    pub fn begin_pods(&mut self) {
        self.pods.begin_list();
    }

    /// All pods were listed: those that no event has named since [`Self::begin_pods`] are gone.
    pub fn end_pods(&mut self) {
        for uid in self.pods.unlisted() {
            self.remove_pod(&uid);
        }
    }

    /// A pod came or changed.
    pub fn apply_pod(&mut self, pod: PodRecord) {
        self.put_pod(pod, None);
    }

    /// A pod was read live; it counts until `until` unless the watch confirms it before.
    pub fn apply_live_pod(&mut self, pod: PodRecord, until: Timestamp, now: Timestamp) {
        for uid in self.pods.unconfirmed(now) {
            self.remove_pod(&uid);
        }
        // What the watch brought is newer or equal, or will be corrected by it.
        if !self.pods.contains(&pod.facts.uid) {
            self.put_pod(pod, Some(until));
        }
    }

    /// Tells the time. Pods whose deletion is over by then have ended, though nothing else tells of it: a finalizer or a node
    /// that is gone keeps such a pod for as long as it likes.
    pub fn tell_time(&mut self, now: Timestamp) {
        for uid in self.pods.tell_time(now) {
            self.match_pod(&uid);
            self.publish(&uid);
        }
    }

    /// A pod is gone.
    pub fn remove_pod(&mut self, uid: &str) {
        let Some((uid, record)) = self.pods.remove(uid) else { return };
        let facts = &record.facts;
        let keys: Vec<_> = self.identities.candidates(&facts.namespace, &facts.service_account).cloned().collect();
        for key in keys {
            self.set_matched(&key, &uid, None);
        }
        self.publish(&uid);
    }

    fn put_pod(&mut self, pod: PodRecord, provisional_until: Option<Timestamp>) {
        if provisional_until.is_none() && self.pods.confirm(&pod) {
            return;
        }
        let (uid, replaced) = self.pods.insert(pod, provisional_until);
        if let Some(replaced) = replaced {
            self.remove_pod(&replaced);
        }
        self.match_pod(&uid);
        self.publish(&uid);
    }

    fn match_pod(&mut self, uid: &Arc<str>) {
        let Some(pod) = self.pods.record(uid) else { return };
        let facts = &pod.facts;
        let matches: Vec<_> = self
            .identities
            .candidates(&facts.namespace, &facts.service_account)
            .map(|key| (key.clone(), self.identities.matches(key, &pod)))
            .collect();
        for (key, state) in matches {
            self.set_matched(&key, uid, state);
        }
    }
}
