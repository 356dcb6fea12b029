//! One HTTP connection: HTTP/1.1 or HTTP/2 within limits, closed when it is idle for too long, when it is evicted, or when the
//! server shuts down.

use std::{pin::pin, time::Duration};

use axum::Router;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::HttpLimits;
use crate::connections::{Peer, ThrottledIo};

/// How long an idle connection may take to close.
const CLOSING_TIME: Duration = Duration::from_secs(1);

/// A request for which there is no response yet, as its connection counts it.
struct InFlight(watch::Sender<usize>);

impl InFlight {
    fn new(requests: watch::Sender<usize>) -> Self {
        requests.send_modify(|count| *count += 1);
        Self(requests)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Serves a connection to its end. Requests carry its [`Peer`] as an extension.
pub(super) async fn serve<C>(io: C, peer: Peer, router: Router, limits: HttpLimits, shutdown: CancellationToken)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let requests = watch::Sender::new(0);
    let mut in_flight = requests.subscribe();
    let service = {
        let peer = peer.clone();
        service_fn(move |mut request: Request<Incoming>| {
            // A connection that is used is evicted after those that are not.
            drop(peer.guard_from_eviction());
            request.extensions_mut().insert(peer.clone());
            let (mut router, counted) = (router.clone(), InFlight::new(requests.clone()));
            async move {
                let response = router.call(request).await;
                drop(counted);
                response
            }
        })
    };
    let builder = builder(limits.streams);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(ThrottledIo::new(io, limits.read_rate)), service));
    let mut idle_at = Instant::now() + limits.idle;
    let mut ends_at: Option<Instant> = None;
    loop {
        let is_idle = *in_flight.borrow_and_update() == 0;
        let deadline = ends_at.or(is_idle.then_some(idle_at));
        let closing_time = tokio::select! {
            biased;
            () = peer.evicted() => return,
            _ = connection.as_mut() => return,
            () = shutdown.cancelled(), if ends_at.is_none() => limits.shutdown,
            Ok(()) = in_flight.changed() => {
                idle_at = Instant::now() + limits.idle;
                continue;
            }
            () = tokio::time::sleep_until(deadline.unwrap_or(idle_at)), if deadline.is_some() => match ends_at {
                Some(_) => return,
                None => CLOSING_TIME,
            },
        };
        // Requests in flight are answered; no more are taken.
        connection.as_mut().graceful_shutdown();
        ends_at = Some(Instant::now() + closing_time);
    }
}

/// Within limits beyond those of the library; the time for a request's head is part of the idle time.
fn builder(streams: u32) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_local_error_reset_streams(64)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(256 * 1024)
        .max_frame_size(16 * 1024)
        .max_header_list_size(16 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
