//! The control plane's roots: those of the pod's own spec, and those pushed later, which are stored in the agent's private
//! volume so that a restarted agent of an old pod knows the current ones.

use std::io;
use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Current and next, with room for a mistake.
const MAX_PUSHED: usize = 8;

/// The pushed roots are refused or cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// More than any operator has.
    #[error("the issuer pushed {0} control-plane roots, more than {MAX_PUSHED}: ignored")]
    TooMany(usize),
    /// Not certificates.
    #[error("the issuer pushed a control-plane root that is no certificate: ignored")]
    NotACertificate,
    /// Not written.
    #[error("cannot keep the control plane's roots in {path}: {source}; a restart of the agent will not know them")]
    Unwritable {
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

/// Roots by their origin. A push is the full state: a root that is no longer pushed is no longer trusted, except for those
/// in the pod's spec, which are trusted as long as the pod exists.
#[derive(Debug)]
pub struct ControlPlaneRoots {
    configured: Vec<Vec<u8>>,
    pushed: Vec<Vec<u8>>,
    file: PathBuf,
}

impl ControlPlaneRoots {
    /// `configured`, and those that an earlier run stored in `<private>/roots.pem`; a file that cannot be read counts as absent.
    pub fn load(configured: Vec<CertificateDer<'static>>, private: &std::path::Path) -> Self {
        let file = private.join("roots.pem");
        let stored = std::fs::read(&file).unwrap_or_default();
        let pushed =
            CertificateDer::pem_slice_iter(&stored).flatten().map(|root| root.to_vec()).take(MAX_PUSHED).collect();
        Self { configured: configured.into_iter().map(|root| root.to_vec()).collect(), pushed, file }
    }

    /// Replaces the roots pushed before. An empty push changes nothing.
    pub(super) fn set_pushed(&mut self, pushed: &[Vec<u8>]) -> Result<(), RootsError> {
        if pushed.is_empty() || pushed == self.pushed {
            return Ok(());
        }
        if pushed.len() > MAX_PUSHED {
            return Err(RootsError::TooMany(pushed.len()));
        }
        let is_certificate =
            |root: &Vec<u8>| rustls::RootCertStore::empty().add(CertificateDer::from(root.as_slice())).is_ok();
        if !pushed.iter().all(is_certificate) {
            return Err(RootsError::NotACertificate);
        }
        self.pushed = pushed.to_vec();
        let blocks: Vec<pem::Pem> = pushed.iter().map(|root| pem::Pem::new("CERTIFICATE", root.clone())).collect();
        let next = self.file.with_extension("next");
        std::fs::write(&next, pem::encode_many(&blocks))
            .and_then(|()| std::fs::rename(&next, &self.file))
            .map_err(|source| RootsError::Unwritable { path: self.file.display().to_string(), source })
    }

    pub(super) fn all(&self) -> Vec<Vec<u8>> {
        let mut roots = self.configured.clone();
        roots.extend(self.pushed.iter().filter(|root| !self.configured.contains(root)).cloned());
        roots
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use countersign_core::key::KeyType;
    use countersign_core::x509::X509Authority;
    use jiff::Timestamp;

    use super::{ControlPlaneRoots, RootsError};

    fn root() -> Vec<u8> {
        let authority =
            X509Authority::generate_control_plane(KeyType::EcP256, Duration::from_secs(3600), Timestamp::now())
                .unwrap();
        authority.certificate().der().to_vec()
    }

    #[test]
    fn pushed_roots_survive_a_restart_and_replace_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let (configured, first, second) = (root(), root(), root());
        let load = || ControlPlaneRoots::load(vec![configured.clone().into()], directory.path());
        let mut roots = load();
        roots.set_pushed(&[configured.clone(), first.clone()]).unwrap();
        assert_eq!(roots.all(), [configured.clone(), first]);
        roots.set_pushed(std::slice::from_ref(&second)).unwrap();
        roots.set_pushed(&[]).unwrap();
        assert_eq!(load().all(), [configured.clone(), second]);
    }

    #[test]
    fn what_is_no_root_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut roots = ControlPlaneRoots::load(vec![root().into()], directory.path());
        assert!(matches!(roots.set_pushed(&[b"junk".to_vec()]), Err(RootsError::NotACertificate)));
        assert!(matches!(roots.set_pushed(&vec![root(); 9]), Err(RootsError::TooMany(9))));
        assert_eq!(roots.all().len(), 1);
    }
}
