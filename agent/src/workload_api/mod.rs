//! The SPIFFE Workload API on a Unix socket: reads what the session published, and asks it for tokens. Whoever has the
//! directory mounted may ask; there is no other authentication (SPIFFE Workload API, section 3).

mod convert;
mod listener;
mod service;

pub use listener::{ListenError, serve};
pub use service::WorkloadApi;
