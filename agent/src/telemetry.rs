//! Logs to standard error, filtered by `COUNTERSIGN_LOG` (`info`, or `info,countersign_agent=debug`, …). Tokens and keys
//! have no `Debug` that shows them, so nothing is redacted here.

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Installs the subscriber for the whole process. An unreadable filter falls back to `info` with a warning.
pub fn install(filter: Option<&str>) {
    let parsed = filter.filter(|filter| !filter.is_empty()).unwrap_or("info").parse::<Targets>();
    let invalid = parsed.as_ref().err().map(ToString::to_string);
    let targets = parsed.unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(targets).with(layer).init();
    if let Some(error) = invalid {
        tracing::warn!(error, "COUNTERSIGN_LOG is not a filter such as \"info,countersign_agent=debug\": using info");
    }
}
