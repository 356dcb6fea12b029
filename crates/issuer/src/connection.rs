//! One connection: HTTP/2 within limits, ended when it is of no use or the process goes. What its streams share with it is
//! a [`ConnectionHandle`].

use std::{
    net::IpAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use countersign_proto::issuer::v1::issuer_server::IssuerServer;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::Instant,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tonic::{codegen::Service as _, transport::server::Connected};

use super::{
    Service,
    drain::{self, FAREWELL},
};
use countersign_runtime::connections::{Peer, ReadRate, ThrottledIo};
use countersign_runtime::rate::{Bucket, Rate};

/// 512 sessions of a node's agent, each with a Hello of 4 KiB, come at once; renewals are far below the rate.
const READ_RATE: ReadRate = ReadRate { bytes_per_second: 256 * 1024, burst: 2 * 1024 * 1024 };

/// Streams on one connection: a node's agent has one for each session.
const STREAMS: u32 = 512;

/// How long a new connection may have no stream.
const FIRST_STREAM: Duration = Duration::from_secs(5);

/// How long a connection may be without a stream afterwards: who was told to come back does so on the same connection.
const IDLE: Duration = Duration::from_secs(15);

/// What may be opened on one connection: every session of a node at once, then few. Opening and resetting streams without
/// end ("rapid reset") ends the connection.
const OPENING: Rate = Rate { each: Duration::from_millis(100), burst: 1024 };

/// Streams that may fail by the peer's own fault on one connection. Beyond it new ones are refused until some is earned back;
/// a connection on which no stream has proven a pod ends.
const FAILURES: Rate = Rate { each: Duration::from_secs(1), burst: 4 };

/// How long the parting words of a connection without streams may take.
const PARTING: Duration = Duration::from_secs(1);

/// What a connection and its streams know of each other.
#[derive(Clone, Debug)]
pub struct ConnectionHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    peer: Option<Peer>,
    open: watch::Sender<usize>,
    leaving: CancellationToken,
    broken: CancellationToken,
    /// Open streams that have proven a pod.
    authenticated: AtomicUsize,
    useless: CancellationToken,
    budgets: Mutex<Budgets>,
}

#[derive(Debug)]
struct Budgets {
    opening: Bucket,
    failures: Bucket,
}

/// Why a connection takes no further stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// Too many were opened recently.
    TooMany(Duration),
    /// Too many failed recently.
    Failing(Duration),
}

impl ConnectionHandle {
    /// Of a connection without streams.
    #[must_use]
    pub fn new(peer: Option<Peer>) -> Self {
        Self(Arc::new(Inner {
            peer,
            open: watch::Sender::new(0),
            leaving: CancellationToken::new(),
            broken: CancellationToken::new(),
            authenticated: AtomicUsize::new(0),
            useless: CancellationToken::new(),
            budgets: Mutex::new(Budgets { opening: Bucket::new(OPENING), failures: Bucket::new(FAILURES) }),
        }))
    }

    /// From where the connection came, as far as it is known.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.0.peer.as_ref().map(Peer::address)
    }

    /// A stream begins.
    ///
    /// # Errors
    /// There were too many recently, or too many failed. A connection of which no stream has proven a pod then ends; those that
    /// have one go on as they are.
    pub fn open(&self, now: Instant) -> Result<OpenStream, NotOpened> {
        let opened = {
            let Budgets { opening, failures } = &mut *self.0.budgets.lock();
            opening
                .take(now)
                .map_err(NotOpened::TooMany)
                .and_then(|()| failures.has_one(now).map_err(NotOpened::Failing))
        };
        match opened {
            Ok(()) => {
                self.0.open.send_modify(|open| *open += 1);
                Ok(OpenStream(self.clone()))
            }
            Err(why) => {
                if !self.has_authenticated() && matches!(why, NotOpened::TooMany(_)) {
                    self.0.broken.cancel();
                }
                Err(why)
            }
        }
    }

    fn has_authenticated(&self) -> bool {
        self.0.authenticated.load(Ordering::Relaxed) > 0
    }

    /// Resolves when the connection's streams shall move to another replica.
    pub fn leaving(&self) -> WaitForCancellationFuture<'_> {
        self.0.leaving.cancelled()
    }

    /// Has them move.
    pub fn leave(&self) {
        self.0.leaving.cancel();
    }

    /// Whether they shall.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.0.leaving.is_cancelled()
    }

    /// A stream has proven its pod; it counts for as long as the answer lives.
    #[must_use]
    pub fn mark_authenticated(&self) -> AuthenticatedStream {
        if let Some(peer) = &self.0.peer {
            peer.mark_authenticated();
        }
        self.0.authenticated.fetch_add(1, Ordering::Relaxed);
        AuthenticatedStream(self.clone())
    }

    /// A stream ended without proving a pod, by the peer's own fault.
    pub fn fail(&self, now: Instant) {
        let exhausted = {
            let failures = &mut self.0.budgets.lock().failures;
            // The last one of the budget is the one too many.
            let _ = failures.take(now);
            failures.has_one(now).is_err()
        };
        if exhausted && !self.has_authenticated() {
            self.0.useless.cancel();
        }
    }
}

