//! The program of the bundle endpoint.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use countersign_contract::{
    environment::{self, component},
    files,
    network::port,
};
use countersign_endpoint::{
    host_names::{HostName, HostNames},
    metrics::Metrics,
    publication::Published,
    request::Profile,
    servers::{LIMITS, Served},
    set_reader::{self, SetReader},
    web_certificates::{self, ServedWebCertificates, WebCertificateReader},
};
use countersign_runtime::{
    http,
    process::{self, duration, termination_signal},
    readiness::{Readiness, ReadinessCheck},
};
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;

/// Publishes the bundles and OIDC documents of trust domains.
#[derive(Debug, Parser)]
#[command(name = "countersign-endpoint", version)]
struct Flags {
    /// Directory in which the agent writes credentials.
    #[arg(long, env = component::IDENTITY_DIR, default_value = files::IDENTITY)]
    identity_dir: PathBuf,

    /// Where bundles are served by the profile https_spiffe (TLS 1.3, with SVIDs).
    #[arg(long, env = component::LISTEN_SPIFFE, default_value_t = (Ipv4Addr::UNSPECIFIED, port::ENDPOINT_SPIFFE).into())]
    listen_spiffe: SocketAddr,

    /// Where bundles and OIDC documents are served by the profile https_web, once there is a web certificate.
    #[arg(long, env = component::LISTEN_WEB, default_value_t = (Ipv4Addr::UNSPECIFIED, port::ENDPOINT_WEB).into())]
    listen_web: SocketAddr,

    /// Where `/metrics`, `/healthz` and `/readyz` are served, in plain text.
    #[arg(long, env = component::LISTEN_HTTP, default_value_t = (Ipv4Addr::UNSPECIFIED, port::HTTP).into())]
    listen_http: SocketAddr,

    /// Directory of web certificates: in it a directory for each, with tls.crt and tls.key. Without it nothing is served by the
    /// profile https_web.
    #[arg(long, env = component::WEB_CERTIFICATES)]
    web_certificates: Option<PathBuf>,

    /// A name by which the endpoint is called for a trust domain, beside that of the trust domain: NAME=TRUST_DOMAIN; may be
    /// repeated.
    #[arg(long, env = component::HOSTS, value_delimiter = ',', value_name = "NAME=TRUST_DOMAIN")]
    host: Vec<HostName>,

    /// How long a replica still answers after the termination signal, until no more connections are sent to it.
    #[arg(long, default_value = "5s", value_parser = duration)]
    drain: Duration,

    /// Log filter, as a tracing filter such as `info,countersign_endpoint=debug`.
    #[arg(long, env = environment::LOG, default_value = "info")]
    log: String,
}

/// The allocator of musl, with which images are built, has one lock for all threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    process::initialize(&flags.log)?;
    let hosts = HostNames::new(flags.host)?;
    let metrics = Arc::new(Metrics::new());
    let (published, readiness) = (Arc::new(Published::default()), Readiness::default());
    let set_read = readiness.check("no set of credentials was published yet");
    let not_draining = readiness.check("the replica ends");
    not_draining.pass();
    let served = Served::new(Arc::clone(&published), &metrics);
    let (stop, end) = (CancellationToken::new(), CancellationToken::new());

    let listener = bind("--listen-spiffe", flags.listen_spiffe).await?;
    let spiffe = served.clone().serve_spiffe(listener, LIMITS, metrics.connections(Profile::Spiffe), stop.clone());
    let web = Web { address: flags.listen_web, served, metrics: Arc::clone(&metrics), stop: stop.clone() };
    let web = web.serve(flags.web_certificates, &readiness);
    let servers = async { tokio::try_join!(async { spiffe.await.context("TLS 1.3 cannot be set up") }, web) };
    let sets = set_reader::follow(SetReader::new(flags.identity_dir, hosts), published, metrics.set(), set_read);
    let http = http::serve(flags.listen_http, http::router(readiness.probe(), Arc::new(move || metrics.text())), end);
    tracing::info!(spiffe = %flags.listen_spiffe, http = %flags.listen_http, "countersign-endpoint starts");
    tokio::select! {
        // Returns without an error once it has drained.
        ended = servers => drop(ended?),
        ended = http => ended.context("the HTTP server ended")?,
        () = sets => anyhow::bail!("the sets of credentials are no longer followed"),
        drained = drain(&not_draining, &stop, flags.drain) => drained?,
    }
    tracing::info!("countersign-endpoint ends");
    Ok(())
}

/// The port of the profile `https_web`.
struct Web {
    address: SocketAddr,
    served: Served,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Web {
    /// Serves from the first certificate on. The Secret may be made after the pod, or never: without one there is no port, and
    /// that keeps nobody from being ready.
    async fn serve(self, directory: Option<PathBuf>, readiness: &Readiness) -> anyhow::Result<()> {
        let Some(directory) = directory else {
            self.stop.cancelled().await;
            return Ok(());
        };
        let usable = readiness.check("no certificate in --web-certificates can be used");
        let (certificates, first) = (Arc::new(ServedWebCertificates::default()), Notify::new());
        let reader = WebCertificateReader::new(directory);
        let follow = web_certificates::follow(
            reader,
            Arc::clone(&certificates),
            self.metrics.web_certificate_expiry(),
            usable,
            &first,
        );
        let serve = async {
            tokio::select! {
                () = first.notified() => {}
                () = self.stop.cancelled() => return Ok(()),
            }
            let listener = bind("--listen-web", self.address).await?;
            tracing::info!(web = %self.address, "serves the profile https_web");
            let connections = self.metrics.connections(Profile::Web);
            let served = self.served.serve_web(listener, certificates, LIMITS, connections, self.stop.clone());
            served.await.context("TLS cannot be set up")
        };
        tokio::select! {
            served = serve => served,
            () = follow => anyhow::bail!("the web certificates are no longer followed"),
        }
    }
}

/// Waits for the termination signal. Then the replica reports that it is not ready, keeps answering for `grace` while it is
/// taken out of its Service, closes its connections, and finishes the requests in flight.
async fn drain(not_draining: &ReadinessCheck, stop: &CancellationToken, grace: Duration) -> anyhow::Result<()> {
    termination_signal().await?;
    tracing::info!(?grace, "countersign-endpoint drains");
    not_draining.fail();
    tokio::time::sleep(grace).await;
    stop.cancel();
    // The servers return now, which ends the program.
    std::future::pending().await
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{flag}: cannot listen on {address}"))
}
