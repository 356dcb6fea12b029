//! Reads the credential files repeatedly while they are renewed, as a program without the Workload API would.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::json;
use tokio::time::interval;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::report::say;

/// The interval between two reads, far shorter than other programs would use.
const EVERY: Duration = Duration::from_millis(1);

/// Reads until the given number of changes was seen, and reports how often key and certificate did not match or could not
/// be read. It reads the combined file by its path, and the two separate files in one directory that is resolved once for
/// both.
pub(crate) async fn read(changes: usize) -> Result<()> {
    let folder =
        PathBuf::from(std::env::var_os("SPIFFE_CREDENTIAL_FOLDER").context("SPIFFE_CREDENTIAL_FOLDER is not set")?);
    let (mut serials, mut reads, mut failures) = (BTreeSet::new(), 0_u64, Vec::new());
    let mut tick = interval(EVERY);
    while serials.len() <= changes {
        tick.tick().await;
        for seen in [bundle(&folder), pair(&folder)] {
            reads += 1;
            match seen {
                Ok(serial) => drop(serials.insert(serial)),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
    }
    failures.truncate(5);
    say(&json!({ "event": "files", "reads": reads, "serials": serials.len(), "failures": failures }));
    Ok(())
}

/// The file that holds key and chain.
pub(crate) const CREDENTIAL_BUNDLE: &str = "credential-bundle.private-key.x509.pem";

fn bundle(folder: &Path) -> Result<String> {
    let text = std::fs::read(folder.join(CREDENTIAL_BUNDLE)).context("read the credential bundle")?;
    belong_together(&text, &text).context("the credential bundle")
}

fn pair(folder: &Path) -> Result<String> {
    let now = std::fs::canonicalize(folder).context("look the folder up")?;
    let read = |name: &str| std::fs::read(now.join(name)).with_context(|| format!("read {name}"));
    belong_together(&read("tls.key")?, &read("tls.crt")?).context("tls.key and tls.crt")
}

/// The certificate's serial number, if it matches the key.
fn belong_together(key: &[u8], certificate: &[u8]) -> Result<String> {
    let key = any_supported_type(&PrivateKeyDer::from_pem_slice(key).context("read the key")?)?;
    let leaf = CertificateDer::from_pem_slice(certificate).context("read the certificate")?;
    let (_, leaf) = X509Certificate::from_der(&leaf).context("read the certificate")?;
    let public = key.public_key().context("the key has no public key")?;
    ensure!(public.as_ref() == leaf.public_key().raw, "the certificate is not of the key");
    Ok(format!("{:x}", leaf.serial))
}
