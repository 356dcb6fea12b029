//! Fetching from real servers on loopback: what a peer, its DNS or somebody between can do, and what comes of it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod addresses;
mod answers;
mod decisions;
mod discovery;
mod peer;
mod profiles;
mod redirects;
mod server;
