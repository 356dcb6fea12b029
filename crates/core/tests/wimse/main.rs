//! The rules of the WIMSE drafts on WITs and on the proofs that go with them: each one a test, named after the behaviour, that fails
//! when the check is removed. Sections are those of draft-ietf-wimse-workload-creds-02 (creds), draft-ietf-wimse-wpt-02 (wpt),
//! draft-ietf-wimse-http-signature-08 (httpsig) and SPIFFE's WIT-SVID.

// Helpers of tests are tests: what they cannot have, they may die of.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod answers;
mod examples;
mod fixtures;
mod peer_signatures;
mod peer_tokens;
mod replays;
mod signature_cover;
mod signature_form;
mod signature_make;
mod signature_message;
mod signature_response;
mod signed;
mod wit;
mod wpt_binding;
mod wpt_form;
mod wpt_make;
