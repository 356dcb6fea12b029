//! One target for each parser of untrusted bytes. A target accepts any bytes and panics if an invariant is violated:
//! accepted input was signed by the known key, written values can be read again, and nothing grows without bound.
//!
//! `cargo xtask fuzz` runs the targets under libFuzzer; `tests/corpus.rs` replays the stored inputs as an ordinary test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a target says what is wrong by panicking"
)]

mod der;
mod known;
pub mod seeds;
mod targets;

/// A parser under fuzzing.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Runs it on one input; panics if an invariant is violated.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "admission-mutate", run: targets::admission::mutate },
    Target { name: "admission-validate", run: targets::admission::validate },
    Target { name: "bundle", run: targets::key_sets::bundle },
    Target { name: "ca-certificate", run: targets::certificates::authority },
    Target { name: "csr", run: targets::keys::csr },
    Target { name: "endpoint-request", run: targets::endpoint_request::request },
    Target { name: "http-signature", run: targets::proofs::http_signature },
    Target { name: "ids", run: targets::ids::ids },
    Target { name: "jwks", run: targets::key_sets::jwks },
    Target { name: "journal", run: targets::journal::journal },
    Target { name: "jwt-svid", run: targets::tokens::jwt_svid },
    Target { name: "keys", run: targets::keys::keys },
    Target { name: "messages", run: targets::messages::messages },
    Target { name: "patterns", run: targets::patterns::patterns },
    Target { name: "remote", run: targets::remote::remote },
    Target { name: "service-account-token", run: targets::tokens::service_account_token },
    Target { name: "uds-authority-rewrite", run: targets::uds_authority_rewrite::rewrite },
    Target { name: "watched-pods", run: targets::watched_pods::pods },
    Target { name: "wit-svid", run: targets::proofs::wit_svid },
    Target { name: "wpt", run: targets::proofs::wpt },
    Target { name: "x509-svid", run: targets::certificates::svid },
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
