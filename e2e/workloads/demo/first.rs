//! Reports which credentials exist at the first instruction.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{files::CREDENTIAL_BUNDLE, report::say};

/// The credential bundle at the time of reading.
#[derive(Debug)]
pub(crate) struct Sight {
    at: Timestamp,
    bundle: std::io::Result<Vec<u8>>,
}

impl Sight {
    /// Reads the credential bundle.
    pub(crate) fn now() -> Self {
        let at = Timestamp::now();
        let folder = std::env::var_os("SPIFFE_CREDENTIAL_FOLDER").unwrap_or_default();
        Self { at, bundle: std::fs::read(PathBuf::from(folder).join(CREDENTIAL_BUNDLE)) }
    }

    /// Reports the time, whether the bundle existed, its identity, and the hash of its public key.
    pub(crate) fn report(self) -> Result<()> {
        let at = self.at.to_string();
        let bundle = match self.bundle {
            Ok(bundle) => bundle,
            Err(error) => {
                say(&json!({ "event": "first-instruction", "at": at, "present": false, "error": error.to_string() }));
                return Ok(());
            }
        };
        let leaf = CertificateDer::from_pem_slice(&bundle).context("the bundle holds no certificate")?;
        let (_, parsed) = X509Certificate::from_der(&leaf).context("read the certificate")?;
        say(&json!({
            "event": "first-instruction",
            "at": at,
            "present": true,
            "id": spiffe::cert::spiffe_id_from_der(&leaf)?.to_string(),
            "serial": format!("{:x}", parsed.serial),
            "public_key": format!("{:x}", Sha256::digest(parsed.public_key().raw)),
        }));
        Ok(())
    }
}
