//! The API server's audit log and the logs of the cluster's components, if the cluster provides them.
//! `COUNTERSIGN_AUDIT_LOG` is the current audit log; rotated files (`audit-<time>.log`) and the components' logs are in the
//! same folder.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use countersign_contract::environment::test::AUDIT_LOG;
use serde_json::Value;

/// The complete audit log.
#[derive(Debug)]
pub struct Audit(PathBuf);

/// An open file, and its name for messages.
pub type Named = (String, File);

impl Audit {
    /// The log in `COUNTERSIGN_AUDIT_LOG`; prints a note if the variable is not set.
    #[expect(clippy::print_stderr, reason = "what was not done must not look as if it had been")]
    #[must_use]
    pub fn from_env(what: &str) -> Option<Self> {
        let path = std::env::var_os(AUDIT_LOG).filter(|path| !path.is_empty());
        if path.is_none() {
            eprintln!("NOT RUN: {what}: this cluster's audit log and components' logs cannot be had ({AUDIT_LOG})");
        }
        path.map(|path| Self(path.into()))
    }

    /// The audit log's files. All are opened before any is read, so that none is missed if the log is rotated meanwhile.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn files(&self) -> Result<Vec<Named>> {
        loop {
            let listed = self.beside(true)?;
            let opened = listed.iter().map(|path| open(path)).collect::<Result<Vec<_>>>();
            if self.beside(true)? == listed {
                return opened;
            }
        }
    }

    /// The logs of the cluster's components, including the node's.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn components(&self) -> Result<Vec<Named>> {
        self.beside(false)?.iter().map(|path| open(path)).collect()
    }

    /// Reads all logged requests, in the order in which they ended.
    ///
    /// # Errors
    /// A file cannot be read, or `visit` fails.
    pub fn requests(&self, mut visit: impl FnMut(&str) -> Result<()>) -> Result<()> {
        // Rotated files are named after their time; the current file comes last.
        let mut files = self.files()?;
        files.sort_by_key(|(name, _)| (!name.contains('-'), name.clone()));
        files.into_iter().try_for_each(|file| lines(file, &mut visit))
    }

    fn beside(&self, audit: bool) -> Result<BTreeSet<PathBuf>> {
        let folder = self.0.parent().context("the audit log is in no folder")?;
        let stem = self.0.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_audit =
            |name: &str| name.strip_prefix(&stem).is_some_and(|rest| rest.starts_with('-') || rest.starts_with('.'));
        let mut files = BTreeSet::new();
        for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".log") && path.is_file() && is_audit(&name) == audit {
                files.insert(path);
            }
        }
        Ok(files)
    }
}

fn open(path: &Path) -> Result<Named> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), file))
}

/// Reads each line of a file.
///
/// # Errors
/// It cannot be read, or `visit` fails.
pub fn lines((name, file): Named, mut visit: impl FnMut(&str) -> Result<()>) -> Result<()> {
    for line in BufReader::new(file).split(b'\n') {
        visit(&String::from_utf8_lossy(&line.with_context(|| format!("read {name}"))?))?;
    }
    Ok(())
}

/// A summary of a logged request: who did what to which object. It leaves out the URL, which may contain secrets.
#[must_use]
pub fn title(line: &str) -> String {
    let request: Value = serde_json::from_str(line).unwrap_or_default();
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or("-");
    format!(
        "{} {}/{} {}/{} by {}",
        text("/verb"),
        text("/objectRef/resource"),
        text("/objectRef/subresource"),
        text("/objectRef/namespace"),
        text("/objectRef/name"),
        text("/user/username"),
    )
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use super::*;

    #[test]
    fn what_was_put_aside_is_read_before_what_is_written_now() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        write(file("audit.log"), "third\n").unwrap();
        write(file("audit-2026-01-02T00-00-00.000.log"), "second").unwrap();
        write(file("audit-2026-01-01T00-00-00.000.log"), "first\n").unwrap();
        write(file("kubelet.log"), "another's\n").unwrap();
        let audit = Audit(file("audit.log"));
        let mut read = Vec::new();
        let visit = |line: &str| {
            read.push(line.to_owned());
            Ok(())
        };
        audit.requests(visit).unwrap();
        assert_eq!(read, ["first", "second", "third"]);
        let names: Vec<_> = audit.components().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["kubelet.log"]);
    }

    #[test]
    fn a_title_does_not_give_away_what_was_asked_with() {
        let line = r#"{"verb":"get","requestURI":"/?command=secret","user":{"username":"me"},
            "objectRef":{"resource":"pods","subresource":"exec","namespace":"there","name":"one"}}"#;
        assert_eq!(title(line), "get pods/exec there/one by me");
    }
}
