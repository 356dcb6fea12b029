//! Why a bundle is not taken. A closed list: each reason has a label for a metric and a text of bounded length, and holds
//! numbers at most, never a byte of what a peer sent.

use countersign_reasons::Reason;
use serde::{Deserialize, Serialize};

use crate::bundle::BundleError;

/// Why nothing was fetched. Stored, so that a new reason needs a new version of the stored form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub enum FetchError {
    /// The host has no address.
    #[error("the endpoint's host name has no address; check the URL and DNS")]
    Resolve,
    /// The host has an address that must not be called.
    #[error("the endpoint's address is not one that may be called; check the URL and DNS")]
    AddressRefused,
    /// No TCP connection.
    #[error("no connection to the endpoint; check the URL, the network and its policies")]
    Connect,
    /// No complete answer in time.
    #[error("the endpoint did not answer in time")]
    Timeout,
    /// The TLS handshake failed for another reason than the certificate.
    #[error("the TLS handshake with the endpoint failed; it must offer TLS 1.2 or 1.3 with current algorithms")]
    Tls,
    /// The server's certificate is not trusted.
    #[error(
        "the endpoint's certificate is not trusted; check the profile, and for https_spiffe the bundle of the endpoint's \
         trust domain"
    )]
    UntrustedCertificate,
    /// The server's certificate is trusted and has another SPIFFE ID (SPIFFE Federation, section 5.2.2.4).
    #[error("the endpoint has another SPIFFE ID than the one in the TrustDomain")]
    WrongEndpointId,
    /// A redirect to what is not the URL of a bundle endpoint, or too many (SPIFFE Federation, sections 5.2.1.4 and 5.2.2.4).
    #[error("the endpoint redirects too often, or to a URL that is not https or has user information")]
    Redirect,
    /// Neither a document nor a redirect.
    #[error("the endpoint answered with HTTP status {0}")]
    Status(u16),
    /// The metadata of WIMSE Trust Domain Discovery are none, or name another trust domain.
    #[error("the metadata at the trust domain's name are not those of this trust domain; check what is served there")]
    WrongMetadata,
    /// More than [`crate::bundle::MAX_BUNDLE_LENGTH`].
    #[error("the endpoint's answer is longer than 1 MiB")]
    TooLong,
    /// The answer broke off, was not HTTP, had a head that is too long, or was compressed though it was asked for as it is.
    #[error("the endpoint's answer broke off, was not plain HTTP/1.1, or was compressed; check what serves it")]
    Interrupted,
}

/// What is wrong with a document: [`BundleError`] without anything that stood in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub enum DocumentFault {
    /// [`BundleError::TooLong`].
    #[error("it is longer than 1 MiB")]
    TooLong,
    /// [`BundleError::Malformed`].
    #[error("it is not a JSON object with keys (objects), spiffe_sequence and spiffe_refresh_hint (numbers)")]
    NoKeySet,
    /// [`BundleError::Key`].
    #[error("a key has a member of the wrong type, or is none")]
    Key,
    /// [`BundleError::Certificates`].
    #[error("a key of use x509-svid has not exactly one certificate in x5c")]
    CertificateCount,
    /// [`BundleError::Certificate`].
    #[error("a certificate is not that of an authority")]
    Certificate,
    /// [`BundleError::CertificateMismatch`].
    #[error("a key is not the key of its certificate")]
    CertificateMismatch,
    /// [`BundleError::Jwt`].
    #[error("a key of use jwt-svid has no kid or verifies no tokens")]
    JwtKey,
    /// [`BundleError::DuplicateKeyId`].
    #[error("two keys have the same kid")]
    DuplicateKeyId,
}

/// Why a bundle is not taken; the one that is kept stays as it is. Stored, so that a new reason needs a new version of the
/// stored form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Refusal {
    /// Nothing was fetched.
    #[error(transparent)]
    Fetch(FetchError),
    /// The document is no bundle, so nothing of it is trusted.
    #[error("the document is no bundle: {fault}{}", place(*position))]
    Malformed {
        /// What is wrong.
        fault: DocumentFault,
        /// Of the key in `keys`, counted from 0, where the fault has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position: Option<usize>,
    },
    /// A certificate in it names another trust domain (X509-SVID, section 3.2; SPIFFE Federation, section 7.3).
    #[error(
        "an authority's certificate in the bundle names another trust domain; check which bundle the endpoint serves"
    )]
    WrongTrustDomain,
    /// It is older than a bundle that was accepted (SPIFFE Federation, section 4.2; Trust Domain and Bundle, section 4.1.1).
    #[error(
        "the bundle has the sequence {offered}, lower than {floor}, which was accepted before; if the trust domain was set up \
         anew, give its bundle in bootstrap with replace: true"
    )]
    LowerSequence {
        /// Its sequence.
        offered: u64,
        /// The least that is accepted.
        floor: u64,
    },
}

impl FetchError {
    /// For a metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::AddressRefused => "address_refused",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::UntrustedCertificate => "untrusted_certificate",
            Self::WrongEndpointId => "wrong_endpoint_id",
            Self::Redirect => "redirect",
            Self::Status(_) => "status",
            Self::WrongMetadata => "wrong_metadata",
            Self::TooLong => "too_long",
            Self::Interrupted => "interrupted",
        }
    }
}

