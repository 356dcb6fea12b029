//! What a service that links this crate can rely on, beyond the cases of the client catalogue (`docs/conformance.md`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends by panicking"
)]
#![allow(missing_docs, reason = "a program")]

mod chains;
mod fixtures;
mod folder;
mod handshakes;
mod libraries;
mod tokens;
mod workload_api;
