//! The client of bundle endpoints: fetches the bundle document of a remote trust domain (SPIFFE Federation, sections 5.1, 5.2.1
//! and 5.2.2). What becomes of the document is decided by [`countersign_core::federation`].
//!
//! The URL is configured, but the peer chooses what its name resolves to, where it redirects, and what it answers. So every
//! address is checked before it is called, everything is bounded in size and time, and no error has a byte of what was received.
//! Nothing is taken from the environment: there are no proxies, client certificates or cookies.

mod address;
mod connect;
mod fetcher;
mod http;
mod location;
mod resolve;
mod tls;

pub use address::{AddressPolicy, Network, NetworkError};
pub use fetcher::{Fetcher, Limits, MAX_REDIRECTS};
pub use resolve::{Resolve, Resolving, SystemResolver};
