//! JWT-SVIDs: issued by an authority and verified against bundles (JWT-SVID; RFC 7519).

mod authority;
mod key;
mod verify;

pub use authority::{IssuedJwt, JwtAuthority, JwtIssueError, JwtRequest};
pub use key::{JwtKeyError, JwtVerificationKey};
pub use verify::{JwtClaims, JwtSvidError, jwt_svid_faults, read_jwt_svid, verify_jwt_svid};
