//! What a service that links this crate can rely on, beyond the cases of the client catalogue (`docs/conformance.md`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends by panicking"
)]
#![allow(missing_docs, reason = "a program")]

mod agent;
mod authentication_layer;
mod authenticator;
mod chains;
mod dishonest_proxy;
mod fixtures;
mod folder;
mod handshakes;
mod layer_limits;
mod layer_servers;
mod libraries;
mod orders;
mod proof_layer;
mod proof_socket;
mod redis;
mod sender;
mod tokens;
mod wit_svids;
mod workload_api;
