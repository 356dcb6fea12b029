//! One stream: Hello first, then requests are answered and states are pushed until the token expires, the pod ends, a newer
//! stream supersedes it, or the replica shuts down. A slow reader is coalesced: at most one state is due, and no request is read
//! while an answer waits. Changes that come together are coalesced too ([`state_push`]).
//!
//! Streams share nothing between a request and its answer: no lock, and no memory that one writes and others read. What is
//! published is read through a [`PublishedReader`], changes arrive through the stream's own subscription, timers are set once,
//! and each thread has its own counts.

mod acknowledge;
mod receipt;
mod renewal;
mod requests;
mod state_push;

use std::{collections::VecDeque, future::ready, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use countersign_core::service_account::PodToken;
use countersign_proto::issuer::v1::{self, session_request, session_response};
use futures::{FutureExt, Stream, StreamExt};
use jiff::Timestamp;
use tokio::{sync::mpsc, time::Instant};
use tonic::{Code, Status};

use super::{
    Context,
    acknowledgements::PushedStates,
    agent_versions::{CountedAgent, SupportStatus},
    connection::ConnectionHandle,
    drain,
    error::IssuerError,
    issuance::KeysUsed,
    pod_lookup::{LookupOutcome, PodKey},
    published_reader::PublishedReader,
    record::AgentInfo,
    registry::{Admission, Registered, Registration},
    signing::SigningCredit,
};
use crate::published::Published;
use crate::{
    events::{PodEvent, PodRef},
    metrics::Kind,
};
use countersign_index::Subscription;
use countersign_runtime::rate::{Bucket, Rate};

/// How long the first message may take.
pub const HELLO_TIME: Duration = Duration::from_secs(5);

/// What one stream may ask for: far above what renewals need, far below what would hurt others.
const PACE: Rate = Rate { each: Duration::from_millis(50), burst: 100 };

/// How late a timer may be. One that is set already is not set anew for less: all streams share the wheel it turns on.
const SLACK: Duration = Duration::from_millis(5);

/// Timeout for sending the final status of a stream.
const FINAL_STATUS: Duration = Duration::from_secs(5);

/// Boxed, since a channel keeps room for 32 messages however few it lets through.
pub type Outgoing = Result<Box<v1::SessionResponse>, Status>;

type Outbound = mpsc::Sender<Outgoing>;

/// Serves a stream to its end.
pub async fn serve(
    context: Arc<Context>,
    connection: ConnectionHandle,
    mut admission: Admission,
    mut requests: impl Stream<Item = Result<v1::SessionRequest, Status>> + Unpin,
    outbound: Outbound,
) {
    context.metrics.sessions.inc();
    let end = converse(&context, &connection, &mut admission, &mut requests, &outbound).await;
    context.metrics.sessions.dec();
    // A stream that ends without a message costs as much as one that is refused.
    let at_fault = end.as_ref().map_or_else(IssuerError::is_peers_fault, |()| true);
    if !admission.is_authenticated() && !connection.is_leaving() && at_fault {
        connection.fail(Instant::now());
    }
    if let Err(refused) = end {
        context.metrics.refused(Kind::Session, refused.reason());
        tracing::debug!(error = %refused, "stream ended");
        // A reader that does not take even this is gone; its stream ends with the channel.
        let _ = tokio::time::timeout(FINAL_STATUS, outbound.send(Err(Status::from(&refused)))).await;
    }
}

async fn converse(
    context: &Arc<Context>,
    connection: &ConnectionHandle,
    admission: &mut Admission,
    requests: &mut (impl Stream<Item = Result<v1::SessionRequest, Status>> + Unpin),
    outbound: &Outbound,
) -> Result<(), IssuerError> {
    // A stream lives for months, and its future keeps its largest size: opening is boxed, and freed afterwards.
    let Some(mut session) = Box::pin(open(context, connection, requests)).await? else { return Ok(()) };
    admission.mark_authenticated();
    let _authenticated = connection.mark_authenticated();
    session.run(connection, requests, outbound).await
}

async fn open<'a>(
    context: &'a Context,
    connection: &ConnectionHandle,
    requests: &mut (impl Stream<Item = Result<v1::SessionRequest, Status>> + Unpin),
) -> Result<Option<Session<'a>>, IssuerError> {
    let Some(hello) = first_message(connection, requests).await? else { return Ok(None) };
    let mut session = Session::open(context, &hello, connection.address()).await?;
    if let Some(mut request) = hello.x509 {
        if request.token.is_empty() {
            request.token = hello.token;
        }
        session.initial_request = Some(request);
    }
    Ok(Some(session))
}

