//! What a verifier trusts, and as whom it is addressed.

use std::time::Duration;

use super::{DEFAULT_PROOF_LIFE, DEFAULT_SKEW, DEFAULT_WIT_LIFE};
use crate::bundle::BundleSet;

/// What a verifier accepts.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// The trust domains whose workloads may be heard.
    pub bundles: &'a BundleSet,
    /// As whom the verifier is addressed. Without any, no request is accepted.
    pub audiences: &'a [Audience],
    /// The longest life of a WIT.
    pub max_wit_life: Duration,
    /// How far ahead a proof may end.
    pub max_proof_life: Duration,
    /// How far the peer's clock may be ahead.
    pub skew: Duration,
    /// Names in lower case of the fields whose tokens the verifier understands and uses beside `Txn-Token`: a Workload Proof Token
    /// binds each of them that the request has, and no other field.
    pub context_fields: &'a [&'a str],
}

/// A value by which a verifier is addressed. It comes from configuration, never from `Host` or another part of a request
/// (draft-ietf-wimse-wpt-02, section 3.1; draft-ietf-wimse-http-signature-08, section 3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Exactly(String),
    Target { origin: String },
}

/// Why a text is no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an origin is a scheme and an authority, such as https://orders.example.org:8443, in lower case, without path")]
pub struct AudienceError;

impl<'a> Policy<'a> {
    /// A policy with the default bounds and without context fields.
    pub fn new(bundles: &'a BundleSet, audiences: &'a [Audience]) -> Self {
        Self {
            bundles,
            audiences,
            max_wit_life: DEFAULT_WIT_LIFE,
            max_proof_life: DEFAULT_PROOF_LIFE,
            skew: DEFAULT_SKEW,
            context_fields: &[],
        }
    }

    /// Whether a proof for `audience`, in a request whose path is `path`, is for this verifier.
    pub(super) fn is_addressed(&self, audience: &str, path: &str) -> bool {
        self.audiences.iter().any(|own| own.matches(audience, path))
    }
}

impl Audience {
    /// Proofs for this very value: compared byte for byte, without normalization (RFC 3986, section 6.2.1).
    pub fn exactly(value: impl Into<String>) -> Self {
        Self(Form::Exactly(value.into()))
    }

    /// Proofs for the target URI of the request that carries them: this origin, and the path of the request. A proof for one
    /// path is then refused at another.
    ///
    /// # Errors
    /// When `origin` is none.
    pub fn targets_of(origin: impl Into<String>) -> Result<Self, AudienceError> {
        let origin = origin.into();
        let authority = ["https://", "http://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
        let is_authority = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| {
                    byte.is_ascii_lowercase()
                        || byte.is_ascii_digit()
                        || matches!(byte, b'.' | b'-' | b':' | b'[' | b']')
                })
        };
        if authority.is_some_and(is_authority) { Ok(Self(Form::Target { origin })) } else { Err(AudienceError) }
    }

    fn matches(&self, audience: &str, path: &str) -> bool {
        match &self.0 {
            Form::Exactly(value) => value == audience,
            Form::Target { origin } => {
                let rest = audience.strip_prefix(origin.as_str());
                let path = if path.is_empty() { "/" } else { path };
                // An empty path is the same as `/` (RFC 9110, section 4.2.3).
                rest.is_some_and(|rest| rest == path || (rest.is_empty() && path == "/"))
            }
        }
    }
}
