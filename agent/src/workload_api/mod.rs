//! The SPIFFE Workload API on a Unix socket: reads what the session published, and fetches tokens from it. Every process that
//! has the directory mounted may call it; there is no other authentication (SPIFFE Workload API, section 3).

mod convert;
mod listener;
mod service;

pub(crate) use listener::bind;
pub use listener::{ListenError, serve};
pub use service::WorkloadApi;
