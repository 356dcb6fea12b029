//! One stream: Hello first, then requests answered and states pushed until the token runs out, the pod ends or a newer
//! stream takes over, or the replica goes. A slow reader is coalesced: one state is due at most, and no request is read while
//! an answer waits. So are changes that come together: whoever has an identity is last_sent of them once, a moment later.
//!
//! Streams share nothing on the way of a request to its answer: no lock, and no memory that one writes and others read.
//! What is published is read through a [`PublishedReader`], changes of it come through the stream's own subscription, timers are set
//! once, counts are each thread's own.

use std::{collections::VecDeque, future::ready, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use countersign_core::{
    entitlement::{Entitled, MAX_IDENTITIES},
    service_account::PodToken,
};
use countersign_proto::issuer::v1::{self, session_request, session_response};
use futures::{FutureExt, Stream, StreamExt};
use jiff::Timestamp;
use tokio::{sync::mpsc, time::Instant};
use tonic::{Code, Status};

use super::{
    Context,
    agent_versions::{CountedAgent, SupportStatus},
    connection::ConnectionHandle,
    drain,
    error::IssuerError,
    issuance::{self, IssuanceInputs, KeysUsed},
    pod_lookup::{LookupOutcome, PodKey},
    published_reader::PublishedReader,
    record::AgentInfo,
    registry::{Admission, Registered, Registration},
    signing::SigningCredit,
    state,
};
use crate::published::Published;
use crate::{
    events::{PodEvent, PodRef},
    metrics::{Credential, Kind},
};
use countersign_index::{Entitlement, Subscription};
use countersign_runtime::rate::{Bucket, Rate};

/// How long the first message may take.
pub const HELLO_TIME: Duration = Duration::from_secs(5);

/// What one stream may ask for: far above what renewals need, far below what would hurt others.
const PACE: Rate = Rate { each: Duration::from_millis(50), burst: 100 };

/// Within which time a change is last_sent, at random: a bundle that changes for ten thousand streams is not ten thousand pushes
/// at the same instant, and what changes meanwhile is last_sent along with it.
const COALESCING: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_millis(100);

/// How late a timer may be. One that is set already is not set anew for less: all streams share the wheel it turns on.
const SLACK: Duration = Duration::from_millis(5);

/// How long the last word of a stream may wait for its reader.
const FAREWELL: Duration = Duration::from_secs(5);

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
    // One that goes without a word costs as much as one that is refused.
    let at_fault = end.as_ref().map_or_else(IssuerError::is_peers_fault, |()| true);
    if !admission.is_authenticated() && !connection.is_leaving() && at_fault {
        connection.fail(Instant::now());
    }
    if let Err(refused) = end {
        context.metrics.refused(Kind::Session, refused.reason());
        tracing::debug!(error = %refused, "stream ended");
        // A reader that does not take even this is gone; its stream ends with the channel.
        let _ = tokio::time::timeout(FAREWELL, outbound.send(Err(Status::from(&refused)))).await;
    }
}

