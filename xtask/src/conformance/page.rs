//! The page: what each client does in each case, and who can call whom.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::catalogue::{Case, Level, cases};
use super::versions::Versions;
use super::{Outcome, Outcomes};

/// Columns of results: ours, go-spiffe, the crate `spiffe`.
const CLIENTS: usize = 3;

/// The clients in the names of the pairings, and on the page.
const PAIRED: [(&str, &str); CLIENTS] =
    [("verify", "countersign-verify"), ("go_spiffe", "go-spiffe"), ("spiffe", "spiffe")];

const SPECIFICATIONS: &str = "WE: SPIFFE Workload Endpoint. WA: SPIFFE Workload API. XS: X509-SVID. JS: JWT-SVID. ID: SPIFFE-ID. \
    TB: SPIFFE Trust Domain\nand Bundle. FD: SPIFFE Federation. They are in the folder `standards` of\n\
    [spiffe/spiffe](https://github.com/spiffe/spiffe/tree/main/standards).";

/// The whole page.
pub(super) fn render(clients: &[Outcomes; CLIENTS], pairings: &Outcomes, versions: &Versions) -> Result<String> {
    let mut page = introduction(versions);
    summary(&mut page, clients)?;
    for level in Level::ALL {
        section(&mut page, level, clients)?;
    }
    paired(&mut page, pairings)?;
    Ok(page)
}

fn introduction(versions: &Versions) -> String {
    let Versions { verify, go_spiffe, spiffe, spiffe_rustls } = versions;
    format!(
        "# Conformance of countersign-verify\n\n\
        `countersign-verify`, our client of the SPIFFE Workload API for Rust services, is examined by every case of the client\n\
        catalogue of the [SPIFFE conformance test suite](https://github.com/arndt-s/spiffe-conformance-test-suite)\n\
        (`docs/TEST_CATALOGUE.md` at 126a3c69). The tests are our own, in `conformance/tests/suite`: a mock Workload API, and for\n\
        each case a harness process by version 1 of that suite's harness contract, which passes every decision on to the client.\n\
        Other clients are examined by the same tests. `cargo xtask conformance` runs all of it and writes this page.\n\n\
        Clients: countersign-verify {verify}, go-spiffe {go_spiffe}, and the crates spiffe {spiffe} and spiffe-rustls\n\
        {spiffe_rustls}. A fail is what a client does otherwise than the requirement says; a skip is what it has no operation for.\n\n"
    )
}

/// How many results of each level passed.
fn summary(page: &mut String, clients: &[Outcomes; CLIENTS]) -> Result<()> {
    page.push_str("| Level | Results | countersign-verify | go-spiffe | spiffe |\n|---|---|---|---|---|\n");
    for level in Level::ALL {
        let tests: Vec<&str> = of(level).flat_map(|case| case.results).map(|(_, test)| *test).collect();
        write!(page, "| {} | {} |", level.name(), tests.len())?;
        for outcomes in clients {
            let passed = tests.iter().filter(|test| outcomes.get(**test) == Some(&Outcome::Pass)).count();
            write!(page, " {passed} |")?;
        }
        page.push('\n');
    }
    Ok(())
}

fn section(page: &mut String, level: Level, clients: &[Outcomes; CLIENTS]) -> Result<()> {
    let about = match level {
        Level::Must => "What the specifications demand.",
        Level::Should => "What the specifications recommend.",
        Level::Optional => {
            "What the specifications allow, or do not ask of clients. HX is about what a client had better ignore."
        }
    };
    write!(page, "\n## {}\n\n{about}\n\n", level.name())?;
    page.push_str(
        "| Case | The client | Reference | countersign-verify | go-spiffe | spiffe |\n|---|---|---|---|---|---|\n",
    );
    for case in of(level) {
        for (variant, test) in case.results {
            let slash = if variant.is_empty() { "" } else { "/" };
            write!(page, "| {}{slash}{variant} | {} | {} |", case.id, case.requirement, case.reference)?;
            for outcomes in clients {
                let outcome = outcomes.get(*test).with_context(|| format!("{test} did not run"))?;
                write!(page, " {} |", outcome.name())?;
            }
            page.push('\n');
        }
    }
    for case in of(level).filter(|case| !case.note.is_empty()) {
        write!(page, "\n{}: {}\n", case.id, case.note)?;
    }
    if level == Level::Optional {
        write!(page, "\n{SPECIFICATIONS}\n")?;
    }
    Ok(())
}

