//! What is asked of the agent, and what it answers. Members that are not known are refused: a misspelled one would ask for less than
//! was meant.

use std::fmt;

use countersign_core::wimse::{Answer, Problem};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{RequestDescription, ResponseDescription};
use crate::{proof::Method, prover::RequestProof};

/// A proof that a recipient of requests accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcceptedProof {
    /// `wpt`: a Workload Proof Token.
    Wpt,
    /// `http-signature`: an HTTP message signature.
    HttpSignature,
    /// `jwt-svid`: a JWT-SVID as a bearer token.
    JwtSvid,
}

/// Asks for the proof of a request that will be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProveRequest {
    /// The identity that is proven; the first one of the workload, where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// The kind of proof.
    pub proof: RequestProof,
    /// Whom it is for: the target URI without query, or what else the recipient is addressed by.
    pub audience: String,
    /// The request without the fields that are asked for.
    pub request: RequestDescription,
    /// Whether a signed response is required; of an HTTP signature alone.
    #[serde(default)]
    pub sign_response: bool,
}

/// The fields to add to a message. They are secret until the proof expires: `Debug` shows none.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The identity that is proven.
    pub spiffe_id: String,
    /// `Workload-Identity-Token`, with `Authorization`, or with `Signature-Input`, `Signature` and, where there is a body and the
    /// message has none, `Content-Digest`.
    pub headers: Vec<(String, String)>,
    /// Of a signature: the nonce, by which the response to a request is verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// When the proof ends, RFC 3339.
    pub expires_at: Timestamp,
}

/// Asks who sent a request that was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// The kinds of proofs that are accepted; at least one.
    pub proofs: Vec<AcceptedProof>,
    /// Values by which the workload is addressed, compared byte for byte. They come from its configuration, never from the
    /// request.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Origins, such as `https://orders.example.org:8443`, whose target URIs address the workload: a proof for one path is refused at
    /// another.
    #[serde(default)]
    pub origins: Vec<String>,
    /// The audience of JWT-SVIDs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_audience: Option<String>,
    /// Who may call: SPIFFE IDs, names of trust domains, and `spiffe://<trust domain>/<path pattern>`. Everybody of a trusted domain, where
    /// it is empty.
    #[serde(default)]
    pub callers: Vec<String>,
    /// The request as it was received.
    pub request: RequestDescription,
}

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifiedRequest {
    /// The caller.
    pub spiffe_id: String,
    /// How it was proven.
    pub proof: AcceptedProof,
    /// When the proof ends, RFC 3339.
    pub expires_at: Timestamp,
    /// Names in lower case of the fields that the caller proved to have sent as they are.
    pub bound: Vec<String>,
    /// Of an HTTP signature: what [`ProveResponse::request_nonce`] is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// Whether the caller accepts nothing but a signed response.
    pub sign_response: bool,
}

/// Asks for the signature of a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProveResponse {
    /// As [`ProveRequest::spiffe_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// The request that is answered, as it was received.
    pub request: RequestDescription,
    /// The response without the fields that are asked for.
    pub response: ResponseDescription,
    /// [`VerifiedRequest::nonce`].
    pub request_nonce: String,
}

/// Asks who signed a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyResponse {
    /// Who may have signed it, as [`VerifyRequest::callers`].
    #[serde(default)]
    pub servers: Vec<String>,
    /// The request as it was sent, with its proof.
    pub request: RequestDescription,
    /// The response as it was received.
    pub response: ResponseDescription,
    /// [`Proof::nonce`] of the request.
    pub request_nonce: String,
    /// Whether a response without a signature is refused.
    pub signature_required: bool,
}

/// Who signed a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifiedResponse {
    /// `null`: it is not signed, and need not be; nothing is known of it.
    pub spiffe_id: Option<String>,
}

/// A message that must not be processed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// For the log alone.
    pub reason: String,
    /// What to send to the caller of a request that is refused. A response that is refused is discarded, and nothing is sent.
    pub response: ResponseToSend,
}

/// A response to a request that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseToSend {
    /// Three digits.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// Absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorMessage {
    /// What is wrong, where, and what to do.
    pub error: String,
}

impl From<AcceptedProof> for Method {
    fn from(proof: AcceptedProof) -> Self {
        match proof {
            AcceptedProof::Wpt => Self::Wpt,
            AcceptedProof::HttpSignature => Self::HttpSignature,
            AcceptedProof::JwtSvid => Self::JwtSvid,
        }
    }
}

impl AcceptedProof {
    /// `None` of mTLS, which the agent does not see.
    #[must_use]
    pub fn from_method(method: Method) -> Option<Self> {
        match method {
            Method::Wpt => Some(Self::Wpt),
            Method::HttpSignature => Some(Self::HttpSignature),
            Method::JwtSvid => Some(Self::JwtSvid),
            Method::Mtls => None,
        }
    }
}

impl From<Answer> for ResponseToSend {
    fn from(answer: Answer) -> Self {
        let challenge = answer.challenge.map(|value| ("WWW-Authenticate".to_owned(), value.to_owned()));
        let body = answer.body().and_then(|body| String::from_utf8(body).ok());
        let media_type = body.as_ref().map(|_| ("Content-Type".to_owned(), Problem::MEDIA_TYPE.to_owned()));
        Self { status: answer.status, headers: challenge.into_iter().chain(media_type).collect(), body }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "Proof({}, {names:?}, until {})", self.spiffe_id, self.expires_at)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_for_a_proof_is_read_as_it_is_documented() {
        let asked = json!({
            "proof": "http-signature",
            "audience": "https://orders.example/orders",
            "request": {"method": "POST", "path": "/orders", "query": "", "headers": [["Content-Type", "text/plain"]]},
            "sign_response": true,
        });
        let read: ProveRequest = serde_json::from_value(asked.clone()).unwrap();
        assert_eq!((read.proof, read.request.query.as_deref()), (RequestProof::HttpSignature, Some("")));
        assert_eq!(serde_json::to_value(&read).unwrap(), asked);
        assert!(!format!("{read:?}").contains("text/plain"), "headers hold tokens");
    }

    #[test]
    fn an_unknown_member_or_proof_is_refused() {
        let request = json!({"method": "GET", "path": "/", "headers": []});
        let asked = json!({"proofs": ["wpt"], "audiences": ["a"], "request": request});
        assert!(serde_json::from_value::<VerifyRequest>(asked.clone()).is_ok());
        for (name, value) in [("caller", json!(["a"])), ("proofs", json!(["mtls"]))] {
            let mut changed = asked.clone();
            changed[name] = value;
            assert!(serde_json::from_value::<VerifyRequest>(changed).is_err(), "{name}");
        }
        let mut changed = asked;
        changed["request"]["body"] = json!("text");
        assert!(serde_json::from_value::<VerifyRequest>(changed).is_err());
    }

    #[test]
    fn what_to_send_to_a_refused_caller_has_its_challenge_or_problem() {
        assert_eq!(ResponseToSend::from(Answer::WPT).headers, [("WWW-Authenticate".into(), "WPT".into())]);
        let signature = ResponseToSend::from(Answer::SIGNATURE);
        assert_eq!(signature.headers, [("Content-Type".into(), "application/problem+json".into())]);
        assert!(signature.body.is_some_and(|body| body.contains("wimse-signature-invalid")));
    }
}
