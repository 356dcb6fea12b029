//! `countersign-operator`.

use clap::Parser;
use countersign_operator::{config::Config, operator};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    tracing_subscriber::fmt().json().with_env_filter(EnvFilter::try_new(&config.log)?).init();
    operator::run(config).await
}
