//! The cluster's keys for service account tokens, as the API server publishes them.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::jws::{JwkMembers, PublicJwk, VerificationKey, read_object};

/// The longest JWK set that is looked at, in bytes.
pub const MAX_JWKS_LENGTH: usize = 1024 * 1024;

/// The cluster's keys by key id, each prepared once.
#[derive(Clone, Debug)]
pub struct ClusterJwks(HashMap<String, VerificationKey>);

/// Why a document is not the cluster's key set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Longer than [`MAX_JWKS_LENGTH`].
    #[error("cluster's key set of {length} bytes is longer than {MAX_JWKS_LENGTH}")]
    TooLong {
        /// Of the document, in bytes.
        length: usize,
    },
    /// Not a JWK set.
    #[error("cluster's key set is not a JSON object with an array of objects as keys")]
    Malformed,
    /// A key id is there twice.
    #[error("cluster's key set has two keys of one kid")]
    DuplicateKeyId,
    /// None of its keys can verify a token.
    #[error("cluster's key set has no RSA or ECDSA key with a kid; no token could be verified")]
    NoKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Map<String, Value>>,
}

impl ClusterJwks {
    /// Reads a JWK set. Keys that cannot verify a token (unknown kinds, encryption keys, keys
    /// without `kid`) are left out.
    ///
    /// # Errors
    /// When it is too long, not a JWK set, has a key id twice, or no key that can be used.
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        if json.len() > MAX_JWKS_LENGTH {
            return Err(JwksError::TooLong { length: json.len() });
        }
        let document: Document = read_object(json).ok_or(JwksError::Malformed)?;
        let mut keys = HashMap::new();
        for (kid, key) in document.keys.into_iter().filter_map(verification_key) {
            if keys.insert(kid, key).is_some() {
                return Err(JwksError::DuplicateKeyId);
            }
        }
        if keys.is_empty() { Err(JwksError::NoKey) } else { Ok(Self(keys)) }
    }

    /// Whether there is a key of this id.
    pub fn contains(&self, kid: &str) -> bool {
        self.0.contains_key(kid)
    }

    pub(super) fn get(&self, kid: &str) -> Option<&VerificationKey> {
        self.0.get(kid)
    }
}

fn verification_key(key: Map<String, Value>) -> Option<(String, VerificationKey)> {
    if !matches!(key.get("use"), None | Some(Value::Null)) && key.get("use")?.as_str() != Some("sig") {
        return None;
    }
    let members: JwkMembers = serde_json::from_value(Value::Object(key)).ok()?;
    let jwk = PublicJwk::from_members(&members).ok()??;
    let kid = members.kid.filter(|kid| !kid.is_empty())?;
    Some((kid, VerificationKey::new(&jwk, members.alg.as_deref())?))
}
