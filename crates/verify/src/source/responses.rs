//! What responses of the Workload API say (SPIFFE Workload API, sections 4 to 6). A response that breaks the specification is an error
//! as a whole. The bundle of a foreign trust domain that cannot be read is left out instead: a peer's mistake must not keep this
//! workload from its own SVID, and without its bundle the peer is refused.

use std::collections::BTreeMap;

use countersign_core::{
    bundle::{Bundle, BundleError, BundleSet, NotCertificates, split_certificates},
    id::{IdError, SpiffeId, TrustDomain},
};
use countersign_proto::workload::{
    JwtBundlesResponse, WitBundlesResponse, Witsvid, WitsvidResponse, X509svid, X509svidResponse,
};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{
    credentials::{SvidError, X509Credentials, X509Svid},
    wit_svid::{WitError, WitSvid, WitSvids},
};

/// Why a response is discarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ResponseError {
    #[error("it has no {0}, which every response has")]
    Missing(&'static str),
    #[error("SVID {position}: {field} is empty")]
    EmptyField { position: usize, field: &'static str },
    #[error("SVID {position}: spiffe_id: {source}")]
    Id { position: usize, source: IdError },
    #[error("SVID {position}: x509_svid: {source}")]
    Chain { position: usize, source: NotCertificates },
    #[error("SVID {position}: bundle: {source}")]
    Bundle { position: usize, source: BundleError },
    #[error("two SVIDs of the trust domain {0} came with different bundles, and bundles are not merged")]
    TwoBundles(TrustDomain),
    #[error(transparent)]
    Svid(#[from] SvidError),
    #[error(transparent)]
    Wit(#[from] WitError),
    #[error("there are no bundles of WIT authorities now, by which a WIT-SVID is verified")]
    NoWitBundles,
}

impl ResponseError {
    /// Whether the reason is the time: what is refused now may be right in a moment.
    pub(super) const fn is_of_time(&self) -> bool {
        match self {
            Self::Svid(error) => error.is_of_time(),
            Self::Wit(error) => error.is_of_time(),
            Self::NoWitBundles => true,
            _ => false,
        }
    }
}

/// A response of `FetchX509SVID`.
pub(super) fn x509(mut response: X509svidResponse, now: Timestamp) -> Result<X509Credentials, ResponseError> {
    // Wiped on every way out.
    let take = |svid: &mut X509svid| Zeroizing::new(std::mem::take(&mut svid.x509_svid_key));
    let keys: Vec<Zeroizing<Vec<u8>>> = response.svids.iter_mut().map(take).collect();
    if response.svids.is_empty() {
        return Err(ResponseError::Missing("svids"));
    }
    let mut bundles: BTreeMap<TrustDomain, Bundle> = BTreeMap::new();
    let mut ids = Vec::with_capacity(response.svids.len());
    for (position, (svid, key)) in response.svids.iter().zip(&keys).enumerate() {
        no_field_is_empty(svid, key, position)?;
        let id: SpiffeId = svid.spiffe_id.parse().map_err(|source| ResponseError::Id { position, source })?;
        let bundle = Bundle::from_x509_der(id.trust_domain(), &svid.bundle)
            .map_err(|source| ResponseError::Bundle { position, source })?;
        match bundles.get(id.trust_domain()) {
            Some(earlier) if !same_authorities(earlier, &bundle) => {
                return Err(ResponseError::TwoBundles(id.trust_domain().clone()));
            }
            Some(_) => {}
            None => drop(bundles.insert(id.trust_domain().clone(), bundle)),
        }
        ids.push(id);
    }
    for (trust_domain, bundle) in readable(&response.federated_bundles, Bundle::from_x509_der) {
        // The SVID's own bundle takes precedence.
        bundles.entry(trust_domain).or_insert(bundle);
    }
    let bundles = set(bundles);
    let read = |(position, id, svid, key): (usize, SpiffeId, X509svid, &Zeroizing<Vec<u8>>)| {
        let chain = split_certificates(&svid.x509_svid).map_err(|source| ResponseError::Chain { position, source })?;
        Ok::<_, ResponseError>(X509Svid::verified(id, svid.hint, &chain, key, &bundles, now)?)
    };
    let received = ids.into_iter().zip(response.svids).zip(&keys).enumerate();
    let received = received.map(|(position, ((id, svid), key))| (position, id, svid, key));
    let svids = received.map(read).collect::<Result<_, _>>()?;
    Ok(X509Credentials::new(svids, bundles))
}

/// A response of `FetchJWTBundles`.
pub(super) fn jwt_bundles(response: &JwtBundlesResponse) -> Result<BundleSet, ResponseError> {
    if response.bundles.is_empty() {
        return Err(ResponseError::Missing("bundles"));
    }
    Ok(set(readable(&response.bundles, Bundle::from_jwk_set)))
}

/// A response of `FetchWITBundles`.
pub(super) fn wit_bundles(response: &WitBundlesResponse) -> Result<BundleSet, ResponseError> {
    if response.bundles.is_empty() {
        return Err(ResponseError::Missing("bundles"));
    }
    Ok(set(readable(&response.bundles, Bundle::from_wit_jwk_set)))
}

/// A response of `FetchWITSVID`.
pub(super) fn wit_svids(
    response: WitsvidResponse,
    bundles: &BundleSet,
    now: Timestamp,
) -> Result<WitSvids, ResponseError> {
    // All of them are wiped, also those behind one that cannot be read.
    let wiped = |Witsvid { spiffe_id, wit_svid, wit_svid_key, hint }| {
        (spiffe_id, Zeroizing::new(wit_svid), Zeroizing::new(wit_svid_key), hint)
    };
    let received: Vec<_> = response.svids.into_iter().map(wiped).collect();
    if received.is_empty() {
        return Err(ResponseError::Missing("svids"));
    }
    let mut svids = Vec::with_capacity(received.len());
    for (position, (spiffe_id, token, key, hint)) in received.into_iter().enumerate() {
        let fields = [("spiffe_id", &spiffe_id), ("wit_svid", &*token), ("wit_svid_key", &*key)];
        if let Some((field, _)) = fields.into_iter().find(|(_, text)| text.is_empty()) {
            return Err(ResponseError::EmptyField { position, field });
        }
        let id = spiffe_id.parse().map_err(|source| ResponseError::Id { position, source })?;
        svids.push(WitSvid::verified(id, hint, token, &key, bundles, now)?);
    }
    Ok(WitSvids::new(svids))
}

/// Whether they are the same certificates, in whichever order.
fn same_authorities(one: &Bundle, other: &Bundle) -> bool {
    let holds =
        |bundle: &Bundle, of: &Bundle| of.x509_authorities.iter().all(|ca| bundle.x509_authorities.contains(ca));
    holds(one, other) && holds(other, one)
}

fn no_field_is_empty(svid: &X509svid, key: &[u8], position: usize) -> Result<(), ResponseError> {
    let empty = [
        ("spiffe_id", svid.spiffe_id.is_empty()),
        ("x509_svid", svid.x509_svid.is_empty()),
        ("x509_svid_key", key.is_empty()),
        ("bundle", svid.bundle.is_empty()),
    ];
    match empty.into_iter().find(|(_, is_empty)| *is_empty) {
        Some((field, _)) => Err(ResponseError::EmptyField { position, field }),
        None => Ok(()),
    }
}

/// The bundles that can be read, by trust domain. A trust domain that is named in two spellings has none.
fn readable(
    bundles: &BTreeMap<String, impl AsRef<[u8]>>,
    read: fn(&TrustDomain, &[u8]) -> Result<Bundle, BundleError>,
) -> BTreeMap<TrustDomain, Bundle> {
    let mut found: BTreeMap<TrustDomain, Option<Bundle>> = BTreeMap::new();
    for (name, content) in bundles {
        let trust_domain: TrustDomain = match name.strip_prefix("spiffe://").unwrap_or(name).parse() {
            Ok(trust_domain) => trust_domain,
            Err(error) => {
                tracing::warn!(%error, "a bundle from the Workload API is not used: its key is no trust domain");
                continue;
            }
        };
        let bundle = read(&trust_domain, content.as_ref());
        if let Err(error) = &bundle {
            tracing::warn!(%trust_domain, %error, "a bundle from the Workload API is not used, and nobody of its trust domain accepted");
        }
        let is_twice = found.contains_key(&trust_domain);
        if is_twice {
            tracing::warn!(%trust_domain, "two bundles from the Workload API are of one trust domain: neither is used");
        }
        found.insert(trust_domain, if is_twice { None } else { bundle.ok() });
    }
    found.into_iter().filter_map(|(trust_domain, bundle)| Some((trust_domain, bundle?))).collect()
}

fn set(bundles: BTreeMap<TrustDomain, Bundle>) -> BundleSet {
    let mut set = BundleSet::default();
    for bundle in bundles.into_values() {
        // Each is there once, by the map.
        let _ = set.insert(bundle);
    }
    set
}
