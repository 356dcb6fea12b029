//! The bundle document: a JWK set (SPIFFE Trust Domain and Bundle, section 4; RFC 7517).

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Bundle, DEFAULT_REFRESH_HINT};
use crate::id::TrustDomain;
use crate::jws::{JwkMembers, PublicJwk, read_object};
use crate::jwt::{JwtKeyError, JwtVerificationKey};
use crate::wit::WitVerificationKey;
use crate::x509::{CaCertificate, CaCertificateError};

/// The longest document that is looked at, in bytes.
pub const MAX_BUNDLE_LENGTH: usize = 1024 * 1024;

const X509_USE: &str = "x509-svid";
const JWT_USE: &str = "jwt-svid";
const WIT_USE: &str = "wit-svid";
pub(super) const WIMSE_X509_USE: &str = "wimse-x509";
pub(super) const WIMSE_JWT_USE: &str = "wimse-jwt";
/// Between two keys.
const COMMA: usize = 1;

/// Why a document is not a bundle. Positions of keys are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Longer than [`MAX_BUNDLE_LENGTH`].
    #[error("bundle of {length} bytes is longer than {MAX_BUNDLE_LENGTH}")]
    TooLong {
        /// Of the document, in bytes.
        length: usize,
    },
    /// Not a JWK set.
    #[error("bundle is not a JSON object with keys (objects), spiffe_sequence and spiffe_refresh_hint (numbers)")]
    Malformed,
    /// A known key without readable members.
    #[error("key {position} of the bundle has a member of the wrong type, or a public key that is none")]
    Key {
        /// In `keys`.
        position: usize,
    },
    /// Not exactly one certificate.
    #[error(
        "key {position} of the bundle is of use x509-svid and has {count} certificates in x5c; it must have exactly one"
    )]
    Certificates {
        /// In `keys`.
        position: usize,
        /// How many there are.
        count: usize,
    },
    /// The certificate is not an authority's.
    #[error("key {position} of the bundle: {source}")]
    Certificate {
        /// In `keys`.
        position: usize,
        /// What is wrong.
        source: CaCertificateError,
    },
    /// The key beside the certificate is another one.
    #[error("key {position} of the bundle is not the key of its certificate")]
    CertificateMismatch {
        /// In `keys`.
        position: usize,
    },
    /// The key verifies no tokens.
    #[error("key {position} of the bundle: {source}")]
    Jwt {
        /// In `keys`.
        position: usize,
        /// What is wrong.
        source: JwtKeyError,
    },
    /// A key id is there twice.
    #[error("key {position} of the bundle has the kid of an earlier key")]
    DuplicateKeyId {
        /// In `keys`.
        position: usize,
    },
}

/// As it is read; members that are unknown are ignored, those of the other format among them.
#[derive(Deserialize)]
struct SpiffeDocument {
    keys: Vec<Map<String, Value>>,
    spiffe_sequence: Option<u64>,
    spiffe_refresh_hint: Option<u64>,
}

/// As [`SpiffeDocument`], by the names of WIMSE.
#[derive(Deserialize)]
struct WimseDocument {
    keys: Vec<Map<String, Value>>,
    sequence_number: Option<u64>,
    refresh_hint: Option<u64>,
}

/// A document of either format.
struct Document {
    keys: Vec<Map<String, Value>>,
    sequence: Option<u64>,
    refresh_hint: Option<u64>,
    /// The values of `use` of keys for certificates, for JWT-SVIDs, and for WIT-SVIDs, which the other format does not have.
    uses: (&'static str, &'static str, Option<&'static str>),
}

/// The names by which a document calls the same things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BundleFormat {
    /// The bundle document of SPIFFE.
    Spiffe,
    /// The trust bundle of WIMSE Trust Domain Discovery.
    Wimse,
}

#[derive(Serialize)]
struct Written {
    keys: Vec<Map<String, Value>>,
    spiffe_sequence: u64,
    spiffe_refresh_hint: u64,
}

#[derive(Serialize)]
pub(super) struct JwkSet {
    pub(super) keys: Vec<Map<String, Value>>,
}

/// A bundle document as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BundleDocument {
    /// Its bundle; without a sequence in the document, that of the bundle is 0.
    pub(crate) bundle: Bundle,
    /// The sequence, where the document has one: a bundle should (Trust Domain and Bundle, section 4.1.1).
    pub(crate) sequence: Option<u64>,
}

impl Bundle {
    /// The bundle document, JSON; the same bytes for the same bundle.
    pub fn to_json(&self) -> Vec<u8> {
        let x509 = self.x509_authorities.iter().map(x509_jwk);
        let jwt = self.jwt_authorities.iter().map(JwtVerificationKey::jwk);
        let wit = self.wit_authorities.iter().map(WitVerificationKey::jwk);
        json(&Written {
            keys: x509.chain(jwt).chain(wit).collect(),
            spiffe_sequence: self.sequence,
            spiffe_refresh_hint: self.refresh_hint.as_secs(),
        })
    }

