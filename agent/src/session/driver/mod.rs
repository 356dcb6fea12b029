//! Drives one session: keeps a stream to the issuer open, applies its responses to the [`RenewalPlanner`], sends the requests
//! that it plans, and publishes to the socket's clients and to files. While the issuer is away the session goes on with the
//! credentials it has; requests that were pending when a stream ended are repeated on the next one.

mod exchange;
mod pending_calls;
mod publication;
mod stream;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::SpiffeId;
use countersign_proto::issuer::v1::{HeldSvid, SessionResponse};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use self::stream::{IssuerStream, StreamEnd};
use super::jwt_client::{JwtCall, JwtClient, Reply};
use super::known_bundles::KnownBundles;
use super::messages;
use super::reconnect_backoff::{ReconnectBackoff, StreamOutcome};
use super::renewal_planner::RenewalPlanner;
use crate::config::SessionConfig;
use crate::files::Folder;
use crate::publish::{Published, Publisher};
use crate::token::TokenFile;
use crate::upstream::Upstream;
use crate::wait::Readiness;

/// Requests that the transport has not taken yet.
const OUTGOING: usize = 32;
/// For the issuer's headers, and for its first State.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest sleep: a clock that was set, or a machine that was suspended, is noticed within it.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How long a call for a token waits for the next stream after one has ended: when a replica of the issuer terminates,
/// another takes over at once.
const RECONNECT_GRACE: Duration = Duration::from_secs(3);
/// Workload calls that wait for one token.
const MAX_WAITING_CALLS: usize = 256;

/// What a session is made of.
#[derive(Debug)]
pub struct SessionParts {
    /// Its name and directory.
    pub config: SessionConfig,
    /// The connection to the issuer, which sessions share.
    pub upstream: Arc<Upstream>,
    /// The service account token that proves the pod.
    pub token: TokenFile,
    /// Its files.
    pub folder: Folder,
    /// The newest bundles known, which sessions share.
    pub bundles: Arc<KnownBundles>,
    /// The readiness marker, which `wait` reads.
    pub readiness: Arc<Readiness>,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    parts: SessionParts,
    planner: RenewalPlanner,
    publisher: Publisher,
    calls: mpsc::Receiver<JwtCall>,
    /// Calls that wait for a response of the issuer, by request id.
    waiting: HashMap<u64, WaitingCalls>,
    /// Calls that wait for the next stream.
    pending: Vec<JwtCall>,
    /// Until when they wait.
    pending_deadline: Option<Instant>,
    next_request_id: u64,
    /// The files could not be written, and must be written again.
    files_outdated: bool,
    /// What the workload can use, for the receipt.
    held: Vec<HeldSvid>,
}

/// The calls that wait for one token.
#[derive(Debug)]
struct WaitingCalls {
    id: SpiffeId,
    audiences: Vec<String>,
    replies: Vec<Reply>,
}

impl Session {
    /// A session that has not started, and what its Workload API reads and calls.
    pub fn new(parts: SessionParts) -> (Self, watch::Receiver<Published>, JwtClient) {
        let (publisher, published) = Publisher::new("the agent is starting");
        let (jwt_client, calls) = JwtClient::new();
        let session = Self {
            parts,
            planner: RenewalPlanner::default(),
            publisher,
            calls,
            waiting: HashMap::new(),
            pending: Vec::new(),
            pending_deadline: None,
            next_request_id: 1,
            files_outdated: false,
            held: Vec::new(),
        };
        (session, published, jwt_client)
    }

    /// Runs until dropped.
    pub async fn run(mut self) {
        let mut backoff = ReconnectBackoff::default();
        loop {
            let started = Instant::now();
            let end = self.run_stream().await;
            let move_requested = end.reconnect_requested && end.state_received;
            let outcome =
                StreamOutcome { lasted: started.elapsed(), move_requested, requested_delay: end.requested_delay };
            let delay = backoff.next_delay(outcome, rand::random_range(0.0..1.0));
            let (session, reason) = (&self.parts.config.name, &end.reason);
            if move_requested {
                tracing::info!(session, reason, ?delay, "the issuer asked to come back on another stream");
            } else {
                tracing::warn!(session, reason, ?delay, "no stream to the issuer");
            }
            if end.state_received {
                self.pending_deadline = Some(Instant::now() + RECONNECT_GRACE);
            }
            self.keep_waiting_calls();
            self.planner.disconnected(end.reason);
            self.publish();
            self.serve_while(tokio::time::sleep(delay)).await;
        }
    }

    /// One stream, from its opening to its end. The next stream gets a new connection, and perhaps another replica, unless only
    /// this session was refused on a connection that others use.
    async fn run_stream(&mut self) -> StreamEnd {
        match self.open().await {
            Ok((mut stream, incoming)) => {
                let end = self.serve_stream(&mut stream, incoming).await;
                if end.session_refused {
                    self.parts.upstream.discard_unless_shared(&stream.connection).await;
                } else {
                    self.parts.upstream.discard(&stream.connection).await;
                }
                StreamEnd { state_received: stream.state_received, ..end }
            }
            Err(end) => end,
        }
    }