impl Refusal {
    /// The reason in a TrustDomain's status.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Fetch(FetchError::Resolve) => Reason::Resolve,
            Self::Fetch(FetchError::AddressRefused) => Reason::AddressRefused,
            Self::Fetch(FetchError::Connect) => Reason::Connect,
            Self::Fetch(FetchError::Timeout) => Reason::Timeout,
            Self::Fetch(FetchError::Tls) => Reason::Tls,
            Self::Fetch(FetchError::UntrustedCertificate) => Reason::UntrustedCertificate,
            Self::Fetch(FetchError::WrongEndpointId) => Reason::WrongEndpointId,
            Self::Fetch(FetchError::Redirect) => Reason::Redirect,
            Self::Fetch(FetchError::Status(_)) => Reason::Status,
            Self::Fetch(FetchError::WrongMetadata) => Reason::WrongMetadata,
            Self::Fetch(FetchError::TooLong) => Reason::TooLong,
            Self::Fetch(FetchError::Interrupted) => Reason::Interrupted,
            Self::Malformed { .. } => Reason::Malformed,
            Self::WrongTrustDomain => Reason::WrongTrustDomain,
            Self::LowerSequence { .. } => Reason::LowerSequence,
        }
    }

    /// For a metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Fetch(error) => error.label(),
            Self::Malformed { .. } => "malformed",
            Self::WrongTrustDomain => "wrong_trust_domain",
            Self::LowerSequence { .. } => "lower_sequence",
        }
    }
}

impl From<&BundleError> for Refusal {
    fn from(error: &BundleError) -> Self {
        let (fault, position) = match error {
            BundleError::TooLong { .. } => (DocumentFault::TooLong, None),
            BundleError::Malformed => (DocumentFault::NoKeySet, None),
            BundleError::Key { position } => (DocumentFault::Key, Some(*position)),
            BundleError::Certificates { position, .. } => (DocumentFault::CertificateCount, Some(*position)),
            BundleError::Certificate { position, .. } => (DocumentFault::Certificate, Some(*position)),
            BundleError::CertificateMismatch { position } => (DocumentFault::CertificateMismatch, Some(*position)),
            BundleError::Jwt { position, .. } => (DocumentFault::JwtKey, Some(*position)),
            BundleError::DuplicateKeyId { position } => (DocumentFault::DuplicateKeyId, Some(*position)),
        };
        Self::Malformed { fault, position }
    }
}

fn place(position: Option<usize>) -> String {
    position.map(|position| format!(" (key {position})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::jwt::JwtKeyError;
    use crate::x509::CaCertificateError;

    const FETCH: [FetchError; 11] = [
        FetchError::Resolve,
        FetchError::AddressRefused,
        FetchError::Connect,
        FetchError::Timeout,
        FetchError::Tls,
        FetchError::UntrustedCertificate,
        FetchError::WrongEndpointId,
        FetchError::Redirect,
        FetchError::Status(u16::MAX),
        FetchError::TooLong,
        FetchError::Interrupted,
    ];

    fn all() -> Vec<Refusal> {
        let id = "spiffe://example.org/from-the-peer".parse().unwrap();
        let errors = [
            BundleError::TooLong { length: usize::MAX },
            BundleError::Malformed,
            BundleError::Key { position: usize::MAX },
            BundleError::Certificates { position: usize::MAX, count: usize::MAX },
            BundleError::Certificate { position: usize::MAX, source: CaCertificateError::IdWithPath { id } },
            BundleError::CertificateMismatch { position: usize::MAX },
            BundleError::Jwt { position: usize::MAX, source: JwtKeyError::NoKeyId },
            BundleError::DuplicateKeyId { position: usize::MAX },
        ];
        let lower = Refusal::LowerSequence { offered: u64::MAX - 1, floor: u64::MAX };
        let documents = errors.iter().map(Refusal::from);
        FETCH.map(Refusal::Fetch).into_iter().chain(documents).chain([Refusal::WrongTrustDomain, lower]).collect()
    }

    #[test]
    fn a_reason_is_short_and_repeats_nothing_that_a_peer_sent() {
        for refusal in all() {
            let text = refusal.to_string();
            assert!(!text.is_empty() && text.len() <= 256, "{text}");
            assert!(!text.contains("from-the-peer"), "{text}");
        }
    }

    #[test]
    fn labels_are_words_and_those_of_fetching_differ() {
        for refusal in all() {
            assert!(refusal.label().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        }
        let labels: BTreeSet<&str> = FETCH.iter().map(|error| error.label()).collect();
        assert_eq!(labels.len(), FETCH.len());
    }

    #[test]
    fn a_reason_is_read_as_it_was_stored() {
        for refusal in all() {
            let json = serde_json::to_string(&refusal).unwrap();
            assert_eq!(serde_json::from_str::<Refusal>(&json).unwrap(), refusal, "{json}");
        }
    }

    #[test]
    fn a_fault_of_a_document_names_the_key() {
        let refusal = Refusal::from(&BundleError::CertificateMismatch { position: 3 });
        assert_eq!(refusal.to_string(), "the document is no bundle: a key is not the key of its certificate (key 3)");
    }
}
