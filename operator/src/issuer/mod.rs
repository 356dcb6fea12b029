//! The Issuer API: agents open a stream each, prove who their pod is, and get what it is entitled to. Reads published
//! state only; the one thing it asks of the API server is a pod which the index does not know yet.

pub mod answer;
pub mod listener;
pub mod live;
pub mod record;
pub mod refused;
pub mod registry;
pub mod serving;
pub mod session;
pub mod state;

use std::{
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use countersign_proto::issuer::v1::{
    SessionRequest, SessionResponse,
    issuer_server::{Issuer, IssuerServer},
};
use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::Connected},
};

use self::{listener::Peer, live::LivePods, refused::Refused, registry::Registry};
use crate::{
    authorities::{Freshness, Published},
    clock::Clock,
    events::EventSink,
    http::Readiness,
    index::SharedIndex,
    jwks::TokenKeys,
    metrics::{Kind, Metrics},
};

/// The longest message that is read, bytes: a token and a request fit many times.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Streams on one connection: a node's agent has one for each session.
const STREAMS_PER_CONNECTION: u32 = 512;

/// Everything a session reads or leaves something with.
#[derive(Debug)]
pub struct Context {
    /// What is known of the cluster.
    pub index: SharedIndex,
    /// Authorities and bundles.
    pub published: watch::Receiver<Arc<Published>>,
    /// How old the view of the journals is.
    pub freshness: Freshness,
    /// The cluster's token keys.
    pub token_keys: Arc<TokenKeys>,
    /// Live reads of pods.
    pub live_pods: LivePods,
    /// Open streams.
    pub registry: Registry,
    /// Where events go.
    pub events: EventSink,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What is there.
    pub readiness: Readiness,
    /// The time.
    pub clock: Clock,
    /// Ends every stream.
    pub shutdown: CancellationToken,
    /// Of states; unique within the process.
    pub generation: AtomicU64,
}

impl Context {
    fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Serves connections until the context's shutdown, and then until their streams have ended.
///
/// # Errors
/// When the server cannot run at all.
pub async fn serve<C>(
    context: Arc<Context>,
    connections: impl Stream<Item = std::io::Result<C>>,
) -> Result<(), tonic::transport::Error>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let shutdown = context.shutdown.clone();
    let service = IssuerServer::new(Service { context }).max_decoding_message_size(MAX_MESSAGE);
    Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .http2_max_header_list_size(16 * 1024)
        .add_service(service)
        .serve_with_incoming_shutdown(connections, shutdown.cancelled_owned())
        .await
}

struct Service {
    context: Arc<Context>,
}

#[tonic::async_trait]
impl Issuer for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let context = self.context.clone();
        let peer = request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let admission = context.registry.admit(peer).map_err(|full| {
            let refused = Refused::Full(full);
            context.metrics.refused(Kind::Session, refused.reason());
            Status::from(&refused)
        })?;
        // One message under way: what changes meanwhile is coalesced rather than queued.
        let (outbound, responses) = mpsc::channel(1);
        let requests = request.into_inner();
        tokio::spawn(async move {
            let _admission = admission;
            session::serve(context, requests, outbound).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}