    /// The most bytes that [`Self::to_json`] has for these keys, whatever sequence and hint are.
    #[cfg(test)]
    pub(crate) fn longest_json(&self) -> usize {
        let x509 = self.x509_authorities.iter().map(x509_key_length);
        let jwt = self.jwt_authorities.iter().map(jwt_key_length);
        let wit = self.wit_authorities.iter().map(wit_key_length);
        longest_json_without_keys() + x509.chain(jwt).chain(wit).sum::<usize>()
    }

    /// The JWT authorities alone as a JWK set, JSON: what the Workload API's JWT bundles carry.
    pub fn jwks_json(&self) -> Vec<u8> {
        json(&JwkSet { keys: self.jwt_authorities.iter().map(JwtVerificationKey::jwk).collect() })
    }

    /// The WIT authorities alone as a JWK set, JSON: what the Workload API's WIT bundles carry.
    pub fn wit_jwks_json(&self) -> Vec<u8> {
        json(&JwkSet { keys: self.wit_authorities.iter().map(WitVerificationKey::jwk).collect() })
    }

    /// Reads the bundle document of `trust_domain`. Keys of a `kty` or `use` that is unknown or
    /// missing are ignored; a missing sequence is 0, a missing refresh hint
    /// [`DEFAULT_REFRESH_HINT`].
    ///
    /// # Errors
    /// When it is too long, not a JWK set, or a key in it that is for SVIDs is not as it must be:
    /// then nothing of it is trusted.
    pub fn parse(trust_domain: &TrustDomain, document: &[u8]) -> Result<Self, BundleError> {
        BundleDocument::parse(BundleFormat::Spiffe, trust_domain, document).map(|document| document.bundle)
    }
}

impl Document {
    fn read(format: BundleFormat, document: &[u8]) -> Option<Self> {
        Some(match format {
            BundleFormat::Spiffe => {
                let SpiffeDocument { keys, spiffe_sequence: sequence, spiffe_refresh_hint: refresh_hint } =
                    read_object(document)?;
                Self { keys, sequence, refresh_hint, uses: (X509_USE, JWT_USE, Some(WIT_USE)) }
            }
            BundleFormat::Wimse => {
                let WimseDocument { keys, sequence_number: sequence, refresh_hint } = read_object(document)?;
                Self { keys, sequence, refresh_hint, uses: (WIMSE_X509_USE, WIMSE_JWT_USE, None) }
            }
        })
    }
}

impl BundleDocument {
    /// As [`Bundle::parse`].
    pub(crate) fn parse(
        format: BundleFormat,
        trust_domain: &TrustDomain,
        document: &[u8],
    ) -> Result<Self, BundleError> {
        if document.len() > MAX_BUNDLE_LENGTH {
            return Err(BundleError::TooLong { length: document.len() });
        }
        let Document { keys, sequence, refresh_hint, uses: (x509, jwt, wit) } =
            Document::read(format, document).ok_or(BundleError::Malformed)?;
        let mut bundle = Bundle {
            trust_domain: trust_domain.clone(),
            x509_authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            wit_authorities: Vec::new(),
            sequence: sequence.unwrap_or_default(),
            refresh_hint: refresh_hint.map_or(DEFAULT_REFRESH_HINT, Duration::from_secs),
        };
        let mut key_ids = BTreeSet::new();
        for (position, key) in keys.into_iter().enumerate() {
            match key.get("use").and_then(Value::as_str) {
                Some(name) if name == x509 => bundle.x509_authorities.extend(x509_authority(key, position)?),
                Some(name) if name == jwt => {
                    let read = authority(key, position, &mut key_ids, JwtVerificationKey::from_members)?;
                    bundle.jwt_authorities.extend(read);
                }
                Some(name) if Some(name) == wit => {
                    let read = authority(key, position, &mut key_ids, WitVerificationKey::from_members)?;
                    bundle.wit_authorities.extend(read);
                }
                _ => {}
            }
        }
        Ok(Self { bundle, sequence })
    }
}

/// What an X.509 authority adds to the length of a document at most, in bytes.
pub(crate) fn x509_key_length(authority: &CaCertificate) -> usize {
    json(&x509_jwk(authority)).len() + COMMA
}

/// What a JWT authority adds to the length of a document at most, in bytes.
pub(crate) fn jwt_key_length(authority: &JwtVerificationKey) -> usize {
    json(&authority.jwk()).len() + COMMA
}

