//! The rules of the SPIFFE standards, and of the tokens and requests an issuer is sent: each one a
//! test, named after the behaviour, that fails when the check is removed.

// Helpers of tests are tests: what they cannot have, they may die of.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundles;
mod fixtures;
mod ids;
mod jwt_issue;
mod jwt_verify;
mod keys;
mod never_panics;
mod requests;
mod service_accounts;
mod x509_authorities;
mod x509_issue;
mod x509_verify;
