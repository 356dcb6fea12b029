//! Trust domains with their authorities, and SVIDs that do not change.

use std::{sync::Arc, time::Duration};

use countersign_core::{
    bundle::{Bundle, BundleSet},
    jwt::{JwtAuthority, JwtRequest},
    key::{KeyType, PrivateKey},
    wit::{WitAuthority, WitRequest},
    x509::{LeafRequest, X509Authority},
};
use countersign_verify::{
    SpiffeId,
    tls::{FixedBundles, Svid},
};
use jiff::Timestamp;
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

pub(crate) const TTL: Duration = Duration::from_secs(3600);

pub(crate) struct Domain {
    pub(crate) x509: X509Authority,
    pub(crate) jwt: JwtAuthority,
    pub(crate) wit: WitAuthority,
}

/// A WIT-SVID with its key.
#[derive(Clone)]
pub(crate) struct Wit {
    pub(crate) token: String,
    pub(crate) key: PrivateKey,
}

/// An X509-SVID with its key.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: PrivateKey,
}

impl Domain {
    pub(crate) fn new(name: &str) -> Self {
        let x509 = X509Authority::generate(&name.parse().unwrap(), KeyType::EcP256, TTL * 24, Timestamp::now());
        let (jwt, wit) = (JwtAuthority::generate(KeyType::EcP256), WitAuthority::generate(KeyType::EcP256));
        Self { x509: x509.unwrap(), jwt: jwt.unwrap(), wit: wit.unwrap() }
    }

    pub(crate) fn bundle(&self) -> Bundle {
        Bundle {
            trust_domain: self.x509.trust_domain().unwrap().clone(),
            x509_authorities: vec![self.x509.certificate().clone()],
            jwt_authorities: vec![self.jwt.verification_key().clone()],
            wit_authorities: vec![self.wit.verification_key().clone()],
            sequence: 1,
            refresh_hint: TTL,
        }
    }

    pub(crate) fn id(&self, path: &str) -> SpiffeId {
        SpiffeId::new(self.x509.trust_domain().unwrap(), path).unwrap()
    }

    pub(crate) fn svid(&self, path: &str) -> Fixed {
        let (id, key) = (self.id(path), PrivateKey::generate(KeyType::EcP256).unwrap());
        let request = LeafRequest { spki: key.public_key(), id: &id, dns_names: &[], ttl: TTL };
        Fixed { chain: self.x509.issue(&request, Timestamp::now()).unwrap().chain, key }
    }

    pub(crate) fn wit(&self, path: &str) -> Wit {
        let (id, key) = (self.id(path), PrivateKey::generate(KeyType::EcP256).unwrap());
        let request = WitRequest { id: &id, confirmation: key.public_key(), ttl: TTL };
        Wit { token: self.wit.issue(&request, Timestamp::now()).unwrap().token.to_string(), key }
    }

    pub(crate) fn token(&self, path: &str, audience: &str, ttl: Duration) -> String {
        let (id, audiences) = (self.id(path), [audience.to_owned()]);
        let request = JwtRequest { id: &id, audiences: &audiences, ttl, issuer: None };
        self.jwt.issue(&request, Timestamp::now()).unwrap().token.to_string()
    }
}

pub(crate) fn trusting(domains: &[&Domain]) -> Arc<FixedBundles> {
    Arc::new(FixedBundles(bundle_set(domains)))
}

pub(crate) fn bundle_set(domains: &[&Domain]) -> Arc<BundleSet> {
    Arc::new(BundleSet::new(domains.iter().map(|domain| domain.bundle())).unwrap())
}

impl Svid for Fixed {
    fn certified_key(&self) -> Option<Arc<CertifiedKey>> {
        let chain = self.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.pkcs8_der().to_vec()));
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).ok().map(Arc::new)
    }
}
