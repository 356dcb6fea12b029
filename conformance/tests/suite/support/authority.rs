//! Authorities of trust domains, and the X509-SVIDs they issue: right ones, and wrong in one way.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

/// Subjects are unique, so that no verifier takes one authority for another.
static NUMBER: AtomicU32 = AtomicU32::new(1);

/// What signs the X509-SVIDs of a trust domain: a root, or an intermediate below it.
pub(crate) struct Authority {
    /// Its name, such as `example.org`.
    pub(crate) trust_domain: String,
    /// The root, DER.
    pub(crate) root: Vec<u8>,
    /// The intermediate, DER, which is presented with every leaf.
    pub(crate) intermediate: Option<Vec<u8>>,
    issuer: Issuer<'static, KeyPair>,
}

/// An X509-SVID with its key.
#[derive(Clone)]
pub(crate) struct Svid {
    pub(crate) id: String,
    /// Leaf first, DER.
    pub(crate) chain: Vec<Vec<u8>>,
    /// PKCS #8, DER.
    pub(crate) key: Vec<u8>,
}

impl Authority {
    pub(crate) fn new(trust_domain: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = authority_params(trust_domain);
        let root = params.self_signed(&key).unwrap().der().to_vec();
        let trust_domain = trust_domain.to_owned();
        Self { trust_domain, root, intermediate: None, issuer: Issuer::new(params, key) }
    }

    /// An intermediate of the same trust domain.
    pub(crate) fn below(&self) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = authority_params(&self.trust_domain);
        let intermediate = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        let (trust_domain, root) = (self.trust_domain.clone(), self.root.clone());
        Self { trust_domain, root, intermediate: Some(intermediate), issuer: Issuer::new(params, key) }
    }

    /// The SPIFFE ID of this path in the trust domain.
    pub(crate) fn id(&self, path: &str) -> String {
        format!("spiffe://{}{path}", self.trust_domain)
    }

    /// A right X509-SVID.
    pub(crate) fn issue(&self, id: &str) -> Svid {
        self.issue_with(id, |_| {})
    }

    /// An X509-SVID that is right but for what `change` does to it.
    pub(crate) fn issue_with(&self, id: &str, change: impl FnOnce(&mut CertificateParams)) -> Svid {
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (after(-60), after(3600));
        params.distinguished_name = subject("workload");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri(id)];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        let chain = std::iter::once(leaf).chain(self.intermediate.clone()).collect();
        Svid { id: id.to_owned(), chain, key: key.serialize_der() }
    }
}

impl Svid {
    pub(crate) fn leaf(&self) -> &[u8] {
        &self.chain[0]
    }
}

/// A name of the type URI.
pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// So many seconds from now.
pub(crate) fn after(seconds: i64) -> OffsetDateTime {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    OffsetDateTime::from_unix_timestamp(i64::try_from(now.as_secs()).unwrap() + seconds).unwrap()
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn authority_params(trust_domain: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (after(-600), after(86_400));
    params.distinguished_name = subject(&format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))];
    params
}
