//! Waits for conditions. Limits are upper bounds of what is not expected to happen, never a requirement on speed.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::failure::{Verdict, fail};

/// For a client to act on an update, on a busy machine.
pub(crate) const UPDATE: Duration = Duration::from_secs(10);
/// For a client to act on an update that it gets on a new stream, after a backoff.
pub(crate) const RECONNECT: Duration = Duration::from_secs(20);

const BETWEEN: Duration = Duration::from_millis(25);

/// Polls until `probe` returns a value. `Err` of the inner result is the last reason why not.
pub(crate) async fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Verdict<Result<T, String>>,
) -> Verdict<T> {
    let end = Instant::now() + limit;
    let mut ticks = interval(BETWEEN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match probe().await? {
            Ok(value) => return Ok(value),
            Err(why) if Instant::now() > end => {
                return fail(format!("{what}: not within {} s: {why}", limit.as_secs()));
            }
            Err(_) => {}
        }
    }
}

/// Calls `check` again and again for the whole of `window`: what it checks must never fail.
pub(crate) async fn throughout(window: Duration, mut check: impl AsyncFnMut() -> Verdict) -> Verdict {
    let end = Instant::now() + window;
    let mut ticks = interval(BETWEEN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < end {
        ticks.tick().await;
        check().await?;
    }
    Ok(())
}
