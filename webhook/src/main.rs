//! The webhook's program: reads its flags, and starts what the library holds.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum_server::{Handle, tls_rustls::RustlsConfig};
use clap::Parser;
use countersign_webhook::{
    control_plane::{self, Current},
    inject::{AgentOptions, PullPolicy},
    metrics::Metrics,
    publish::Publisher,
    server::{self, App},
    tls,
};
use kube::Client;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

/// Puts the means into pods, and refuses what one object alone proves wrong.
#[derive(Debug, Parser)]
#[command(name = "countersign-webhook", version)]
struct Flags {
    /// Namespace of the operator and the webhook.
    #[arg(long, env = "COUNTERSIGN_NAMESPACE", default_value = "countersign-system")]
    namespace: String,

    /// Service behind which the webhook is called.
    #[arg(long, default_value = "countersign-webhook")]
    service: String,

    /// Where admission is served (TLS 1.3).
    #[arg(long, default_value = "0.0.0.0:9443")]
    listen_https: SocketAddr,

    /// Where `/metrics`, `/healthz` and `/readyz` are served, in plain text.
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen_http: SocketAddr,

    /// Image of the agent.
    #[arg(long, default_value = "countersign.local/agent:dev")]
    agent_image: String,

    /// When the agent's image is pulled.
    #[arg(long, value_enum, default_value = "IfNotPresent")]
    agent_pull_policy: PullPolicy,

    /// CPU request and limit of the agent.
    #[arg(long, default_value = "100m")]
    agent_cpu: String,

    /// Memory request and limit of the agent in MiB, to which its memory volumes are added (1 MiB each).
    #[arg(long, default_value_t = 30)]
    agent_memory_mib: u32,

    /// What agents log, as a tracing filter such as `info,countersign_agent=debug`; `info` when this is not given.
    #[arg(long, env = "COUNTERSIGN_AGENT_LOG")]
    agent_log: Option<String>,

    /// What is logged, as a tracing filter such as `info,countersign_webhook=debug`.
    #[arg(long, env = "COUNTERSIGN_LOG", default_value = "info")]
    log: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let filter =
        EnvFilter::try_new(&flags.log).with_context(|| format!("--log: `{}` is no tracing filter", flags.log))?;
    tracing_subscriber::fmt().json().with_env_filter(filter).init();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        anyhow::bail!("another TLS provider is installed already");
    }

    let client = Client::try_default().await.context("no way to the Kubernetes API")?;
    let (settings, certificate) = (Current::default(), Arc::new(tls::Certificate::default()));
    let (published, is_published) = watch::channel(false);
    let options = AgentOptions {
        image: flags.agent_image,
        pull_policy: flags.agent_pull_policy,
        cpu: flags.agent_cpu,
        memory_mib: flags.agent_memory_mib,
        log: flags.agent_log,
    };
    let app = Arc::new(App { options, settings: settings.clone(), metrics: Metrics::new(), published: is_published });

    let handle = Handle::new();
    let publisher = Publisher::new(client.clone(), &flags.namespace, &flags.service, certificate.clone());
    let config = RustlsConfig::from_config(tls::config(certificate).context("TLS 1.3 cannot be set up")?);
    let https = axum_server::bind_rustls(flags.listen_https, config).handle(handle.clone());
    let http = axum_server::bind(flags.listen_http).handle(handle.clone());
    tracing::info!(https = %flags.listen_https, http = %flags.listen_http, "countersign-webhook starts");
    tokio::select! {
        served = https.serve(server::admission(app.clone()).into_make_service()) => served.context("the admission server ended")?,
        served = http.serve(server::observation(app).into_make_service()) => served.context("the HTTP server ended")?,
        () = publisher.run(published) => {}
        () = control_plane::watch(client, &flags.namespace, settings) => anyhow::bail!("the watch of the control plane's settings ended"),
        ended = terminated(handle) => ended?,
    }
    Ok(())
}

/// Waits for the signal to end, then lets what is being answered be answered: the API server may call on for as long as
/// the endpoint is being withdrawn.
async fn terminated(handle: Handle<SocketAddr>) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("countersign-webhook ends");
    tokio::time::sleep(Duration::from_secs(3)).await;
    handle.graceful_shutdown(Some(Duration::from_secs(5)));
    while handle.connection_count() > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
