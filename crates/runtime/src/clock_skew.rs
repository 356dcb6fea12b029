//! Whether this process's clock agrees with the API server's, by the `Date` of each of its answers (RFC 9110, 6.6.1).
//!
//! The API server's clock dates the tokens of pods, so a replica that disagrees can judge none, and what it signs is valid
//! to nobody else. Worse, what it plans for authorities would stay when its clock is right again. Such a replica does not
//! issue and does not lead, from the first answer on that tells; the others do, and it is back with them at the first that agrees.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use countersign_core::x509::BACKDATE;
use http::{HeaderMap, Response, header::DATE};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimeParser};
use prometheus_client::{
    metrics::gauge::Gauge,
    registry::{Registry, Unit},
};
use tower::{Layer, Service};

use crate::{clock::Clock, readiness::ReadinessCheck};

/// A certificate begins so much before it is signed: a clock that is ahead by more signs what is not valid yet.
const TOLERATED: Duration = BACKDATE;

/// An answer that took longer, or during which the clock was set, says too little to end an alarm.
const CONCLUSIVE: SignedDuration = SignedDuration::from_secs(5);

/// Nothing was heard of the API server's clock yet.
const UNKNOWN: i64 = i64::MIN;

/// This replica's clock is not to be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this replica's clock is {:#} {} the API server's; set the clock of its node, or of the API server's",
    SignedDuration::from_secs(.off.as_secs().saturating_abs()),
    if .off.is_negative() { "behind" } else { "ahead of" }
)]
pub struct ClockSkew {
    /// By how much it is ahead; negative: behind.
    pub off: SignedDuration,
}

/// The metric of the clock.
#[derive(Clone, Debug, Default)]
pub struct ClockMetrics {
    /// Seconds by which this process's clock is ahead of the API server's.
    pub offset: Gauge<f64, AtomicU64>,
}

impl ClockMetrics {
    /// Registers it.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "clock_offset",
            "Time by which the clock is ahead of the API server's; 0 while it may agree",
            Unit::Seconds,
            self.offset.clone(),
        );
    }
}

/// Compares this process's clock with the API server's; shared by all that rely on the clock.
#[derive(Clone, Debug)]
pub struct ClockSkewMonitor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    /// Milliseconds by which this clock is ahead, or [`UNKNOWN`].
    ahead: AtomicI64,
    check: ReadinessCheck,
    metrics: ClockMetrics,
}

impl ClockSkewMonitor {
    /// Nothing heard yet: that is held to be monitor, and not to be ready.
    #[must_use]
    pub fn new(clock: Clock, check: ReadinessCheck, metrics: ClockMetrics) -> Self {
        Self(Arc::new(Inner { clock, ahead: AtomicI64::new(UNKNOWN), check, metrics }))
    }

    /// To be asked before anything is done that outlasts a wrong clock.
    ///
    /// # Errors
    /// [`ClockSkew`] when the newest answer said so.
    pub fn ensure(&self) -> Result<(), ClockSkew> {
        let ahead = self.0.ahead.load(Ordering::Acquire);
        let off = SignedDuration::from_millis(ahead);
        if ahead == UNKNOWN || off.unsigned_abs() <= TOLERATED { Ok(()) } else { Err(ClockSkew { off }) }
    }

    /// The server wrote `date` between these moments of our clock.
    pub fn observe(&self, sent: Timestamp, received: Timestamp, date: Timestamp) {
        let before = self.ensure();
        let took = received.duration_since(sent);
        if before.is_err() && !(SignedDuration::ZERO..=CONCLUSIVE).contains(&took) {
            return;
        }
        let ahead = ahead(sent, received, date);
        let milliseconds = i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX);
        self.0.ahead.store(milliseconds, Ordering::Release);
        self.0.metrics.offset.set(ahead.as_secs_f64());
        match self.ensure() {
            Ok(()) => {
                self.0.check.pass();
                if before.is_err() {
                    tracing::info!("the clock agrees with the API server's again");
                }
            }
            Err(off) => {
                self.0.check.fail();
                if before.is_ok() {
                    tracing::error!(%off, api_server = %date, "until that is mended this replica neither issues nor leads");
                }
            }
        }
    }

    /// The server answered without a date. If it never tells one, that is no reason not to serve.
    fn observe_no_date(&self) {
        if self.0.ahead.load(Ordering::Acquire) == UNKNOWN {
            self.0.check.pass();
        }
    }

    /// Reads the date of every answer that passes.
    #[must_use]
    pub fn layer(&self) -> DateLayer {
        DateLayer(self.clone())
    }
}

/// By how much the clock is ahead that showed `sent` before and `received` after the server's showed `date`, a whole second
/// that may have begun up to a second before. Nothing, as long as it can be nothing: slow answers accuse nobody. Nor does a
/// clock that is set in between.
fn ahead(sent: Timestamp, received: Timestamp, date: Timestamp) -> SignedDuration {
    let (earliest, latest) = (sent.min(received), sent.max(received));
    let end = date.saturating_add(Duration::from_secs(1)).unwrap_or(date);
    if earliest > end {
        earliest.duration_since(end)
    } else if latest < date {
        latest.duration_since(date)
    } else {
        SignedDuration::ZERO
    }
}