/// An open stream that has proven its pod, as its connection counts it.
#[derive(Debug)]
pub struct AuthenticatedStream(ConnectionHandle);

impl Drop for AuthenticatedStream {
    fn drop(&mut self) {
        self.0.0.authenticated.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An open stream, as its connection counts it.
#[derive(Debug)]
pub struct OpenStream(ConnectionHandle);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.0.open.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// Serves a connection to its end.
pub(super) async fn serve<C>(io: C, service: IssuerServer<Service>, shutdown: CancellationToken)
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let mut known = http::Extensions::new();
    known.insert(io.connect_info());
    let handle = ConnectionHandle::new(known.remove::<Peer>());
    let shared = handle.clone();
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(shared.clone());
        service.clone().call(request)
    });
    let mut connection = pin!(http2().serve_connection(TokioIo::new(ThrottledIo::new(io, READ_RATE)), service));
    let mut moving = pin!(drain::moment(shutdown));
    let evicted = async {
        match &handle.0.peer {
            Some(peer) => peer.evicted().await,
            None => std::future::pending().await,
        }
    };
    let mut evicted = pin!(evicted);
    let mut open = handle.0.open.subscribe();
    let mut idle_at = Instant::now() + FIRST_STREAM;
    let mut ends_at: Option<Instant> = None;
    loop {
        let is_idle = *open.borrow_and_update() == 0;
        // What ends already only waits for its end.
        let deadline = ends_at.or(is_idle.then_some(idle_at));
        let farewell = tokio::select! {
            biased;
            () = handle.0.broken.cancelled() => return,
            () = &mut evicted => return,
            _ = connection.as_mut() => return,
            () = &mut moving, if ends_at.is_none() => {
                handle.leave();
                FAREWELL
            }
            () = handle.0.useless.cancelled(), if ends_at.is_none() => PARTING,
            Ok(()) = open.changed() => {
                idle_at = Instant::now() + IDLE;
                continue;
            }
            () = tokio::time::sleep_until(deadline.unwrap_or(idle_at)), if deadline.is_some() => {
                match ends_at {
                    // A stream has proven its pod while the connection was told to go: it takes no more, and that one goes on.
                    Some(_) if handle.has_authenticated() && !handle.is_leaving() => IDLE,
                    Some(_) => return,
                    None => PARTING,
                }
            }
        };
        // GOAWAY: what is open ends by itself, what comes goes elsewhere.
        connection.as_mut().graceful_shutdown();
        ends_at = Some(Instant::now() + farewell);
    }
}

/// Limits beyond those of the library: it bounds resets of streams not yet accepted (20), one answer to PING and SETTINGS
/// at a time, and the overhead of small DATA frames; [`ThrottledIo`] bounds every other flood.
fn http2() -> hyper::server::conn::http2::Builder<TokioExecutor> {
    let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_local_error_reset_streams(64)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(256 * 1024)
        .max_frame_size(16 * 1024)
        .max_header_list_size(16 * 1024)
        .max_send_buf_size(64 * 1024)
        .auto_date_header(false)
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20));
    http2
}

#[cfg(test)]
mod tests {
    use super::{ConnectionHandle, FAILURES, NotOpened, OPENING};
    use tokio::time::Instant;

    #[test]
    fn a_connection_that_opens_streams_without_end_is_broken_off() {
        let (handle, now) = (ConnectionHandle::new(None), Instant::now());
        let all: Vec<_> = (0..OPENING.burst).map(|_| handle.open(now).expect("within the burst")).collect();
        assert_eq!(*handle.0.open.borrow(), all.len());
        drop(all);
        assert!(handle.open(now).is_err() && handle.0.broken.is_cancelled());
        assert_eq!(*handle.0.open.borrow(), 0);
    }

    #[test]
    fn failures_use_up_a_budget_that_is_earned_back_and_end_only_a_connection_that_has_proven_nothing() {
        let (handle, now) = (ConnectionHandle::new(None), Instant::now());
        let healthy = handle.mark_authenticated();
        for _ in 0..2 * FAILURES.burst {
            handle.fail(now);
        }
        assert_eq!(handle.open(now).err(), Some(NotOpened::Failing(FAILURES.each)));
        assert!(!handle.0.useless.is_cancelled() && !handle.0.broken.is_cancelled());
        assert!(handle.open(now + FAILURES.each).is_ok(), "one is earned back");
        handle.fail(now + FAILURES.each);
        assert!(handle.open(now + FAILURES.each).is_err() && !handle.0.useless.is_cancelled());
        drop(healthy);
        handle.fail(now + FAILURES.each);
        assert!(handle.0.useless.is_cancelled(), "no stream of it is of use");
    }

    #[test]
    fn a_connection_with_a_proven_stream_that_opens_too_many_is_refused_more_and_goes_on() {
        let (handle, now) = (ConnectionHandle::new(None), Instant::now());
        let _healthy = handle.mark_authenticated();
        (0..OPENING.burst).for_each(|_| drop(handle.open(now)));
        assert_eq!(handle.open(now).err(), Some(NotOpened::TooMany(OPENING.each)));
        assert!(!handle.0.broken.is_cancelled());
        assert!(handle.open(now + OPENING.each).is_ok());
    }
}
