//! `countersign-operator`.

use clap::Parser;
use countersign_operator::{config::Config, operator};
use countersign_runtime::process;

/// That of musl, with which images are built, has one lock for all threads: an issue took half as much CPU again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    process::initialize(&config.log)?;
    operator::run(config).await
}
