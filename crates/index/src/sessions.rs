//! The sessions that are told what their pods are entitled to: one watch channel for each (pod uid, session).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::sync::watch;

use super::{Entitlement, shared::publish};

/// Channels by pod and session, and which pods still wait for an identity.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_pod: HashMap<Arc<str>, HashMap<String, watch::Sender<Arc<Entitlement>>>>,
    /// By namespace: pods with a session that has no identity. Why it has none depends on the whole namespace.
    waiting: HashMap<String, HashSet<Arc<str>>>,
    count: usize,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn has(&self, uid: &str) -> bool {
        self.by_pod.contains_key(uid)
    }

    /// The sessions of a pod, by name.
    pub(super) fn names(&self, uid: &str) -> Vec<String> {
        self.by_pod.get(uid).map(|sessions| sessions.keys().cloned().collect()).unwrap_or_default()
    }

    /// Whether a pod waits.
    pub(super) fn waits(&self, namespace: &str, uid: &str) -> bool {
        self.waiting.get(namespace).is_some_and(|waiting| waiting.contains(uid))
    }

    /// The pods of a namespace that wait.
    pub(super) fn waiting(&self, namespace: &str) -> impl Iterator<Item = &Arc<str>> {
        self.waiting.get(namespace).into_iter().flatten()
    }

    /// A receiver which holds `entitlement` now.
    pub(super) fn subscribe(
        &mut self,
        uid: &Arc<str>,
        session: &str,
        entitlement: Entitlement,
    ) -> watch::Receiver<Arc<Entitlement>> {
        let sessions = self.by_pod.entry(uid.clone()).or_default();
        if let Some(sender) = sessions.get(session) {
            let receiver = sender.subscribe();
            publish(sender, entitlement);
            return receiver;
        }
        let (sender, receiver) = watch::channel(Arc::new(entitlement));
        sessions.insert(session.to_owned(), sender);
        self.count += 1;
        receiver
    }

    /// Forgets a session whose last receiver is about to go.
    pub(super) fn unsubscribe(&mut self, uid: &str, session: &str, namespace: &str) {
        let Some(sessions) = self.by_pod.get_mut(uid) else { return };
        if sessions.get(session).is_some_and(|sender| sender.receiver_count() <= 1) {
            sessions.remove(session);
            self.count = self.count.saturating_sub(1);
        }
        if sessions.is_empty() {
            self.by_pod.remove(uid);
            self.set_waiting(uid, namespace, false);
        }
    }

    /// Publishes if it differs from what the session was told last.
    pub(super) fn publish(&self, uid: &str, session: &str, entitlement: Entitlement) {
        if let Some(sender) = self.by_pod.get(uid).and_then(|sessions| sessions.get(session)) {
            publish(sender, entitlement);
        }
    }

    /// Has all of them look anew at what is as it was.
    pub(super) fn wake(&self) {
        for sender in self.by_pod.values().flat_map(HashMap::values) {
            sender.send_modify(|_| {});
        }
    }

    pub(super) fn set_waiting(&mut self, uid: &str, namespace: &str, waits: bool) {
        if waits {
            let Some((uid, _)) = self.by_pod.get_key_value(uid) else { return };
            self.waiting.entry(namespace.to_owned()).or_default().insert(uid.clone());
        } else if let Some(waiting) = self.waiting.get_mut(namespace) {
            waiting.remove(uid);
            if waiting.is_empty() {
                self.waiting.remove(namespace);
            }
        }
    }
}
