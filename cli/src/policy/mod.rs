//! `policy`: what policies give to whom, without changing anything.

mod test;

use anyhow::Result;
use clap::Subcommand;

use crate::{Options, Outcome};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Test(test::Args),
}

pub(crate) fn run(command: Command, options: &Options) -> Result<Outcome> {
    match command {
        Command::Test(args) => test::run(&args, options),
    }
}
