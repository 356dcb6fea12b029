//! A Workload API that serves what a case tells it, fails as a case tells it, and records every call. Streams deliver every
//! update in its order; none is left out.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign_proto::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use countersign_proto::workload::{JwtBundlesResponse, Jwtsvid, X509BundlesResponse, X509svid, X509svidResponse};
use parking_lot::Mutex;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Code, Status};

use super::authority::{Authority, Svid};

/// A method of the Workload API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    FetchX509Svid,
    FetchX509Bundles,
    FetchJwtSvid,
    FetchJwtBundles,
    ValidateJwtSvid,
}

impl Method {
    pub(crate) const ALL: [Self; 5] =
        [Self::FetchX509Svid, Self::FetchX509Bundles, Self::FetchJwtSvid, Self::FetchJwtBundles, Self::ValidateJwtSvid];
}

/// A recorded call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Whether it has the metadata `workload.spiffe.io: true`.
    pub(crate) has_header: bool,
    /// Of a request for JWT-SVIDs.
    pub(crate) audience: Vec<String>,
    /// Of a request for JWT-SVIDs.
    pub(crate) spiffe_id: String,
    /// The answer; of a stream, the one at its start.
    pub(crate) status: Code,
    pub(crate) at: Instant,
}

/// The mock. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Mock {
    state: Arc<Mutex<State>>,
    count: Arc<watch::Sender<usize>>,
}

#[derive(Default)]
struct State {
    x509: Feed<X509svidResponse>,
    x509_bundles: Feed<X509BundlesResponse>,
    jwt_bundles: Feed<JwtBundlesResponse>,
    jwt_svids: Vec<Jwtsvid>,
    /// What a method answers instead, and how many more times.
    faults: HashMap<Method, (Code, usize)>,
    calls: Vec<Call>,
}

/// What a stream method serves, and to whom.
struct Feed<T> {
    current: Option<T>,
    streams: Vec<mpsc::UnboundedSender<Result<T, Status>>>,
}

/// The stream of one call.
pub(crate) type Updates<T> = UnboundedReceiverStream<Result<T, Status>>;

/// What `FetchX509SVID` serves; the first SVID is the default identity.
#[derive(Clone, Copy)]
pub(crate) struct X509Update<'a> {
    pub(crate) svids: &'a [&'a Svid],
    /// The authorities of the workload's own trust domain.
    pub(crate) bundle: &'a [&'a Authority],
    pub(crate) federated: &'a [&'a Authority],
}

/// A mock that listens, until this is dropped.
pub(crate) struct Listening(JoinHandle<()>);

