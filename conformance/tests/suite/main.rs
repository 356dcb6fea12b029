//! The client catalogue of the SPIFFE conformance test suite, one test for each of its results, against a harness process;
//! and pairings of clients. Which harness: see `support/process.rs`. The catalogue itself is `src/catalogue.rs`.

// Helpers of tests are tests: what they cannot have, they may die of.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod catalogue;
mod ep;
mod hx;
mod id;
mod jb;
mod jf;
mod jv;
mod pairings;
mod support;
mod wa;
mod xf;
mod xs;
mod xv;
