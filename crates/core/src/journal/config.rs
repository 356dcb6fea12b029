//! What a TrustDomain specifies of its authorities.

use super::{AuthorityPolicy, RotationRequests};
use crate::id::TrustDomain;

/// How the authorities of a TrustDomain are made and published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityConfig {
    /// The object's name.
    pub name: String,
    /// The object's uid.
    pub uid: String,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// How its authorities are made.
    pub policy: AuthorityPolicy,
    /// What its owner asks for.
    pub requests: RotationRequests,
    /// The `iss` of JWT-SVIDs.
    pub jwt_issuer: Option<String>,
    /// The sequence that its status names as published.
    pub published_sequence: Option<u64>,
    /// The uid of the earlier TrustDomain whose journal it may take over.
    pub adopts: Option<String>,
}
