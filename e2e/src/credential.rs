//! The credentials of a pod: read from its files, parsed, and recorded, so that the last tests can search for them
//! everywhere.

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    prelude::{FromDer as _, X509Certificate},
};

use crate::{World, secrets::RecordedSecrets};

pub use countersign_contract::files::{CREDENTIAL_BUNDLE, CREDENTIAL_FOLDER as FOLDER, TRUST_BUNDLE_SUFFIX};

/// An X509-SVID with its key.
#[derive(Clone)]
pub struct Credential {
    /// The SPIFFE ID.
    pub id: String,
    /// The leaf's serial number, lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of the leaf's public key (SubjectPublicKeyInfo), hexadecimal.
    pub public_key: String,
    /// The subject key id of the authority that signed the leaf, lower-case hexadecimal.
    pub authority: String,
    /// The DNS names.
    pub dns_names: Vec<String>,
    /// The chain, leaf first, DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// The credential bundle as read, PEM.
    pub pem: Vec<u8>,
}

impl Credential {
    /// Parses a credential bundle: key and chain in one PEM.
    ///
    /// # Errors
    /// It is not a credential bundle.
    pub fn parse(pem: Vec<u8>) -> Result<Self> {
        PrivateKeyDer::from_pem_slice(&pem).context("the credential bundle holds no key")?;
        let chain = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .context("the credential bundle's chain")?;
        let leaf = chain.first().context("the credential bundle holds no certificate")?;
        let (_, parsed) = X509Certificate::from_der(leaf).context("the leaf")?;
        let names = parsed.subject_alternative_name().context("the leaf's names")?.context("the leaf has no names")?;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        let id = uris.next().context("the leaf has no URI")?;
        ensure!(uris.next().is_none(), "the leaf has more than one URI");
        let dns_names = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        Ok(Self {
            id,
            serial: format!("{:x}", parsed.serial),
            public_key: format!("{:x}", Sha256::digest(parsed.public_key().raw)),
            authority: authority(&parsed),
            dns_names: dns_names.collect(),
            chain: chain.clone(),
            pem,
        })
    }
}

impl Credential {
    /// The signature algorithm of the leaf, as a dotted object identifier.
    ///
    /// # Errors
    /// There is no leaf.
    pub fn signature_algorithm(&self) -> Result<String> {
        let (_, leaf) = X509Certificate::from_der(self.chain.first().context("no leaf")?).context("the leaf")?;
        Ok(leaf.signature_algorithm.algorithm.to_id_string())
    }
}

/// The authority key id of a certificate, hexadecimal; empty if it has none.
fn authority(certificate: &X509Certificate<'_>) -> String {
    let key_id = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => identifier.key_identifier.as_ref(),
        _ => None,
    });
    key_id.map(|key_id| hex(key_id.0)).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl World {
    /// The subject key ids of the X.509 authorities that a pod trusts for its own trust domain, by its files; lower-case
    /// hexadecimal.
    ///
    /// # Errors
    /// The file is not there, or holds something else.
    pub async fn trusted_authorities(&self, pod: &str) -> Result<Vec<String>> {
        let pem = self.file(pod, &format!("{FOLDER}/ca.crt")).await?;
        let mut authorities = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.context("a certificate of ca.crt")?;
            let (_, parsed) = X509Certificate::from_der(&certificate).context("a certificate of ca.crt")?;
            let key_id = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(key_id) => Some(hex(key_id.0)),
                _ => None,
            });
            authorities.push(key_id.context("an authority without subject key id")?);
        }
        Ok(authorities)
    }

    /// Reads a file in the application's container of a pod, by absolute path.
    ///
    /// # Errors
    /// The application cannot read it.
    pub async fn file(&self, pod: &str, path: &str) -> Result<Vec<u8>> {
        self.demo(pod, &["cat", path]).await
    }

    /// The credential of a pod's default identity.
    ///
    /// # Errors
    /// It has none.
    pub async fn credential(&self, pod: &str) -> Result<Credential> {
        self.credential_in(pod, FOLDER).await
    }

    /// The credential in one of a pod's folders.
    ///
    /// # Errors
    /// There is none.
    pub async fn credential_in(&self, pod: &str, folder: &str) -> Result<Credential> {
        let pem = self.file(pod, &format!("{folder}/{CREDENTIAL_BUNDLE}")).await?;
        RecordedSecrets::of(&self.cluster).await?.key(&pem)?;
        Credential::parse(pem)
    }

    /// The JWT-SVID that a pod gets from the Workload API for an audience.
    ///
    /// # Errors
    /// It gets none.
    pub async fn jwt(&self, pod: &str, audience: &str) -> Result<String> {
        let token = self.demo(pod, &["token", "--audience", audience]).await?;
        self.remember(token).await
    }

    /// The JWT-SVID in a pod's files.
    ///
    /// # Errors
    /// There is none.
    pub async fn jwt_file(&self, pod: &str, audience: &str) -> Result<String> {
        let token = self.file(pod, &format!("{FOLDER}/jwt/{audience}.token")).await?;
        self.remember(token).await
    }

    async fn remember(&self, token: Vec<u8>) -> Result<String> {
        let token = String::from_utf8(token).context("a token in UTF-8")?.trim().to_owned();
        RecordedSecrets::of(&self.cluster).await?.token(&token)?;
        Ok(token)
    }
}
