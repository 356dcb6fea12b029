//! Whether a replica is ready: a list of checks, each held by the part of the process that knows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

/// Lists what keeps a process from being ready, in words; empty when it is.
pub type Missing = Arc<dyn Fn() -> Vec<&'static str> + Send + Sync>;

/// All checks of a process; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Vec<ReadinessCheck>>>);

/// One condition for being ready; it fails until it is first passed. Clones are the same check.
#[derive(Clone, Debug)]
pub struct ReadinessCheck(Arc<Check>);

#[derive(Debug)]
struct Check {
    /// What is missing while it fails.
    missing: &'static str,
    passing: AtomicBool,
}

/// Checks that belong together.
#[derive(Clone, Debug)]
pub struct ReadinessGroup(Arc<[ReadinessCheck]>);

impl Readiness {
    /// Adds a check; `missing` says in words what is missing while it fails.
    #[must_use]
    pub fn check(&self, missing: &'static str) -> ReadinessCheck {
        let check = ReadinessCheck(Arc::new(Check { missing, passing: AtomicBool::new(false) }));
        self.0.lock().push(check.clone());
        check
    }

    /// What is missing, in words and in the order in which the checks were added; empty when the replica is ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.0.lock().iter().filter_map(ReadinessCheck::missing).collect()
    }

    /// [`Readiness::missing`], to be called whenever a probe asks.
    #[must_use]
    pub fn probe(&self) -> Missing {
        let readiness = self.clone();
        Arc::new(move || readiness.missing())
    }
}

impl ReadinessCheck {
    /// From now on it passes.
    pub fn pass(&self) {
        self.0.passing.store(true, Ordering::Release);
    }

    /// From now on it fails.
    pub fn fail(&self) {
        self.0.passing.store(false, Ordering::Release);
    }

    /// Whether it passes.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.0.passing.load(Ordering::Acquire)
    }

    fn missing(&self) -> Option<&'static str> {
        (!self.is_passing()).then_some(self.0.missing)
    }
}

impl ReadinessGroup {
    /// Of these checks.
    #[must_use]
    pub fn new(checks: impl IntoIterator<Item = ReadinessCheck>) -> Self {
        Self(checks.into_iter().collect())
    }

    /// Whether all of them pass.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.0.iter().all(ReadinessCheck::is_passing)
    }

    /// What is missing, in words.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.0.iter().filter_map(ReadinessCheck::missing).collect()
    }

    /// Resolves once all of them pass.
    pub async fn passes(self) {
        let mut look = tokio::time::interval(Duration::from_millis(100));
        while !self.is_passing() {
            look.tick().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Readiness, ReadinessGroup};

    #[test]
    fn every_part_is_needed_and_named_while_it_is_missing() {
        let readiness = Readiness::default();
        assert!(readiness.missing().is_empty());
        let names = ["pods are not listed yet", "the issuer does not listen yet", "the clock is off"];
        let checks = names.map(|name| readiness.check(name));
        for (done, check) in checks.iter().enumerate() {
            assert_eq!(readiness.missing(), names[done..]);
            assert!(!check.is_passing());
            check.pass();
        }
        assert!(readiness.missing().is_empty());
        checks[1].fail();
        assert_eq!(readiness.missing(), [names[1]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_passes_once_all_of_its_checks_do() {
        let readiness = Readiness::default();
        let [one, two, other] = ["one", "two", "other"].map(|name| readiness.check(name));
        let group = ReadinessGroup::new([one.clone(), two.clone()]);
        one.pass();
        assert_eq!((group.is_passing(), group.missing()), (false, vec!["two"]));
        let waiting = tokio::spawn(group.clone().passes());
        two.pass();
        waiting.await.expect("it resolves");
        assert!(group.is_passing() && !other.is_passing());
    }
}
