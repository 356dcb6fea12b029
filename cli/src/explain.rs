//! The page of a reason.

use anyhow::{Result, anyhow};
use countersign_reasons::Reason;
use serde::Serialize;

use crate::{
    Options, Outcome,
    output::{self, Page},
};

/// Print what a code such as CS1003 or a reason such as NotGranted means, why, and what to do; without one, list all.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The code or the name.
    reason: Option<String>,
}

pub(crate) fn run(Args { reason }: Args, options: &Options) -> Result<Outcome> {
    match reason {
        None => options.print(&List { reasons: Reason::ALL.iter().map(|reason| Line::of(*reason)).collect() })?,
        Some(asked) => {
            let unknown = || anyhow!("{asked} is neither a code nor the name of a reason; `explain` alone lists all");
            options.print(&Explanation::of(asked.parse().map_err(|_| unknown())?))?;
        }
    }
    Ok(Outcome::Well)
}

#[derive(Debug, Serialize)]
struct List {
    reasons: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    code: &'static str,
    reason: &'static str,
    summary: String,
}

impl Line {
    fn of(reason: Reason) -> Self {
        Self { code: reason.code(), reason: reason.name(), summary: reason.summary() }
    }
}

#[derive(Debug, Serialize)]
struct Explanation {
    #[serde(flatten)]
    line: Line,
    /// The page, in Markdown.
    page: &'static str,
}

impl Explanation {
    fn of(reason: Reason) -> Self {
        Self { line: Line::of(reason), page: reason.page() }
    }
}

impl output::Report for List {
    fn write(&self, page: &mut Page) {
        let rows =
            self.reasons.iter().map(|line| vec![line.code.to_owned(), line.reason.to_owned(), line.summary.clone()]);
        page.table(&["CODE", "REASON", "WHAT IT SAYS"], rows);
    }
}

impl output::Report for Explanation {
    fn write(&self, page: &mut Page) {
        for paragraph in self.page.split("\n\n") {
            match paragraph.trim_start_matches('#') {
                text if text.len() == paragraph.len() => page.line(text.trim().replace('\n', " ")),
                heading => page.heading(heading.trim()),
            }
        }
    }
}
