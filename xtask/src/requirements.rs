//! Checks that `docs/requirements.md` and the tests name the same requirements.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sh::{Run as _, cmd};

/// Every Rust file of the repository.
fn sources(root: &Path) -> Vec<PathBuf> {
    let files = cmd("git", ["ls-files", "--", "*.rs"]).current_dir(root).read().unwrap();
    files.lines().map(|file| root.join(file)).collect()
}

/// The words `R` and digits, without the `R`.
fn numbers(text: &str) -> impl Iterator<Item = u32> {
    let words = text.split(|letter: char| !letter.is_alphanumeric());
    words.filter_map(|word| word.strip_prefix('R')?.parse().ok())
}

#[test]
fn each_requirement_that_is_cited_is_in_the_list_with_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let list = fs::read_to_string(root.join("docs/requirements.md")).unwrap();
    let rows = || list.lines().filter_map(|line| line.strip_prefix("| R")?.split_once(" | "));
    let listed: BTreeSet<u32> = rows().map(|(number, _)| number.parse().unwrap()).collect();
    let texts: Vec<String> = sources(&root).iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let comments = texts.iter().flat_map(|text| text.lines()).filter(|line| line.trim_start().starts_with("//"));
    let cited: BTreeSet<u32> = comments.flat_map(numbers).collect();
    assert_eq!(listed, cited);
    for (number, row) in rows() {
        let (_, proof) = row.rsplit_once(" | ").unwrap();
        let tests: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "R{number} names no test");
        for test in tests {
            let there = texts.iter().any(|text| text.contains(&format!("fn {test}(")));
            assert!(there, "R{number} is proved by `{test}`, which is no test");
        }
    }
}
