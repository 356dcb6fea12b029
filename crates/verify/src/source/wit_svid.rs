//! WIT-SVIDs of this workload with their keys, each verified before anyone can use it (WIT-SVID, sections 3 and 5).

use std::{fmt, sync::Arc};

use countersign_core::{
    bundle::BundleSet,
    id::SpiffeId,
    key::{KeyError, PrivateKey},
    wimse::DEFAULT_WIT_LIFE,
    wit::{WitClaims, WitSvidError, verify_wit_svid},
};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::SourceError;

/// A WIT-SVID with the key that it is bound to. Neither is shown by `Debug`, and both are wiped when it is dropped.
pub struct WitSvid {
    token: Zeroizing<String>,
    key: PrivateKey,
    claims: WitClaims,
    hint: String,
}

/// The WIT-SVIDs of a workload, of which there is at least one.
#[derive(Debug, PartialEq)]
pub(super) struct WitSvids(Vec<Arc<WitSvid>>);

/// Why a WIT-SVID from the Workload API is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WitError {
    #[error("the WIT-SVID of {id} does not verify: {source}")]
    Wit { id: SpiffeId, source: WitSvidError },
    #[error("the WIT-SVID for {id} is that of {found}")]
    OtherId { id: SpiffeId, found: SpiffeId },
    #[error("the key for {id}: {source}")]
    Key { id: SpiffeId, source: KeyError },
    #[error("the key for {id} is not the one that the WIT-SVID confirms")]
    OtherKey { id: SpiffeId },
}

impl WitError {
    /// Whether the reason is the time, or that bundles come by another stream: what is refused now may verify in a moment.
    pub(super) const fn is_of_time(&self) -> bool {
        use WitSvidError::{Expired, NotYetValid, UnknownKey, UntrustedDomain};
        let Self::Wit { source, .. } = self else { return false };
        matches!(source, Expired(_) | NotYetValid(_) | UnknownKey { .. } | UntrustedDomain(_))
    }
}

impl WitSvid {
    /// `key` is a JWK in JSON.
    pub(super) fn verified(
        id: SpiffeId,
        hint: String,
        token: Zeroizing<String>,
        key: &Zeroizing<String>,
        bundles: &BundleSet,
        now: Timestamp,
    ) -> Result<Self, WitError> {
        let claims = match verify_wit_svid(&token, bundles, DEFAULT_WIT_LIFE, now) {
            Ok(claims) if claims.id == id => claims,
            Ok(claims) => return Err(WitError::OtherId { id, found: claims.id }),
            Err(source) => return Err(WitError::Wit { id, source }),
        };
        match PrivateKey::from_jwk(key.as_bytes()) {
            Ok(key) if claims.confirmation.is_of(&key) => Ok(Self { token, key, claims, hint }),
            Ok(_) => Err(WitError::OtherKey { id }),
            Err(source) => Err(WitError::Key { id, source }),
        }
    }

    /// JWS compact serialization: the value of `Workload-Identity-Token`.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The private half of the key that it confirms.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.claims.id
    }

    /// When it ends. The right to use its key ends with it.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.claims.expires_at
    }

    /// What it says.
    #[must_use]
    pub fn claims(&self) -> &WitClaims {
        &self.claims
    }

    /// What its owner says its id is for; may be empty.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// Whether nobody would accept it any more: it has expired, or its authority is no longer in the bundle.
    fn has_ended(&self, bundles: Option<&BundleSet>, now: Timestamp) -> bool {
        let has_authority = |bundles: &BundleSet| {
            let bundle = bundles.get(self.id().trust_domain());
            bundle.is_some_and(|bundle| bundle.wit_authorities.iter().any(|key| key.kid() == self.claims.key_id))
        };
        self.expires_at() <= now || !bundles.is_none_or(has_authority)
    }
}

impl WitSvids {
    pub(super) fn new(svids: Vec<WitSvid>) -> Self {
        Self(svids.into_iter().map(Arc::new).collect())
    }

    /// The one with this hint, otherwise the first; a WIT-SVID that nobody would accept is not one.
    pub(super) fn svid(
        &self,
        hint: Option<&str>,
        bundles: Option<&BundleSet>,
        now: Timestamp,
    ) -> Result<Arc<WitSvid>, SourceError> {
        // If two SVIDs have the same hint, the first is used (SPIFFE Workload API, section 5.2.1).
        let found = match hint {
            None => self.0.first(),
            Some(hint) => self.0.iter().find(|svid| svid.hint == hint),
        };
        match (found, hint) {
            (Some(svid), _) if svid.has_ended(bundles, now) => {
                let last = format!("the WIT-SVID ended at {}, or its authority was revoked", svid.expires_at());
                Err(SourceError::Waiting { last: Some(last.into()) })
            }
            (Some(svid), _) => Ok(Arc::clone(svid)),
            (None, Some(hint)) => Err(SourceError::NoSuchHint { hint: hint.to_owned() }),
            (None, None) => Err(SourceError::Waiting { last: None }),
        }
    }
}

impl PartialEq for WitSvid {
    /// The key is the one that the token confirms.
    fn eq(&self, other: &Self) -> bool {
        self.token == other.token && self.hint == other.hint
    }
}

impl Eq for WitSvid {}

impl fmt::Debug for WitSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitSvid({}, until {})", self.id(), self.expires_at())
    }
}
