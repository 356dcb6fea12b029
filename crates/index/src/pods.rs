//! The pods there are, found by uid, by name and by (namespace, service account). Pods of one workload differ in name and
//! uid only: what is equal among them is kept once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use countersign_core::entitlement::PodFacts;
use jiff::{SignedDuration, Timestamp};

/// How long after its `deletionTimestamp` a pod's token still proves it, as for Kubernetes' own authenticator.
pub const DELETION_GRACE: SignedDuration = SignedDuration::from_secs(60);

/// A pod as the index is told of it, and tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRecord {
    /// Who it is, its labels and containers.
    pub facts: PodFacts,
    /// Succeeded or Failed: no longer alive.
    pub ended: bool,
    /// `metadata.deletionTimestamp`: when its grace period is over. From [`DELETION_GRACE`] later it counts as ended, whatever
    /// keeps the object.
    pub deleted_at: Option<Timestamp>,
    /// Whether the webhook injected it.
    pub injected: bool,
    /// Those of `facts.containers` that have a part of their identity mounted by `subPath`, where it never refreshes.
    pub never_refreshes: Vec<String>,
    /// The containers' images, in the order of `facts.containers`.
    pub images: Vec<String>,
}

/// All pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    by_uid: HashMap<Arc<str>, Entry>,
    namespaces: HashMap<String, InNamespace>,
    shapes: HashSet<Arc<Shape>>,
    /// Uids read live and not yet confirmed by the watch.
    provisional: HashSet<Arc<str>>,
    /// Pods that are being deleted, by when they end.
    ending: BTreeSet<(Timestamp, Arc<str>)>,
    /// The time as last told: pods that end by then have ended.
    now: Timestamp,
    /// Which list is under way, or was last.
    list: u32,
}

#[derive(Debug, Default)]
struct InNamespace {
    by_name: HashMap<Arc<str>, Arc<str>>,
    by_account: HashMap<String, HashSet<Arc<str>>>,
}

#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    shape: Arc<Shape>,
    ended: bool,
    deleted_at: Option<Timestamp>,
    /// [`PodFacts::renewal`]
    renewal: u64,
    /// The list in or after which the watch last told of it.
    list: u32,
    /// Until when a pod read live counts; `None` once the watch told of it.
    provisional_until: Option<Timestamp>,
}

/// What is equal among the pods of one workload.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Shape {
    namespace: String,
    account: String,
    labels: BTreeMap<String, String>,
    containers: Vec<String>,
    images: Vec<String>,
    injected: bool,
    never_refreshes: Vec<String>,
}

impl Shape {
    fn of(record: PodRecord) -> Self {
        let PodFacts { namespace, service_account, labels, containers, name: _, uid: _, renewal: _ } = record.facts;
        Self {
            namespace,
            account: service_account,
            labels,
            containers,
            images: record.images,
            injected: record.injected,
            never_refreshes: record.never_refreshes,
        }
    }

    fn is_of(&self, record: &PodRecord) -> bool {
        let facts = &record.facts;
        self.namespace == facts.namespace
            && self.account == facts.service_account
            && self.labels == facts.labels
            && self.containers == facts.containers
            && self.images == record.images
            && self.injected == record.injected
            && self.never_refreshes == record.never_refreshes
    }
}

impl Entry {
    /// When it ends by its deletion.
    fn ends_at(&self) -> Option<Timestamp> {
        self.deleted_at.map(|at| at.saturating_add(DELETION_GRACE).unwrap_or(Timestamp::MAX))
    }

    fn has_ended(&self, now: Timestamp) -> bool {
        self.ended || self.ends_at().is_some_and(|at| at <= now)
    }

    fn record(&self, uid: &str, now: Timestamp) -> PodRecord {
        let shape = &*self.shape;
        PodRecord {
            facts: PodFacts {
                namespace: shape.namespace.clone(),
                name: self.name.to_string(),
                uid: uid.to_owned(),
                service_account: shape.account.clone(),
                labels: shape.labels.clone(),
                containers: shape.containers.clone(),
                renewal: self.renewal,
            },
            ended: self.has_ended(now),
            deleted_at: self.deleted_at,
            injected: shape.injected,
            never_refreshes: shape.never_refreshes.clone(),
            images: shape.images.clone(),
        }
    }
}

impl Pods {
    pub(super) fn len(&self) -> usize {
        self.by_uid.len()
    }

    /// A list of all pods begins: [`Self::unlisted`] then tells of those that were not in it.
    pub(super) fn begin_list(&mut self) {
        self.list = self.list.wrapping_add(1);
    }

    /// Pods of which the watch did not tell since the list began.
    pub(super) fn unlisted(&self) -> Vec<Arc<str>> {
        // What was read live is younger than the list.
        let unlisted = |entry: &Entry| entry.list != self.list && entry.provisional_until.is_none();
        self.by_uid.iter().filter(|(_, entry)| unlisted(entry)).map(|(uid, _)| uid.clone()).collect()
    }

