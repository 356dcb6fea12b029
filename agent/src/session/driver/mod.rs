//! Drives one session: keeps a stream to the issuer, hands what comes to the [`Wallet`], sends what it plans, and publishes
//! to the socket's watchers and to files. With the issuer away it goes on with what it has; what was asked for when a stream
//! ended is asked for again on the next.

mod exchange;
mod parking;
mod publication;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::SpiffeId;
use countersign_proto::issuer::v1::{SessionRequest, SessionResponse};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::comeback::{Comeback, Ending};
use super::hello;
use super::tokens::{Reply, TokenDesk, TokenRequest};
use super::wallet::Wallet;
use crate::config::SessionConfig;
use crate::files::Folder;
use crate::publish::{Published, Publisher};
use crate::token::{Token, TokenFile};
use crate::upstream::{Line, Upstream};
use crate::wait::Readiness;

/// Requests on their way to the issuer.
const OUTGOING: usize = 32;
/// The issuer's headers and its first State.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest sleep: a clock that was set, or a machine that was suspended, is noticed within it.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// Another agent of the same session came: this one is probably on its way out, and must not push it away again.
const DISPLACED: Duration = Duration::from_secs(30);
/// How long a call for a token waits for the next stream when one has ended: a replica of the issuer that goes is followed
/// by another at once.
const BETWEEN_STREAMS: Duration = Duration::from_secs(3);
/// Workload calls that wait for one token.
const MAX_WAITERS: usize = 256;

/// What a session is made of.
#[derive(Debug)]
pub struct SessionParts {
    /// Its name and directory.
    pub config: SessionConfig,
    /// The way to the issuer.
    pub upstream: Arc<Upstream>,
    /// Who vouches for the pod.
    pub token: TokenFile,
    /// Its files.
    pub folder: Folder,
    /// Who waits for it.
    pub readiness: Arc<Readiness>,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    parts: SessionParts,
    wallet: Wallet,
    publisher: Publisher,
    requests: mpsc::Receiver<TokenRequest>,
    waiters: HashMap<u64, Waiting>,
    /// Calls for tokens that wait for the next stream, until then at most.
    parked: Vec<TokenRequest>,
    parking_ends: Option<Instant>,
    next_request: u64,
    /// Files must be written again: they could not be.
    files_are_behind: bool,
}

/// Who waits for a token that was asked for.
#[derive(Debug)]
struct Waiting {
    id: SpiffeId,
    audiences: Vec<String>,
    replies: Vec<Reply>,
}

/// Why a stream ended, and what delay the issuer asked for.
#[derive(Debug)]
struct Ended {
    why: String,
    asked: Option<Duration>,
    /// With its own word, and with a time to come back.
    by_issuer: bool,
    /// The stream had told its State.
    was_told: bool,
}

/// The open stream.
struct Conversation {
    outgoing: mpsc::Sender<SessionRequest>,
    /// The newest token that the issuer was given for the stream's life.
    token: Token,
    look_again_at: Timestamp,
    was_told: bool,
    line: Line,
}

impl Session {
    /// A session that has not begun, with what its Workload API reads.
    pub fn new(parts: SessionParts) -> (Self, watch::Receiver<Published>, TokenDesk) {
        let (publisher, published) = Publisher::new("the agent is starting");
        let (desk, requests) = TokenDesk::open();
        let session = Self {
            parts,
            wallet: Wallet::default(),
            publisher,
            requests,
            waiters: HashMap::new(),
            parked: Vec::new(),
            parking_ends: None,
            next_request: 1,
            files_are_behind: false,
        };
        (session, published, desk)
    }

    /// Runs until dropped.
    pub async fn run(mut self) {
        let mut comeback = Comeback::default();
        loop {
            let begun = Instant::now();
            let ended = self.stream().await;
            let moved = ended.by_issuer && ended.was_told;
            let ending = Ending { lived: begun.elapsed(), moved, asked: ended.asked };
            let delay = comeback.after(ending, rand::random_range(0.0..1.0));
            let (session, why) = (&self.parts.config.name, &ended.why);
            if moved {
                tracing::info!(session, why, ?delay, "the issuer asked to come back on another stream");
            } else {
                tracing::warn!(session, why, ?delay, "no stream to the issuer");
            }
            if ended.was_told {
                self.parking_ends = Some(Instant::now() + BETWEEN_STREAMS);
            }
            self.park();
            self.wallet.disconnected(ended.why);
            self.publish();
            self.meanwhile(tokio::time::sleep(delay)).await;
        }
    }

    /// One stream, from its opening to its end.
    async fn stream(&mut self) -> Ended {
        match self.open().await {
            Ok((mut conversation, incoming)) => {
                let ended = self.converse(&mut conversation, incoming).await;
                // The next may then be with another replica.
                self.parts.upstream.discard(&conversation.line).await;
                Ended { was_told: conversation.was_told, ..ended }
            }
            Err(ended) => ended,
        }
    }

