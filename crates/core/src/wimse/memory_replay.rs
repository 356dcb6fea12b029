//! A replay cache in memory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::{DEFAULT_SKEW, ReplayCache, ReplayCacheFull, ReplayKey, Seen};

/// Remembers proofs in memory, for one process: at most so many, at most so many of one key, and each until ten seconds after it has expired. When it
/// is full it refuses what is new, rather than forget what is still valid; since a key has a share, one that fills its own is refused
/// alone.
#[derive(Debug)]
pub struct MemoryReplayCache {
    max: usize,
    max_per_sender: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    keys: HashSet<ReplayKey>,
    by_end: BTreeSet<(Timestamp, ReplayKey)>,
    by_sender: HashMap<[u8; 32], usize>,
}

impl MemoryReplayCache {
    /// A cache of at most `max` proofs, of which `max_per_sender` are of one key. A proof takes about 250 bytes. With proofs that
    /// are valid for a minute, `max_per_sender` is what one workload may send in a minute.
    pub fn new(max: usize, max_per_sender: usize) -> Self {
        Self { max, max_per_sender, known: Mutex::default() }
    }

    /// How many proofs it remembers.
    pub fn len(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).keys.len()
    }

    /// Whether it remembers none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ReplayCache for MemoryReplayCache {
    fn remember(&self, key: &ReplayKey, until: Timestamp, now: Timestamp) -> Result<Seen, ReplayCacheFull> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.forget_expired(now);
        if known.keys.contains(key) {
            return Ok(Seen::Again);
        }
        let of_sender = known.by_sender.get(key.sender()).copied().unwrap_or_default();
        if known.keys.len() >= self.max || of_sender >= self.max_per_sender {
            return Err(ReplayCacheFull);
        }
        // A request whose verification began before the end may ask after it, and clocks are set back a little.
        let forgotten = until.checked_add(DEFAULT_SKEW).unwrap_or(Timestamp::MAX);
        known.keys.insert(*key);
        known.by_end.insert((forgotten, *key));
        known.by_sender.insert(*key.sender(), of_sender + 1);
        Ok(Seen::First)
    }
}

impl Known {
    /// Each proof is forgotten once, so that a call costs little on average.
    fn forget_expired(&mut self, now: Timestamp) {
        while let Some((_, key)) = self.by_end.first().copied().filter(|(until, _)| *until <= now) {
            self.by_end.pop_first();
            self.keys.remove(&key);
            match self.by_sender.get_mut(key.sender()) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    self.by_sender.remove(key.sender());
                }
            }
        }
    }
}