/// `Date` of these headers, if there is one that can be read.
fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(DATE)?.to_str().ok()?;
    DateTimeParser::new().parse_timestamp(text).ok()
}

/// See [`ClockSkewMonitor::layer`].
#[derive(Clone, Debug)]
pub struct DateLayer(ClockSkewMonitor);

impl<S> Layer<S> for DateLayer {
    type Service = DateService<S>;

    fn layer(&self, inner: S) -> DateService<S> {
        DateService { inner, monitor: self.0.clone() }
    }
}

/// See [`ClockSkewMonitor::layer`].
#[derive(Clone, Debug)]
pub struct DateService<S> {
    inner: S,
    monitor: ClockSkewMonitor,
}

impl<S, Request, Body> Service<Request> for DateService<S>
where
    S: Service<Request, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = futures::future::BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (monitor, sent) = (self.monitor.clone(), self.monitor.0.clock.now());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            match date(answer.headers()) {
                Some(date) => monitor.observe(sent, monitor.0.clock.now(), date),
                None => monitor.observe_no_date(),
            }
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, ClockMetrics, ClockSkewMonitor, Layer, ReadinessCheck, Service, ahead};
    use std::convert::Infallible;

    use http::{Response, header::DATE};
    use jiff::{SignedDuration, Timestamp};

    use crate::readiness::Readiness;

    const NOW: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(NOW + second).expect("a time")
    }

    #[test]
    fn what_can_be_the_answers_way_is_no_difference() {
        for (sent, received, date, off) in [
            (0, 0, 0, 0),
            // The second in which it was written had begun before.
            (1, 1, 0, 0),
            (2, 2, 0, 1),
            (0, 0, 1, -1),
            // A minute on the way.
            (0, 60, 0, 0),
            (0, 60, 60, 0),
            (0, 60, 90, -30),
            (3_601, 3_602, 0, 3_600),
            (-3_600, -3_600, 0, -3_600),
            // Set back, and set forward, while the answer was on its way.
            (3_600, 0, 0, 0),
            (0, 3_600, 0, 0),
        ] {
            let found = ahead(at(sent), at(received), at(date));
            assert_eq!(found, SignedDuration::from_secs(off), "{sent} {received} {date}");
        }
    }

    fn monitor(now: i64) -> (ClockSkewMonitor, ReadinessCheck, ClockMetrics) {
        let (check, metrics) = (Readiness::default().check("the clock agrees"), ClockMetrics::default());
        (ClockSkewMonitor::new(Clock::new(move || at(now)), check.clone(), metrics.clone()), check, metrics)
    }

    async fn answered(monitor: &ClockSkewMonitor, date: &'static str) {
        let server = tower::service_fn(move |()| async move {
            Ok::<_, Infallible>(Response::builder().header(DATE, date).body(()).expect("an answer"))
        });
        monitor.layer().layer(server).call(()).await.expect("it answers");
    }

    /// 1,800,000,000 as a server writes it.
    const DATED: &str = "Fri, 15 Jan 2027 08:00:00 GMT";

    #[tokio::test]
    async fn a_clock_that_agrees_is_a_part_of_being_ready() {
        for now in [-30, 0, 31] {
            let (monitor, check, _) = monitor(now);
            assert!(monitor.ensure().is_ok() && !check.is_passing(), "nothing heard yet");
            answered(&monitor, DATED).await;
            assert!(monitor.ensure().is_ok() && check.is_passing(), "{now}");
        }
    }

    #[tokio::test]
    async fn a_clock_that_is_off_is_named_and_not_ready_until_it_agrees() {
        for (now, said, shown) in [
            (3_601, "1h ahead of", "3600.0"),
            (-3_600, "1h behind", "-3600.0"),
            (32, "31s ahead of", "31.0"),
            (-31, "31s behind", "-31.0"),
        ] {
            let (monitor, check, metrics) = monitor(now);
            answered(&monitor, DATED).await;
            let refused = monitor.ensure().expect_err("it is off").to_string();
            assert!(refused.contains(said) && refused.contains("set the clock"), "{refused}");
            assert!(!check.is_passing());
            assert_eq!(format!("{:.1}", metrics.offset.get()), shown);
            monitor.observe(at(now), at(now), at(now));
            assert!(monitor.ensure().is_ok() && check.is_passing());
        }
    }

    #[test]
    fn an_alarm_ends_by_a_quick_answer_only() {
        let (monitor, check, _) = monitor(0);
        monitor.observe(at(35), at(35), at(0));
        for (sent, received) in [(35, 41), (35, 0), (0, 60)] {
            monitor.observe(at(sent), at(received), at(0));
            assert!(monitor.ensure().is_err() && !check.is_passing(), "{sent} {received}");
        }
        monitor.observe(at(0), at(5), at(0));
        assert!(monitor.ensure().is_ok() && check.is_passing());
    }

    #[tokio::test]
    async fn an_answer_without_a_readable_date_changes_nothing_and_a_server_that_tells_none_is_served() {
        for date in ["", "yesterday", "1800000000"] {
            let (monitor, check, _) = monitor(3_600);
            answered(&monitor, date).await;
            assert!(monitor.ensure().is_ok() && check.is_passing(), "{date}");
            answered(&monitor, DATED).await;
            answered(&monitor, date).await;
            assert!(monitor.ensure().is_err() && !check.is_passing(), "{date}");
        }
    }
}
