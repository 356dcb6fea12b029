//! `cargo xtask conformance`: runs the conformance suite against the harnesses of three clients and writes
//! `docs/conformance.md`. `cargo xtask differences` compares our client with go-spiffe on malformed inputs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use countersign_contract::environment::test::{DIFFERENCES_SECONDS, DIFFERENCES_SEED, GO_HARNESS, GO_ORACLE, HARNESS};

use crate::build;
use crate::e2e::Programs;
use crate::progress::{Progress, say};
use crate::sh::{Run as _, output_of};

mod outcomes;
mod page;
mod versions;

// As a dependency, the package would bring what three clients need into every `cargo xtask`.
#[path = "../../conformance/src/catalogue/mod.rs"]
#[allow(unreachable_pub, reason = "in its own package it is part of a library")]
mod catalogue;

use outcomes::{Outcome, read};

/// The page, below the repository's root.
const PAGE: &str = "docs/conformance.md";
const PACKAGE: &str = "conformance";

/// What was found out about a client: the outcome of each test.
type Outcomes = BTreeMap<String, Outcome>;

/// Builds the harnesses, runs the suite and writes the page.
pub(crate) fn run(root: &Path) -> Result<()> {
    let go = go_harness(root)?;
    let programs = Programs::build_package(root, "countersign-conformance")?;
    let suite = programs.program(PACKAGE, "suite")?;
    let examine = |client: &str, variable: &str, value: &Path, arguments: &[&str]| -> Result<Outcomes> {
        let progress = Progress::start(format!("examine {client}"));
        let output = output_of(suite.command().args(arguments).env(variable, value))?;
        let outcomes = read(&output);
        progress.done(format!("{} of {} passed", passed(&outcomes), outcomes.len()));
        let errors: Vec<&str> = outcomes.iter().filter(|(_, outcome)| **outcome == Outcome::Error).map(name).collect();
        if !errors.is_empty() || outcomes.is_empty() {
            bail!("nothing was learned by {}:\n{output}", errors.join(", "));
        }
        Ok(outcomes)
    };
    let cases = ["--skip", "pairings::", "--skip", "catalogue::"];
    let harness = |target: &str| programs.program(PACKAGE, target).map(|program| program.executable().to_owned());
    let clients = [
        ("countersign-verify", harness("countersign-verify-harness")?),
        ("go-spiffe", go.clone()),
        ("spiffe", harness("spiffe-harness")?),
    ];
    let examined = clients.map(|(client, program)| examine(client, HARNESS, &program, &cases));
    let [ours, go_spiffe, spiffe] = examined;
    let pairings = examine("pairings", GO_HARNESS, &go, &["pairings::"])?;
    let content = page::render(&[ours?, go_spiffe?, spiffe?], &pairings, &versions::of(root)?)?;
    fs::write(root.join(PAGE), content).with_context(|| format!("writing {PAGE}"))?;
    say(format!("wrote {PAGE}"));
    Ok(())
}

/// Compares what ours and go-spiffe make of malformed inputs for so many seconds; `seed` repeats an earlier comparison.
pub(crate) fn differences(root: &Path, seconds: u64, seed: Option<u64>) -> Result<()> {
    let oracle = go_oracle(root)?;
    let programs = Programs::build_package(root, "countersign-conformance")?;
    let mut command = programs.program(PACKAGE, "differences")?.command();
    command.arg("--nocapture").env(GO_ORACLE, oracle).env(DIFFERENCES_SECONDS, seconds.to_string());
    if let Some(seed) = seed {
        command.env(DIFFERENCES_SEED, seed.to_string());
    }
    command.run()
}

/// Builds the harness of go-spiffe; returns its path.
pub(crate) fn go_harness(root: &Path) -> Result<PathBuf> {
    let output = root.join("target/conformance/go-spiffe-harness");
    build::static_go(&root.join("conformance/go"), &output)?;
    Ok(output)
}

/// Builds the program that says what go-spiffe makes of an input; returns its path.
pub(crate) fn go_oracle(root: &Path) -> Result<PathBuf> {
    let output = root.join("target/conformance/go-spiffe-oracle");
    build::static_go(&root.join("conformance/go/oracle"), &output)?;
    Ok(output)
}

fn passed(outcomes: &Outcomes) -> usize {
    outcomes.values().filter(|outcome| **outcome == Outcome::Pass).count()
}

fn name<'a>((test, _): (&'a String, &Outcome)) -> &'a str {
    test
}
