//! Workload Proof Tokens (draft-ietf-wimse-wpt-02): a short-lived JWT in `Authorization` that binds a WIT, an audience and other tokens
//! of a request. It binds neither method nor query nor body: where these matter, sign the request.

mod claims;
mod error;
mod make;
mod verify;

pub use error::WptError;
pub use make::{MakeWptError, WptRequest, make_wpt};
pub use verify::verify_wpt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The value of `typ` in a proof's header.
pub const TYPE: &str = "wpt+jwt";
/// The authentication scheme.
const SCHEME: &str = "WPT";

/// The hash of a token as proofs carry it: SHA-256 in base64url.
fn token_hash(token: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, token))
}
