//! Completions of shells.

use std::io::Write as _;

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::{Outcome, output};

/// Print the completions of a shell, for `kubectl-countersign`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run<Program: CommandFactory>(Args { shell }: &Args) -> Result<Outcome> {
    let mut text = Vec::new();
    clap_complete::generate(*shell, &mut Program::command(), "kubectl-countersign", &mut text);
    text.flush()?;
    let text = String::from_utf8(text)?;
    // clap_complete writes the hyphen in two ways, so that nothing below the first command would be completed in bash:
    // https://github.com/clap-rs/clap/issues/6421
    output::print_text(&text.replace("kubectl__subcmd__countersign", "kubectl__countersign"));
    Ok(Outcome::Well)
}
