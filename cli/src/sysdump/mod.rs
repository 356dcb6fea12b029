//! `sysdump`: what somebody who helps needs to see of an installation, in one file, without secrets. Secrets are never read, what may
//! hold one is left out, and what looks like one is removed from everything else.

mod archive;
mod collect;
mod redact;
mod reduce;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    Options, Outcome, check,
    installation::Installation,
    output::{self, Mark, Page},
};
use archive::Archive;
use redact::Redacted;

/// Collect objects, events, logs and the results of `check` in one file, for somebody who helps. Keys, tokens and values that may be
/// secret are left out; look through it all the same before you send it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where it is written: an archive if the name ends in `.tar.gz`, otherwise a new folder.
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    /// How many lines of each log are kept, the newest.
    #[arg(long, value_name = "LINES", default_value_t = 2000)]
    log_lines: i64,
    /// Of how many agents logs are kept; those that are not ready come first.
    #[arg(long, value_name = "PODS", default_value_t = 20)]
    agents: usize,
    #[command(flatten)]
    installation: Installation,
}

/// One file of a dump.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) text: String,
}

pub(crate) async fn run(args: Args, options: &Options) -> Result<Outcome> {
    let cluster = options.cluster().await?;
    let now = Timestamp::now();
    let file = args.output_file.clone().unwrap_or_else(|| default_file(now));
    // Before anything is read: a place that cannot be written is found at once.
    let mut archive = Archive::create(&file).with_context(|| format!("writing {}", file.display()))?;

    let checked = check::of_installation(&cluster, &args.installation).await;
    let mut collected = collect::collect(&cluster, &args).await;
    collected.entries.extend([
        Entry { path: "check.json".to_owned(), text: serde_json::to_string_pretty(&checked)? },
        Entry { path: "check.txt".to_owned(), text: output::plain(&checked) },
    ]);
    let mut redacted = Redacted::default();
    let mut files = Vec::new();
    for Entry { path, text } in collected.entries {
        let text = redact::text(&text, &mut redacted);
        archive.add(&path, text.as_bytes(), now).with_context(|| format!("writing {path}"))?;
        files.push(path);
    }
    let version = env!("CARGO_PKG_VERSION");
    let index = Index { at: now, version, files: &files, gaps: &collected.gaps, redacted: &redacted };
    archive.add("index.json", serde_json::to_string_pretty(&index)?.as_bytes(), now)?;
    archive.finish().with_context(|| format!("writing {}", file.display()))?;

    options.print(&Report { file, files: files.len() + 1, redacted, gaps: collected.gaps })?;
    Ok(Outcome::Well)
}

fn default_file(now: Timestamp) -> PathBuf {
    PathBuf::from(format!("countersign-sysdump-{}.tar.gz", now.strftime("%Y%m%d-%H%M%S")))
}

/// The table of contents.
#[derive(Debug, Serialize)]
struct Index<'a> {
    at: Timestamp,
    version: &'static str,
    files: &'a [String],
    gaps: &'a [String],
    redacted: &'a Redacted,
}

/// How many gaps are shown.
const GAPS: usize = 6;

/// What was written.
#[derive(Debug, Serialize)]
struct Report {
    file: PathBuf,
    files: usize,
    /// What looked like a secret, and was removed.
    redacted: Redacted,
    /// What could not be read.
    gaps: Vec<String>,
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        let file = self.file.display();
        page.item(Mark::Ok, "written", format_args!("{file}, with {} files", self.files));
        let Redacted { private_keys, tokens, values } = self.redacted;
        let removed = private_keys + tokens + values;
        let message = format!("removed: {private_keys} private keys, {tokens} tokens, {values} other values");
        page.item(if removed == 0 { Mark::Ok } else { Mark::Warning }, "secrets", message);
        for gap in self.gaps.iter().take(GAPS) {
            page.item(Mark::Skipped, "left out", gap);
        }
        if let Some(more) = self.gaps.len().checked_sub(GAPS).filter(|more| *more > 0) {
            page.item(Mark::Skipped, "left out", format_args!("{more} more, which index.json names"));
        }
        page.mend("Look through it before you send it: names, labels, addresses and SPIFFE IDs are in it.");
    }
}
