//! Conditions to wait for before an operator is measured with connected agents.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{counts::Counts, figures::say, operator::Operator};

/// Timeout for a condition, and for a change to be acknowledged by all agents.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(180);

/// Timeout for the leader to write the statuses of all identities.
const STATUS_TIMEOUT: Duration = Duration::from_secs(600);

/// For how long nothing may have been in flight before a change. It is longer than the 5 s for which a spare is published before
/// it may sign unannounced, and than the 2 s after a change in which the leader asks for acknowledgements.
const STILL: Duration = Duration::from_secs(6);

/// Longer than the time between two counts of the streams, from which the leader writes statuses.
const COUNTED: Duration = Duration::from_secs(32);

pub(crate) async fn until_leading(operator: &Operator) -> Result<()> {
    until("waiting for leadership", TIMEOUT, async || {
        let leads = operator.metric("countersign_leader").await?;
        Ok(if leads == 1.0 { Ok(()) } else { Err("the operator does not lead".to_owned()) })
    })
    .await
}

/// Waits until no other sessions are open than those of so many agents.
pub(crate) async fn until_connected(operator: &Operator, agents: usize) -> Result<()> {
    until("waiting for the other agents' sessions to end", TIMEOUT, async || {
        let open = operator.metric("countersign_sessions").await?;
        Ok(if open == agents as f64 { Ok(()) } else { Err(format!("{open} sessions are open, not {agents}")) })
    })
    .await
}

/// Waits until nothing was pushed, issued or acknowledged for [`STILL`].
pub(crate) async fn until_still(operator: &Operator) -> Result<Counts> {
    let (mut last, mut since) = (Counts::read(operator.http).await?, Instant::now());
    until("waiting until nothing is in flight", TIMEOUT, async || {
        let now = Counts::read(operator.http).await?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        Ok(if since.elapsed() >= STILL { Ok(now) } else { Err(format!("the counts still change: {now:?}")) })
    })
    .await
}

/// Waits until the leader has written the statuses that follow from the present streams: until it has counted the streams and
/// hardly reconciled anything since the count before.
pub(crate) async fn until_counted(operator: &Operator) -> Result<()> {
    const HARDLY: f64 = 32.0;
    let reconciles = async || anyhow::Ok(operator.http.metrics().await?.sum("countersign_reconcile_seconds_count"));
    let (begun, mut last, mut since) = (Instant::now(), reconciles().await?, Instant::now());
    let counted = until("waiting until statuses are written", STATUS_TIMEOUT, async || {
        let now = reconciles().await?;
        if now - last > HARDLY {
            (last, since) = (now, Instant::now());
        }
        let missing = || format!("{:.0} reconciles within {:?}", now - last, since.elapsed());
        Ok(if since.elapsed() >= COUNTED { Ok(()) } else { Err(missing()) })
    });
    counted.await?;
    say(format_args!("statuses are written after {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// Waits until `look` finds what it looks for; until then it says what is missing.
pub(crate) async fn until<T>(
    what: &str,
    timeout: Duration,
    mut look: impl AsyncFnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let (begun, mut tick) = (Instant::now(), tokio::time::interval(Duration::from_millis(250)));
    loop {
        tick.tick().await;
        match look().await? {
            Ok(found) => return Ok(found),
            Err(missing) if begun.elapsed() > timeout => bail!("{what}: after {timeout:?} {missing}"),
            Err(_) => {}
        }
    }
}