async fn first_message(
    connection: &ConnectionHandle,
    requests: &mut (impl Stream<Item = Result<v1::SessionRequest, Status>> + Unpin),
) -> Result<Option<v1::Hello>, IssuerError> {
    let first = tokio::select! {
        biased;
        () = connection.leaving() => return Err(IssuerError::ShuttingDown(drain::hint())),
        first = tokio::time::timeout(HELLO_TIME, requests.next()) => first.map_err(|_| IssuerError::NoHello(HELLO_TIME))?,
    };
    match first {
        Some(Ok(v1::SessionRequest { kind: Some(session_request::Kind::Hello(hello)) })) => Ok(Some(hello)),
        Some(Ok(_)) => Err(IssuerError::NotHello),
        Some(Err(status)) if is_unreadable(&status) => Err(IssuerError::Protocol(UNREADABLE)),
        // The peer went away, or broke off: there is nobody to tell.
        Some(Err(_)) | None => Ok(None),
    }
}

const UNREADABLE: &str = "a message of the stream is over the size limit or is no SessionRequest";

/// Whether a stream's end is about what the peer sent rather than the peer being gone: too long, or not decodable.
fn is_unreadable(status: &Status) -> bool {
    matches!(status.code(), Code::OutOfRange | Code::Internal)
}

struct Session<'a> {
    context: &'a Context,
    pod: PodToken,
    name: String,
    registration: Registration,
    _counted: CountedAgent,
    subscription: Subscription,
    published: PublishedReader<Published>,
    /// The stream's end unless a newer token comes.
    expires_at: Timestamp,
    keys_used: KeysUsed,
    pace: Bucket,
    /// Of acknowledgements and receipts: a workload that uses up the pace of requests must not delay these.
    ack_pace: Bucket,
    pushed: PushedStates,
    signing: SigningCredit,
    last_sent: Option<v1::State>,
    /// What is still to be issued anew of what somebody asked for on this stream.
    renewing: Option<renewal::Renewing>,
    /// When the state is composed again, to be pushed if it has changed.
    state_due_at: Option<Instant>,
    initial_request: Option<v1::X509Request>,
    answers: VecDeque<session_response::Kind>,
}

