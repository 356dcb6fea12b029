//! The entitlements of a session, parsed from a State of the issuer: its identities and the bundles they trust. A State is
//! accepted as a whole or not at all.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use countersign_core::bundle::{Bundle, BundleSet};
use countersign_core::entitlement::PathPattern;
use countersign_core::id::{IdError, SpiffeId, TrustDomain};
use countersign_proto::issuer::v1;

use super::known_bundles::KnownBundles;
use crate::publish::{DomainTerms, Terms};

/// Why a State cannot be used. The cause is the issuer, or its version.
#[derive(Debug, thiserror::Error)]
pub(super) enum EntitlementsError {
    /// An identity that is not a SPIFFE ID.
    #[error("the issuer named an identity {id:?} that is no SPIFFE ID: {source}")]
    Identity {
        /// As received, shortened.
        id: String,
        /// What is wrong.
        source: IdError,
    },
    /// An identity that occurs twice.
    #[error("the issuer named the identity {0} twice")]
    Repeated(SpiffeId),
    /// An identity without the bundle of its own trust domain, or with one that cannot be read.
    #[error("the issuer sent no usable bundle of {0}, the trust domain of an identity")]
    NoBundle(TrustDomain),
}

/// The identities of a session, and what they trust.
#[derive(Debug, Clone)]
pub(super) struct Entitlements {
    /// In the issuer's order; the first is the default.
    pub(super) identities: Vec<Identity>,
    /// Why there is no identity, for people.
    pub(super) reason: String,
    /// The bundles of the trust domains of the identities and of those they federate with.
    pub(super) trust: Arc<BundleSet>,
    /// What goes with some of these bundles.
    pub(super) terms: Arc<Terms>,
    /// Grows whenever somebody asks for the credentials to be renewed.
    pub(super) renewal: u64,
}

/// One identity, with what it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// The SPIFFE ID.
    pub(super) id: SpiffeId,
    /// The owner's hint; may be empty.
    pub(super) hint: String,
    /// Exact audiences among those that may be requested: their tokens become files.
    pub(super) exact_audiences: Vec<String>,
    /// Foreign trust domains.
    pub(super) federates_with: Vec<TrustDomain>,
    /// Subject key ids of authorities whose certificates must be replaced at once.
    pub(super) tainted_authorities: Vec<Vec<u8>>,
    /// Key ids of authorities whose tokens must be renewed at once.
    pub(super) tainted_key_ids: Vec<String>,
    /// The DNS names of X509-SVIDs issued now; `None` where the issuer does not send them.
    pub(super) dns_names: Option<BTreeSet<String>>,
    /// Whether it has WIT-SVIDs, and on which terms.
    pub(super) wit: Option<WitTerms>,
}

impl Entitlements {
    /// Parses `state`, with the newest bundles known. In place of a bundle that cannot be read the one in use stays; without
    /// one a foreign bundle is left out, so that it does not block identities that do not need it.
    ///
    /// # Errors
    /// See [`EntitlementsError`].
    pub(super) fn parse(state: v1::State, known: &KnownBundles) -> Result<Self, EntitlementsError> {
        let terms = state.bundles.iter().filter_map(terms_of).collect();
        let trust = parse_trust(state.bundles, known);
        let mut identities: Vec<Identity> = Vec::with_capacity(state.identities.len());
        for identity in state.identities {
            let identity = Identity::parse(identity)?;
            if identities.iter().any(|other| other.id == identity.id) {
                return Err(EntitlementsError::Repeated(identity.id));
            }
            if trust.get(identity.id.trust_domain()).is_none() {
                return Err(EntitlementsError::NoBundle(identity.id.trust_domain().clone()));
            }
            identities.push(identity);
        }
        known.record(&trust);
        let renewal = state.renewal;
        Ok(Self { identities, reason: state.reason, trust: Arc::new(trust), terms: Arc::new(terms), renewal })
    }

    /// The first identity.
    pub(super) fn default_identity(&self) -> Option<&Identity> {
        self.identities.first()
    }

    /// The identity with that id.
    pub(super) fn identity(&self, id: &SpiffeId) -> Option<&Identity> {
        self.identities.iter().find(|identity| identity.id == *id)
    }
}

/// On which terms an identity has WIT-SVIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WitTerms {
    /// Whether the workload gets their keys.
    pub(super) export_key: bool,
}

impl Identity {
    fn parse(identity: v1::Identity) -> Result<Self, EntitlementsError> {
        let id = identity.spiffe_id.parse().map_err(|source| EntitlementsError::Identity {
            id: identity.spiffe_id.chars().take(200).collect(),
            source,
        })?;
        let domain = |name: String| match name.parse::<TrustDomain>() {
            Ok(domain) => Some(domain),
            Err(error) => {
                tracing::warn!(%error, "left out a foreign trust domain whose name is none");
                None
            }
        };
        Ok(Self {
            id,
            hint: identity.hint,
            exact_audiences: identity.jwt_audiences.into_iter().filter(|audience| !audience.ends_with('*')).collect(),
            federates_with: identity.federates_with.into_iter().filter_map(domain).collect(),
            tainted_authorities: identity.tainted_authorities,
            tainted_key_ids: identity.tainted_key_ids,
            wit: (identity.wit_ttl > 0).then_some(WitTerms { export_key: identity.wit_export_key }),
            dns_names: identity.dns_names.map(|dns_names| dns_names.names.into_iter().collect()),
        })
    }
}

/// What goes with a bundle; `None` where nothing does. A pattern that cannot be read, of a later operator, accepts nothing.
fn terms_of(bundle: &v1::Bundle) -> Option<(TrustDomain, DomainTerms)> {
    let v1::Bundle { trust_domain, path_patterns, jwt_issuer, .. } = bundle;
    if path_patterns.is_empty() && jwt_issuer.is_empty() {
        return None;
    }
    let read = |pattern: &String| match pattern.parse::<PathPattern>() {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            tracing::warn!(trust_domain, %error, "a pattern of accepted paths cannot be read; it accepts nothing");
            None
        }
    };
    let paths = (!path_patterns.is_empty()).then(|| path_patterns.iter().filter_map(read).collect());
    let jwt_issuer = Some(jwt_issuer.clone()).filter(|issuer| !issuer.is_empty());
    Some((trust_domain.parse().ok()?, DomainTerms { paths, jwt_issuer }))
}

fn parse_trust(bundles: Vec<v1::Bundle>, known: &KnownBundles) -> BundleSet {
    let mut set = BundleSet::default();
    for v1::Bundle { trust_domain, document, sequence, .. } in bundles {
        let left_out =
            |error: &dyn Display| tracing::warn!(trust_domain, %error, "left out a bundle that cannot be used");
        let domain = match trust_domain.parse::<TrustDomain>() {
            Ok(domain) => domain,
            Err(error) => {
                left_out(&error);
                continue;
            }
        };
        let bundle = match Bundle::parse(&domain, &document) {
            // Operators of earlier builds do not send a sequence; it is the document's.
            Ok(sent) if sequence == 0 => known.newest(sent),
            Ok(sent) => known.newest(Bundle { sequence, ..sent }),
            Err(error) => {
                let in_use = known.in_use(&domain);
                match &in_use {
                    Some(_) => tracing::warn!(trust_domain, %error, "a bundle cannot be read; the one in use stays"),
                    None => left_out(&error),
                }
                in_use
            }
        };
        if let Some(Err(error)) = bundle.map(|bundle| set.insert(bundle)) {
            left_out(&error);
        }
    }
    set
}

#[cfg(test)]
#[path = "entitlements_tests.rs"]
mod tests;
