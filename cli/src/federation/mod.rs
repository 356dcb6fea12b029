//! `federation`: the bundles of remote trust domains, and who gets them.

mod report;
mod status;

use anyhow::Result;
use clap::Subcommand;

use crate::{Options, Outcome};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Status(status::Args),
}

pub(crate) async fn run(command: Command, options: &Options) -> Result<Outcome> {
    match command {
        Command::Status(args) => status::run(args, options).await,
    }
}
