//! Validity periods of authorities and serving certificates.

use std::time::Duration;

use super::CaError;

/// The shortest validity of a serving certificate: it is renewed at half of it, and the controller runs once a second at most.
const SHORTEST_SERVING: Duration = Duration::from_secs(6);
/// The shortest time for which an authority is in `caBundle` before it signs.
const SHORTEST_PROPAGATION_DELAY: Duration = Duration::from_secs(3);

/// Validity periods of authorities and serving certificates. What was issued under other periods keeps them: replicas may
/// differ for a while, as they do during a roll-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidityPeriods {
    pub(super) authority: Duration,
    pub(super) serving: Duration,
    pub(super) propagation_delay: Duration,
}

impl ValidityPeriods {
    /// `authority`: validity of an authority; at half of it a successor is prepared. `serving`: validity of a serving
    /// certificate; at half of it a new one is issued. `propagation_delay`: how long an authority is in `caBundle` before it
    /// signs, which must exceed both the time in which API servers notice and the differences between clocks.
    ///
    /// # Errors
    /// When they are so short, or so inconsistent, that admissions would fail.
    pub fn new(authority: Duration, serving: Duration, propagation_delay: Duration) -> Result<Self, CaError> {
        if serving < SHORTEST_SERVING {
            return Err(CaError::Validity(format!(
                "--serving-validity must be {SHORTEST_SERVING:?} at least, not {serving:?}"
            )));
        }
        if propagation_delay < SHORTEST_PROPAGATION_DELAY {
            return Err(CaError::Validity(format!(
                "--ca-propagation-delay must be {SHORTEST_PROPAGATION_DELAY:?} at least, not {propagation_delay:?}"
            )));
        }
        // A successor is prepared at half the validity and signs after the propagation delay. The last certificate of its
        // predecessor must still have its full validity then.
        let least = serving.saturating_add(propagation_delay).saturating_mul(2);
        if authority < least {
            return Err(CaError::Validity(format!(
                "--ca-validity must be {least:?} at least, twice the sum of --serving-validity and --ca-propagation-delay, not {authority:?}"
            )));
        }
        Ok(Self { authority, serving, propagation_delay })
    }
}