    async fn converse(&mut self, conversation: &mut Conversation, mut incoming: Streaming<SessionResponse>) -> Ended {
        let opened_at = Instant::now();
        loop {
            if conversation.was_told {
                self.resume(conversation);
            }
            let sleep = match self.step(conversation) {
                Ok(sleep) => sleep,
                Err(why) => return failed(why),
            };
            let sleep = if conversation.was_told { sleep } else { sleep.min(OPENING_TIMEOUT).min(self.parking_left()) };
            tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(message)) => if let Err(why) = self.take(message, conversation) {
                        return failed(why);
                    },
                    Ok(None) => return ended(&Status::unavailable("the issuer closed the stream")),
                    Err(status) => return ended(&status),
                },
                Some(request) = self.requests.recv() => {
                    let conversation = conversation.was_told.then_some(&mut *conversation);
                    self.answer(request, conversation);
                }
                () = tokio::time::sleep(sleep) => {
                    self.release_parked();
                    if !conversation.was_told && opened_at.elapsed() >= OPENING_TIMEOUT {
                        return failed("the issuer opened the stream and said nothing".into());
                    }
                }
            }
        }
    }

    /// Connects while the key is made, and says hello.
    async fn open(&mut self) -> Result<(Conversation, Streaming<SessionResponse>), Ended> {
        let upstream = Arc::clone(&self.parts.upstream);
        let mut connecting = Box::pin(async move { upstream.client_on_line().await });
        // The first poll sends the first packet; what follows is done while it travels.
        let early = futures::poll!(&mut connecting);
        let token = self.parts.token.read().map_err(|error| failed(error.to_string()))?;
        let (outgoing, receiver) = mpsc::channel(OUTGOING);
        let now = Timestamp::now();
        let mut x509 = None;
        if self.wallet.wants_default(now) {
            let number = self.number();
            let (key, request) = hello::x509(number, None, &token).map_err(|error| failed(error.to_string()))?;
            self.wallet.asked_x509(number, None, key, now);
            x509 = Some(request);
        }
        let hello = hello::hello(&self.parts.config.name, &token, x509);
        outgoing.try_send(hello).map_err(|error| failed(error.to_string()))?;
        let connected = match early {
            std::task::Poll::Ready(connected) => connected,
            std::task::Poll::Pending => self.meanwhile(connecting).await,
        };
        let (mut client, line) = connected.map_err(|error| failed(error.to_string()))?;
        let opening = async move {
            let opening = client.session(ReceiverStream::new(receiver));
            tokio::time::timeout(OPENING_TIMEOUT, opening).await
        };
        match self.meanwhile(opening).await {
            Ok(Ok(response)) => {
                let look_again_at = token.look_again_at(Timestamp::now());
                let conversation = Conversation { outgoing, token, look_again_at, was_told: false, line };
                Ok((conversation, response.into_inner()))
            }
            Ok(Err(status)) => Err(ended(&status)),
            Err(_) => {
                self.parts.upstream.discard(&line).await;
                Err(failed("the issuer does not answer".into()))
            }
        }
    }

    /// Waits for `until`, serving what needs no stream.
    async fn meanwhile<F: Future>(&mut self, until: F) -> F::Output {
        let mut until = std::pin::pin!(until);
        loop {
            let sleep = span_until(self.wallet.plan(Timestamp::now()).wake_at).min(self.parking_left());
            tokio::select! {
                output = &mut until => return output,
                Some(request) = self.requests.recv() => self.answer(request, None),
                () = tokio::time::sleep(sleep.max(Duration::from_millis(100))) => {
                    self.release_parked();
                    self.publish();
                }
            }
        }
    }

    fn number(&mut self) -> u64 {
        let number = self.next_request;
        self.next_request += 1;
        number
    }
}

fn failed(why: String) -> Ended {
    Ended { why, asked: None, by_issuer: false, was_told: false }
}

/// The issuer's own word on when to come again: its metadata, or, displaced by a newer agent of the same session, late.
fn ended(status: &Status) -> Ended {
    let named = status.metadata().get("retry-after-ms").and_then(|value| value.to_str().ok()?.parse().ok());
    let displaced = (status.code() == Code::Aborted).then_some(DISPLACED);
    let why = format!("{}: {}", status.code(), status.message());
    let by_issuer = status.code() == Code::Unavailable && named.is_some();
    Ended { why, asked: named.map(Duration::from_millis).or(displaced), by_issuer, was_told: false }
}

fn span_until(time: Option<Timestamp>) -> Duration {
    let span = time.map(|time| Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default());
    span.map_or(LONGEST_SLEEP, |span| span.min(LONGEST_SLEEP))
}

/// In [-1, 1].
fn jitter() -> f64 {
    rand::random_range(-1.0..=1.0)
}
