//! The pods there are, found by uid, by name and by (namespace, service account).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use countersign_core::entitlement::PodFacts;
use jiff::Timestamp;

/// A pod as the index keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRecord {
    /// Who it is, its labels and containers.
    pub facts: PodFacts,
    /// Succeeded or Failed: no longer alive.
    pub ended: bool,
    /// Whether the webhook injected it.
    pub injected: bool,
    /// The containers' images, in the order of `facts.containers`.
    pub images: Vec<String>,
}

/// All pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    by_uid: HashMap<Arc<str>, Entry>,
    by_name: HashMap<(String, String), Arc<str>>,
    by_account: HashMap<String, HashMap<String, HashSet<Arc<str>>>>,
    /// Uids read live and not yet confirmed by the watch.
    provisional: HashSet<Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    record: PodRecord,
    /// Until when a pod read live counts; `None` once the watch told of it.
    provisional_until: Option<Timestamp>,
}

impl Pods {
    pub(super) fn len(&self) -> usize {
        self.by_uid.len()
    }

    pub(super) fn uids(&self) -> impl Iterator<Item = &str> {
        // What was read live is younger than the list that is compared with.
        self.by_uid.iter().filter(|(_, entry)| entry.provisional_until.is_none()).map(|(uid, _)| &**uid)
    }

    pub(super) fn record(&self, uid: &str) -> Option<&PodRecord> {
        self.by_uid.get(uid).map(|entry| &entry.record)
    }

    pub(super) fn alive(&self, uid: &str, now: Timestamp) -> bool {
        self.by_uid
            .get(uid)
            .is_some_and(|entry| !entry.record.ended && entry.provisional_until.is_none_or(|until| now < until))
    }

    /// Every pod of an account, or of the whole namespace.
    pub(super) fn of<'a>(
        &'a self,
        namespace: &str,
        account: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<str>> + use<'a> {
        let accounts = self.by_account.get(namespace).into_iter().flatten();
        accounts
            .filter(move |(name, _)| account.is_none_or(|account| account == name.as_str()))
            .flat_map(|(_, uids)| uids)
    }

    /// Notes that the watch told of a pod exactly as it is known already, which most events do: then there is nothing to do.
    pub(super) fn confirm(&mut self, record: &PodRecord) -> bool {
        let Some((uid, _)) = self.by_uid.get_key_value(record.facts.uid.as_str()) else { return false };
        let uid = uid.clone();
        let Some(entry) = self.by_uid.get_mut(&uid).filter(|entry| entry.record == *record) else { return false };
        if entry.provisional_until.take().is_some() {
            self.provisional.remove(&uid);
        }
        true
    }

    /// Puts a pod in place; the answer is another pod of the same name which it replaces.
    pub(super) fn insert(
        &mut self,
        record: PodRecord,
        provisional_until: Option<Timestamp>,
    ) -> (Arc<str>, Option<Arc<str>>) {
        let facts = &record.facts;
        let uid: Arc<str> = match self.by_uid.get_key_value(facts.uid.as_str()) {
            Some((uid, _)) => uid.clone(),
            None => Arc::from(facts.uid.as_str()),
        };
        let name = (facts.namespace.clone(), facts.name.clone());
        let replaced = self.by_name.insert(name, uid.clone()).filter(|older| *older != uid);
        let accounts = self.by_account.entry(facts.namespace.clone()).or_default();
        match accounts.get_mut(&facts.service_account) {
            Some(uids) => uids.insert(uid.clone()),
            None => accounts.entry(facts.service_account.clone()).or_default().insert(uid.clone()),
        };
        match provisional_until {
            Some(_) => self.provisional.insert(uid.clone()),
            None => self.provisional.remove(&uid),
        };
        self.by_uid.insert(uid.clone(), Entry { record, provisional_until });
        (uid, replaced)
    }

    pub(super) fn remove(&mut self, uid: &str) -> Option<(Arc<str>, PodRecord)> {
        let (uid, entry) = self.by_uid.remove_entry(uid)?;
        let facts = &entry.record.facts;
        self.provisional.remove(&uid);
        let name = (facts.namespace.clone(), facts.name.clone());
        if self.by_name.get(&name).is_some_and(|holder| *holder == uid) {
            self.by_name.remove(&name);
        }
        if let Some(accounts) = self.by_account.get_mut(&facts.namespace) {
            if let Some(uids) = accounts.get_mut(&facts.service_account) {
                uids.remove(&uid);
                if uids.is_empty() {
                    accounts.remove(&facts.service_account);
                }
            }
            if accounts.is_empty() {
                self.by_account.remove(&facts.namespace);
            }
        }
        Some((uid, entry.record))
    }

    /// Uids that were read live and never confirmed in time.
    pub(super) fn unconfirmed(&self, now: Timestamp) -> Vec<Arc<str>> {
        let late = |uid: &&Arc<str>| {
            self.by_uid.get(&***uid).and_then(|entry| entry.provisional_until).is_some_and(|until| until <= now)
        };
        self.provisional.iter().filter(late).cloned().collect()
    }
}
