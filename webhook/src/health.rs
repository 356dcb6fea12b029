//! How the controller of the webhook's CA fares, in a file that its exec probes read: it has no port that could be probed.

use std::{fs, io, path::Path, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The controller looks at least every 30 s, and gives each look a minute: older than this, it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(5 * 60);
/// The longest time since everything was in place for which the controller counts as ready.
const READY_FOR: Duration = Duration::from_secs(3 * 60);

/// What is asked of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether it still looks. If not, restart it.
    Live,
    /// Whether `caBundle` and the serving certificate are in place.
    Ready,
}

/// What the controller last did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// When it last looked, with whatever outcome.
    pub looked_at: Timestamp,
    /// When everything was last in place.
    pub in_place_at: Option<Timestamp>,
    /// Why it is not, since then.
    pub problem: Option<String>,
}

impl Health {
    /// Writes the file in one step, so that a probe never reads half of it.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let next = file.with_extension("next");
        fs::write(&next, serde_json::to_vec(self)?)?;
        fs::rename(next, file)
    }

    /// Reads what [`Health::write`] wrote.
    ///
    /// # Errors
    /// When the controller has not looked yet, or the file is not its own.
    pub fn read(file: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(file)?)?)
    }

    /// The answer to a probe.
    ///
    /// # Errors
    /// When the controller is not as asked; the error says why.
    pub fn check(&self, probe: Probe, now: Timestamp) -> Result<(), String> {
        let within = |at: Timestamp, span: Duration| now <= at + span;
        match (probe, self.in_place_at) {
            (Probe::Live, _) if !within(self.looked_at, HANGS_AFTER) => {
                Err(format!("the CA's controller last looked at {}, and hangs", self.looked_at))
            }
            (Probe::Ready, at) if !at.is_some_and(|at| within(at, READY_FOR)) => {
                let problem = self.problem.as_deref().unwrap_or("the CA's controller has not looked for too long");
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
        let health = Health { looked_at: at(), in_place_at: None, problem: None };
        assert_eq!(health.check(Probe::Live, at() + HANGS_AFTER), Ok(()));
        assert!(health.check(Probe::Live, at() + HANGS_AFTER + SECOND).unwrap_err().contains("hangs"));
        assert_eq!(health.check(Probe::Live, at() - READY_FOR), Ok(()), "a clock that was set back");
    }

    #[test]
    fn a_controller_that_has_trouble_for_minutes_is_live_and_not_ready() {
        let now = at() + READY_FOR + SECOND;
        let mut health = Health { looked_at: now, in_place_at: Some(at()), problem: Some("refused".to_owned()) };
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
            let health = Health { looked_at: at(), in_place_at: Some(at()), problem };
            health.write(&file).unwrap();
            assert_eq!(Health::read(&file).unwrap(), health);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
