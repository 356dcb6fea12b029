//! Authorities of remote trust domains and of the web, what they issue, and what is fetched.

use std::time::Duration;

use countersign_core::bundle::Bundle;
use countersign_core::federation::{Endpoint, FetchError, Fetched, PollTarget, Profile};
use countersign_core::id::TrustDomain;
use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::x509::{LeafRequest, X509Authority};
use countersign_federation::{AddressPolicy, Fetcher, Limits};
use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub(crate) const PEER: &str = "peer.example";
pub(crate) const ENDPOINT_ID: &str = "spiffe://peer.example/bundle-endpoint";
const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);

/// So many seconds after 2026-09-21, on a whole second.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap() + SignedDuration::from_secs(seconds)
}

/// What a server shows, and the key that it has.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// An authority that vouches for host names.
pub(crate) struct WebAuthority {
    /// ASN.1 DER.
    pub(crate) root: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl WebAuthority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().der().to_vec();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// For a host name or an address.
    pub(crate) fn certificate(&self, host: &str) -> Identity {
        self.certificate_with(host, |_| ())
    }

    pub(crate) fn certificate_with(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Identity { chain: vec![leaf], key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
    }

    /// Verified by this authority alone.
    pub(crate) fn profile(&self) -> Profile {
        Profile::HttpsWeb { roots: vec![self.root.clone()] }
    }
}

/// The authority of a trust domain, since an hour before [`at`] 0.
pub(crate) struct Domain {
    pub(crate) authority: X509Authority,
}

impl Domain {
    pub(crate) fn new(name: &str) -> Self {
        let authority = X509Authority::generate(&name.parse().unwrap(), KeyType::EcP256, DAY, at(-3600)).unwrap();
        Self { authority }
    }

    pub(crate) fn bundle(&self) -> Bundle {
        Bundle {
            trust_domain: self.authority.trust_domain().unwrap().clone(),
            x509_authorities: vec![self.authority.certificate().clone()],
            jwt_authorities: Vec::new(),
            wit_authorities: Vec::new(),
            sequence: 1,
            refresh_hint: Duration::from_secs(300),
        }
    }

    pub(crate) fn svid(&self, id: &str) -> Identity {
        self.svid_of(id, HOUR, at(0))
    }

    pub(crate) fn svid_of(&self, id: &str, ttl: Duration, issued: Timestamp) -> Identity {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let id = id.parse().unwrap();
        let request = LeafRequest { spki: key.public_key(), id: &id, dns_names: &[], ttl };
        let chain = self.authority.issue(&request, issued).unwrap().chain;
        let key = PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec());
        Identity { chain: chain.into_iter().map(CertificateDer::from).collect(), key: key.into() }
    }
}

pub(crate) fn spiffe(id: &str) -> Profile {
    Profile::HttpsSpiffe { id: id.parse().unwrap() }
}

/// The bundle of [`PEER`].
pub(crate) fn target(url: &str, profile: Profile, anchors: Option<Bundle>) -> PollTarget {
    let endpoint = Endpoint { url: url.parse().unwrap(), profile };
    let trust_domain: TrustDomain = PEER.parse().unwrap();
    PollTarget { trust_domain, endpoint, revision: None, anchors }
}

/// One that calls 127.0.0.0/8 too, at [`at`] 0, and whose limits are no concern.
pub(crate) fn fetcher() -> Fetcher {
    let total = Duration::from_secs(30);
    Fetcher::new(loopback()).with_clock(|| at(0)).with_limits(Limits { total, connect: total })
}

pub(crate) fn loopback() -> AddressPolicy {
    AddressPolicy::allowing(["127.0.0.0/8".parse().unwrap()])
}

pub(crate) async fn fetch(
    fetcher: &Fetcher,
    target: PollTarget,
    anchors: Option<&Bundle>,
) -> Result<Fetched, FetchError> {
    let observation = fetcher.fetch(target.clone(), anchors).await;
    assert_eq!(observation.target, target);
    observation.result
}
