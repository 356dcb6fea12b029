//! The Issuer API: agents open a stream each, prove who their pod is, and get what it is entitled to. Reads published
//! state only; the one thing it asks of the API server is a pod which the index does not know yet.

pub mod acknowledgements;
mod addresses;
pub mod agent_versions;
pub mod connection;
pub mod drain;
pub mod error;
pub mod events;
pub mod freshness;
pub mod issuance;
pub mod metrics;
pub mod pod_lookup;
pub mod published;
pub mod published_reader;
pub mod receipts;
pub mod record;
pub mod registry;
pub mod serving;
pub mod session;
pub mod signing;
pub mod state;
pub mod token_keys;

use std::{
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use countersign_proto::issuer::v1::{
    SessionRequest, SessionResponse,
    issuer_server::{Issuer, IssuerServer},
};
use futures::{Stream, StreamExt, stream::Map};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming, transport::server::Connected};

use self::{
    agent_versions::SupportPolicy, connection::ConnectionHandle, error::IssuerError, pod_lookup::PodLookup,
    registry::Registry,
};
use crate::published::Published;
use crate::token_keys::TokenKeys;
use crate::{
    events::EventSink,
    freshness::Freshness,
    metrics::{IssuerMetrics, Kind},
};
use countersign_index::SharedIndex;
use countersign_runtime::readiness::ReadinessGroup;
use countersign_runtime::{clock::Clock, clock_skew::ClockSkewMonitor};

/// The longest message that is read, bytes: a token and a request fit many times.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Everything a session reads or leaves something with.
#[derive(Debug)]
pub struct Context {
    /// What is known of the cluster.
    pub index: SharedIndex,
    /// Authorities and bundles.
    pub published: watch::Receiver<Arc<Published>>,
    /// How old what is known is.
    pub freshness: Freshness,
    /// The cluster's token keys.
    pub token_keys: Arc<TokenKeys>,
    /// Live reads of pods.
    pub pod_lookup: PodLookup,
    /// Open streams.
    pub registry: Registry,
    /// Which agents are outdated.
    pub support: SupportPolicy,
    /// Where events go.
    pub events: EventSink,
    /// Counters.
    pub metrics: Arc<IssuerMetrics>,
    /// Whether the index is complete: until then "no identity" would be a guess.
    pub index_complete: ReadinessGroup,
    /// The time.
    pub clock: Clock,
    /// Whether that clock can be relied on.
    pub clock_skew: ClockSkewMonitor,
    /// Has every stream move to another replica, and ends the server.
    pub shutdown: CancellationToken,
    /// Of states; unique within the process.
    pub generation: AtomicU64,
}

impl Context {
    fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Serves connections until there are no more, and then until each has ended: after the context's shutdown they are told to
/// move, spread over a time ([`drain`]).
pub async fn serve<C>(context: Arc<Context>, connections: impl Stream<Item = std::io::Result<C>>)
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let shutdown = context.shutdown.clone();
    let service = IssuerServer::new(Service { context }).max_decoding_message_size(MAX_MESSAGE);
    let open = TaskTracker::new();
    {
        // Dropped before the rest is waited for: whoever hands connections over learns that no more are taken.
        let (mut connections, mut closed) = (pin!(connections), pin!(drain::closed(shutdown.clone())));
        loop {
            let next = tokio::select! {
                biased;
                next = connections.next() => next,
                () = &mut closed => break,
            };
            match next {
                Some(Ok(io)) => drop(open.spawn(connection::serve(io, service.clone(), shutdown.clone()))),
                Some(Err(error)) => tracing::debug!(%error, "a connection was not handed over"),
                None => break,
            }
        }
    }
    open.close();
    open.wait().await;
}

/// The service itself; clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    context: Arc<Context>,
}

#[tonic::async_trait]
impl Issuer for Service {
    type SessionStream =
        Map<ReceiverStream<session::Outgoing>, fn(session::Outgoing) -> Result<SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let context = self.context.clone();
        let connection =
            request.extensions().get::<ConnectionHandle>().cloned().unwrap_or_else(|| ConnectionHandle::new(None));
        let refuse = |refused: &IssuerError| {
            context.metrics.refused(Kind::Session, refused.reason());
            Status::from(refused)
        };
        let now = Instant::now();
        let open = connection.open(now).map_err(|why| refuse(&IssuerError::NotOpened(why)))?;
        let address = connection.address().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let admission = context.registry.admit(address, now).map_err(|full| refuse(&IssuerError::Full(full)))?;
        // One message under way: what changes meanwhile is coalesced rather than queued.
        let (outbound, responses) = mpsc::channel(1);
        let requests = request.into_inner();
        tokio::spawn(async move {
            let _open = open;
            session::serve(context, connection, admission, requests, outbound).await;
        });
        Ok(Response::new(ReceiverStream::new(responses).map(|answer| answer.map(|boxed| *boxed))))
    }
}
