//! The project's own commands.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

mod codegen;
mod progress;

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the generated files: Rust from proto/proto, custom resource definitions from crds/.
    Codegen {
        /// Write nothing; fail when a file is stale.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    let root = root()?;
    match Args::parse().command {
        Command::Codegen { check } => codegen::run(&root, check),
    }
}

/// The repository's root: the folder above this crate.
fn root() -> Result<PathBuf> {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(crate_dir
        .parent()
        .context("xtask lies in the repository's root")?
        .to_owned())
}
