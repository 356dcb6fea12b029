//! Identities, credentials and bundles: made, read and verified, and every decision of Countersign
//! as a pure function of what is observed and a time.
//!
//! Nothing here knows Kubernetes, an executor, a socket or the clock: callers hand in bytes and a
//! [`jiff::Timestamp`], or an [`Instant`](std::time::Instant) where spans alone count.

pub mod bundle;
pub mod csr;
pub mod entitlement;
pub mod federation;
pub mod id;
pub mod journal;
mod jws;
pub mod jwt;
pub mod key;
pub mod lease;
pub mod rate;
pub mod renewal;
pub mod service_account;
pub mod wimse;
pub mod wit;
pub mod x509;

/// What tokens of any kind say of themselves.
pub mod token {
    pub use crate::jws::{NotAToken, UnverifiedToken};
}
