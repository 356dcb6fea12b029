//! `bundle`: by what the SVIDs of each trust domain are verified.

mod export;
mod show;

use anyhow::Result;
use clap::Subcommand;

use crate::{Options, Outcome};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Show(show::Args),
    Export(export::Args),
}

pub(crate) async fn run(command: Command, options: &Options) -> Result<Outcome> {
    match command {
        Command::Show(args) => show::run(args, options).await,
        Command::Export(args) => export::run(args, options).await,
    }
}