    pub(super) fn record(&self, uid: &str) -> Option<PodRecord> {
        self.by_uid.get(uid).map(|entry| entry.record(uid, self.now))
    }

    pub(super) fn contains(&self, uid: &str) -> bool {
        self.by_uid.contains_key(uid)
    }

    /// A pod's name.
    pub(super) fn name(&self, uid: &str) -> Option<&str> {
        self.by_uid.get(uid).map(|entry| &*entry.name)
    }

    /// The uids and namespaces of pods that are alive and have an agent.
    pub(super) fn with_agent(&self) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.by_uid.iter().filter(|(_, entry)| entry.shape.injected && !entry.has_ended(self.now));
        entries.map(|(uid, entry)| (&**uid, entry.shape.namespace.as_str()))
    }

    /// A pod's namespace.
    pub(super) fn namespace(&self, uid: &str) -> Option<&str> {
        self.by_uid.get(uid).map(|entry| entry.shape.namespace.as_str())
    }

    pub(super) fn containers(&self, uid: &str) -> &[String] {
        self.by_uid.get(uid).map(|entry| entry.shape.containers.as_slice()).unwrap_or_default()
    }

    pub(super) fn alive(&self, uid: &str, now: Timestamp) -> bool {
        self.by_uid
            .get(uid)
            .is_some_and(|entry| !entry.has_ended(now) && entry.provisional_until.is_none_or(|until| now < until))
    }

    pub(super) fn has_ended(&self, uid: &str, now: Timestamp) -> bool {
        self.by_uid.get(uid).is_some_and(|entry| entry.has_ended(now))
    }

    /// When the next pod ends by its deletion, as seen from the time as last told.
    pub(super) fn next_deletion(&self) -> Option<Timestamp> {
        self.ending.iter().map(|(at, _)| *at).find(|at| *at > self.now)
    }

    /// Tells the time; the answer is every pod whose end lies between the time as last told and this one, in whichever
    /// direction that goes: a clock may be set back.
    pub(super) fn tell_time(&mut self, now: Timestamp) -> Vec<Arc<str>> {
        let before = std::mem::replace(&mut self.now, now);
        let (after, until) = (before.min(now), before.max(now));
        let ends = self.ending.iter().skip_while(|(at, _)| *at <= after).take_while(|(at, _)| *at <= until);
        ends.map(|(_, uid)| uid.clone()).collect()
    }

    /// Every pod of an account, or of the whole namespace.
    pub(super) fn of<'a>(
        &'a self,
        namespace: &str,
        account: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<str>> + use<'a> {
        let accounts = self.namespaces.get(namespace).map(|here| &here.by_account);
        let one = account.and_then(|account| accounts?.get(account)).into_iter().flatten();
        let all = accounts.filter(|_| account.is_none()).into_iter().flat_map(|accounts| accounts.values().flatten());
        one.chain(all)
    }

    /// Notes that the watch told of a pod exactly as it is known already, which most events do: then there is nothing to do.
    pub(super) fn confirm(&mut self, record: &PodRecord) -> bool {
        let list = self.list;
        let Some(entry) = self.by_uid.get_mut(record.facts.uid.as_str()) else { return false };
        if *entry.name != *record.facts.name
            || entry.ended != record.ended
            || entry.deleted_at != record.deleted_at
            || entry.renewal != record.facts.renewal
            || !entry.shape.is_of(record)
        {
            return false;
        }
        entry.list = list;
        if entry.provisional_until.take().is_some() {
            self.provisional.remove(record.facts.uid.as_str());
        }
        true
    }

    /// Puts a pod in place; the answer is another pod of the same name which it replaces.
    pub(super) fn insert(
        &mut self,
        record: PodRecord,
        provisional_until: Option<Timestamp>,
    ) -> (Arc<str>, Option<Arc<str>>) {
        // A pod's name and account never change; its shape does.
        let old = self.by_uid.remove_entry(record.facts.uid.as_str());
        let (uid, known) = match old {
            Some((uid, entry)) => (uid, Some(entry)),
            None => (Arc::from(record.facts.uid.as_str()), None),
        };
        let (name, ended, deleted_at) = (Arc::<str>::from(record.facts.name.as_str()), record.ended, record.deleted_at);
        let renewal = record.facts.renewal;
        let here = self.namespaces.entry(record.facts.namespace.clone()).or_default();
        let replaced = here.by_name.insert(name.clone(), uid.clone()).filter(|older| *older != uid);
        here.by_account.entry(record.facts.service_account.clone()).or_default().insert(uid.clone());
        match provisional_until {
            Some(_) => self.provisional.insert(uid.clone()),
            None => self.provisional.remove(&uid),
        };
        let shape = self.shape(record);
        let list = self.list;
        let entry = Entry { name, shape, ended, deleted_at, renewal, list, provisional_until };
        if let Some(known) = known.as_ref().and_then(Entry::ends_at) {
            self.ending.remove(&(known, uid.clone()));
        }
        if let Some(ends_at) = entry.ends_at() {
            self.ending.insert((ends_at, uid.clone()));
        }
        self.by_uid.insert(uid.clone(), entry);
        if let Some(known) = known {
            self.forget(known.shape);
        }
        (uid, replaced)
    }

    pub(super) fn remove(&mut self, uid: &str) -> Option<(Arc<str>, PodRecord)> {
        let (uid, entry) = self.by_uid.remove_entry(uid)?;
        let record = entry.record(&uid, self.now);
        self.provisional.remove(&uid);
        if let Some(ends_at) = entry.ends_at() {
            self.ending.remove(&(ends_at, uid.clone()));
        }
        let shape = &entry.shape;
        if let Some(here) = self.namespaces.get_mut(&shape.namespace) {
            if here.by_name.get(&entry.name).is_some_and(|holder| *holder == uid) {
                here.by_name.remove(&entry.name);
            }
            if let Some(uids) = here.by_account.get_mut(&shape.account) {
                uids.remove(&uid);
                if uids.is_empty() {
                    here.by_account.remove(&shape.account);
                }
            }
            if here.by_account.is_empty() {
                self.namespaces.remove(&shape.namespace);
            }
        }
        self.forget(entry.shape);
        Some((uid, record))
    }

    /// Uids that were read live and never confirmed in time.
    pub(super) fn unconfirmed(&self, now: Timestamp) -> Vec<Arc<str>> {
        let late = |uid: &&Arc<str>| {
            self.by_uid.get(&***uid).and_then(|entry| entry.provisional_until).is_some_and(|until| until <= now)
        };
        self.provisional.iter().filter(late).cloned().collect()
    }

    /// The one shape that is equal to the record's.
    fn shape(&mut self, record: PodRecord) -> Arc<Shape> {
        let shape = Shape::of(record);
        if let Some(known) = self.shapes.get(&shape) {
            return known.clone();
        }
        let shape = Arc::new(shape);
        self.shapes.insert(shape.clone());
        shape
    }

    /// Gives a shape up, which goes with its last pod.
    fn forget(&mut self, shape: Arc<Shape>) {
        // This one and that in `shapes`.
        if Arc::strong_count(&shape) == 2 {
            self.shapes.remove(&shape);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PodRecord, Pods};

    fn pod(number: usize, image: &str) -> PodRecord {
        let mut pod = PodRecord { images: vec![image.to_owned()], ..PodRecord::default() };
        pod.facts.namespace = "shop".to_owned();
        pod.facts.service_account = "orders".to_owned();
        (pod.facts.name, pod.facts.uid) = (format!("orders-{number}"), format!("uid-{number}"));
        pod.facts.labels.insert("app".to_owned(), "orders".to_owned());
        pod
    }

    #[test]
    fn what_is_equal_among_pods_is_kept_once_and_goes_with_the_last() {
        let mut pods = Pods::default();
        for number in 0..3 {
            pods.insert(pod(number, "app:1"), None);
        }
        assert_eq!(pods.shapes.len(), 1);
        pods.insert(pod(0, "app:2"), None);
        assert_eq!((pods.shapes.len(), pods.len()), (2, 3));
        assert!(
            (0..3).all(|n| pods.record(&format!("uid-{n}")) == Some(pod(n, if n == 0 { "app:2" } else { "app:1" })))
        );
        for number in 0..3 {
            pods.remove(&format!("uid-{number}"));
        }
        assert!(pods.ending.is_empty());
        assert!(pods.shapes.is_empty() && pods.namespaces.is_empty() && pods.by_uid.is_empty());
    }

    #[test]
    fn any_difference_of_a_pod_is_noticed() {
        let mut pods = Pods::default();
        pods.insert(pod(0, "app:1"), None);
        assert!(pods.confirm(&pod(0, "app:1")));
        let mut labelled = pod(0, "app:1");
        labelled.facts.labels.insert("new".to_owned(), String::new());
        let mut contained = pod(0, "app:1");
        contained.facts.containers.push("app".to_owned());
        let ended = PodRecord { ended: true, ..pod(0, "app:1") };
        let deleted = PodRecord { deleted_at: Some(jiff::Timestamp::UNIX_EPOCH), ..pod(0, "app:1") };
        let injected = PodRecord { injected: true, ..pod(0, "app:1") };
        let stale = PodRecord { never_refreshes: vec!["app".to_owned()], ..pod(0, "app:1") };
        for changed in [labelled, contained, ended, deleted, injected, stale, pod(0, "app:2")] {
            assert!(!pods.confirm(&changed), "{changed:?}");
        }
    }
}
