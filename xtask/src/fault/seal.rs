//! Takes the right to write from a directory of a container, for everybody: an agent has no capability that would give it back.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A directory without the right to write.
#[derive(Debug)]
pub(super) struct Sealed {
    /// Open, so that the right can be given back after the process has ended.
    directory: File,
    path: PathBuf,
    original: Permissions,
}

impl Sealed {
    /// Of a directory as this process sees it.
    pub(super) fn new(process: u32, directory: &Path) -> Result<Self> {
        let path = Path::new(&format!("/proc/{process}/root")).join(directory.strip_prefix("/").unwrap_or(directory));
        let directory = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let original = directory.metadata()?.permissions();
        let sealed = Permissions::from_mode(original.mode() & !0o222);
        directory.set_permissions(sealed).with_context(|| format!("sealing {}", path.display()))?;
        Ok(Self { directory, path, original })
    }

    /// As it was before.
    pub(super) fn restore(self) -> Result<()> {
        self.directory.set_permissions(self.original).with_context(|| format!("unsealing {}", self.path.display()))
    }
}