impl Mock {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), count: Arc::new(watch::Sender::new(0)) }
    }

    pub(crate) fn listen_unix(&self, path: &Path) -> anyhow::Result<Listening> {
        let listener = UnixListenerStream::new(UnixListener::bind(path)?);
        let server = Server::builder().add_service(SpiffeWorkloadApiServer::new(self.clone()));
        Ok(Listening(tokio::spawn(async move { server.serve_with_incoming(listener).await.unwrap() })))
    }

    pub(crate) async fn listen_tcp(&self) -> anyhow::Result<(Listening, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = Server::builder().add_service(SpiffeWorkloadApiServer::new(self.clone()));
        let serve = async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() };
        Ok((Listening(tokio::spawn(serve)), address))
    }

    /// Serves this, also by `FetchX509Bundles`.
    pub(crate) fn push_x509(&self, update: X509Update<'_>) {
        self.push_x509_as(update, |_| {});
    }

    /// As [`Self::push_x509`]; `FetchX509SVID` serves what `change` makes of it.
    pub(crate) fn push_x509_as(&self, update: X509Update<'_>, change: impl FnOnce(&mut X509svidResponse)) {
        let bundle = update.bundle.iter().flat_map(|authority| authority.root.clone()).collect::<Vec<u8>>();
        let federated = update.federated.iter().map(|authority| (authority.id(""), authority.root.clone()));
        let svids = update.svids.iter().map(|svid| X509svid {
            spiffe_id: svid.id.clone(),
            x509_svid: svid.chain.concat(),
            x509_svid_key: svid.key.clone(),
            bundle: bundle.clone(),
            hint: String::new(),
        });
        let mut response =
            X509svidResponse { svids: svids.collect(), crl: Vec::new(), federated_bundles: federated.collect() };
        let mut bundles = response.federated_bundles.clone();
        bundles.extend(update.bundle.first().map(|own| (own.id(""), bundle)));
        change(&mut response);
        let mut state = self.state.lock();
        state.x509_bundles.push(X509BundlesResponse { crl: Vec::new(), bundles });
        state.x509.push(response);
    }

    /// Serves these JWK sets, by the name of the trust domain.
    pub(crate) fn push_jwt_bundles<'a>(&self, bundles: impl IntoIterator<Item = (&'a str, Vec<u8>)>) {
        let bundles: BTreeMap<_, _> =
            bundles.into_iter().map(|(name, jwks)| (format!("spiffe://{name}"), jwks)).collect();
        self.state.lock().jwt_bundles.push(JwtBundlesResponse { bundles });
    }

    /// Serves these tokens by `FetchJWTSVID`, each with its SPIFFE ID.
    pub(crate) fn set_jwt_svids(&self, svids: impl IntoIterator<Item = (String, String)>) {
        let svids = svids.into_iter().map(|(spiffe_id, svid)| Jwtsvid { spiffe_id, svid, hint: String::new() });
        self.state.lock().jwt_svids = svids.collect();
    }

    /// Answers the next `times` calls of a method with `code`.
    pub(crate) fn fail(&self, method: Method, code: Code, times: usize) {
        self.state.lock().faults.insert(method, (code, times));
    }

    pub(crate) fn heal(&self) {
        self.state.lock().faults.clear();
    }

    /// Ends all streams with this status.
    pub(crate) fn close_streams(&self, code: Code) {
        let mut state = self.state.lock();
        let status = Status::new(code, "closed by the case");
        state.x509.close(&status);
        state.x509_bundles.close(&status);
        state.jwt_bundles.close(&status);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state.lock().calls.clone()
    }

    pub(crate) fn calls_of(&self, method: Method) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.method == method).collect()
    }

    /// Waits until the recorded calls are as wanted; whether they were before the limit.
    pub(crate) async fn recorded(&self, limit: Duration, wanted: impl Fn(&[Call]) -> bool) -> bool {
        let mut count = self.count.subscribe();
        timeout(limit, count.wait_for(|_| wanted(&self.calls()))).await.is_ok()
    }

    /// Records a call, and whether it is served. The record is there before the answer.
    pub(super) fn admit(&self, method: Method, has_header: bool, audience: &[String], id: &str) -> Result<(), Status> {
        let mut state = self.state.lock();
        let fault = state.faults.get_mut(&method).filter(|(_, times)| *times > 0).map(|(code, times)| {
            *times = times.saturating_sub(1);
            *code
        });
        let status = if has_header { fault.unwrap_or(Code::Ok) } else { Code::InvalidArgument };
        let (audience, spiffe_id) = (audience.to_vec(), id.to_owned());
        state.calls.push(Call { method, has_header, audience, spiffe_id, status, at: Instant::now() });
        let calls = state.calls.len();
        drop(state);
        self.count.send_replace(calls);
        if status == Code::Ok { Ok(()) } else { Err(Status::new(status, "refused by the case")) }
    }

    pub(super) fn x509_updates(&self) -> Updates<X509svidResponse> {
        self.state.lock().x509.subscribe()
    }

    pub(super) fn x509_bundle_updates(&self) -> Updates<X509BundlesResponse> {
        self.state.lock().x509_bundles.subscribe()
    }

    pub(super) fn jwt_bundle_updates(&self) -> Updates<JwtBundlesResponse> {
        self.state.lock().jwt_bundles.subscribe()
    }

    pub(super) fn jwt_svids(&self, id: &str) -> Vec<Jwtsvid> {
        let state = self.state.lock();
        state.jwt_svids.iter().filter(|svid| id.is_empty() || svid.spiffe_id == id).cloned().collect()
    }
}

impl<T> Default for Feed<T> {
    fn default() -> Self {
        Self { current: None, streams: Vec::new() }
    }
}

impl<T: Clone> Feed<T> {
    fn push(&mut self, value: T) {
        self.streams.retain(|stream| stream.send(Ok(value.clone())).is_ok());
        self.current = Some(value);
    }

    fn subscribe(&mut self) -> Updates<T> {
        let (sender, receiver) = mpsc::unbounded_channel();
        if let Some(current) = &self.current {
            // The receiver is still here.
            let _ = sender.send(Ok(current.clone()));
        }
        self.streams.push(sender);
        UnboundedReceiverStream::new(receiver)
    }

    fn close(&mut self, status: &Status) {
        for stream in self.streams.drain(..) {
            // Whoever has gone needs no status.
            let _ = stream.send(Err(status.clone()));
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}
