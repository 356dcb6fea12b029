//! The commands `ca` and `probe-ca`: the controller of the webhook's CA, and its exec probes.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Args, ValueEnum};
use countersign_contract::{
    environment::{self, component},
    files::WEBHOOK_CA_HEALTH,
    objects::{SYSTEM_NAMESPACE, WEBHOOK},
};
use countersign_runtime::process::{self, termination_signal};
use countersign_webhook::{
    ca::ValidityPeriods,
    health::{self, Health},
    publish::Publisher,
};
use jiff::Timestamp;
use kube::Client;

use crate::duration;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Namespace of the webhook.
    #[arg(long, env = component::NAMESPACE, default_value = SYSTEM_NAMESPACE)]
    namespace: String,

    /// Service behind which the webhook is called.
    #[arg(long, default_value = WEBHOOK)]
    service: String,

    /// Validity of an authority of the CA, in hours and smaller units such as `2160h`; at half of it a successor is prepared.
    /// At least twice the sum of --serving-validity and --ca-propagation-delay.
    #[arg(long, default_value = "2160h", value_parser = duration)]
    ca_validity: Duration,

    /// How long an authority is in `caBundle` before it signs. It must exceed both the time in which API servers notice a
    /// change and the differences between clocks.
    #[arg(long, default_value = "2h", value_parser = duration)]
    ca_propagation_delay: Duration,

    /// Validity of a serving certificate; at half of it a new one is issued. The webhook keeps serving for the other half if
    /// this controller is not running.
    #[arg(long, default_value = "720h", value_parser = duration)]
    serving_validity: Duration,

    /// File with this controller's health, read by `probe-ca`.
    #[arg(long, default_value = WEBHOOK_CA_HEALTH)]
    health_file: PathBuf,

    /// Log filter, as a tracing filter such as `info,countersign_webhook=debug`.
    #[arg(long, env = environment::LOG, default_value = "info")]
    log: String,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeFlags {
    /// The probe.
    #[arg(value_enum)]
    probe: Probe,

    /// The value of `ca --health-file`.
    #[arg(long, default_value = WEBHOOK_CA_HEALTH)]
    health_file: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Probe {
    /// The controller is not stuck.
    Live,
    /// `caBundle` and the serving certificate are in place.
    Ready,
}

#[tokio::main]
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    process::initialize(&flags.log)?;
    let periods = ValidityPeriods::new(flags.ca_validity, flags.serving_validity, flags.ca_propagation_delay)?;
    let client = Client::try_default().await.context("no way to the Kubernetes API")?;
    let publisher = Publisher::new(client, (&flags.namespace, &flags.service), periods, flags.health_file);
    tracing::info!("the controller of the webhook's CA starts");
    tokio::select! {
        () = publisher.run() => {}
        signal = termination_signal() => signal?,
    }
    tracing::info!("the controller of the webhook's CA ends");
    Ok(())
}

/// Reads only a file and the clock: kubelets run it every few seconds.
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
