//! WIT-SVIDs: tokens that bind a workload's identity to a key that it proves to hold (WIT-SVID; WIMSE Workload Credentials, draft 02).
//! They are useless to whoever only sees them.

mod authority;
mod confirmation;
mod key;
mod verify;

pub use authority::{IssuedWit, WitAuthority, WitIssueError, WitRequest};
pub use confirmation::{ConfirmationError, ConfirmationKey};
pub use key::WitVerificationKey;
pub use verify::{WitClaims, WitSvidError, read_wit_svid, verify_wit_svid, wit_svid_faults};

/// The value of `typ` in a WIT's header.
pub const TYPE: &str = "wit+jwt";
