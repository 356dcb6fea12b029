//! The commands `ca` and `probe-ca`: the controller of the webhook's CA, and what its exec probes run.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Args, ValueEnum};
use countersign_webhook::{
    ca::Lives,
    health::{self, Health},
    publish::Publisher,
};
use jiff::Timestamp;
use kube::Client;

use crate::{asked_to_end, span, start};

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Namespace of the webhook.
    #[arg(long, env = "COUNTERSIGN_NAMESPACE", default_value = "countersign-system")]
    namespace: String,

    /// Service behind which the webhook is called.
    #[arg(long, default_value = "countersign-webhook")]
    service: String,

    /// How long an authority of the CA lives, in hours and smaller units such as `2160h`; at half of it a successor is
    /// prepared. At least twice the sum of --serving-life and --ca-notice.
    #[arg(long, default_value = "2160h", value_parser = span)]
    ca_life: Duration,

    /// How long an authority is in `caBundle` before it signs: more than API servers take to notice, and than clocks differ.
    #[arg(long, default_value = "2h", value_parser = span)]
    ca_notice: Duration,

    /// How long a serving certificate lives; at half of it a new one is issued. The other half is how long the webhook goes on
    /// without this controller.
    #[arg(long, default_value = "720h", value_parser = span)]
    serving_life: Duration,

    /// Where `probe-ca` reads how this controller fares.
    #[arg(long, default_value = "/run/countersign-webhook-ca/health")]
    health_file: PathBuf,

    /// What is logged, as a tracing filter such as `info,countersign_webhook=debug`.
    #[arg(long, env = "COUNTERSIGN_LOG", default_value = "info")]
    log: String,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeFlags {
    /// What is asked.
    #[arg(value_enum)]
    probe: Probe,

    /// What `ca` has as --health-file.
    #[arg(long, default_value = "/run/countersign-webhook-ca/health")]
    health_file: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Probe {
    /// Whether it still looks.
    Live,
    /// Whether `caBundle` and the serving certificate are in place.
    Ready,
}

#[tokio::main]
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    start(&flags.log)?;
    let lives = Lives::new(flags.ca_life, flags.serving_life, flags.ca_notice)?;
    let client = Client::try_default().await.context("no way to the Kubernetes API")?;
    let publisher = Publisher::new(client, (&flags.namespace, &flags.service), lives, flags.health_file);
    tracing::info!("the controller of the webhook's CA starts");
    tokio::select! {
        () = publisher.run() => {}
        ended = asked_to_end() => ended?,
    }
    tracing::info!("the controller of the webhook's CA ends");
    Ok(())
}

/// Reads a file and a clock, and nothing else: kubelets run it every few seconds.
pub(crate) fn probe(flags: &ProbeFlags) -> anyhow::Result<()> {
    let file = &flags.health_file;
    let health =
        Health::read(file).with_context(|| format!("the CA's controller has not written {}", file.display()))?;
    let probe = match flags.probe {
        Probe::Live => health::Probe::Live,
        Probe::Ready => health::Probe::Ready,
    };
    health.check(probe, Timestamp::now()).map_err(anyhow::Error::msg)
}
