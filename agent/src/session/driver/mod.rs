//! Drives one session: keeps a stream to the issuer, hands what comes to the [`Wallet`], sends what it plans, and publishes
//! to the socket's watchers and to files. With the issuer away it goes on with what it has.

mod exchange;
mod publication;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::renewal::next_attempt;
use countersign_proto::issuer::v1::{SessionRequest, SessionResponse};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::hello;
use super::tokens::{Reply, TokenDesk, TokenRequest};
use super::wallet::Wallet;
use crate::config::SessionConfig;
use crate::files::Folder;
use crate::publish::{Published, Publisher};
use crate::token::{Token, TokenFile};
use crate::upstream::Upstream;
use crate::wait::Readiness;

/// Requests on their way to the issuer.
const OUTGOING: usize = 32;
/// The issuer's headers and its first State.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest sleep: a clock that was set, or a machine that was suspended, is noticed within it.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// Another agent of the same session came: this one is probably on its way out, and must not push it away again.
const DISPLACED: Duration = Duration::from_secs(30);
/// A stream that lived so long ended for a reason of its own: the backoff begins anew. One that ends sooner, as in an
/// issuer that dies again and again, does not.
const STEADY: Duration = Duration::from_secs(30);
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
    waiters: HashMap<u64, Vec<Reply>>,
    next_request: u64,
    /// Files must be written again: they could not be.
    files_are_behind: bool,
}

/// Why a stream ended, and what delay the issuer asked for.
#[derive(Debug)]
struct Ended {
    why: String,
    asked: Option<Duration>,
}

/// The open stream.
struct Conversation {
    outgoing: mpsc::Sender<SessionRequest>,
    /// The newest token that the issuer was given for the stream's life.
    token: Token,
    look_again_at: Timestamp,
    was_told: bool,
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
            next_request: 1,
            files_are_behind: false,
        };
        (session, published, desk)
    }

    /// Runs until dropped.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let ended = self.stream().await;
            failures = if begun.elapsed() >= STEADY { 1 } else { failures + 1 };
            let delay = next_attempt(failures, jitter(), ended.asked);
            tracing::warn!(session = self.parts.config.name, why = ended.why, ?delay, "no stream to the issuer");
            self.wallet.disconnected(ended.why);
            self.waiters.clear();
            self.publish();
            self.meanwhile(tokio::time::sleep(delay)).await;
        }
    }

    /// One stream, from its opening to its end.
    async fn stream(&mut self) -> Ended {
        let opened = match self.open().await {
            Ok(opened) => opened,
            Err(ended) => return ended,
        };
        let (mut conversation, mut incoming) = opened;
        let opened_at = Instant::now();
        loop {
            let sleep = match self.step(&mut conversation) {
                Ok(sleep) => sleep,
                Err(why) => return self.give_up(why).await,
            };
            let sleep = if conversation.was_told { sleep } else { sleep.min(OPENING_TIMEOUT) };
            tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(message)) => if let Err(why) = self.take(message, &mut conversation) {
                        return self.give_up(why).await;
                    },
                    Ok(None) => return ended(&Status::unavailable("the issuer closed the stream")),
                    Err(status) => return ended(&status),
                },
                Some(request) = self.requests.recv() => self.answer(request, Some(&mut conversation)),
                () = tokio::time::sleep(sleep) => {
                    if !conversation.was_told && opened_at.elapsed() >= OPENING_TIMEOUT {
                        return self.give_up("the issuer opened the stream and said nothing".into()).await;
                    }
                }
            }
        }
    }

    /// Connects while the key is made, and says hello.
    async fn open(&mut self) -> Result<(Conversation, Streaming<SessionResponse>), Ended> {
        let upstream = Arc::clone(&self.parts.upstream);
        let mut connecting = Box::pin(async move { upstream.client().await });
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
        let mut client = connected.map_err(|error| failed(error.to_string()))?;
        let opening = async move {
            let opening = client.session(ReceiverStream::new(receiver));
            tokio::time::timeout(OPENING_TIMEOUT, opening).await
        };
        match self.meanwhile(opening).await {
            Ok(Ok(response)) => {
                let look_again_at = token.look_again_at(Timestamp::now());
                let conversation = Conversation { outgoing, token, look_again_at, was_told: false };
                Ok((conversation, response.into_inner()))
            }
            Ok(Err(status)) => Err(ended(&status)),
            Err(_) => {
                self.parts.upstream.discard().await;
                Err(failed("the issuer does not answer".into()))
            }
        }
    }

    /// Waits for `until`, serving what needs no stream.
    async fn meanwhile<F: Future>(&mut self, until: F) -> F::Output {
        let mut until = std::pin::pin!(until);
        loop {
            let sleep = span_until(self.wallet.plan(Timestamp::now()).wake_at);
            tokio::select! {
                output = &mut until => return output,
                Some(request) = self.requests.recv() => self.answer(request, None),
                () = tokio::time::sleep(sleep.max(Duration::from_millis(100))) => self.publish(),
            }
        }
    }

    async fn give_up(&self, why: String) -> Ended {
        self.parts.upstream.discard().await;
        Ended { why, asked: None }
    }

    fn number(&mut self) -> u64 {
        let number = self.next_request;
        self.next_request += 1;
        number
    }
}

fn failed(why: String) -> Ended {
    Ended { why, asked: None }
}

/// The issuer's own word on when to come again: its metadata, or, displaced by a newer agent of the same session, late.
fn ended(status: &Status) -> Ended {
    let named = status.metadata().get("retry-after-ms").and_then(|value| value.to_str().ok()?.parse().ok());
    let displaced = (status.code() == Code::Aborted).then_some(DISPLACED);
    let why = format!("{}: {}", status.code(), status.message());
    Ended { why, asked: named.map(Duration::from_millis).or(displaced) }
}

fn span_until(time: Option<Timestamp>) -> Duration {
    let span = time.map(|time| Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default());
    span.map_or(LONGEST_SLEEP, |span| span.min(LONGEST_SLEEP))
}

/// In [-1, 1].
fn jitter() -> f64 {
    rand::random_range(-1.0..=1.0)
}
