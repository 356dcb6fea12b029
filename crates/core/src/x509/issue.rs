//! Leaves: what is asked of an authority, and what comes out.

use std::time::Duration;

use aws_lc_rs::rand;
use jiff::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, SanType,
    SerialNumber,
};
use rustls_pki_types::DnsName;
use time::OffsetDateTime;

use super::ca::CaCertificate;
use super::signing::{RcgenSigner, Subject};
use crate::id::{SpiffeId, TrustDomain};
use crate::key::{KeyError, SubjectPublicKeyInfo};

/// How long before its issue a certificate begins to be valid, so that a clock a little behind
/// accepts it.
pub const BACKDATE: Duration = Duration::from_secs(30);

/// The most DNS names in one certificate.
pub const MAX_DNS_NAMES: usize = 64;

/// What a leaf is to say.
#[derive(Clone, Copy, Debug)]
pub struct LeafRequest<'a> {
    /// The workload's public key, from its CSR.
    pub spki: &'a SubjectPublicKeyInfo,
    /// The workload's id, of the authority's trust domain and with a path.
    pub id: &'a SpiffeId,
    /// DNS SANs beside the id: without wildcards, at most [`MAX_DNS_NAMES`].
    pub dns_names: &'a [String],
    /// From now; shortened to the authority's end.
    pub ttl: Duration,
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedX509 {
    /// ASN.1 DER, leaf first, then the authority's issuing chain; the trust anchor is not among them.
    pub chain: Vec<Vec<u8>>,
    /// Of the leaf: positive, big-endian, 16 bytes.
    pub serial: Vec<u8>,
    /// Of the leaf, in whole seconds.
    pub not_before: Timestamp,
    /// Of the leaf, in whole seconds.
    pub not_after: Timestamp,
    /// The subject key id of the authority that signed it.
    pub authority_key_id: Vec<u8>,
}

/// Why an authority cannot be made, or did not issue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The id belongs to another trust domain.
    #[error("{id} is not of trust domain {authority}, for which this authority signs")]
    OtherTrustDomain {
        /// The id that was asked for.
        id: SpiffeId,
        /// The authority's own.
        authority: TrustDomain,
    },
    /// The id is that of a trust domain.
    #[error("{id} has no path; a workload's id has one (X509-SVID, section 5.2)")]
    IdWithoutPath {
        /// The id that was asked for.
        id: SpiffeId,
    },
    /// The control plane's authority issues no SVIDs.
    #[error("the control plane's authority issues no SVIDs; ask the authority of a trust domain")]
    ControlPlane,
    /// The authority of a trust domain issues no server certificates.
    #[error("the authority of a trust domain issues no server certificates; ask the control plane's")]
    WorkloadAuthority,
    /// A server certificate without a name.
    #[error("a server certificate needs at least one DNS name")]
    NoName,
    /// A text that is no DNS name, or a wildcard.
    #[error("DNS name {name:?} is not one: letters, digits, '-' and '_' in labels of at most 63, without wildcard")]
    DnsName {
        /// As it was asked for.
        name: String,
    },
    /// More names than [`MAX_DNS_NAMES`].
    #[error("{count} DNS names are more than {MAX_DNS_NAMES}")]
    TooManyDnsNames {
        /// How many were asked for.
        count: usize,
    },
    /// Less than a second, or beyond what a certificate can say.
    #[error("lifetime is shorter than a second or ends after the year 9999")]
    Lifetime,
    /// The authority's certificate is expired or not yet valid.
    #[error("authority is valid from {not_before} to {not_after}, not at {now}")]
    AuthorityNotValid {
        /// When it begins.
        not_before: Timestamp,
        /// When it ends.
        not_after: Timestamp,
        /// When it was asked.
        now: Timestamp,
    },
    /// The key is not the certificate's.
    #[error("the key is not the one of the authority's certificate")]
    KeyMismatch,
    /// An authority that another one signed lacks its certificate or a trust anchor.
    #[error("an authority that another one signed needs its own certificate and a trust anchor")]
    IssuingChain,
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    Random,
    /// The certificate could not be built or signed.
    #[error("building or signing the certificate failed: {reason}")]
    Encoding {
        /// Without any secret.
        reason: String,
    },
}

