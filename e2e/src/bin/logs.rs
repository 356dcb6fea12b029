//! Sets the product's log level to debug and captures the logs of all containers in the cluster of `KUBECONFIG` until it is
//! terminated, for the search for secrets. Prints `ready` once it follows all running containers.

#![allow(clippy::print_stdout, reason = "the parent process waits for the line")]

use std::io::Write as _;

use anyhow::{Context as _, Result};
use countersign_e2e::{Cluster, log_capture::LogCapture};
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
        captured = LogCapture::of(&cluster).await?.run(cluster.clone(), ready) => captured,
        _ = terminate.recv() => cluster.log_level(None).await,
    }
}
