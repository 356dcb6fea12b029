//! What a peer gets whose request was refused: never which check failed.

use serde::Serialize;

/// The response to a request that was refused. It is not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The value of `WWW-Authenticate`.
    pub challenge: Option<&'static str>,
    /// The body.
    pub problem: Option<Problem>,
}

/// Problem details (RFC 9457), of the media type `application/problem+json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The status says all.
    Blank,
    /// The WIT or the signature of a signed request was refused.
    SignatureInvalid,
    /// A signed response was required of a server that signs none.
    SignedResponseUnsupported,
    /// A signed response was required, and this one cannot be signed.
    SignedResponseUnavailable,
}

#[derive(Serialize)]
struct Details {
    r#type: &'static str,
    title: &'static str,
    status: u16,
}

impl Answer {
    /// The proof in a request was refused, or there is none (draft-ietf-wimse-wpt-02, section 2.1).
    pub const WPT: Self = Self { status: 401, challenge: Some("WPT"), problem: None };
    /// The WIT beside a Workload Proof Token was refused (draft-ietf-wimse-workload-creds-02, section 5.2).
    pub const WIT: Self = Self { status: 400, challenge: None, problem: Some(Problem::Blank) };
    /// The WIT or the signature of a signed request was refused (draft-ietf-wimse-http-signature-08, section 3.6).
    pub const SIGNATURE: Self = Self { status: 400, challenge: None, problem: Some(Problem::SignatureInvalid) };
    /// The server signs no responses, and one was required (draft-ietf-wimse-http-signature-08, section 3.6).
    pub const SIGNED_RESPONSE_UNSUPPORTED: Self =
        Self { status: 501, challenge: None, problem: Some(Problem::SignedResponseUnsupported) };
    /// The server cannot sign this response, and that was required: one that is streamed, for example
    /// (draft-ietf-wimse-http-signature-08, section 3.6).
    pub const SIGNED_RESPONSE_UNAVAILABLE: Self =
        Self { status: 400, challenge: None, problem: Some(Problem::SignedResponseUnavailable) };
    /// Everything was verified, but whether the proof was used before is not known: the request may be sent again, with a new
    /// proof. Only the holder of the key gets so far, so it learns nothing.
    pub const UNAVAILABLE: Self = Self { status: 503, challenge: None, problem: None };

    /// The body as JSON.
    pub fn body(&self) -> Option<Vec<u8>> {
        let problem = self.problem?;
        let details = Details { r#type: problem.uri(), title: problem.title(), status: self.status };
        // Texts and a number always have a form as JSON.
        Some(serde_json::to_vec(&details).unwrap_or_default())
    }
}

impl Problem {
    /// The media type of the body.
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    /// The value of `type`.
    pub fn uri(self) -> &'static str {
        match self {
            Self::Blank => "about:blank",
            Self::SignatureInvalid => "https://iana.org/assignments/http-problem-types#wimse-signature-invalid",
            Self::SignedResponseUnsupported => {
                "https://iana.org/assignments/http-problem-types#wimse-signed-response-unsupported"
            }
            Self::SignedResponseUnavailable => {
                "https://iana.org/assignments/http-problem-types#wimse-signed-response-unavailable"
            }
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Blank => "Bad Request",
            Self::SignatureInvalid => "The request's WIMSE signature is not valid",
            Self::SignedResponseUnsupported => "Signed responses are not supported",
            Self::SignedResponseUnavailable => "This response cannot be signed",
        }
    }
}
