//! The reference documents every name, and manifests spell only names that are here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The texts of all files below `folder` with this extension.
fn texts(folder: &Path, extension: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found = Vec::new();
    for path in entries {
        if path.is_dir() {
            found.extend(texts(&path, extension));
        } else if path.extension().is_some_and(|its| its == extension) {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
    found
}

/// The values of this crate's constants of type `kind`, as they are written.
fn values(kind: &str) -> BTreeSet<String> {
    let sources = texts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "rs").join("\n");
    let declared = sources.lines().filter_map(|line| line.trim_start().strip_prefix("pub const "));
    let of_kind = declared.filter_map(|line| line.split_once(&format!(": {kind} = ")));
    of_kind.map(|(_, value)| value.trim_end_matches(';').to_owned()).collect()
}

/// All names; constants that are defined by others are left out.
fn names() -> BTreeSet<String> {
    let values = values("&str");
    values.iter().filter_map(|value| Some(value.strip_prefix('"')?.strip_suffix('"')?.to_owned())).collect()
}

/// The words of `text` that begin with `prefix`.
fn words<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    let words = text.split(move |letter: char| !is_part(letter)).filter(move |word| word.starts_with(prefix));
    words.map(|word| word.trim_end_matches(['.', '/']))
}

#[test]
fn the_reference_has_every_name_and_port() {
    let reference = fs::read_to_string(root().join("docs/reference.md")).unwrap();
    let names = names();
    assert!(names.len() > 60, "{names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !reference.contains(*name)).collect();
    assert!(missing.is_empty(), "docs/reference.md lacks {missing:?}");
    let ports = values("u16");
    assert_eq!(ports.len(), 5);
    assert!(ports.iter().all(|port| reference.contains(port.as_str())), "{ports:?}");
}

#[test]
fn manifests_spell_no_other_names_and_ports() {
    let (names, ports) = (names(), values("u16"));
    for manifest in texts(&root().join("manifests/base"), "yaml") {
        for prefix in ["COUNTERSIGN_", "SPIFFE_", "countersign.dev/"] {
            // Policies also test for the prefix alone.
            let others = |word: &&str| *word != prefix && *word != "countersign.dev/v1alpha1";
            for word in words(&manifest, prefix).filter(others) {
                assert!(names.contains(word), "{word} is not in this crate");
            }
        }
        for after in manifest.split("containerPort: ").skip(1) {
            let port: String = after.chars().take_while(char::is_ascii_digit).collect();
            assert!(ports.contains(&port), "port {port} is not in this crate");
        }
    }
}
