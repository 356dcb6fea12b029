//! Health of the controller of the webhook's CA, in a file that its exec probes read: it has no port to probe.

use std::{fs, io, path::Path, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The controller reconciles at least every 30 s, with a timeout of a minute. After this time it counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5 * 60);
/// The controller counts as ready for this long after everything was last in place.
const READY_FOR: Duration = Duration::from_secs(3 * 60);

/// The kind of probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The controller still reconciles. If not, it must be restarted.
    Live,
    /// `caBundle` and the serving certificate are in place.
    Ready,
}

/// The result of the last reconciliation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// When it last ran, with any result.
    pub reconciled_at: Timestamp,
    /// When everything was last in place.
    pub in_place_at: Option<Timestamp>,
    /// Why it no longer is.
    pub problem: Option<String>,
}

impl Health {
    /// Writes the file atomically, so that a probe never reads a part of it.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let next = file.with_extension("next");
        fs::write(&next, serde_json::to_vec(self)?)?;
        fs::rename(next, file)
    }

    /// Reads the output of [`Health::write`].
    ///
    /// # Errors
    /// When the controller has not reconciled yet, or the file is malformed.
    pub fn read(file: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(file)?)?)
    }

    /// The result of a probe.
    ///
    /// # Errors
    /// When the controller is not live or ready; the error states why.
    pub fn check(&self, probe: Probe, now: Timestamp) -> Result<(), String> {
        let within = |at: Timestamp, span: Duration| now <= at + span;
        match (probe, self.in_place_at) {
            (Probe::Live, _) if !within(self.reconciled_at, STUCK_AFTER) => {
                Err(format!("the CA's controller last ran at {}, and hangs", self.reconciled_at))
            }
            (Probe::Ready, at) if !at.is_some_and(|at| within(at, READY_FOR)) => {
                let problem = self.problem.as_deref().unwrap_or("the CA's controller has not run for too long");
                Err(format!("caBundle or the serving certificate is not in place: {problem}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_controller_that_hangs_is_not_live() {
        let health = Health { reconciled_at: at(), in_place_at: None, problem: None };
        assert_eq!(health.check(Probe::Live, at() + STUCK_AFTER), Ok(()));
        assert!(health.check(Probe::Live, at() + STUCK_AFTER + SECOND).unwrap_err().contains("hangs"));
        assert_eq!(health.check(Probe::Live, at() - READY_FOR), Ok(()), "a clock that was set back");
    }

    #[test]
    fn a_controller_that_has_trouble_for_minutes_is_live_and_not_ready() {
        let now = at() + READY_FOR + SECOND;
        let mut health = Health { reconciled_at: now, in_place_at: Some(at()), problem: Some("refused".to_owned()) };
        assert_eq!(health.check(Probe::Live, now), Ok(()));
        assert_eq!(health.check(Probe::Ready, now - SECOND), Ok(()));
        assert!(health.check(Probe::Ready, now).unwrap_err().contains("refused"));
        health.in_place_at = None;
        assert!(health.check(Probe::Ready, at()).is_err());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("health");
        assert!(Health::read(&file).is_err());
        for problem in [None, Some("refused".to_owned())] {
            let health = Health { reconciled_at: at(), in_place_at: Some(at()), problem };
            health.write(&file).unwrap();
            assert_eq!(Health::read(&file).unwrap(), health);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
