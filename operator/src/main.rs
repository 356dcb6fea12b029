//! `countersign-operator`.

use clap::Parser;
use countersign_operator::{config::Config, operator};
use tracing_subscriber::EnvFilter;

/// That of musl, with which images are built, has one lock for all threads: an issue took half as much CPU again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    // The allocator asks for huge pages, and a process of many streams then holds a quarter that it never wrote to. A kernel
    // without them refuses, and all is well.
    let _ = nix::sys::prctl::set_thp_disable(true);
    tracing_subscriber::fmt().json().with_env_filter(EnvFilter::try_new(&config.log)?).init();
    operator::run(config).await
}
