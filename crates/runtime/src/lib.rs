//! What every server of ours needs, and nothing of what it serves: the clock and whether it can be relied on, leader election,
//! readiness and metrics over HTTP, limits of connections, handshakes and rates.

pub mod clock;
pub mod clock_skew;
pub mod connections;
pub mod fair_share;
pub mod http;
pub mod leader;
pub mod rate;
pub mod readiness;
pub mod tls;