/// What a WIT authority adds to the length of a document at most, in bytes.
pub(crate) fn wit_key_length(authority: &WitVerificationKey) -> usize {
    json(&authority.jwk()).len() + COMMA
}

/// The length of a document without keys whose numbers are as long as can be, in bytes.
pub(crate) fn longest_json_without_keys() -> usize {
    json(&Written { keys: Vec::new(), spiffe_sequence: u64::MAX, spiffe_refresh_hint: u64::MAX }).len()
}

pub(super) fn x509_jwk(authority: &CaCertificate) -> Map<String, Value> {
    let mut members = authority.jwk().members();
    members.insert("use".to_owned(), X509_USE.into());
    members.insert("x5c".to_owned(), Value::from(vec![STANDARD.encode(authority.der())]));
    members
}

/// `None` when the kind of key is unknown.
fn x509_authority(key: Map<String, Value>, position: usize) -> Result<Option<CaCertificate>, BundleError> {
    let Some((members, jwk)) = members(key, position)? else {
        return Ok(None);
    };
    let certificates = members.x5c.unwrap_or_default();
    let [certificate] = certificates.as_slice() else {
        return Err(BundleError::Certificates { position, count: certificates.len() });
    };
    let der = STANDARD.decode(certificate).map_err(|_| BundleError::Key { position })?;
    let certificate = CaCertificate::from_der(&der).map_err(|source| BundleError::Certificate { position, source })?;
    // RFC 7517, section 4.7.
    if *certificate.jwk() == jwk { Ok(Some(certificate)) } else { Err(BundleError::CertificateMismatch { position }) }
}

/// The keys of `use` `jwt-svid` of a JWK set, and those without a `use`.
pub(super) fn jwt_authorities(keys: Vec<Map<String, Value>>) -> Result<Vec<JwtVerificationKey>, BundleError> {
    authorities(keys, JWT_USE, JwtVerificationKey::from_members)
}

/// The keys of `use` `wit-svid` of a JWK set, and those without a `use`.
pub(super) fn wit_authorities(keys: Vec<Map<String, Value>>) -> Result<Vec<WitVerificationKey>, BundleError> {
    authorities(keys, WIT_USE, WitVerificationKey::from_members)
}

fn authorities<K: TokenKey>(
    keys: Vec<Map<String, Value>>,
    used_for: &str,
    read: fn(&JwkMembers) -> Result<Option<K>, JwtKeyError>,
) -> Result<Vec<K>, BundleError> {
    let mut key_ids = BTreeSet::new();
    let is_wanted = |(_, key): &(usize, Map<String, Value>)| key.get("use").is_none_or(|found| found == used_for);
    let wanted = keys.into_iter().enumerate().filter(is_wanted);
    let read = wanted.map(|(position, key)| authority(key, position, &mut key_ids, read));
    read.filter_map(Result::transpose).collect()
}

/// A key that verifies tokens.
trait TokenKey {
    fn kid(&self) -> &str;
}

impl TokenKey for JwtVerificationKey {
    fn kid(&self) -> &str {
        Self::kid(self)
    }
}

impl TokenKey for WitVerificationKey {
    fn kid(&self) -> &str {
        Self::kid(self)
    }
}

/// `None` when the kind of key is unknown. Its id is in none of the keys before, of whichever use (WIT-SVID, section 6.1).
fn authority<K: TokenKey>(
    key: Map<String, Value>,
    position: usize,
    key_ids: &mut BTreeSet<String>,
    read: fn(&JwkMembers) -> Result<Option<K>, JwtKeyError>,
) -> Result<Option<K>, BundleError> {
    let Some((members, _)) = members(key, position)? else {
        return Ok(None);
    };
    let Some(authority) = read(&members).map_err(|source| BundleError::Jwt { position, source })? else {
        return Ok(None);
    };
    if key_ids.insert(authority.kid().to_owned()) {
        Ok(Some(authority))
    } else {
        Err(BundleError::DuplicateKeyId { position })
    }
}

/// `None` when the kind of key is unknown; what else such a key holds is then nobody's business.
fn members(key: Map<String, Value>, position: usize) -> Result<Option<(JwkMembers, PublicJwk)>, BundleError> {
    if !matches!(key.get("kty").and_then(Value::as_str), Some("EC" | "RSA")) {
        return Ok(None);
    }
    let members: JwkMembers = serde_json::from_value(Value::Object(key)).map_err(|_| BundleError::Key { position })?;
    let jwk = PublicJwk::from_members(&members).map_err(|_| BundleError::Key { position })?;
    Ok(jwk.map(|jwk| (members, jwk)))
}

/// JSON of a type that always has one: texts, numbers and lists of them.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
