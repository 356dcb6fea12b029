//! The webhook's program. One image, two Deployments: without a command it answers admission requests; `ca` runs the controller
//! of its CA.

mod run_ca;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use countersign_contract::{
    environment::{self, component},
    network::port,
    objects::{SYSTEM_NAMESPACE, WEBHOOK},
};
use countersign_runtime::{
    http,
    process::{self, duration, termination_signal},
    tls::ServingCertificate,
};
use countersign_webhook::{
    consequences::{self, Consequences},
    control_plane::{self, Current},
    https,
    inject::{AgentOptions, AgentResources, Mesh, MilliCpu, PullPolicy},
    large_reviews::LargeReviews,
    metrics::Metrics,
    publish::names,
    server::{self, App},
    serving::Reader,
};
use kube::Client;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

/// Injects the agent into pods and validates resources of countersign.dev.
#[derive(Debug, Parser)]
#[command(name = "countersign-webhook", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    serve: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the controller of the webhook's CA: writes `caBundle` and the serving certificate. It has no port.
    Ca(run_ca::Flags),
    /// Succeeds if the controller run by `ca` is live or ready: for exec probes.
    ProbeCa(run_ca::ProbeFlags),
}

#[derive(Debug, Args)]
struct Flags {
    /// Namespace of the operator and the webhook.
    #[arg(long, env = component::NAMESPACE, default_value = SYSTEM_NAMESPACE)]
    namespace: String,

    /// Service behind which the webhook is called.
    #[arg(long, default_value = WEBHOOK)]
    service: String,

    /// Where admission is served (TLS 1.3).
    #[arg(long, default_value_t = (Ipv4Addr::UNSPECIFIED, port::ADMISSION).into())]
    listen_https: SocketAddr,

    /// Where `/metrics`, `/healthz` and `/readyz` are served, in plain text.
    #[arg(long, default_value_t = (Ipv4Addr::UNSPECIFIED, port::HTTP).into())]
    listen_http: SocketAddr,

    /// Image of the agent.
    #[arg(long, env = component::AGENT_IMAGE, default_value = "countersign.local/agent:dev")]
    agent_image: String,

    /// When the agent's image is pulled.
    #[arg(long, value_enum, default_value = "IfNotPresent")]
    agent_pull_policy: PullPolicy,

    /// CPU request of the agent.
    #[arg(long, default_value_t = AgentResources::default().cpu)]
    agent_cpu: MilliCpu,

    /// CPU limit of the agent in pods all of whose containers have one; its request as well in pods that are Guaranteed.
    #[arg(long, default_value_t = AgentResources::default().cpu_limit)]
    agent_cpu_limit: MilliCpu,

    /// Memory request of the agent in MiB, to which its memory volumes are added (1 MiB each).
    #[arg(long, default_value_t = AgentResources::default().memory_mib)]
    agent_memory_mib: u32,

    /// Memory limit of the agent, as its request; its request as well in pods that are Guaranteed.
    #[arg(long, default_value_t = AgentResources::default().memory_limit_mib)]
    agent_memory_limit_mib: u32,

    /// Log filter of agents, as a tracing filter such as `info,countersign_agent=debug`; `info` by default.
    #[arg(long, env = component::AGENT_LOG)]
    agent_log: Option<String>,

    /// A mesh that adds its sidecar to pods because of their namespace, without a mark on the pod; may be repeated. Annotations
    /// then exclude the agent's connection to the issuer from it in every pod, otherwise only in pods marked for the mesh.
    #[arg(long, value_enum)]
    mesh: Vec<Mesh>,

    /// How long a replica still answers after the termination signal, until API servers no longer send it requests.
    #[arg(long, default_value = "5s", value_parser = duration)]
    drain: Duration,

    /// Log filter, as a tracing filter such as `info,countersign_webhook=debug`.
    #[arg(long, env = environment::LOG, default_value = "info")]
    log: String,
}

/// The allocator of musl, with which images are built, has one lock for all threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let Cli { command, serve: flags } = Cli::parse();
    match command {
        None => serve(flags),
        Some(Command::Ca(flags)) => run_ca::run(flags),
        Some(Command::ProbeCa(flags)) => run_ca::probe(&flags),
    }
}

// Each thread may build an object of 4 MiB for a review, and its allocator keeps memory of its own. One thread for each
// processor of a large node would exceed the container's memory limit.
#[tokio::main(worker_threads = 2)]
async fn serve(flags: Flags) -> anyhow::Result<()> {
    process::initialize(&flags.log)?;
    let resources = AgentResources {
        cpu: flags.agent_cpu,
        cpu_limit: flags.agent_cpu_limit,
        memory_mib: flags.agent_memory_mib,
        memory_limit_mib: flags.agent_memory_limit_mib,
    };
    resources.check().map_err(anyhow::Error::msg)?;
    let client = Client::try_default().await.context("no way to the Kubernetes API")?;
    let (settings, certificate) = (Current::default(), Arc::new(ServingCertificate::default()));
    let (expiry, serves_until) = watch::channel(None);
    let name = names(&flags.namespace, &flags.service).into_iter().next().context("the Service has a name")?;
    let options = AgentOptions {
        image: flags.agent_image,
        pull_policy: flags.agent_pull_policy,
        resources,
        log: flags.agent_log,
        meshes: flags.mesh,
    };
    let metrics = Metrics::new();
    let reader =
        Reader { name, certificate: certificate.clone(), serves_until: expiry, metrics: metrics.certificate() };
    let draining = AtomicBool::new(false);
    let (settings_read, large_reviews) = (settings.clone(), LargeReviews::new());
    let consequences = Consequences::default();
    let app = Arc::new(App {
        options,
        settings: settings_read,
        consequences: consequences.clone(),
        metrics,
        large_reviews,
        serves_until,
        draining,
    });

    let listener = TcpListener::bind(flags.listen_https)
        .await
        .with_context(|| format!("--listen-https: cannot listen on {}", flags.listen_https))?;
    let (stop, end) = (CancellationToken::new(), CancellationToken::new());
    let https = https::serve(listener, certificate, app.clone(), https::LIMITS, stop.clone());
    let http = http::serve(flags.listen_http, server::observation(app.clone()), end);
    tracing::info!(https = %flags.listen_https, http = %flags.listen_http, "countersign-webhook starts");
    tokio::select! {
        // Returns without an error once it has drained.
        served = https => served.context("TLS 1.3 cannot be set up")?,
        served = http => served.context("the HTTP server ended")?,
        () = reader.watch(client.clone(), &flags.namespace) => anyhow::bail!("the watch of the serving certificate ended"),
        () = consequences::watch(client.clone(), settings.clone(), consequences) => anyhow::bail!("the watch of resources ended"),
        () = control_plane::watch(client, &flags.namespace, settings) => anyhow::bail!("the watch of the control plane's settings ended"),
        drained = drain(&app, &stop, flags.drain) => drained?,
    }
    tracing::info!("countersign-webhook ends");
    Ok(())
}

/// Waits for the termination signal. Then the replica reports that it is not ready, keeps answering for `grace` while API
/// servers stop using it, closes its connections, and finishes the requests in flight.
async fn drain(app: &App, stop: &CancellationToken, grace: Duration) -> anyhow::Result<()> {
    termination_signal().await?;
    tracing::info!(?grace, "countersign-webhook drains");
    app.draining.store(true, Ordering::Relaxed);
    tokio::time::sleep(grace).await;
    stop.cancel();
    // The admission server returns now, which ends the program.
    std::future::pending().await
}
