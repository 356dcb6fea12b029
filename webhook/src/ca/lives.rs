//! How long authorities and certificates live.

use std::time::Duration;

use super::CaError;

/// The shortest life of a serving certificate: it is renewed at half of it, and looked at every second at most.
const SHORTEST_SERVING: Duration = Duration::from_secs(6);
/// The shortest time for which an authority is in `caBundle` before it signs.
const SHORTEST_NOTICE: Duration = Duration::from_secs(3);

/// How long authorities and certificates live. What was made under other lives keeps those: replicas may differ for a
/// while, as they do in the middle of a roll-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    pub(super) authority: Duration,
    pub(super) serving: Duration,
    pub(super) notice: Duration,
}

impl Lives {
    /// `authority`: how long an authority lives; at half of it a successor is prepared. `serving`: how long a serving
    /// certificate lives; at half of it a new one is issued. `notice`: how long an authority is in `caBundle` before it
    /// signs, which must be more than API servers take to notice and than clocks differ.
    ///
    /// # Errors
    /// When they are so short, or fit together so badly, that admissions would fail.
    pub fn new(authority: Duration, serving: Duration, notice: Duration) -> Result<Self, CaError> {
        if serving < SHORTEST_SERVING {
            return Err(CaError::Lives(format!(
                "--serving-life must be {SHORTEST_SERVING:?} at least, not {serving:?}"
            )));
        }
        if notice < SHORTEST_NOTICE {
            return Err(CaError::Lives(format!("--ca-notice must be {SHORTEST_NOTICE:?} at least, not {notice:?}")));
        }
        // A successor is prepared at half of the life, signs after the notice, and what the older one signed last must
        // have its whole life.
        let least = serving.saturating_add(notice).saturating_mul(2);
        if authority < least {
            return Err(CaError::Lives(format!(
                "--ca-life must be {least:?} at least, twice the sum of --serving-life and --ca-notice, not {authority:?}"
            )));
        }
        Ok(Self { authority, serving, notice })
    }
}
