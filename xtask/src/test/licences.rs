//! Checks licences, sources and advisories of all dependencies with cargo-deny.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::progress::say;
use crate::sh::{Run as _, cmd};

/// Pinned, because its version decides what is checked.
const CARGO_DENY: &str = "0.20.2";

/// CI must pass even if the advisories' repository is unreachable: then everything else is checked, and a note is printed.
pub(super) fn check(root: &Path) -> Result<()> {
    let tools = root.join("target/tools");
    let program = tools.join("bin/cargo-deny");
    let right = cmd(&program, ["--version"]).read().is_ok_and(|text| text.ends_with(CARGO_DENY));
    if !right {
        say(format!("    installing cargo-deny {CARGO_DENY} into target/tools, once"));
        cmd("cargo", ["install", "--quiet", "--locked", "--debug", "cargo-deny", "--version", CARGO_DENY, "--root"])
            .arg(&tools)
            // Debug information is not needed, and the build is faster without.
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .run()
            .context("installing cargo-deny")?;
    }
    let check = |what: &[&str]| cmd(&program, ["--log-level", "error", "check"]).args(what).current_dir(root).run();
    check(&["bans", "licenses", "sources"])?;
    let fetched = cmd(&program, ["--log-level", "error", "fetch", "db"]).current_dir(root).succeeds();
    if !fetched {
        say("    the advisory database cannot be reached from here: advisories were NOT checked");
        return Ok(());
    }
    check(&["--disable-fetch", "advisories"])
}
