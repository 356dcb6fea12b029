//! The objects a controller reconciles, as the watch last told of them.

use std::{collections::HashSet, hash::Hash};

use kube::{
    Resource,
    runtime::{
        reflector::{ObjectRef, Store, store::Writer},
        watcher::Event,
    },
};

use super::ObjectKey;

/// The writing end of a store.
pub struct Stored<K: Resource<DynamicType = ()> + Clone + 'static> {
    writer: Writer<K>,
    reader: Store<K>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Stored<K>
where
    K::DynamicType: Hash + Eq,
{
    /// An empty store, both ends.
    #[must_use]
    pub fn new() -> (Store<K>, Self) {
        let writer = Writer::new(());
        let reader = writer.as_reader();
        (reader.clone(), Self { writer, reader })
    }

    pub(super) fn apply(&mut self, object: K) {
        self.writer.apply_watcher_event(&Event::Apply(object));
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) {
        let mut reference = ObjectRef::<K>::new(&key.name);
        if !key.namespace.is_empty() {
            reference = reference.within(&key.namespace);
        }
        if let Some(object) = self.reader.get(&reference) {
            self.writer.apply_watcher_event(&Event::Delete((*object).clone()));
        }
    }

    /// Keeps what is present only. Controllers wait until this was called once.
    pub(super) fn retain(&mut self, present: &HashSet<ObjectKey>) {
        self.writer.apply_watcher_event(&Event::Init);
        for object in self.reader.state() {
            if present.contains(&ObjectKey::of(&*object)) {
                self.writer.apply_watcher_event(&Event::InitApply((*object).clone()));
            }
        }
        self.writer.apply_watcher_event(&Event::InitDone);
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> std::fmt::Debug for Stored<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored").field("objects", &self.reader.len()).finish_non_exhaustive()
    }
}
