//! The caller of a request.

use countersign_core::id::SpiffeId;
use jiff::Timestamp;

use super::Method;

/// Who sent a request, and how that was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub(super) id: SpiffeId,
    pub(super) method: Method,
    pub(super) via: Option<SpiffeId>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) bound: Vec<String>,
}

impl Caller {
    /// Its SPIFFE ID.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// How it proved to be that.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The mTLS peer that carried the request, where the request itself names the caller. It may be the caller too. `None` where
    /// the connection had no authenticated peer, and where the caller is the mTLS peer.
    #[must_use]
    pub fn via(&self) -> Option<&SpiffeId> {
        self.via.as_ref()
    }

    /// When the proof or the JWT-SVID ends; `None` of an mTLS peer.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// The fields, by names in lower case, that the caller proved to have sent as they are: `workload-identity-token`, and others such
    /// as `txn-token`. A token in any other field must not be used to authorize anything (draft-ietf-wimse-wpt-02, section 2).
    #[must_use]
    pub fn bound(&self) -> &[String] {
        &self.bound
    }

    /// Whether the caller proved to have sent the field `name`, in any case, as it is.
    #[must_use]
    pub fn binds(&self, name: &str) -> bool {
        self.bound.iter().any(|bound| bound.eq_ignore_ascii_case(name))
    }
}