    async fn serve_stream(&mut self, stream: &mut IssuerStream, mut incoming: Streaming<SessionResponse>) -> StreamEnd {
        let opened_at = Instant::now();
        loop {
            if stream.state_received {
                self.resume_pending_calls(stream);
            }
            let sleep = match self.send_due_requests(stream) {
                Ok(sleep) => sleep,
                Err(reason) => return StreamEnd::failed(reason),
            };
            let sleep = if stream.state_received {
                sleep
            } else {
                sleep.min(OPENING_TIMEOUT).min(self.pending_calls_expire_in())
            };
            tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(message)) => if let Err(reason) = self.handle_response(message, stream) {
                        return StreamEnd::failed(reason);
                    },
                    Ok(None) => return StreamEnd::from_status(&Status::unavailable("the issuer closed the stream")),
                    Err(status) => return StreamEnd::from_status(&status),
                },
                Some(call) = self.calls.recv() => {
                    let stream = stream.state_received.then_some(&mut *stream);
                    self.handle_call(call, stream);
                }
                () = tokio::time::sleep(sleep) => {
                    self.expire_pending_calls();
                    if !stream.state_received && opened_at.elapsed() >= OPENING_TIMEOUT {
                        return StreamEnd::failed("the issuer opened the stream and said nothing".into());
                    }
                }
            }
        }
    }

    /// Connects while the key is made, and sends Hello.
    async fn open(&mut self) -> Result<(IssuerStream, Streaming<SessionResponse>), StreamEnd> {
        let upstream = Arc::clone(&self.parts.upstream);
        let mut connecting = Box::pin(async move { upstream.client_with_connection().await });
        // The first poll sends the first packet; the work below is done while it travels.
        let first_poll = futures::poll!(&mut connecting);
        let token = self.parts.token.read().map_err(|error| StreamEnd::failed(error.to_string()))?;
        let (outgoing, receiver) = mpsc::channel(OUTGOING);
        let now = Timestamp::now();
        let mut x509 = None;
        if self.planner.is_default_due(now) {
            let request_id = self.next_request_id();
            let (key, request) = messages::x509_request(request_id, None, &token)
                .map_err(|error| StreamEnd::failed(error.to_string()))?;
            self.planner.record_x509_request(request_id, None, key, now);
            x509 = Some(request);
        }
        let hello = messages::hello(&self.parts.config.name, &token, x509);
        outgoing.try_send(hello).map_err(|error| StreamEnd::failed(error.to_string()))?;
        let connected = match first_poll {
            std::task::Poll::Ready(connected) => connected,
            std::task::Poll::Pending => self.serve_while(connecting).await,
        };
        let (mut client, connection) = connected.map_err(|error| StreamEnd::failed(error.to_string()))?;
        let opening = async move {
            let opening = client.session(ReceiverStream::new(receiver));
            tokio::time::timeout(OPENING_TIMEOUT, opening).await
        };
        match self.serve_while(opening).await {
            Ok(Ok(response)) => {
                let reread_token_at = token.reread_at(Timestamp::now());
                let stream = IssuerStream {
                    outgoing,
                    token,
                    reread_token_at,
                    state_received: false,
                    unacknowledged: None,
                    receipt: None,
                    connection,
                };
                Ok((stream, response.into_inner()))
            }
            Ok(Err(status)) => Err(StreamEnd::from_status(&status)),
            Err(_) => {
                self.parts.upstream.discard(&connection).await;
                Err(StreamEnd::failed("the issuer does not answer".into()))
            }
        }
    }

    /// Waits for `until` and meanwhile serves what needs no stream.
    async fn serve_while<F: Future>(&mut self, until: F) -> F::Output {
        let mut until = std::pin::pin!(until);
        loop {
            let sleep = time_until(self.planner.plan(Timestamp::now()).wake_at).min(self.pending_calls_expire_in());
            tokio::select! {
                output = &mut until => return output,
                Some(call) = self.calls.recv() => self.handle_call(call, None),
                () = tokio::time::sleep(sleep.max(Duration::from_millis(100))) => {
                    self.expire_pending_calls();
                    self.publish();
                }
            }
        }
    }

    fn next_request_id(&mut self) -> u64 {
        let request_id = self.next_request_id;
        self.next_request_id += 1;
        request_id
    }
}

fn time_until(time: Option<Timestamp>) -> Duration {
    let span = time.map(|time| Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default());
    span.map_or(LONGEST_SLEEP, |span| span.min(LONGEST_SLEEP))
}

/// Uniform in [-1, 1].
fn jitter() -> f64 {
    rand::random_range(-1.0..=1.0)
}
