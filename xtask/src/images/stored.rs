//! Binaries of earlier releases, stored in `e2e/agents/` and `e2e/operators/` so that current components can be tested with
//! them. Their READMEs describe how each was built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::deps;
use crate::sh::{Run as _, cmd};

/// Unpacks `<root>/<archive>` into `dir` and returns its single file. `<archive>.sha256` must match.
pub(crate) fn unpack(root: &Path, archive: &str, dir: &Path, file: &str) -> Result<PathBuf> {
    let archive = root.join(archive);
    let bytes = fs::read(&archive).with_context(|| format!("reading {}", archive.display()))?;
    let sum = archive.with_extension("xz.sha256");
    let wanted = fs::read_to_string(&sum).with_context(|| format!("reading {}", sum.display()))?;
    let found = Sha256::digest(&bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    if wanted.split_whitespace().next() != Some(&found) {
        bail!("{} has the digest {found}, and {} says otherwise", archive.display(), sum.display());
    }
    deps::for_stored()?;
    fs::create_dir_all(dir)?;
    cmd("tar", ["--extract", "--xz", "--no-same-owner", "--file"]).arg(&archive).arg("--directory").arg(dir).quiet()?;
    Ok(dir.join(file))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::unpack;

    #[test]
    fn an_archive_that_is_not_what_was_stored_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs_write(root.path(), "a.tar.xz", "something else");
        fs_write(root.path(), "a.tar.xz.sha256", "0000  a.tar.xz\n");
        let error = unpack(root.path(), "a.tar.xz", &root.path().join("out"), "agent").unwrap_err();
        assert!(error.to_string().contains("digest"), "{error:#}");
    }

    fn fs_write(dir: &Path, name: &str, text: &str) {
        std::fs::write(dir.join(name), text).unwrap();
    }
}
