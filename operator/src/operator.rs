//! The process: makes the parts, connects them, runs them until it is told to stop.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use anyhow::Context as _;
use countersign_contract::{network::replica_name, token_audience};
use countersign_core::{
    journal::{AuthorityMaker, LocalMaker},
    lease::LeaseConfig,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt, client::ClientBuilder};
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch as published},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use countersign_federation::{AddressPolicy, Fetcher};
use countersign_index::{Index, SharedIndex};
use countersign_issuer::{
    agent_versions::SupportPolicy,
    drain,
    events::EventSink,
    freshness::Freshness,
    pod_lookup::PodLookup,
    registry::{Registry, StreamLimits},
    serving, state,
    token_keys::TokenKeys,
};
use countersign_runtime::{
    clock::Clock,
    clock_skew::ClockSkewMonitor,
    connections::{self, ConnectionLimits},
    http,
    leader::{Election, Leadership},
    process::termination_signal,
    readiness::Readiness,
    tls::{ServingCertificate, server_config},
};

use crate::{
    api_server::{ApiServer, ApiServerPods},
    authorities::{Authorities, store::JournalStore},
    checks::Checks,
    config::Config,
    controllers::{control_plane, trust_domain, workload_identity},
    events,
    federation::{RemoteBundles, cluster_trust_bundles::ClusterTrustBundles, poller, store::BundleStore},
    inspect::{self, credential::Credential, report::Source},
    lease_store::ApiServerLease,
    metrics::Metrics,
    watch::{self, stored::Stored},
};

/// How long the issuer may take to end after it was told to: its streams move within 15 s.
const GRACE: Duration = Duration::from_secs(20);

