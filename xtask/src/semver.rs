//! `cargo xtask semver`: compares the API of the library that others link with that of another commit, by cargo-semver-checks.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::progress::say;
use crate::sh::{Run as _, cmd};

const CARGO_SEMVER_CHECKS: &str = "0.51.0";
const PACKAGE: &str = "countersign-verify";

pub(crate) fn check(root: &Path, baseline: &str) -> Result<()> {
    let tools = root.join("target/tools");
    let program = tools.join("bin/cargo-semver-checks");
    let installed = program.is_file()
        && cmd(&program, ["semver-checks", "--version"])
            .read()
            .is_ok_and(|text| text.trim().ends_with(CARGO_SEMVER_CHECKS));
    if !installed {
        say(format!("    installing cargo-semver-checks {CARGO_SEMVER_CHECKS} into target/tools, once"));
        let version = ["--version", CARGO_SEMVER_CHECKS, "--root"];
        cmd("cargo", ["install", "--quiet", "--locked", "--debug", "cargo-semver-checks"])
            .args(version)
            .arg(&tools)
            // Debug information is not needed, and the build is faster without.
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .run()
            .context("installing cargo-semver-checks")?;
    }
    cmd(&program, ["semver-checks", "--package", PACKAGE, "--all-features", "--baseline-rev", baseline])
        .current_dir(root)
        .run()
}
