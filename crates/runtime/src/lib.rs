//! What every server of ours needs, and nothing of what it serves: the start and the end of the program, the clock and whether
//! it can be relied on, leader election, HTTP, readiness, TLS, limits of connections, handshakes and rates.

pub mod clock;
pub mod clock_skew;
pub mod connections;
pub mod fair_share;
pub mod http;
pub mod leader;
pub mod process;
pub mod readiness;
pub mod tls;

/// Limits of rates, which the agent has too.
pub use countersign_core::rate;
