//! The agent's proof socket: proofs for processes that link no library for them, and whose keys stay in the agent.
//!
//! HTTP/1.1 over a Unix socket; every request is a `POST` of JSON with the field `workload.spiffe.io: true`, as for the Workload API.
//! Every process that can connect to the socket can have proofs made in the name of its pod.
//!
//! | Path | Request | 200 | 403 |
//! |---|---|---|---|
//! | [`PROVE_REQUEST_PATH`] | [`ProveRequest`] | [`Proof`] | [`ErrorMessage`] |
//! | [`VERIFY_REQUEST_PATH`] | [`VerifyRequest`] | [`VerifiedRequest`] | [`Refused`] |
//! | [`PROVE_RESPONSE_PATH`] | [`ProveResponse`] | [`Proof`] | [`ErrorMessage`] |
//! | [`VERIFY_RESPONSE_PATH`] | [`VerifyResponse`] | [`VerifiedResponse`] | [`Refused`] |
//!
//! Other errors are an [`ErrorMessage`] with 400 (not such a request), 404 (no such path, or no such identity), 413 (too long), 429 (too
//! many requests) or 503 (nothing to prove or to verify with now).

mod body_hash;
#[cfg(feature = "proof-client")]
mod client;
mod described;
mod messages;
#[cfg(feature = "proof-client")]
mod prover;

pub use body_hash::{BodyHash, BodyHashError};
#[cfg(feature = "proof-client")]
pub use client::{ProofSocket, ProofSocketError, Verdict};
pub use described::{RequestDescription, ResponseDescription};
pub use messages::{
    AcceptedProof, ErrorMessage, Proof, ProveRequest, ProveResponse, Refused, ResponseToSend, VerifiedRequest,
    VerifiedResponse, VerifyRequest, VerifyResponse,
};

pub use crate::prover::RequestProof;

/// The environment variable of the socket's address, such as `unix:///run/countersign/proof.sock`.
pub const PROOF_SOCKET: &str = "COUNTERSIGN_PROOF_SOCKET";
/// The field that every request has, with the value `true` (SPIFFE Workload Endpoint, section 3): a browser or a proxy that is made to
/// send requests does not set it.
pub const METADATA_FIELD: &str = "workload.spiffe.io";
/// Makes the proof of a request.
pub const PROVE_REQUEST_PATH: &str = "/v1/prove-request";
/// Verifies who sent a request.
pub const VERIFY_REQUEST_PATH: &str = "/v1/verify-request";
/// Signs a response.
pub const PROVE_RESPONSE_PATH: &str = "/v1/prove-response";
/// Verifies who signed a response.
pub const VERIFY_RESPONSE_PATH: &str = "/v1/verify-response";