impl<'a> Session<'a> {
    async fn open(context: &'a Context, hello: &v1::Hello, address: Option<IpAddr>) -> Result<Self, IssuerError> {
        if !context.index_complete.is_passing() {
            return Err(IssuerError::Starting(context.index_complete.missing().join("; ")));
        }
        context.clock_skew.ensure()?;
        context.freshness.ensure()?;
        let now = context.clock.now();
        let pod = context.token_keys.verify(&hello.token, now).await?;
        context.registry.begin(&pod.namespace, Instant::now())?;
        ensure_alive(context, &pod, now).await?;
        let known = context.index.read(|index| {
            let matches = index.pod(&pod.pod_uid).is_some_and(|record| {
                let facts = &record.facts;
                facts.namespace == pod.namespace
                    && facts.name == pod.pod_name
                    && facts.service_account == pod.service_account
            });
            (matches, index.has_session(&pod.pod_uid, &hello.session))
        });
        match known {
            (false, _) => return Err(IssuerError::TokenMismatch),
            (true, false) => {
                let session = hello.session.chars().take(64).collect();
                return Err(IssuerError::UnknownSession { namespace: pod.namespace, name: pod.pod_name, session });
            }
            (true, true) => {}
        }
        let agent = AgentInfo::new(&hello.version, &hello.capabilities);
        let standing = context.support.judge(&agent);
        let counted = CountedAgent::new(&context.metrics, &agent, &standing);
        let Registered { registration, superseded, elsewhere } =
            context.registry.register(&pod.pod_uid, &hello.session, address, agent, Instant::now())?;
        let newer = registration.record().address;
        for older in &superseded {
            context.metrics.superseded.inc();
            context.events.send(pod_ref(&pod), &hello.session, PodEvent::superseded(&hello.session, newer, older));
        }
        if !elsewhere.is_empty() {
            let event = PodEvent::several_addresses(newer.into_iter().chain(elsewhere));
            context.events.send(pod_ref(&pod), &hello.session, event);
        }
        if let SupportStatus::Outdated(why) = standing {
            context.events.send(pod_ref(&pod), &hello.session, PodEvent::Outdated(why));
        }
        tracing::debug!(
            namespace = pod.namespace,
            pod = pod.pod_name,
            session = hello.session,
            agent = registration.record().agent.version,
            "stream opened"
        );
        Ok(Self {
            context,
            registration,
            _counted: counted,
            subscription: context.index.subscribe(&pod.pod_uid, &hello.session),
            published: PublishedReader::new(context.published.clone()),
            expires_at: pod.expires_at,
            pod,
            name: hello.session.clone(),
            keys_used: KeysUsed::default(),
            pace: Bucket::new(PACE),
            ack_pace: Bucket::new(PACE),
            pushed: PushedStates::default(),
            signing: SigningCredit::new(context.registry.clone()),
            last_sent: None,
            renewing: None,
            state_due_at: None,
            initial_request: None,
            answers: VecDeque::new(),
        })
    }

    async fn run(
        &mut self,
        connection: &ConnectionHandle,
        requests: &mut (impl Stream<Item = Result<v1::SessionRequest, Status>> + Unpin),
        outbound: &Outbound,
    ) -> Result<(), IssuerError> {
        let context = self.context;
        self.changed_state()?;
        self.state_due_at = Some(Instant::now());
        let mut alarm = pin!(tokio::time::sleep(context.clock.until(self.expires_at)));
        loop {
            let (leaving, now) = (connection.is_leaving(), Instant::now());
            let state_due = self.state_due_at.is_some_and(|at| leaving || at <= now);
            let something_due = state_due || !self.answers.is_empty();
            if leaving && !something_due {
                // What was asked before is answered before the stream ends.
                match requests.next().now_or_never() {
                    Some(Some(Ok(request))) => self.receive(request).await?,
                    _ => return Err(IssuerError::ShuttingDown(drain::hint())),
                }
                continue;
            }
            let token_left = context.clock.until(self.expires_at);
            let token_ends = now + token_left;
            let next = self.state_due_at.filter(|_| !state_due).map_or(token_ends, |at| at.min(token_ends));
            if alarm.is_elapsed() || next + SLACK < alarm.deadline() {
                alarm.as_mut().reset(next);
            }
            tokio::select! {
                biased;
                () = connection.leaving(), if !leaving => {}
                () = self.registration.superseded() => return Err(IssuerError::Superseded),
                () = ready(()), if token_left.is_zero() => return Err(IssuerError::TokenExpired),
                () = self.subscription.changed() => self.schedule_push()?,
                permit = outbound.reserve(), if something_due => {
                    // The receiving end is gone: so is the peer.
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(kind) = self.due(state_due)? {
                        permit.send(Ok(Box::new(v1::SessionResponse { kind: Some(kind) })));
                    }
                }
                () = outbound.closed() => return Ok(()),
                request = requests.next(), if self.answers.is_empty() && self.last_sent.is_some() => match request {
                    Some(Ok(request)) => self.receive(request).await?,
                    Some(Err(status)) if is_unreadable(&status) => return Err(IssuerError::Protocol(UNREADABLE)),
                    Some(Err(_)) | None => return Ok(()),
                },
                () = alarm.as_mut() => {}
            }
        }
    }

