//! A signing authority: its certificate and the key behind it, prepared to issue.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::rand;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, SanType,
};

use super::ca::CaCertificate;
use super::issue::{
    BACKDATE, IssueError, IssuedX509, Leaf, LeafRequest, offset_date_time, serial_number, whole_seconds,
};
use super::signing::RcgenSigner;
use crate::id::{SpiffeId, TrustDomain};
use crate::key::{KeyType, PrivateKey, Signer};

/// Signs certificates: SVIDs when its certificate names a trust domain, otherwise the control
/// plane's server certificates.
pub struct X509Authority {
    certificate: CaCertificate,
    /// ASN.1 DER: what goes along with every leaf. Empty for a root.
    issuing_chain: Vec<Vec<u8>>,
    issuer: Issuer<'static, RcgenSigner>,
}

impl X509Authority {
    /// A new root of `trust_domain` under a new key that is never stored. To store the key, make it
    /// first and call [`Self::self_signed`].
    ///
    /// # Errors
    /// When no key can be made, or as [`Self::self_signed`].
    pub fn generate(
        trust_domain: &TrustDomain,
        key_type: KeyType,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Self, IssueError> {
        Self::self_signed(trust_domain, PrivateKey::generate(key_type)?, lifetime, now)
    }

    /// A new root of `trust_domain` for `key`: self-signed, of a random name, with the trust
    /// domain's id as its only SAN; valid from [`BACKDATE`] before `now` to `lifetime` after.
    ///
    /// # Errors
    /// When the lifetime is zero or too long, or signing fails.
    pub fn self_signed(
        trust_domain: &TrustDomain,
        key: impl Signer + 'static,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Self, IssueError> {
        Self::root(Some(trust_domain), key, lifetime, now)
    }

    /// A new root of the control plane under a new key that is never stored; it has no SPIFFE ID.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn generate_control_plane(key_type: KeyType, lifetime: Duration, now: Timestamp) -> Result<Self, IssueError> {
        Self::self_signed_control_plane(PrivateKey::generate(key_type)?, lifetime, now)
    }

    /// A new root of the control plane for `key`; it has no SPIFFE ID.
    ///
    /// # Errors
    /// As [`Self::self_signed`].
    pub fn self_signed_control_plane(
        key: impl Signer + 'static,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Self, IssueError> {
        Self::root(None, key, lifetime, now)
    }

    /// The authority of a stored certificate and its key. `issuing_chain` goes along with every leaf: empty for a root, else
    /// the certificate itself first, then those above it up to the one below the trust anchor.
    ///
    /// # Errors
    /// [`IssueError::KeyMismatch`] when the key is not the certificate's.
    pub fn from_parts(
        certificate: CaCertificate,
        issuing_chain: &[CaCertificate],
        key: impl Signer + 'static,
    ) -> Result<Self, IssueError> {
        let signer = RcgenSigner::new(key);
        if signer.public_key().der() != certificate.spki_der() {
            return Err(IssueError::KeyMismatch);
        }
        let issuer = Issuer::from_ca_cert_der(certificate.certificate_der(), signer).map_err(IssueError::encoding)?;
        let issuing_chain = issuing_chain.iter().map(|certificate| certificate.der().to_vec()).collect();
        Ok(Self { certificate, issuing_chain, issuer })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    /// The trust domain it signs for; none for the control plane's.
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        self.certificate.spiffe_id().map(SpiffeId::trust_domain)
    }

    /// Issues an X509-SVID (X509-SVID, sections 2 to 4): one URI SAN, `cA` false,
    /// `digitalSignature`, server and client authentication. It begins [`BACKDATE`] before `now`
    /// and never outlives the authority.
    ///
    /// # Errors
    /// When the id is of another trust domain or without path, a DNS name is none, the authority is
    /// not valid at `now`, or signing fails.
    pub fn issue(&self, request: &LeafRequest<'_>, now: Timestamp) -> Result<IssuedX509, IssueError> {
        let trust_domain = self.trust_domain().ok_or(IssueError::ControlPlane)?;
        if request.id.trust_domain() != trust_domain {
            return Err(IssueError::OtherTrustDomain { id: request.id.clone(), authority: trust_domain.clone() });
        }
        if request.id.path().is_empty() {
            return Err(IssueError::IdWithoutPath { id: request.id.clone() });
        }
        Leaf { spki: request.spki, id: Some(request.id), dns_names: request.dns_names, ttl: request.ttl }.sign(
            &self.certificate,
            &self.issuing_chain,
            &self.issuer,
            now,
        )
    }

    /// Issues a server certificate of the control plane for `dns_names`, at least one.
    ///
    /// # Errors
    /// [`IssueError::WorkloadAuthority`] on the authority of a trust domain: the two have separate roots. Else as
    /// [`Self::issue`].
    pub fn issue_server(
        &self,
        spki: &crate::key::SubjectPublicKeyInfo,
        dns_names: &[String],
        ttl: Duration,
        now: Timestamp,
    ) -> Result<IssuedX509, IssueError> {
        if self.trust_domain().is_some() {
            return Err(IssueError::WorkloadAuthority);
        }
        if dns_names.is_empty() {
            return Err(IssueError::NoName);
        }
        Leaf { spki, id: None, dns_names, ttl }.sign(&self.certificate, &self.issuing_chain, &self.issuer, now)
    }

    fn root(
        trust_domain: Option<&TrustDomain>,
        key: impl Signer + 'static,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Self, IssueError> {
        let signer = RcgenSigner::new(key);
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial_number()?);
        // Roots of one name make verifiers try each of them in turn, up to a limit: every root has
        // its own.
        params.distinguished_name = root_name(trust_domain)?;
        params.not_before = offset_date_time(now.as_second().saturating_sub(whole_seconds(BACKDATE)))?;
        params.not_after = offset_date_time(now.as_second().saturating_add(whole_seconds(lifetime)))?;
        if whole_seconds(lifetime) == 0 {
            return Err(IssueError::Lifetime);
        }
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.key_identifier_method = KeyIdMethod::PreSpecified(signer.public_key().key_id().to_vec());
        if let Some(trust_domain) = trust_domain {
            let uri = trust_domain.id_string().try_into().map_err(IssueError::encoding)?;
            params.subject_alt_names = vec![SanType::URI(uri)];
        }
        let der = params.self_signed(&signer).map_err(IssueError::encoding)?;
        let certificate =
            CaCertificate::from_der(der.der()).map_err(|error| IssueError::Encoding { reason: error.to_string() })?;
        Ok(Self { certificate, issuing_chain: Vec::new(), issuer: Issuer::new(params, signer) })
    }
}

impl fmt::Debug for X509Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn root_name(trust_domain: Option<&TrustDomain>) -> Result<DistinguishedName, IssueError> {
    let mut random = [0; 8];
    rand::fill(&mut random).map_err(|_| IssueError::Random)?;
    let kind = if trust_domain.is_some() { "authority" } else { "control plane" };
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Countersign");
    name.push(DnType::CommonName, format!("{kind} {:016x}", u64::from_be_bytes(random)));
    Ok(name)
}