fn paired(page: &mut String, pairings: &Outcomes) -> Result<()> {
    page.push_str(
        "\n## Pairings\n\nEach client calls each over mTLS, within a trust domain and across two that federate. A call passes when \
        both ends know the\nother's SPIFFE ID.\n\n| Caller | Server | Within | Across |\n|---|---|---|---|\n",
    );
    for (caller, caller_name) in PAIRED {
        for (server, server_name) in PAIRED {
            write!(page, "| {caller_name} | {server_name} |")?;
            for suffix in ["", "_of_another_trust_domain"] {
                let test = format!("pairings::{caller}_calls_{server}{suffix}");
                let outcome = pairings.get(&test).with_context(|| format!("{test} did not run"))?;
                write!(page, " {} |", outcome.name())?;
            }
            page.push('\n');
        }
    }
    Ok(())
}

fn of(level: Level) -> impl Iterator<Item = &'static Case> {
    cases().filter(move |case| case.level == level)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::conformance::{PAGE, versions};

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    fn page() -> String {
        std::fs::read_to_string(root().join(PAGE)).unwrap()
    }

    /// The cells of the rows that begin with a case, with the heading above them.
    fn rows(page: &str) -> Vec<(String, Vec<String>)> {
        let mut heading = String::new();
        let mut rows = Vec::new();
        for line in page.lines() {
            if let Some(text) = line.strip_prefix("## ") {
                text.clone_into(&mut heading);
            }
            let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
            if cells.len() == 6 && cells[0].contains('-') && !cells[0].starts_with('-') {
                rows.push((heading.clone(), cells));
            }
        }
        rows
    }

    #[test]
    fn the_page_lists_exactly_the_cases_of_the_catalogue() {
        let listed: Vec<(String, String)> =
            rows(&page()).into_iter().map(|(level, cells)| (level, cells[0].clone())).collect();
        let mut expected = Vec::new();
        for level in Level::ALL {
            for case in of(level) {
                for (variant, _) in case.results {
                    let slash = if variant.is_empty() { "" } else { "/" };
                    expected.push((level.name().to_owned(), format!("{}{slash}{variant}", case.id)));
                }
            }
        }
        assert_eq!(listed, expected);
    }

    #[test]
    fn our_client_fails_nothing_that_a_specification_demands_or_recommends() {
        let rows = rows(&page());
        assert!(!rows.is_empty());
        for (level, cells) in rows.iter().filter(|(level, _)| level != Level::Optional.name()) {
            assert_eq!(cells[3], Outcome::Pass.name(), "{level} {}", cells[0]);
        }
        let pairing =
            |line: &&str| line.starts_with("| ") && line.matches('|').count() == 5 && !line.contains("Caller");
        let page = page();
        let (_, pairings) = page.split_once("## Pairings").unwrap();
        assert_eq!(pairings.lines().filter(pairing).count(), CLIENTS * CLIENTS);
        assert!(pairings.lines().filter(pairing).all(|line| line.ends_with("| pass | pass |")));
    }

    /// A newer client is a reason to examine it anew.
    #[test]
    fn the_page_is_about_the_versions_that_are_pinned() {
        let introduction = introduction(&versions::of(&root()).unwrap());
        assert!(page().starts_with(&introduction), "run cargo xtask conformance");
    }
}
