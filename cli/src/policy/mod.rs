//! `policy`: what policies give to whom, without changing anything.

mod diff;
mod gifts;
mod test;

use anyhow::Result;
use clap::Subcommand;

use crate::{Options, Outcome};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Test(test::Args),
    Diff(diff::Args),
}

pub(crate) async fn run(command: Command, options: &Options) -> Result<Outcome> {
    match command {
        Command::Test(args) => test::run(&args, options),
        Command::Diff(args) => diff::run(args, options).await,
    }
}
