//! Proofs that the sender of an HTTP message holds the key of the WIT in it: Workload Proof Tokens (draft-ietf-wimse-wpt-02) and
//! HTTP message signatures (RFC 9421 in the profile of draft-ietf-wimse-http-signature-08), made and verified.
//!
//! A [`Policy`] says what a verifier trusts and whom it is, a [`ReplayCache`] remembers proofs, and an [`Answer`] is what a peer gets
//! whose request was refused. What the drafts leave open is decided in ADR 33.

mod answer;
mod credential;
mod memory_replay;
mod message;
mod policy;
mod replay;
pub mod signature;
pub mod wpt;

use std::time::Duration;

pub use answer::{Answer, Problem};
pub use credential::WitFieldError;
pub use memory_replay::MemoryReplayCache;
pub use message::{Body, Field, Request, Response};
pub use policy::{Audience, AudienceError, Policy};
pub use replay::{ReplayCache, ReplayCacheFull, ReplayKey, Seen};

use jiff::{SignedDuration, Timestamp};

use crate::wit::WitClaims;

/// The field that carries a WIT (draft-ietf-wimse-workload-creds-02, section 5.1.1).
pub const WIT_FIELD: &str = "workload-identity-token";
/// The field that carries a transaction token (draft-ietf-oauth-transaction-tokens).
pub const TXN_TOKEN_FIELD: &str = "txn-token";
/// The longest time for which a proof is valid, unless a policy says otherwise.
pub const DEFAULT_PROOF_LIFE: Duration = Duration::from_secs(60);
/// The longest life of a WIT, unless a policy says otherwise.
pub const DEFAULT_WIT_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How far clocks may be apart, unless a policy says otherwise.
pub const DEFAULT_SKEW: Duration = Duration::from_secs(10);

const AUTHORIZATION_FIELD: &str = "authorization";

/// The sender of a message, as its WIT and its proof say together.
#[derive(Clone, Debug, PartialEq)]
pub struct Proven {
    /// What the WIT says.
    pub wit: WitClaims,
    /// For whom the proof was made; `None` of a response, which has no audience.
    pub audience: Option<String>,
    /// Until when the proof is valid.
    pub expires_at: Timestamp,
    /// The fields, by names in lower case, that the sender proved to have sent as they are. A token in any other field must not
    /// be used to authorize anything (draft-ietf-wimse-wpt-02, section 2).
    pub bound: Vec<String>,
}

/// `length` after `from`, or the end of time.
fn later(from: Timestamp, length: Duration) -> Timestamp {
    SignedDuration::try_from(length).ok().and_then(|length| from.checked_add(length).ok()).unwrap_or(Timestamp::MAX)
}
