//! The credentials of a session. One exists only once it has been verified against its identity and the trusted bundles.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_core::bundle::BundleSet;
use countersign_core::id::SpiffeId;
use countersign_core::jwt::{JwtClaims, verify_jwt_svid};
use countersign_core::key::PrivateKey;
use countersign_core::renewal::renew_at;
use countersign_core::wimse::DEFAULT_WIT_LIFE;
use countersign_core::wit::verify_wit_svid;
use countersign_core::x509::verify_x509_svid;
use jiff::Timestamp;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use zeroize::Zeroizing;

/// Before a request is repeated that was refused or brought nothing usable, unless the issuer named another delay.
pub(super) const DEFAULT_RETRY_DELAY: Duration = Duration::from_secs(30);

/// Why a credential from the issuer is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialError {
    /// It does not verify against the bundles sent with it.
    #[error("the X509-SVID that the issuer sent for {id} does not verify: {reason}")]
    X509 {
        /// The identity requested.
        id: SpiffeId,
        /// The verifier's reason.
        reason: String,
    },
    /// It is another identity's.
    #[error("the issuer sent an X509-SVID of {found} for {id}")]
    OtherIdentity {
        /// The identity requested.
        id: SpiffeId,
        /// The identity in the certificate.
        found: SpiffeId,
    },
    /// It is not for the key of the request.
    #[error("the X509-SVID that the issuer sent for {id} is of another key than was asked for")]
    OtherKey {
        /// The identity requested.
        id: SpiffeId,
    },
    /// The WIT-SVID does not verify, or is of another identity or key than requested.
    #[error("the WIT-SVID that the issuer sent for {id} does not verify: {reason}")]
    Wit {
        /// The identity requested.
        id: SpiffeId,
        /// The verifier's reason.
        reason: String,
    },
    /// The token does not verify, or is for another identity or audience than requested.
    #[error("the JWT-SVID that the issuer sent for {id} does not verify: {reason}")]
    Jwt {
        /// The identity requested.
        id: SpiffeId,
        /// The verifier's reason.
        reason: String,
    },
}

/// An X509-SVID with its key.
#[derive(Debug, Clone)]
pub(super) struct X509Credential {
    /// DER, leaf first.
    pub(super) chain: Vec<Vec<u8>>,
    /// The leaf's key.
    pub(super) key: PrivateKey,
    /// The leaf's notAfter.
    pub(super) expires_at: Timestamp,
    /// About half of its lifetime.
    pub(super) renew_at: Timestamp,
    /// The authority key identifiers of the certificates in the chain: what signed each of them.
    pub(super) authority_key_ids: Vec<Vec<u8>>,
    /// The leaf's DNS names.
    pub(super) dns_names: BTreeSet<String>,
    /// It no longer verifies against the newest bundle.
    pub(super) distrusted: bool,
    /// No other certificate is requested before this time. Set when the authority was tainted on arrival, or the DNS names
    /// differ from those the issuer announced.
    pub(super) renew_not_before: Option<Timestamp>,
}

impl X509Credential {
    /// The credential of `id` if `chain` verifies against `bundles` and is for `key`. `jitter` is in [-1, 1].
    ///
    /// # Errors
    /// See [`CredentialError`].
    pub(super) fn verified(
        id: &SpiffeId,
        chain: Vec<Vec<u8>>,
        key: PrivateKey,
        bundles: &BundleSet,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Self, CredentialError> {
        let invalid = |reason: String| CredentialError::X509 { id: id.clone(), reason };
        let found = verify(&chain, bundles, now).map_err(invalid)?;
        if found != *id {
            return Err(CredentialError::OtherIdentity { id: id.clone(), found });
        }
        let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| invalid(error.to_string()))?;
        if leaf.public_key().raw != key.public_key_spki_der() {
            return Err(CredentialError::OtherKey { id: id.clone() });
        }
        let time = |seconds| Timestamp::from_second(seconds).map_err(|error| invalid(error.to_string()));
        let expires_at = time(leaf.validity().not_after.timestamp())?;
        let authority_key_ids = authority_key_ids(&chain);
        let dns_names = dns_names(&leaf);
        // From now, not from notBefore: leaves are backdated by more than a very short lifetime.
        let renew_at = renew_at(now, expires_at, jitter);
        Ok(Self {
            chain,
            key,
            expires_at,
            renew_at,
            authority_key_ids,
            dns_names,
            distrusted: false,
            renew_not_before: None,
        })
    }

    /// Whether it verifies against `bundles`, which may have changed since it was issued.
    pub(super) fn still_verifies(&self, bundles: &BundleSet, now: Timestamp) -> bool {
        verify(&self.chain, bundles, now).is_ok()
    }
}