async fn converse(
    context: &Arc<Context>,
    connection: &ConnectionHandle,
    admission: &mut Admission,
    requests: &mut (impl Stream<Item = Result<v1::SessionRequest, Status>> + Unpin),
    outbound: &Outbound,
) -> Result<(), IssuerError> {
    // A stream lives for months and keeps what its future has room for: how it opens is boxed, and gone then.
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
    signing: SigningCredit,
    last_sent: Option<v1::State>,
    /// When the state is looked at again, to be last_sent if it has changed.
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
            let notice = PodEvent::several_addresses(newer.into_iter().chain(elsewhere));
            context.events.send(pod_ref(&pod), &hello.session, notice);
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
            signing: SigningCredit::new(context.registry.clone()),
            last_sent: None,
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
                () = self.subscription.changed() => self.note_change()?,
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

    /// Something that bears on the state has changed. A pod without identity waits for one and is last_sent at once, others
    /// within [`COALESCING`].
    fn note_change(&mut self) -> Result<(), IssuerError> {
        if matches!(*self.subscription.current(), Entitlement::Gone) {
            return Err(self.gone());
        }
        let has_identity = self.last_sent.as_ref().is_some_and(|last_sent| !last_sent.identities.is_empty());
        let wait = if has_identity { rand::random_range(COALESCING) } else { Duration::ZERO };
        let at = Instant::now() + wait;
        self.state_due_at = Some(self.state_due_at.map_or(at, |earlier| earlier.min(at)));
        Ok(())
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

    /// The state when it differs from what the session was last_sent last.
    fn changed_state(&mut self) -> Result<Option<v1::State>, IssuerError> {
        let entitlement = self.subscription.current();
        if matches!(*entitlement, Entitlement::Gone) {
            return Err(self.gone());
        }
        let mut state = state::compose(&entitlement, self.published.current());
        if let Some(last_sent) = &self.last_sent {
            state.generation = last_sent.generation;
        }
        Ok((self.last_sent.as_ref() != Some(&state)).then_some(state))
    }

    fn push_state(&mut self, mut state: v1::State) -> v1::State {
        state.generation = self.context.next_generation();
        self.context.metrics.states_pushed.inc();
        let notice = match state.identities.first() {
            Some(identity) => PodEvent::Identity(format!("the pod has identity {}", identity.spiffe_id)),
            None => PodEvent::NoIdentity(state.reason.clone()),
        };
        self.context.events.send(pod_ref(&self.pod), &self.name, notice);
        self.tell_of_those_left_out();
        self.note_served(&state);
        self.last_sent = Some(state.clone());
        if let Some(request) = self.initial_request.take() {
            // Its token was verified a moment ago, for Hello.
            self.answer_x509(request, Instant::now());
        }
        state
    }

    /// Has an event say so when the session is selected by more WorkloadIdentities than it may have.
    fn tell_of_those_left_out(&self) {
        match &*self.subscription.current() {
            Entitlement::Entitled(entitled) if entitled.len() >= MAX_IDENTITIES => {}
            _ => return,
        }
        let left_out = self.context.index.read(|index| index.left_out(&self.pod.pod_uid, &self.name));
        if !left_out.is_empty() {
            let notice = PodEvent::too_many_identities(MAX_IDENTITIES, &left_out);
            self.context.events.send(pod_ref(&self.pod), &self.name, notice);
        }
    }

    /// Leaves in the record for which WorkloadIdentities this stream serves.
    fn note_served(&self, state: &v1::State) {
        let entitlement = self.subscription.current();
        let Entitlement::Entitled(entitled) = &*entitlement else {
            return self.registration.record().set_served([].into_iter());
        };
        let last_sent = |one: &&Entitled| {
            let id = one.id.to_string();
            state.identities.iter().any(|identity| identity.spiffe_id == id)
        };
        self.registration.record().set_served(entitled.iter().filter(last_sent).map(|one| &one.identity));
    }

    async fn receive(&mut self, request: v1::SessionRequest) -> Result<(), IssuerError> {
        let begin = Instant::now();
        // The stream ends, for the next may be with a replica whose clock is right and whose view is fresh.
        self.context.clock_skew.ensure()?;
        self.context.freshness.ensure()?;
        // What has changed by now is last_sent before the answer that may rest on it.
        if self.published.has_news() {
            self.note_change()?;
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
            // A refresh has no answer of its own; a token that does not verify ends the stream.
            Some(session_request::Kind::TokenRefresh(refresh)) => self.admit(&refresh.token, begin).await?,
            Some(session_request::Kind::Hello(_)) => return Err(IssuerError::Protocol("Hello comes once, first")),
            // An addition to the protocol of which this operator does not know.
            None => {}
        }
        Ok(())
    }

    /// Verifies the token of a request; a newer one prolongs the stream.
    async fn admit(&mut self, token: &str, at: Instant) -> Result<(), IssuerError> {
        self.pace.take(at).map_err(IssuerError::TooFast)?;
        let pod = self.context.token_keys.verify(token, self.context.clock.now()).await?;
        if pod.pod_uid != self.pod.pod_uid {
            return Err(IssuerError::OtherPod);
        }
        self.expires_at = self.expires_at.max(pod.expires_at);
        Ok(())
    }

    fn answer_x509(&mut self, request: v1::X509Request, begin: Instant) {
        let entitlement = self.subscription.current();
        let basis = basis(self.context, &entitlement, self.published.current());
        let share = self.signing.take(&self.pod.namespace, begin).map_err(IssuerError::NamespaceBusy);
        match share.and_then(|()| issuance::x509(&request, basis, &mut self.keys_used)) {
            Ok(signed) => {
                self.context.metrics.issued(Credential::X509, begin.elapsed());
                self.registration.record().issued(signed.identity, signed.issuance);
                self.answers.push_back(session_response::Kind::X509(signed.response));
            }
            Err(refused) => self.refuse_x509(request.id, &refused),
        }
    }

    fn refuse_x509(&mut self, id: u64, refused: &IssuerError) {
        self.context.metrics.refused(Kind::X509, refused.reason());
        tracing::debug!(namespace = self.pod.namespace, pod = self.pod.pod_name, error = %refused, "X509-SVID refused");
        let refusal = Some(refused.to_answer());
        self.answers.push_back(session_response::Kind::X509(v1::X509Response { id, refusal, ..Default::default() }));
    }

    fn answer_jwt(&mut self, request: &v1::JwtRequest, admitted: Result<(), IssuerError>, begin: Instant) {
        let entitlement = self.subscription.current();
        let basis = basis(self.context, &entitlement, self.published.current());
        let answer = admitted
            .and_then(|()| self.signing.take(&self.pod.namespace, begin).map_err(IssuerError::NamespaceBusy))
            .and_then(|()| issuance::jwt(request, basis));
        let answer = answer.unwrap_or_else(|refused| {
            self.context.metrics.refused(Kind::Jwt, refused.reason());
            tracing::debug!(namespace = self.pod.namespace, pod = self.pod.pod_name, error = %refused, "JWT-SVID refused");
            v1::JwtResponse { id: request.id, refusal: Some(refused.to_answer()), ..Default::default() }
        });
        if answer.refusal.is_none() {
            self.context.metrics.issued(Credential::Jwt, begin.elapsed());
        }
        self.answers.push_back(session_response::Kind::Jwt(answer));
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

fn basis<'a>(context: &Context, entitlement: &'a Entitlement, published: &'a Published) -> IssuanceInputs<'a> {
    IssuanceInputs { entitlement, published, now: context.clock.now() }
}

fn pod_ref(pod: &PodToken) -> PodRef {
    PodRef { namespace: pod.namespace.clone(), name: pod.pod_name.clone(), uid: pod.pod_uid.clone() }
}
