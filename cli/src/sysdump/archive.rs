//! Writes a dump: an archive, or a folder.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;

/// Readable by who made it alone: names of workloads and of networks are in it.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A dump that is being written.
pub(super) enum Archive {
    Tar(Box<tar::Builder<GzEncoder<File>>>, String),
    Folder(PathBuf),
}

impl Archive {
    /// # Errors
    /// The file or folder exists or cannot be made.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match name.strip_suffix(".tar.gz").or_else(|| name.strip_suffix(".tgz")) {
            Some(stem) => {
                let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
                let builder = tar::Builder::new(GzEncoder::new(file, Compression::default()));
                Ok(Self::Tar(Box::new(builder), stem.to_owned()))
            }
            None => {
                fs::DirBuilder::new().mode(FOLDER_MODE).create(path)?;
                Ok(Self::Folder(path.to_owned()))
            }
        }
    }

    /// # Errors
    /// It cannot be written.
    pub(super) fn add(&mut self, path: &str, bytes: &[u8], at: Timestamp) -> io::Result<()> {
        match self {
            Self::Tar(builder, root) => {
                let mut header = tar::Header::new_gnu();
                header.set_size(u64::try_from(bytes.len()).map_err(io::Error::other)?);
                header.set_mode(FILE_MODE);
                header.set_mtime(u64::try_from(at.as_second()).unwrap_or(0));
                builder.append_data(&mut header, format!("{root}/{path}"), bytes)
            }
            Self::Folder(root) => {
                let path = root.join(path);
                if let Some(folder) = path.parent() {
                    fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
                }
                OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?.write_all(bytes)
            }
        }
    }

    /// # Errors
    /// The end cannot be written.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Tar(builder, _) => builder.into_inner()?.finish()?.sync_all(),
            Self::Folder(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _};

    use flate2::read::GzDecoder;
    use jiff::Timestamp;

    use super::Archive;

    #[test]
    fn an_archive_holds_what_was_added_below_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump.tar.gz");
        let mut archive = Archive::create(&path).unwrap();
        let long = format!("objects/{}.yaml", "n".repeat(200));
        archive.add("logs/a.log", b"one", Timestamp::UNIX_EPOCH).unwrap();
        archive.add(&long, b"two", Timestamp::UNIX_EPOCH).unwrap();
        archive.finish().unwrap();

        let mut read = tar::Archive::new(GzDecoder::new(File::open(&path).unwrap()));
        let entries = read.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().to_string_lossy().into_owned(), text)
        });
        let expected = [("dump/logs/a.log".to_owned(), "one".to_owned()), (format!("dump/{long}"), "two".to_owned())];
        assert_eq!(entries.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_folder_holds_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump");
        let mut archive = Archive::create(&path).unwrap();
        archive.add("logs/a.log", b"one", Timestamp::UNIX_EPOCH).unwrap();
        archive.finish().unwrap();
        assert_eq!(std::fs::read(path.join("logs/a.log")).unwrap(), b"one");
    }

    #[test]
    fn what_exists_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump.tar.gz");
        std::fs::write(&path, "mine").unwrap();
        assert!(Archive::create(&path).is_err());
        assert!(Archive::create(folder.path()).is_err());
    }
}
