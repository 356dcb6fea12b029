//! How a replica goes: readiness is off, and for a moment all is as before while that becomes known; then connections are
//! accepted no more, and those that stand are told to move, each at a moment of its own, so that the other replicas get
//! them spread. All of it takes less than 15 s.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How long connections are still accepted: the time in which Services learn that this replica is not ready.
pub const LAME_DUCK: Duration = Duration::from_secs(2);

/// Over how long the streams are spread that must move.
pub const SPREAD: Duration = Duration::from_secs(8);

/// How long a connection may take to end once it was told to: answers in progress are completed.
pub const FAREWELL: Duration = Duration::from_secs(3);

/// The longest wait between a stream's end and the next on another replica, as agents are told: streams of one
/// connection end together and shall not come together.
const LONGEST_HINT: Duration = Duration::from_millis(500);

/// Resolves when connections are no longer to be accepted.
pub async fn closed(shutdown: CancellationToken) {
    shutdown.cancelled_owned().await;
    tokio::time::sleep(LAME_DUCK).await;
}

/// Resolves when a connection shall move: at a random moment within [`SPREAD`].
pub async fn moment(shutdown: CancellationToken) {
    closed(shutdown).await;
    tokio::time::sleep(SPREAD.mul_f64(rand::random_range(0.0..1.0))).await;
}

/// When the agent of a stream that ends shall come back.
#[must_use]
pub fn hint() -> Duration {
    LONGEST_HINT.mul_f64(rand::random_range(0.05..1.0))
}

#[cfg(test)]
mod tests {
    use super::{FAREWELL, LAME_DUCK, SPREAD, moment};
    use std::time::Duration;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    #[tokio::test(start_paused = true)]
    async fn connections_are_told_to_move_at_moments_spread_over_less_than_fifteen_seconds() {
        let (begin, shutdown) = (Instant::now(), CancellationToken::new());
        shutdown.cancel();
        let moments = (0..1000).map(|_| async {
            moment(shutdown.clone()).await;
            begin.elapsed()
        });
        let moments = futures::future::join_all(moments).await;
        let (first, last) = (moments.iter().min().expect("some"), moments.iter().max().expect("some"));
        assert!(*first >= LAME_DUCK && *last <= LAME_DUCK + SPREAD + Duration::from_millis(1), "{first:?} {last:?}");
        // One accepted in the last moment before closing begins to wait only then.
        assert!(LAME_DUCK + LAME_DUCK + SPREAD + FAREWELL <= Duration::from_secs(15));
        let early = moments.iter().filter(|at| **at < LAME_DUCK + SPREAD / 2).count();
        assert!((350..650).contains(&early), "half in half of the time: {early}");
    }
}
