//! Replays all stored inputs: invariants hold, and fixed bugs stay fixed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use countersign_fuzz::{TARGETS, seeds};

/// The total size in bytes: the corpus is part of every clone.
const LARGEST: u64 = 500 * 1024;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = folder("corpus").join(target);
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_must_hold_holds_for_every_kept_input() {
    for target in TARGETS {
        for input in inputs(target.name) {
            // Shown only on failure: the last line names the input.
            println!("{}", input.display());
            (target.run)(&fs::read(input).unwrap());
        }
    }
}

#[test]
fn every_target_has_a_folder_and_every_folder_a_target() {
    let folders = fs::read_dir(folder("corpus")).unwrap();
    let folders: BTreeSet<String> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(folders, TARGETS.iter().map(|target| target.name.to_owned()).collect());
    assert!(TARGETS.iter().all(|target| !inputs(target.name).is_empty()));
}

#[test]
fn the_corpus_stays_small() {
    let files = TARGETS.iter().flat_map(|target| inputs(target.name));
    assert!(files.map(|file| fs::metadata(file).unwrap().len()).sum::<u64>() < LARGEST);
}

#[test]
#[ignore = "writes the first inputs of the corpus"]
fn write_seeds() {
    for (target, name, input) in seeds::seeds() {
        let folder = folder("corpus").join(target);
        fs::create_dir_all(&folder).unwrap();
        // Existing files are kept: some are random.
        let file = folder.join(name);
        if !file.exists() {
            fs::write(file, input).unwrap();
        }
    }
}

#[test]
#[ignore = "writes the fixtures, after which the seeds must be written again"]
fn write_fixtures() {
    for (name, content) in seeds::fixtures() {
        fs::write(folder("fixtures").join(name), content).unwrap();
    }
}
