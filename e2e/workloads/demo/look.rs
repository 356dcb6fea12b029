//! `cat`, `ls` and `stat`, for an image without them.

use std::{
    io::Write as _,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::report::say;

pub(crate) fn cat(files: &[PathBuf]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for file in files {
        let content = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        out.write_all(&content)?;
    }
    out.flush()?;
    Ok(())
}

/// One path a line, relative to the folder; links are listed and followed once.
pub(crate) fn ls(folder: &Path) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut rest = vec![folder.to_owned()];
    while let Some(next) = rest.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| format!("read {}", next.display()))? {
            let path = entry?.path();
            writeln!(out, "{}", path.strip_prefix(folder)?.display())?;
            if path.is_dir() {
                rest.push(path);
            }
        }
    }
    Ok(())
}

/// One JSON line for each file, about itself and, for a link, about its target.
pub(crate) fn stat(files: &[PathBuf]) -> Result<()> {
    for file in files {
        let link = std::fs::read_link(file).ok();
        let metadata = std::fs::metadata(file).with_context(|| format!("look at {}", file.display()))?;
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => "directory",
            kind if kind.is_socket() => "socket",
            kind if kind.is_file() => "file",
            _ => "other",
        };
        say(&json!({
            "event": "stat",
            "path": file,
            "kind": kind,
            "link": link,
            "mode": format!("{:04o}", metadata.mode() & 0o7777),
            "uid": metadata.uid(),
            "gid": metadata.gid(),
        }));
    }
    Ok(())
}
