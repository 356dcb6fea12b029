//! Generates the checked-in files: Rust from `crates/proto/proto`, custom resource definitions from `crds/`, the list of reasons. With `--check`
//! it writes nothing and fails if a file is stale.
//!
//! The definitions come from a program of `countersign-crds` instead of its library: xtask is the first thing built on a
//! new machine, and the Kubernetes types would double its size.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use countersign_reasons::Reason;

use crate::progress::Progress;
use crate::sh::{Run as _, cmd};

/// The `.proto` files, below `crates/proto/proto`.
const PROTOS: [&str; 3] =
    ["workload.proto", "countersign/issuer/v1/issuer.proto", "countersign/inspect/v1/inspect.proto"];

/// Messages with a key or a token: `countersign-proto` implements their `Debug` by hand, so that it never prints one.
const SECRET_MESSAGES: [&str; 11] = [
    ".X509SVID",
    ".JWTSVID",
    ".ValidateJWTSVIDRequest",
    ".WITSVID",
    ".countersign.issuer.v1.Hello",
    ".countersign.issuer.v1.TokenRefresh",
    ".countersign.issuer.v1.X509Request",
    ".countersign.issuer.v1.JwtRequest",
    ".countersign.issuer.v1.JwtResponse",
    ".countersign.issuer.v1.WitRequest",
    ".countersign.issuer.v1.WitResponse",
];

/// Generated text by path, relative to the repository's root.
type Files = BTreeMap<PathBuf, String>;

/// Generates everything; writes the files, or with `check` compares them.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let mut files = rust_from_proto(root)?;
    files.extend(definitions(root)?);
    files.extend(reasons());
    write_or_check(root, &files, check)
}

/// As [`run`] with `check`, without the definitions, which a test of `countersign-crds` checks.
pub(crate) fn check_protocols(root: &Path) -> Result<()> {
    let mut files = rust_from_proto(root)?;
    files.extend(reasons());
    write_or_check(root, &files, true)
}

fn write_or_check(root: &Path, files: &Files, check: bool) -> Result<()> {
    let progress = Progress::start(if check { "codegen --check" } else { "codegen" });
    let stale = stale(root, files)?;
    if stale.is_empty() {
        progress.done(format!("{} files are as generated", files.len()));
        return Ok(());
    }
    if check {
        let list = stale.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
        bail!("stale generated files: {list}; run `cargo xtask codegen` and commit the result");
    }
    for path in &stale {
        let absolute = root.join(path);
        match files.get(path) {
            Some(text) => write(&absolute, text)?,
            None => fs::remove_file(&absolute).with_context(|| format!("removing {}", absolute.display()))?,
        }
        progress.note(path.display());
    }
    progress.done(format!("{} of {} files written", stale.len(), files.len()));
    Ok(())
}

/// One Rust file for each package: messages, clients and servers (tonic), bytes as `Vec<u8>` but for bundle documents, ordered
/// maps.
fn rust_from_proto(root: &Path) -> Result<Files> {
    let mut files = Files::new();
    let include = root.join("crates/proto/proto");
    let mut compiler = protox::Compiler::new([&include])?;
    compiler.include_imports(true).include_source_info(true).open_files(PROTOS)?;
    let out = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .build_transport(false)
        .btree_map(".")
        // Every stream holds the State that it was sent last: of the bundles in it all share one copy.
        .bytes(".countersign.issuer.v1.Bundle.document")
        .codec_path("crate::codec::SmallCodec")
        .skip_debug(SECRET_MESSAGES)
        .emit_rerun_if_changed(false)
        .out_dir(out.path())
        .compile_fds(compiler.file_descriptor_set())
        .context("generating Rust from crates/proto/proto")?;
    for (package, name) in
        [("_", "workload"), ("countersign.issuer.v1", "issuer_v1"), ("countersign.inspect.v1", "inspect_v1")]
    {
        let text = fs::read_to_string(out.path().join(format!("{package}.rs")))
            .with_context(|| format!("no code was generated for the protobuf package `{package}`"))?;
        files.insert(format!("crates/proto/src/generated/{name}.rs").into(), text);
    }
    Ok(files)
}

/// The list of the reasons, whose pages are beside it.
fn reasons() -> Files {
    let mut text = "# Reasons\n\nEvery reason in conditions, events, refusals and checks, by its code, which never changes. `kubectl countersign explain CODE` \
                    prints the page.\n\n| Code | Reason | What it says |\n|---|---|---|\n"
        .to_owned();
    for reason in Reason::ALL {
        let (code, name, summary) = (reason.code(), reason.name(), reason.summary());
        text.push_str(&format!("| [{code}]({code}.md) | `{name}` | {summary} |\n"));
    }
    Files::from([("docs/reasons/README.md".into(), text)])
}

/// One YAML file for each kind, for `kubectl apply -f crds/`, and a copy for kustomize, which reads only files in its
/// folder.
fn definitions(root: &Path) -> Result<Files> {
    let print = ["run", "--quiet", "--package", "countersign-crds", "--example", "definitions"];
    let printed = cmd("cargo", print).current_dir(root).read().context("generating the definitions from crds/")?;
    let definitions: BTreeMap<String, String> = serde_json::from_str(&printed).context("what crds/ printed")?;
    let mut files = Files::new();
    for (name, yaml) in definitions {
        files.insert(Path::new("crds").join(&name), yaml.clone());
        files.insert(Path::new("manifests/base/crds").join(name), yaml);
    }
    Ok(files)
}

/// Paths whose content differs from what is generated, and files that are no longer generated: all Rust and YAML in these
/// folders is generated.
fn stale(root: &Path, files: &Files) -> Result<Vec<PathBuf>> {
    let mut stale: Vec<PathBuf> = files
        .iter()
        .filter(|(path, text)| fs::read_to_string(root.join(path)).ok().as_ref() != Some(*text))
        .map(|(path, _)| path.clone())
        .collect();
    for folder in files.keys().filter_map(|path| path.parent()).collect::<BTreeSet<_>>() {
        let Ok(entries) = fs::read_dir(root.join(folder)) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let generated = path.extension().is_some_and(|e| e == "rs" || e == "yaml");
            if generated && entry.file_type()?.is_file() && !files.contains_key(&path) {
                stale.push(path);
            }
        }
    }
    Ok(stale)
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
