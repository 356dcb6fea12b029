//! The start and the end of a program: logging, memory, TLS provider, termination signals.

use std::{io, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Why a program cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log filter is malformed.
    #[error("--log: `{filter}` is no tracing filter")]
    LogFilter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The process has a TLS provider already.
    #[error("another TLS provider is installed already")]
    TlsProvider,
}

/// Sets up what every program needs before anything else: logs to standard output as JSON, filtered by `log` such as
/// `info,countersign_operator=debug`; the TLS provider of the process; and no huge pages.
///
/// # Errors
/// When the filter is malformed, or the process has a TLS provider already.
pub fn initialize(log: &str) -> Result<(), StartError> {
    // The allocator asks for huge pages, of which a process of many streams never writes to a quarter. A kernel without them
    // refuses, which changes nothing.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let filter = EnvFilter::try_new(log).map_err(|source| StartError::LogFilter { filter: log.to_owned(), source })?;
    tracing_subscriber::fmt().json().with_env_filter(filter).init();
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| StartError::TlsProvider)
}

/// Why a flag is no duration.
#[derive(Debug, thiserror::Error)]
pub enum DurationError {
    /// Not a duration.
    #[error("write a duration such as 24h, 90m or 30s")]
    Malformed(#[source] jiff::Error),
    /// Below zero.
    #[error("write a duration above zero")]
    Negative(#[source] jiff::Error),
}

/// The value of a flag that is a duration, such as `90m`.
///
/// # Errors
/// See [`DurationError`].
pub fn duration(text: &str) -> Result<Duration, DurationError> {
    let duration: jiff::SignedDuration = text.parse().map_err(DurationError::Malformed)?;
    Duration::try_from(duration).map_err(DurationError::Negative)
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// When no handler can be installed; the signals then end the process at once.
pub async fn termination_signal() -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{duration, initialize, termination_signal};
    use futures::FutureExt as _;
    use nix::{sys::signal::Signal, unistd::Pid};

    #[test]
    fn a_flag_is_a_duration_and_not_below_zero() {
        assert_eq!(duration("1m 30s").unwrap().as_secs(), 90);
        assert!(duration("1 day and a bit").unwrap_err().to_string().contains("such as 24h"));
        assert!(duration("-1s").unwrap_err().to_string().contains("above zero"));
    }

    #[test]
    fn a_malformed_filter_is_named() {
        let error = initialize("=,=").unwrap_err().to_string();
        assert!(error.contains("--log: `=,=`"), "{error}");
    }

    #[tokio::test]
    async fn both_signals_end_the_program() {
        for name in [Signal::SIGTERM, Signal::SIGINT] {
            let mut signal = Box::pin(termination_signal());
            assert!((&mut signal).now_or_never().is_none());
            nix::sys::signal::kill(Pid::this(), name).unwrap();
            signal.await.unwrap();
        }
    }
}
