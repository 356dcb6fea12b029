//! `cargo xtask plugin --krew`: `kubectl countersign` as an archive and a manifest that krew, kubectl's manager of plugins, installs.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::images::{Build, build_static};
use crate::product::PLUGIN;
use crate::progress::say;
use crate::sh::{Run as _, cmd};

/// The file of the archive, for the one platform for which programs are built here.
const ARCHIVE: &str = "countersign-linux-amd64.tar.gz";
const MANIFEST: &str = "countersign.yaml";

/// Builds the program with the profile of releases and packs it. `uri` is where the archive is going to be published.
pub(crate) fn package(root: &Path, uri: Option<&str>) -> Result<()> {
    let built = build_static(root, &[("countersign-cli", PLUGIN)], Build::Release)?;
    let folder = root.join("target/krew");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let archive = folder.join(ARCHIVE);
    let (archive_name, built_name, root_name) =
        (archive.display().to_string(), built.display().to_string(), root.display().to_string());
    // The same content makes the same archive, except for the version of gzip.
    let same = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"];
    let files = ["--directory", &built_name, PLUGIN, "--directory", &root_name, "LICENSE"];
    let args = [&["--create", "--gzip", "--file", &archive_name][..], &same, &files].concat();
    cmd("tar", args).quiet()?;
    let content = fs::read(&archive).with_context(|| format!("reading {archive_name}"))?;
    let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let uri = uri.map_or_else(|| format!("file://{archive_name}"), str::to_owned);
    let path = folder.join(MANIFEST);
    fs::write(&path, manifest(&uri, &digest)).with_context(|| format!("writing {}", path.display()))?;
    say(format!("kubectl krew install --manifest={} --archive={archive_name}", path.display()));
    Ok(())
}

/// As krew's developer guide has it (`krew.googlecontainertools.github.com/v1alpha2`).
fn manifest(uri: &str, digest: &str) -> String {
    format!(
        "apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: countersign
spec:
  version: v{version}
  homepage: {homepage}
  shortDescription: Answers questions about workload identities
  description: |
    Says whether a Countersign installation is well, why a pod has no identity, what a policy
    would change, and what a pod holds; rotates, taints and revokes authorities, and renews
    the credentials of pods. It has no server: it reads with your rights and decides as the
    operator does.
  platforms:
  - selector:
      matchLabels: {{os: linux, arch: amd64}}
    uri: {uri}
    sha256: {digest}
    bin: {PLUGIN}
    files:
    - {{from: {PLUGIN}, to: .}}
    - {{from: LICENSE, to: .}}
",
        version = env!("CARGO_PKG_VERSION"),
        homepage = env!("CARGO_PKG_REPOSITORY"),
    )
}
