//! HTTP message signatures (RFC 9421) in the profile of draft-ietf-wimse-http-signature-08: they bind method, path, query, body and
//! the fields that matter, of requests and of responses.

mod base;
mod components;
mod digest;
mod error;
mod parameters;
mod sign;
mod structured;
mod tagged;
mod verify;

pub use digest::{claimed_body, content_digest, content_digest_of_hash, verify_content_digest};
pub use error::SignatureError;
pub use sign::{MakeSignatureError, SignRequest, SignResponse, SignedFields, sign_request, sign_response};
pub use tagged::is_signed;
pub use verify::{ExpectedResponse, ProvenRequest, verify_request, verify_response};

/// The value of the parameter `tag`, by which the signature is found.
pub const TAG: &str = "wimse-workload-to-workload";
/// The field of what signatures cover.
pub const SIGNATURE_INPUT_FIELD: &str = "signature-input";
/// The field of signatures.
pub const SIGNATURE_FIELD: &str = "signature";
/// The field of the hash of the body (RFC 9530, section 2).
pub const CONTENT_DIGEST_FIELD: &str = "content-digest";

/// The longest `Signature-Input` or `Signature` that is looked at, in bytes, with all its lines.
const MAX_FIELD_LENGTH: usize = 16 * 1024;
/// The most components that a signature may cover.
const MAX_COMPONENTS: usize = 64;