/// A JWT-SVID.
#[derive(Debug, Clone)]
pub(super) struct JwtCredential {
    /// The identity.
    pub(super) id: SpiffeId,
    /// JWS compact serialization.
    pub(super) token: Zeroizing<String>,
    /// Its `exp`.
    pub(super) expires_at: Timestamp,
    /// About half of its lifetime.
    pub(super) renew_at: Timestamp,
    /// The id of the key that signed it.
    pub(super) key_id: Option<String>,
}

impl JwtCredential {
    /// The credential of `id` if `token` verifies against `bundles` for each of `audiences`. `jitter` is in [-1, 1].
    ///
    /// # Errors
    /// See [`CredentialError`].
    pub(super) fn verified(
        id: &SpiffeId,
        audiences: &[String],
        token: Zeroizing<String>,
        bundles: &BundleSet,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Self, CredentialError> {
        let invalid = |reason: String| CredentialError::Jwt { id: id.clone(), reason };
        let claims = verify_token(&token, id, audiences, bundles, now).map_err(invalid)?;
        let (expires_at, key_id) = (claims.expires_at, claims.key_id);
        Ok(Self { token, expires_at, renew_at: renew_at(now, expires_at, jitter), key_id, id: id.clone() })
    }

    /// Whether it verifies against `bundles`, which may have changed since it was issued.
    pub(super) fn still_verifies(&self, audiences: &[String], bundles: &BundleSet, now: Timestamp) -> bool {
        verify_token(&self.token, &self.id, audiences, bundles, now).is_ok()
    }
}

/// A WIT-SVID with the key that it is bound to.
#[derive(Debug, Clone)]
pub(super) struct WitCredential {
    /// JWS compact serialization.
    pub(super) token: Zeroizing<String>,
    /// Signs the proofs.
    pub(super) key: PrivateKey,
    /// Its `exp`.
    pub(super) expires_at: Timestamp,
    /// About half of its lifetime.
    pub(super) renew_at: Timestamp,
    /// The id of the key that signed it.
    pub(super) key_id: String,
}

impl WitCredential {
    /// The credential of `id` if `token` verifies against `bundles` and is bound to `key`. `jitter` is in [-1, 1].
    ///
    /// # Errors
    /// See [`CredentialError`].
    pub(super) fn verified(
        id: &SpiffeId,
        token: Zeroizing<String>,
        key: PrivateKey,
        bundles: &BundleSet,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Self, CredentialError> {
        let invalid = |reason: String| CredentialError::Wit { id: id.clone(), reason };
        let claims =
            verify_wit_svid(&token, bundles, DEFAULT_WIT_LIFE, now).map_err(|error| invalid(error.to_string()))?;
        if claims.id != *id {
            return Err(invalid(format!("its subject is {}", claims.id)));
        }
        if !claims.confirmation.is_of(&key) {
            return Err(invalid("it is bound to another key than was asked for".to_owned()));
        }
        let (expires_at, key_id) = (claims.expires_at, claims.key_id);
        Ok(Self { token, key, expires_at, renew_at: renew_at(now, expires_at, jitter), key_id })
    }

    /// Whether it verifies against `bundles`, which may have changed since it was issued.
    pub(super) fn still_verifies(&self, bundles: &BundleSet, now: Timestamp) -> bool {
        verify_wit_svid(&self.token, bundles, DEFAULT_WIT_LIFE, now).is_ok()
    }
}

/// The claims of a token of `id` for each of `audiences`.
fn verify_token(
    token: &str,
    id: &SpiffeId,
    audiences: &[String],
    bundles: &BundleSet,
    now: Timestamp,
) -> Result<JwtClaims, String> {
    let mut verified = None;
    for audience in audiences {
        let claims = verify_jwt_svid(token, audience, bundles, now).map_err(|error| error.to_string())?;
        if claims.id != *id {
            return Err(format!("its subject is {}", claims.id));
        }
        verified = Some(claims);
    }
    verified.ok_or_else(|| "no audience was asked for".into())
}

fn verify(chain: &[Vec<u8>], bundles: &BundleSet, now: Timestamp) -> Result<SpiffeId, String> {
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    verify_x509_svid(&chain, bundles, now).map_err(|error| error.to_string())
}

/// RFC 5280, 4.2.1.6.
fn dns_names(leaf: &X509Certificate<'_>) -> BTreeSet<String> {
    let names = leaf.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|extension| &extension.value.general_names);
    let dns = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    dns.collect()
}

/// RFC 5280, 4.2.1.1, of each certificate that has one.
fn authority_key_ids(chain: &[Vec<u8>]) -> Vec<Vec<u8>> {
    use x509_parser::extensions::ParsedExtension;
    let certificates = chain.iter().filter_map(|der| X509Certificate::from_der(der).ok());
    let key_id = |(_, certificate): (_, X509Certificate<'_>)| {
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(identifier) => {
                identifier.key_identifier.as_ref().map(|key_id| key_id.0.to_vec())
            }
            _ => None,
        })
    };
    certificates.filter_map(key_id).collect()
}
