//! Sets of files as an agent writes them, for tests.

use std::time::Duration;

use countersign_core::{
    bundle::Bundle,
    id::{SpiffeId, TrustDomain},
    jwt::JwtAuthority,
    key::{KeyType, PrivateKey},
    wit::WitAuthority,
    x509::{LeafRequest, X509Authority},
};
use jiff::Timestamp;

use crate::publication::Entry;

const HOUR: Duration = Duration::from_secs(3600);

/// A trust domain with its authorities.
#[derive(Debug)]
pub(crate) struct TestDomain {
    /// Its name.
    pub(crate) name: TrustDomain,
    /// Signs SVIDs.
    pub(crate) x509: X509Authority,
    /// Signs tokens.
    pub(crate) jwt: JwtAuthority,
    /// Signs WIT-SVIDs.
    wit: WitAuthority,
}

impl TestDomain {
    /// A new one.
    #[must_use]
    pub(crate) fn new(name: &str, now: Timestamp) -> Self {
        let name: TrustDomain = name.parse().unwrap();
        let x509 = X509Authority::generate(&name, KeyType::EcP256, HOUR, now).unwrap();
        let (jwt, wit) =
            (JwtAuthority::generate(KeyType::EcP256).unwrap(), WitAuthority::generate(KeyType::EcP256).unwrap());
        Self { name, x509, jwt, wit }
    }

    /// Its bundle.
    #[must_use]
    pub(crate) fn bundle(&self) -> Bundle {
        Bundle {
            trust_domain: self.name.clone(),
            x509_authorities: vec![self.x509.certificate().clone()],
            jwt_authorities: vec![self.jwt.verification_key().clone()],
            wit_authorities: vec![self.wit.verification_key().clone()],
            sequence: 7,
            refresh_hint: Duration::from_secs(17),
        }
    }

    /// Its bundle document, with a key of a use that nobody here knows, and white space that a writer of ours does not make.
    #[must_use]
    pub(crate) fn document(&self) -> Vec<u8> {
        let mut document: serde_json::Value = serde_json::from_slice(&self.bundle().to_json()).unwrap();
        let mut later = document["keys"][1].clone();
        later["use"] = "later-svid".into();
        later["kid"] = "later".into();
        document["keys"].as_array_mut().unwrap().push(later);
        serde_json::to_vec_pretty(&document).unwrap()
    }

    /// The files of its identity in a directory (empty, or with a slash at its end).
    #[must_use]
    pub(crate) fn files(&self, directory: &str, issuer: Option<&str>, now: Timestamp) -> Vec<Entry> {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let id = SpiffeId::new(&self.name, "/countersign/endpoint").unwrap();
        let request = LeafRequest { spki: key.public_key(), id: &id, dns_names: &[], ttl: HOUR };
        let chain = self.x509.issue(&request, now).unwrap().chain;
        let chain: String = chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
        let mut files = vec![
            entry(directory, "tls.crt", chain.as_bytes()),
            entry(directory, "tls.key", key.pkcs8_pem().as_bytes()),
            entry(directory, &format!("{}.spiffe-bundle.json", self.name), &self.document()),
        ];
        if let Some(issuer) = issuer {
            files.push(entry(directory, &format!("{}.jwt-issuer", self.name), issuer.as_bytes()));
        }
        files
    }
}

/// A file.
#[must_use]
pub(crate) fn entry(directory: &str, name: &str, content: &[u8]) -> Entry {
    Entry { path: format!("{directory}{name}"), content: content.to_vec().into() }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
