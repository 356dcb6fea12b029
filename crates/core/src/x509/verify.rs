//! Verification of an X509-SVID against bundles (X509-SVID, section 5; RFC 5280, section 6).

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};
use x509_parser::certificate::X509Certificate;

use super::ca::{CaCertificate, CaCertificateError};
use super::extensions::{self, Extensions};
use crate::bundle::BundleSet;
use crate::id::{IdError, SpiffeId, TrustDomain};

/// The most certificates in a chain that is looked at.
pub const MAX_CHAIN_LENGTH: usize = 10;

/// Why a chain is not an X509-SVID that we trust.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum X509SvidError {
    /// No certificate at all.
    #[error("chain is empty")]
    Empty,
    /// More certificates than [`MAX_CHAIN_LENGTH`].
    #[error("chain of {length} certificates is longer than {MAX_CHAIN_LENGTH}")]
    TooLong {
        /// How many there are.
        length: usize,
    },
    /// A certificate that cannot be read.
    #[error("certificate {position} of the chain is not one X.509 v3 certificate in strict DER of at most 64 KiB")]
    Malformed {
        /// 0 is the leaf.
        position: usize,
    },
    /// Not exactly one URI name.
    #[error("leaf has {count} URI SANs; an X509-SVID has exactly one")]
    UriNames {
        /// How many there are.
        count: usize,
    },
    /// The URI name is not a SPIFFE ID.
    #[error("leaf's URI SAN: {0}")]
    Id(#[from] IdError),
    /// The leaf's id is that of a trust domain.
    #[error("leaf's id {id} has no path; it is that of an authority")]
    IdWithoutPath {
        /// The id.
        id: SpiffeId,
    },
    /// The subject is empty, and the names are not critical.
    #[error("leaf has an empty subject, and its subject alternative name is not critical")]
    NamesNotCritical,
    /// The leaf is an authority.
    #[error("leaf has cA set; the certificate of an authority is no X509-SVID of a workload")]
    LeafIsCa,
    /// The leaf's key usage is not as it must be.
    #[error("leaf's key usage must be there, critical, with digitalSignature and without keyCertSign and cRLSign")]
    KeyUsage,
    /// The leaf's extended key usage lacks one of the two.
    #[error("leaf's extended key usage has not both server and client authentication")]
    ExtendedKeyUsage,
    /// No bundle of the leaf's trust domain.
    #[error("trust domain {0} is not trusted: there is no bundle of it")]
    UntrustedDomain(TrustDomain),
    /// The bundle has no authority that is valid now.
    #[error("bundle of {0} has no authority that is valid at this time")]
    NoAuthority(TrustDomain),
    /// The leaf or an intermediate is expired.
    #[error("a certificate of the chain expired; check the clocks of both sides, and that the peer renews")]
    Expired,
    /// The leaf or an intermediate is not yet valid.
    #[error("a certificate of the chain is not yet valid; check the clocks of both sides")]
    NotYetValid,
    /// No path leads to an authority of the bundle.
    #[error("chain does not lead to an authority of {trust_domain}: {reason}")]
    Path {
        /// The leaf's.
        trust_domain: TrustDomain,
        /// As the path builder says.
        reason: String,
    },
    /// An intermediate of the path may not sign.
    #[error("intermediate certificate: {0}")]
    Intermediate(CaCertificateError),
}

/// Verifies a chain, leaf first, at `now`, and returns the leaf's id. The leaf's trust domain alone
/// selects the bundle.
///
/// # Errors
/// With the first rule of X509-SVID or RFC 5280 that the chain breaks.
pub fn verify_x509_svid(chain_der: &[&[u8]], bundles: &BundleSet, now: Timestamp) -> Result<SpiffeId, X509SvidError> {
    let (leaf, rest) = chain_der.split_first().ok_or(X509SvidError::Empty)?;
    if chain_der.len() > MAX_CHAIN_LENGTH {
        return Err(X509SvidError::TooLong { length: chain_der.len() });
    }
    let id = leaf_id(leaf)?;
    let trust_domain = id.trust_domain();
    let bundle = bundles.get(trust_domain).ok_or_else(|| X509SvidError::UntrustedDomain(trust_domain.clone()))?;
    // A trust anchor has no dates of its own in a path check: an expired authority is left out
    // here.
    let valid = bundle.x509_authorities.iter().filter(|authority| authority.is_valid_at(now));
    let anchors: Vec<TrustAnchor<'_>> = valid.map(CaCertificate::anchor).collect();
    if anchors.is_empty() {
        return Err(X509SvidError::NoAuthority(trust_domain.clone()));
    }
    check_path(leaf, rest, &anchors, trust_domain, now)?;
    Ok(id)
}

