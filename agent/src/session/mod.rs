//! A session: one stream to the issuer for the pod or for one of its containers, with the credentials that come from it.
//! Decisions are pure (`renewal_planner`, `credentials`, `entitlements`, `reconnect_backoff`); the `driver` observes and
//! applies.

mod credentials;
mod driver;
mod entitlements;
mod jwt_client;
mod known_bundles;
mod messages;
mod reconnect_backoff;
mod renewal_planner;

pub use driver::{Session, SessionParts};
pub use jwt_client::{JwtClient, JwtClientError};
pub use known_bundles::KnownBundles;