impl IssueError {
    pub(super) fn encoding(error: rcgen::Error) -> Self {
        Self::Encoding { reason: error.to_string() }
    }
}

/// A leaf to be signed; who may have it was decided before.
pub(super) struct Leaf<'a> {
    pub(super) spki: &'a SubjectPublicKeyInfo,
    pub(super) id: Option<&'a SpiffeId>,
    pub(super) dns_names: &'a [String],
    pub(super) ttl: Duration,
}

impl Leaf<'_> {
    pub(super) fn sign(
        &self,
        authority: &CaCertificate,
        issuing_chain: &[Vec<u8>],
        issuer: &Issuer<'static, RcgenSigner>,
        now: Timestamp,
    ) -> Result<IssuedX509, IssueError> {
        let (not_before, not_after) = validity(authority, self.ttl, now)?;
        let serial = serial_number()?;
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial.clone());
        params.distinguished_name = DistinguishedName::new();
        params.not_before = offset_date_time(not_before)?;
        params.not_after = offset_date_time(not_after)?;
        params.subject_alt_names = self.names()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.key_identifier_method = KeyIdMethod::PreSpecified(self.spki.key_id().to_vec());
        let leaf = params.signed_by(&Subject(self.spki), issuer).map_err(IssueError::encoding)?;
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| IssueError::Lifetime);
        Ok(IssuedX509 {
            chain: std::iter::once(leaf.der().to_vec()).chain(issuing_chain.iter().cloned()).collect(),
            serial: serial.to_bytes(),
            not_before: time(not_before)?,
            not_after: time(not_after)?,
            authority_key_id: authority.subject_key_id().to_vec(),
        })
    }

    fn names(&self) -> Result<Vec<SanType>, IssueError> {
        if self.dns_names.len() > MAX_DNS_NAMES {
            return Err(IssueError::TooManyDnsNames { count: self.dns_names.len() });
        }
        let mut names = Vec::with_capacity(1 + self.dns_names.len());
        if let Some(id) = self.id {
            names.push(SanType::URI(id.to_string().try_into().map_err(IssueError::encoding)?));
        }
        for name in self.dns_names {
            if DnsName::try_from(name.as_str()).is_err() || name.ends_with('.') {
                return Err(IssueError::DnsName { name: name.clone() });
            }
            names.push(SanType::DnsName(name.as_str().try_into().map_err(IssueError::encoding)?));
        }
        Ok(names)
    }
}

/// Both ends in seconds since the epoch, within those of the authority.
fn validity(authority: &CaCertificate, ttl: Duration, now: Timestamp) -> Result<(i64, i64), IssueError> {
    if !authority.is_valid_at(now) {
        return Err(IssueError::AuthorityNotValid {
            not_before: authority.not_before(),
            not_after: authority.not_after(),
            now,
        });
    }
    let ttl = whole_seconds(ttl);
    if ttl == 0 {
        return Err(IssueError::Lifetime);
    }
    let now = now.as_second();
    let not_before = now.saturating_sub(whole_seconds(BACKDATE)).max(authority.not_before().as_second());
    let not_after = now.saturating_add(ttl).min(authority.not_after().as_second());
    Ok((not_before, not_after))
}

/// A random positive number of 16 bytes (RFC 5280, section 4.1.2.2), 126 bits of it random.
pub(super) fn serial_number() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| IssueError::Random)?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x3f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

pub(super) fn offset_date_time(seconds: i64) -> Result<OffsetDateTime, IssueError> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| IssueError::Lifetime)
}

pub(super) fn whole_seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}