/// The id in the leaf of an X509-SVID, ASN.1 DER, which keeps every rule that a leaf alone can break (X509-SVID, sections 2 to 4).
/// Whether it is trusted is not looked at: [`verify_x509_svid`] does.
///
/// # Errors
/// With the first rule that it breaks.
pub fn leaf_id(der: &[u8]) -> Result<SpiffeId, X509SvidError> {
    let malformed = |_| X509SvidError::Malformed { position: 0 };
    let certificate = extensions::parse(der).map_err(malformed)?;
    let read = Extensions::read(&certificate).map_err(malformed)?;
    let id = only_id(&read)?;
    let broken = broken_rules(&certificate, &read, Some(&id)).next();
    match broken {
        Some(broken) => Err(broken),
        None => Ok(id),
    }
}

/// Every rule that a leaf, ASN.1 DER, breaks alone: the errors of which [`leaf_id`] returns the first. None: it is the leaf of an
/// X509-SVID.
pub fn leaf_faults(der: &[u8]) -> Vec<X509SvidError> {
    let Ok(certificate) = extensions::parse(der) else { return vec![X509SvidError::Malformed { position: 0 }] };
    let Ok(read) = Extensions::read(&certificate) else { return vec![X509SvidError::Malformed { position: 0 }] };
    let (id, no_id) = match only_id(&read) {
        Ok(id) => (Some(id), None),
        Err(error) => (None, Some(error)),
    };
    no_id.into_iter().chain(broken_rules(&certificate, &read, id.as_ref())).collect()
}

fn only_id(read: &Extensions<'_>) -> Result<SpiffeId, X509SvidError> {
    let [uri] = read.uris.as_slice() else {
        return Err(X509SvidError::UriNames { count: read.uris.len() });
    };
    Ok(uri.parse()?)
}

/// What else a leaf alone must keep; `id` is the one that it names.
fn broken_rules(
    certificate: &X509Certificate<'_>,
    read: &Extensions<'_>,
    id: Option<&SpiffeId>,
) -> impl Iterator<Item = X509SvidError> {
    let id = id.filter(|id| id.path().is_empty());
    let is_unnamed = certificate.subject().iter_rdn().next().is_none();
    let keeps_key_usage = read
        .key_usage
        .as_ref()
        .is_some_and(|usage| usage.critical && usage.digital_signature && !usage.key_cert_sign && !usage.crl_sign);
    let keeps_purposes = read.extended_key_usage.as_ref().is_none_or(|usage| usage.server_auth && usage.client_auth);
    [
        read.ca.then_some(X509SvidError::LeafIsCa),
        id.map(|id| X509SvidError::IdWithoutPath { id: id.clone() }),
        (is_unnamed && !read.san_critical).then_some(X509SvidError::NamesNotCritical),
        (!keeps_key_usage).then_some(X509SvidError::KeyUsage),
        (!keeps_purposes).then_some(X509SvidError::ExtendedKeyUsage),
    ]
    .into_iter()
    .flatten()
}

fn check_path(
    leaf: &[u8],
    intermediates: &[&[u8]],
    anchors: &[TrustAnchor<'_>],
    trust_domain: &TrustDomain,
    now: Timestamp,
) -> Result<(), X509SvidError> {
    let refused = |error| match error {
        webpki::Error::CertExpired { .. } => X509SvidError::Expired,
        webpki::Error::CertNotValidYet { .. } => X509SvidError::NotYetValid,
        error => X509SvidError::Path { trust_domain: trust_domain.clone(), reason: error.to_string() },
    };
    let leaf = CertificateDer::from(leaf);
    let leaf = EndEntityCert::try_from(&leaf).map_err(refused)?;
    let intermediates: Vec<CertificateDer<'_>> = intermediates.iter().map(|der| CertificateDer::from(*der)).collect();
    let since_epoch = std::time::Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
    let time = UnixTime::since_unix_epoch(since_epoch);
    let usage = KeyUsage::client_auth();
    let path = leaf
        .verify_for_usage(ALL_VERIFICATION_ALGS, anchors, &intermediates, time, usage, None, None)
        .map_err(refused)?;
    // The path builder looks at cA, dates and signatures; what else X509-SVID asks of those who
    // sign is checked here.
    path.intermediate_certificates()
        .try_for_each(|intermediate| CaCertificate::from_der(intermediate.der().as_ref()).map(|_| ()))
        .map_err(X509SvidError::Intermediate)
}
