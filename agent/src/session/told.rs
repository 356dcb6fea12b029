//! What the issuer told a session, parsed: who it is and whom it trusts. Either all of it is usable or none.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_core::bundle::{Bundle, BundleSet};
use countersign_core::id::{IdError, SpiffeId, TrustDomain};
use countersign_proto::issuer::v1;

/// Why a State cannot be used: the issuer, or its version, is at fault.
#[derive(Debug, thiserror::Error)]
pub enum ToldError {
    /// An identity that is none.
    #[error("the issuer named an identity {id:?} that is no SPIFFE ID: {source}")]
    Identity {
        /// As received, shortened.
        id: String,
        /// What is wrong.
        source: IdError,
    },
    /// One identity twice.
    #[error("the issuer named the identity {0} twice")]
    Repeated(SpiffeId),
    /// An identity without the bundle of its own trust domain, or with one that cannot be read.
    #[error("the issuer sent no usable bundle of {0}, the trust domain of an identity")]
    NoBundle(TrustDomain),
}

/// One State of the issuer's.
#[derive(Debug, Clone)]
pub struct Told {
    /// In order; the first is the default.
    pub identities: Vec<Identity>,
    /// Why there is none.
    pub reason: String,
    /// Whom the identities trust.
    pub trust: Arc<BundleSet>,
}

/// One entitlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub id: SpiffeId,
    /// May be empty.
    pub hint: String,
    /// Exact audiences among those that may be asked for: their tokens become files.
    pub exact_audiences: Vec<String>,
    /// Foreign trust domains.
    pub federates_with: Vec<TrustDomain>,
    /// Subject key ids of authorities whose certificates must go at once.
    pub tainted: Vec<Vec<u8>>,
    /// The DNS names that its X509-SVIDs carry now; none where the issuer does not tell them.
    pub dns_names: Option<BTreeSet<String>>,
}

impl Told {
    /// Parses `state`. A foreign bundle that cannot be read is left out, so that it blocks nobody who does not need it.
    ///
    /// # Errors
    /// See [`ToldError`].
    pub fn parse(state: v1::State) -> Result<Self, ToldError> {
        let trust = parse_trust(state.bundles);
        let mut identities: Vec<Identity> = Vec::with_capacity(state.identities.len());
        for identity in state.identities {
            let identity = Identity::parse(identity)?;
            if identities.iter().any(|other| other.id == identity.id) {
                return Err(ToldError::Repeated(identity.id));
            }
            if trust.get(identity.id.trust_domain()).is_none() {
                return Err(ToldError::NoBundle(identity.id.trust_domain().clone()));
            }
            identities.push(identity);
        }
        Ok(Self { identities, reason: state.reason, trust: Arc::new(trust) })
    }

    /// The entitlement of that id.
    pub fn identity(&self, id: &SpiffeId) -> Option<&Identity> {
        self.identities.iter().find(|identity| identity.id == *id)
    }
}

impl Identity {
    fn parse(identity: v1::Identity) -> Result<Self, ToldError> {
        let id = identity
            .spiffe_id
            .parse()
            .map_err(|source| ToldError::Identity { id: identity.spiffe_id.chars().take(200).collect(), source })?;
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
            tainted: identity.tainted_authorities,
            dns_names: identity.dns_names.map(|told| told.names.into_iter().collect()),
        })
    }
}

fn parse_trust(bundles: Vec<v1::Bundle>) -> BundleSet {
    let mut set = BundleSet::default();
    for v1::Bundle { trust_domain, document } in bundles {
        let parsed = trust_domain
            .parse::<TrustDomain>()
            .map_err(|error| error.to_string())
            .and_then(|domain| Bundle::parse(&domain, &document).map_err(|error| error.to_string()))
            .and_then(|bundle| set.insert(bundle).map_err(|error| error.to_string()));
        if let Err(error) = parsed {
            tracing::warn!(trust_domain, error, "left out a bundle that cannot be read");
        }
    }
    set
}
