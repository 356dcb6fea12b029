//! One HTTP/2 connection as the service that a generated client needs. There is no pool and no automatic reconnection: when
//! the connection ends, the session decides what happens.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use tonic::body::Body;
use tower::Service;

/// A handle on the connection; clones share it.
#[derive(Debug, Clone)]
pub struct Http2 {
    sender: SendRequest<Body>,
}

impl Http2 {
    pub(super) fn new(sender: SendRequest<Body>) -> Self {
        Self { sender }
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Service<http::Request<Body>> for Http2 {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}
