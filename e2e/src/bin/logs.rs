//! Has the product log at debug level, and keeps the logs of everything that runs in the cluster of `KUBECONFIG` until it is
//! ended: what the search for secrets reads. Prints `ready` once it does.

#![allow(clippy::print_stdout, reason = "whoever started it waits for the word")]

use std::io::Write as _;

use anyhow::{Context as _, Result};
use countersign_e2e::{Cluster, record::Record};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<()> {
    let cluster = Cluster::connect().await?;
    cluster.log_level(Some("debug")).await?;
    cluster.rolled_out().await?;
    let ready = || {
        println!("ready");
        let _ = std::io::stdout().flush();
    };
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        kept = Record::of(&cluster).await?.keep(cluster.clone(), ready) => kept,
        _ = terminate.recv() => cluster.log_level(None).await,
    }
}
