//! WIT-SVIDs: tokens that bind a workload's identity to a key that it proves to hold (WIT-SVID; WIMSE Workload Credentials, draft 02).
//! They are useless to whoever only sees them.

mod authority;
mod key;

pub use authority::{IssuedWit, WitAuthority, WitIssueError, WitRequest};
pub use key::WitVerificationKey;

/// The value of `typ` in a WIT's header.
pub const TYPE: &str = "wit+jwt";