/// How long the lease may take to be given up: a request in progress, and the one that says so.
const GIVING_UP: Duration = Duration::from_secs(6);

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or a part that must live ends.
pub async fn run(config: Config) -> anyhow::Result<()> {
    // In this order: the lease is given up, the issuer's streams move, what shows the way there ends.
    let [resign, stop, end] = [(); 3].map(|()| CancellationToken::new());
    let mut parts = JoinSet::new();
    let (metrics, readiness, clock) = (Arc::new(Metrics::new()), Readiness::default(), Clock::system());
    let checks = Checks::new(&readiness);
    let observed = http::router(readiness.probe(), metrics.encoder());
    let serving_http = http::serve(config.listen_http, observed, end.clone());
    parts.spawn(async move { serving_http.await.context("the HTTP server") });

    let clock_skew = ClockSkewMonitor::new(clock.clone(), checks.clock.clone(), metrics.clock.clone());
    let server = kube::Config::infer().await.context("no way to the API server")?;
    let client =
        ClientBuilder::try_from(server).context("no way to the API server")?.with_layer(&clock_skew.layer()).build();
    let cluster = tokio::select! {
        cluster = cluster_uid(&client) => cluster,
        () = told_to_stop() => return Ok(()),
    };
    let audience = token_audience(&cluster);
    tracing::info!(cluster, audience, version = env!("CARGO_PKG_VERSION"), "operator starts");

    let index = SharedIndex::new(Index::default());
    let authorities = Authorities::new(cluster.clone(), clock.clone());
    let freshness = Freshness::new(clock.clone());
    let journals = JournalStore::new(client.clone(), &config.authorities_namespace, config.journal_format);
    let token_keys = Arc::new(TokenKeys::new(
        Box::new(ApiServer(client.clone())),
        audience.clone(),
        config.max_token_life,
        freshness.clone(),
        checks.token_keys.clone(),
        metrics.issuer.clone(),
    ));
    let (events, pod_events) = EventSink::new(metrics.issuer.clone());
    let shared = (client.clone(), index.clone(), freshness.clone(), metrics.clone());
    let lives = |part: &'static str| move |()| anyhow::anyhow!("{part} ended, which it never should");
    macro_rules! part {
        ($name:literal, $future:expr) => {{
            let future = $future;
            parts.spawn(async move { Err(lives($name)(future.await)) });
        }};
    }

    {
        let (client, index, freshness, metrics) = shared.clone();
        part!("watch of pods", watch::pods::watch(client, index, freshness, checks.pods.clone(), metrics));
    }
    {
        let (client, index, freshness, metrics) = shared.clone();
        part!(
            "watch of namespaces",
            watch::namespaces::watch(client, index, freshness, checks.namespaces.clone(), metrics)
        );
    }
    {
        let (index, clock, clock_skew) = (index.clone(), clock.clone(), clock_skew.clone());
        part!("end of deleted pods", watch::deletions::follow(index, clock, clock_skew));
    }
    let remote_bundles = RemoteBundles::new(clock.clone());
    part!(
        "watch of remote bundles",
        watch::remote_bundles::watch(
            client.clone(),
            config.federation_namespace.clone(),
            remote_bundles.clone(),
            freshness.clone(),
            checks.remote_bundles.clone(),
            metrics.clone(),
        )
    );
    {
        let (bundles, remotes) = (remote_bundles.clone(), index.remotes());
        part!("configuration of remote bundles", async move { bundles.follow(remotes).await });
    }
    {
        let bundles = remote_bundles.clone();
        part!("publication of remote bundles", async move { bundles.keep_time().await });
    }
    {
        let (authorities, foreign) = (authorities.clone(), remote_bundles.subscribe());
        part!("publication of foreign bundles", async move { authorities.follow_foreign(foreign).await });
    }
    let (domains, domain_writer) = Stored::new();
    {
        let cluster_name = config.cluster_name.clone();
        let (client, index, freshness, metrics) = shared.clone();
        part!(
            "watch of TrustDomains",
            watch::trust_domains::watch(
                client,
                cluster_name,
                index,
                domain_writer,
                freshness,
                checks.trust_domains.clone(),
                metrics
            )
        );
    }
    let (identities, identity_writer) = Stored::new();
    {
        let (client, index, freshness, metrics) = shared;
        part!(
            "watch of WorkloadIdentities",
            watch::workload_identities::watch(
                client,
                index,
                identity_writer,
                freshness,
                checks.workload_identities.clone(),
                metrics
            )
        );
    }
    part!(
        "watch of journals",
        watch::journals::watch(
            client.clone(),
            config.authorities_namespace.clone(),
            authorities.clone(),
            freshness.clone(),
            checks.journals.clone(),
            metrics.clone(),
        )
    );
    part!(
        "confirmation of journals",
        watch::journals::confirm(
            client.clone(),
            config.authorities_namespace.clone(),
            authorities.clone(),
            freshness.clone(),
        )
    );
    part!(
        "publication of the views' ages",
        freshness.clone().publish(checks.fresh_views.clone(), metrics.issuer.clone())
    );
    {
        let authorities = authorities.clone();
        part!("publication of authorities", async move { authorities.keep_time().await });
    }
    {
        let (authorities, configs) = (authorities.clone(), index.authorities());
        part!("configuration of authorities", async move { authorities.follow(configs).await });
    }
    part!("notification of sessions", state::notify_sessions(authorities.subscribe(), index.clone()));
    {
        let token_keys = token_keys.clone();
        part!("refresh of token keys", async move { token_keys.keep_fresh().await });
    }
    {
        part!("publication of events", events::publish(client.clone(), pod_events));
    }
    let leadership = Leadership::new(clock.clone(), clock_skew.clone());
    let election = Election::new(
        format!("{}_{:016x}", config.replica, rand::random::<u64>()),
        LeaseConfig::DEFAULT,
        Box::new(ApiServerLease::new(client.clone(), &config.namespace)),
        leadership.clone(),
        clock.clone(),
        metrics.leader.clone(),
    );
    let election = tokio::spawn(election.run(checks.caches_complete().passes(), resign.clone()));
    let (counts, counted) = published::channel(None);
    let maker: Arc<dyn AuthorityMaker> = Arc::new(LocalMaker);
    let bundle_store = BundleStore::new(client.clone(), &config.federation_namespace);
    let domain_context = trust_domain::Context {
        client: client.clone(),
        index: index.clone(),
        authorities: authorities.clone(),
        remote_bundles: remote_bundles.clone(),
        bundle_store: bundle_store.clone(),
        trust_bundles: ClusterTrustBundles::new(client.clone()),
        written_bundles: Mutex::default(),
        journals: journals.clone(),
        counted: counted.clone(),
        maker: maker.clone(),
        cluster: cluster.clone(),
        leadership: leadership.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    part!("controller of TrustDomains", trust_domain::run(Arc::new(domain_context), domains));
    let poller_context = poller::Context {
        bundles: remote_bundles.clone(),
        store: bundle_store,
        fetcher: Arc::new(Fetcher::new(AddressPolicy::allowing(config.federation_networks.clone()))),
        authorities: authorities.clone(),
        leadership: leadership.clone(),
        clock: clock.clone(),
        metrics: metrics.federation.clone(),
    };
    part!("polls of bundle endpoints", poller::run(poller_context, index.remotes()));
    let identity_context = workload_identity::Context {
        client: client.clone(),
        index: index.clone(),
        authorities: authorities.clone(),
        counted,
        leadership: leadership.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    part!("controller of WorkloadIdentities", workload_identity::run(Arc::new(identity_context), identities));
    let control_plane_context = control_plane::Context {
        client: client.clone(),
        namespace: config.namespace.clone(),
        issuer_name: config.issuer_name(),
        audience,
        cluster,
        cluster_name: config.cluster_name.clone(),
        authorities: authorities.clone(),
        journals,
        maker,
        leadership: leadership.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    part!("controller of the control plane", control_plane::run(control_plane_context));

    let certificate = Arc::new(ServingCertificate::default());
    let names = config.serving_names();
    part!(
        "renewal of the serving certificate",
        serving::keep_fresh(
            certificate.clone(),
            names,
            authorities.subscribe(),
            clock.clone(),
            checks.control_plane_root.clone()
        )
    );
    let tls = server_config(certificate, &[b"h2"]).context("TLS 1.3 is not to be had")?;
    let listener = TcpListener::bind(config.listen_issuer)
        .await
        .with_context(|| format!("the issuer cannot listen on {}", config.listen_issuer))?;
    let registry = Registry::new(StreamLimits::default());
    let support = SupportPolicy::default();
    let source = Source {
        replica: config.replica.clone(),
        registry: registry.clone(),
        readiness: readiness.clone(),
        support,
        index: index.clone(),
        published: authorities.subscribe(),
        clock: clock.clone(),
    };
    let replica_name = replica_name(&config.namespace).try_into().context("--namespace makes no DNS name")?;
    let credential = Credential::new(replica_name);
    part!(
        "renewal of the replica's certificate",
        credential.clone().keep_fresh(authorities.subscribe(), clock.clone())
    );
    let inspect_listener = TcpListener::bind(config.listen_inspect)
        .await
        .with_context(|| format!("the Inspect API cannot listen on {}", config.listen_inspect))?;
    let inspecting = inspect::server::serve(inspect_listener, credential.clone(), source.clone());
    parts.spawn(async move { inspecting.await.context("the Inspect API") });
    let rounds = inspect::aggregate::Context {
        client: client.clone(),
        namespace: config.namespace.clone(),
        port: config.listen_inspect.port(),
        source,
        credential,
        index: index.clone(),
        events: events.clone(),
        leadership,
    };
    part!("counting of what lives in streams", inspect::aggregate::run(rounds, counts));
    let issuer_context = Arc::new(countersign_issuer::Context {
        pod_lookup: PodLookup::new(Box::new(ApiServerPods(client)), index.clone(), metrics.issuer.clone()),
        index,
        published: authorities.subscribe(),
        freshness,
        token_keys,
        registry,
        support,
        events,
        metrics: metrics.issuer.clone(),
        index_complete: checks.index_complete(),
        clock,
        clock_skew,
        shutdown: stop.clone(),
        generation: AtomicU64::new(0),
    });
    let (ready, incoming) = mpsc::channel(64);
    let (limits, connection_metrics) = (ConnectionLimits::default(), metrics.connections.clone());
    let closed = drain::closed(stop.clone());
    tokio::spawn(connections::accept(listener, tls, limits, connection_metrics, closed, ready));
    let issuing = countersign_issuer::serve(issuer_context, connections::incoming(incoming));
    let issuing = tokio::spawn(issuing);
    checks.issuer.pass();

    let ended = tokio::select! {
        () = told_to_stop() => None,
        ended = parts.join_next() => ended,
    };
    checks.issuer.fail();
    tracing::info!("operator stops");
    // Another writes from now on, while the streams here move to others.
    resign.cancel();
    if tokio::time::timeout(GIVING_UP, election).await.is_err() {
        tracing::warn!("the lease was not given up in time");
    }
    stop.cancel();
    match ended {
        Some(Ok(Ok(()))) | None => {}
        Some(Ok(Err(error))) => return Err(error),
        Some(Err(error)) => return Err(error).context("a part of the operator broke"),
    }
    if tokio::time::timeout(GRACE, issuing).await.is_err() {
        tracing::warn!("streams are left that did not move in time");
    }
    end.cancel();
    Ok(())
}

/// The uid of the namespace kube-system, by which a cluster is known; asked for until it is there.
async fn cluster_uid(client: &Client) -> String {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    loop {
        match namespaces.get("kube-system").await {
            Ok(namespace) => match namespace.uid() {
                Some(uid) => return uid,
                None => tracing::warn!("namespace kube-system has no uid"),
            },
            Err(error) => tracing::warn!(%error, "namespace kube-system cannot be read; trying again"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Resolves when the process shall end.
async fn told_to_stop() {
    if let Err(error) = termination_signal().await {
        tracing::error!(%error, "no handler for signals: they end the process at once");
        std::future::pending::<()>().await;
    }
}
