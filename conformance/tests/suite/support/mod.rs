//! What the cases share: a mock Workload API, authorities and tokens, a harness process with its two ports, and a case's
//! surroundings.

pub(crate) mod authority;
pub(crate) mod control;
pub(crate) mod env;
pub(crate) mod failure;
pub(crate) mod mock;
pub(crate) mod process;
pub(crate) mod role;
mod service;
pub(crate) mod tls;
pub(crate) mod tokens;
pub(crate) mod wait;