    /// What is sent next: a state that changed before any answer, so that an answer never precedes its ground.
    fn due(&mut self, state_due: bool) -> Result<Option<session_response::Kind>, IssuerError> {
        if state_due {
            self.state_due_at = None;
            // By a wrong time authorities come and go that should not.
            self.context.clock_skew.ensure()?;
            if let Some(state) = self.changed_state()? {
                return Ok(Some(session_response::Kind::State(self.push_state(state))));
            }
        }
        Ok(self.answers.pop_front())
    }

    async fn receive(&mut self, request: v1::SessionRequest) -> Result<(), IssuerError> {
        let begin = Instant::now();
        // Nothing depends on either, so that they neither hasten a push nor need a fresh view.
        if let Some(session_request::Kind::Ack(ack)) = &request.kind {
            return self.acknowledge(ack, begin);
        }
        if let Some(session_request::Kind::Receipt(receipt)) = &request.kind {
            return self.receive_receipt(receipt, begin);
        }
        // The stream ends, for the next may be with a replica whose clock is right and whose view is fresh.
        self.context.clock_skew.ensure()?;
        self.context.freshness.ensure()?;
        // What has changed by now is pushed before the answer that may depend on it.
        if self.published.has_news() {
            self.schedule_push()?;
        }
        self.state_due_at = self.state_due_at.map(|at| at.min(begin));
        match request.kind {
            Some(session_request::Kind::X509(request)) => match self.admit(&request.token, begin).await {
                Ok(()) => self.answer_x509(request, begin),
                Err(refused) => self.refuse_x509(request.id, &refused),
            },
            Some(session_request::Kind::Jwt(request)) => {
                let admitted = self.admit(&request.token, begin).await;
                self.answer_jwt(&request, admitted, begin);
            }
            Some(session_request::Kind::Wit(request)) => {
                let admitted = self.admit(&request.token, begin).await;
                self.answer_wit(&request, admitted, begin);
            }
            // A refresh has no answer of its own; a token that does not verify ends the stream.
            Some(session_request::Kind::TokenRefresh(refresh)) => self.admit(&refresh.token, begin).await?,
            Some(session_request::Kind::Hello(_)) => return Err(IssuerError::Protocol("Hello comes once, first")),
            // Above; or an addition to the protocol of which this operator does not know.
            Some(session_request::Kind::Ack(_) | session_request::Kind::Receipt(_)) | None => {}
        }
        Ok(())
    }

    fn gone(&self) -> IssuerError {
        let pod = &self.pod;
        let (namespace, name, uid) = (pod.namespace.clone(), pod.pod_name.clone(), pod.pod_uid.clone());
        IssuerError::PodGone { namespace, name, uid }
    }
}

/// Whether the index knows the pod as alive; one live read where it does not.
async fn ensure_alive(context: &Context, pod: &PodToken, now: Timestamp) -> Result<(), IssuerError> {
    let alive = || context.index.read(|index| index.alive(&pod.pod_uid, now));
    if alive() {
        return Ok(());
    }
    let (namespace, name, uid) = (pod.namespace.clone(), pod.pod_name.clone(), pod.pod_uid.clone());
    // A pod that the index knows as ended does not come back: there is nothing to read.
    let ended = context.index.read(|index| index.ended(&uid, now));
    if ended {
        return Err(IssuerError::PodGone { namespace, name, uid });
    }
    let wanted = PodKey { namespace, name, uid };
    match context.pod_lookup.fetch(&wanted, now).await {
        LookupOutcome::Present if alive() => Ok(()),
        LookupOutcome::Present | LookupOutcome::Absent => {
            let PodKey { namespace, name, uid } = wanted;
            Err(IssuerError::PodGone { namespace, name, uid })
        }
        LookupOutcome::Unknown => Err(IssuerError::Undecided),
    }
}

fn pod_ref(pod: &PodToken) -> PodRef {
    PodRef { namespace: pod.namespace.clone(), name: pod.pod_name.clone(), uid: pod.pod_uid.clone() }
}
