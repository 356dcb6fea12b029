//! The versions of the clients that are examined, from the files that pin them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// The versions of `countersign-verify`, `go-spiffe`, `spiffe` and `spiffe-rustls`.
#[derive(Debug)]
pub(super) struct Versions {
    pub(super) verify: String,
    pub(super) go_spiffe: String,
    pub(super) spiffe: String,
    pub(super) spiffe_rustls: String,
}

/// Those that the repository pins.
pub(super) fn of(root: &Path) -> Result<Versions> {
    let file = |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("reading {path}"));
    let (lock, module) = (file("Cargo.lock")?, file("conformance/go/go.mod")?);
    let in_lock = |name: &str| {
        let entry = format!("name = \"{name}\"\nversion = \"");
        let found = lock.split(&entry).nth(1).and_then(|rest| rest.split('"').next());
        found.map(str::to_owned).with_context(|| format!("Cargo.lock has no {name}"))
    };
    let go_spiffe = module.split("github.com/spiffe/go-spiffe/v2 v").nth(1).and_then(|rest| rest.lines().next());
    Ok(Versions {
        verify: in_lock("countersign-verify")?,
        go_spiffe: go_spiffe.context("go.mod has no go-spiffe")?.to_owned(),
        spiffe: in_lock("spiffe")?,
        spiffe_rustls: in_lock("spiffe-rustls")?,
    })
}
