//! What follows from a change: which identities are judged anew, which pods they select then, and what is published to sessions.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use countersign_contract::objects::{ENDPOINT, ENDPOINT_NAMESPACE};
use tokio::sync::watch;

use crate::{
    Index,
    entitlement::Entitlement,
    identities::{IdentityKey, JudgedAnew, Match, Surroundings},
};

impl Index {
    /// Whether identities lose to others than their outcomes name; see [`Self::name_holders`].
    #[must_use]
    pub fn has_renamed_holders(&self) -> bool {
        self.identities.has_renamed()
    }

    /// Judges some of those anew who lose what they claim as before, but to somebody else; the answer is whether there are
    /// more. Very many may share one claim, and a change of its holder concerns all of them; so this is done now and then,
    /// for many changes at a time.
    pub fn name_holders(&mut self) -> bool {
        let around = Surroundings { domains: &self.domains, namespaces: &self.namespaces };
        let (judged, more) = self.identities.name_holders(&around);
        let affected = self.affected(judged);
        self.publish_all(affected, []);
        more
    }

    pub(crate) fn judge(&mut self, keys: Vec<IdentityKey>) {
        let namespaces: BTreeSet<String> = keys.iter().map(|key| key.namespace.clone()).collect();
        let affected = self.judge_only(keys);
        self.publish_all(affected, namespaces.iter().map(String::as_str));
    }

    /// Judges; the answer is every pod whose identities may have changed by it.
    pub(crate) fn judge_only(&mut self, keys: impl IntoIterator<Item = IdentityKey>) -> HashSet<Arc<str>> {
        let around = Surroundings { domains: &self.domains, namespaces: &self.namespaces };
        let judged = self.identities.judge(keys, &around);
        self.affected(judged)
    }

    /// Counts anew which pods the changed identities select; the answer is those that one selects or selected which is or was
    /// admitted, and those of them that wait. What a change costs is in proportion to the pods of the changed identities, whatever else there is.
    fn affected(&mut self, judged: JudgedAnew) -> HashSet<Arc<str>> {
        let mut affected = HashSet::new();
        for (key, is_effective) in &judged.changed {
            let before = self.matched_pods(key);
            let mut concerned = before.clone();
            match self.identities.accounts(key) {
                None => concerned.extend(self.pods.of(&key.namespace, None).cloned()),
                Some(accounts) => {
                    for account in &accounts {
                        concerned.extend(self.pods.of(&key.namespace, Some(account)).cloned());
                    }
                }
            }
            for uid in concerned {
                self.evaluated += 1;
                let matched = self.pods.record(&uid).and_then(|pod| self.identities.matches(key, &pod));
                let selects = matched.is_some() || before.contains(&uid);
                self.set_matched(key, &uid, matched);
                // Why a waiting pod has none may name an identity that is not admitted either.
                if selects && (*is_effective || self.sessions.waits(&key.namespace, &uid)) {
                    affected.insert(uid);
                }
            }
        }
        let foreign = judged.all.iter().filter_map(|key| self.identities.judged(key));
        let foreign = foreign.flat_map(|one| &one.identity().federates_with);
        self.dirty.domains.extend(foreign.filter_map(|name| self.domains.holder(name)).map(|one| one.name.clone()));
        self.dirty.identities.extend(judged.all);
        affected
    }

    pub(crate) fn matched_pods(&self, key: &IdentityKey) -> HashSet<Arc<str>> {
        self.identities.matched(key)
    }

    pub(crate) fn set_matched(&mut self, key: &IdentityKey, uid: &Arc<str>, state: Option<Match>) {
        if self.identities.set_matched(key, uid, state) {
            self.dirty.identities.insert(key.clone());
        }
    }

    /// Publishes to the sessions of what publishes bundles.
    pub(crate) fn publish_endpoints(&mut self) {
        let pods: Vec<_> = self.pods.of(ENDPOINT_NAMESPACE, Some(ENDPOINT)).cloned().collect();
        pods.iter().for_each(|uid| self.publish(uid));
    }

    /// Publishes to the sessions of these pods, and to those of `namespaces` that wait for an identity.
    pub(crate) fn publish_all<'a>(&mut self, pods: HashSet<Arc<str>>, namespaces: impl IntoIterator<Item = &'a str>) {
        let waiting: Vec<_> =
            namespaces.into_iter().flat_map(|namespace| self.sessions.waiting(namespace)).cloned().collect();
        for uid in pods.iter().chain(&waiting) {
            self.publish(uid);
        }
    }

    pub(crate) fn publish(&mut self, uid: &str) {
        if !self.sessions.has(uid) {
            return;
        }
        let mut waits = false;
        for session in self.sessions.names(uid) {
            let entitlement = self.entitlement(uid, &session);
            waits |= matches!(entitlement, Entitlement::None(_));
            self.sessions.publish(uid, &session, entitlement);
        }
        if let Some(namespace) = self.pods.namespace(uid) {
            self.sessions.set_waiting(uid, namespace, waits);
        }
    }

    pub(crate) fn subscribe(&mut self, uid: &str, session: &str) -> watch::Receiver<Arc<Entitlement>> {
        let entitlement = self.entitlement(uid, session);
        let waits = matches!(entitlement, Entitlement::None(_));
        let receiver = self.sessions.subscribe(&Arc::from(uid), session, entitlement);
        if let Some(namespace) = self.pods.namespace(uid).filter(|_| waits) {
            self.sessions.set_waiting(uid, namespace, true);
        }
        receiver
    }
}
