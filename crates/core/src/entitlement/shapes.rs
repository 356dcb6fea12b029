//! A trie over claims: finds every claim that can render what another can, without comparing all with all.

use std::collections::BTreeMap;

use super::claim::ClaimKey;

/// Claims by their segments or labels.
#[derive(Clone, Debug, Default)]
pub(super) struct Shapes {
    parts: BTreeMap<Box<str>, Shapes>,
    any: Option<Box<Shapes>>,
    entry: Option<u64>,
}

/// What a search found, and how many nodes it looked at.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<u64>,
    pub(super) visited: u64,
}

impl Shapes {
    /// The entry of exactly this claim; `make` makes it if there is none.
    pub(super) fn entry(&mut self, claim: &ClaimKey, make: impl FnOnce() -> u64) -> u64 {
        let mut node = self;
        for part in claim.parts() {
            node = match part {
                Some(part) => node.parts.entry(part.into()).or_default(),
                None => node.any.get_or_insert_default(),
            };
        }
        *node.entry.get_or_insert_with(make)
    }

    /// Takes the entry of exactly this claim out.
    pub(super) fn remove(&mut self, claim: &ClaimKey) {
        let parts: Vec<_> = claim.parts().collect();
        self.remove_below(&parts);
    }

    fn remove_below(&mut self, parts: &[Option<&str>]) {
        match parts.split_first() {
            None => self.entry = None,
            Some((Some(part), rest)) => {
                let Some(child) = self.parts.get_mut(*part) else { return };
                child.remove_below(rest);
                if child.is_empty() {
                    self.parts.remove(*part);
                }
            }
            Some((None, rest)) => {
                let Some(child) = &mut self.any else { return };
                child.remove_below(rest);
                if child.is_empty() {
                    self.any = None;
                }
            }
        }
    }

    /// The entries of all claims that could render the same as `claim`; its own is among them.
    pub(super) fn overlapping(&self, claim: &ClaimKey) -> Found {
        let parts: Vec<_> = claim.parts().collect();
        let mut found = Found::default();
        self.find(&parts, &mut found);
        found
    }

    fn find(&self, parts: &[Option<&str>], found: &mut Found) {
        found.visited += 1;
        let Some((first, rest)) = parts.split_first() else {
            found.entries.extend(self.entry);
            return;
        };
        if let Some(any) = &self.any {
            any.find(rest, found);
        }
        match first {
            Some(part) => {
                if let Some(child) = self.parts.get(*part) {
                    child.find(rest, found);
                }
            }
            None => self.parts.values().for_each(|child| child.find(rest, found)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.any.is_none() && self.entry.is_none()
    }
}
