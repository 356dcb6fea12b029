//! The streams of a Workload API, made again whenever they end (SPIFFE Workload Endpoint, section 6; Workload API, section 4).

use std::{
    io,
    time::{Duration, Instant},
};

use countersign_core::{bundle::BundleSet, renewal::next_attempt};
use countersign_proto::workload::{
    JwtBundlesRequest, WitBundlesRequest, WitsvidRequest, X509svidRequest,
    spiffe_workload_api_client::SpiffeWorkloadApiClient,
};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::{
    net::{TcpStream, UnixStream},
    runtime::Handle,
    task::JoinHandle,
    time::sleep,
};
use tokio_util::either::Either;
use tonic::{
    Code, Request, Status, Streaming,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Uri},
};

use super::{
    Address, SourceError, X509Credentials,
    current::{Publisher, Watched, channel},
    responses::{self, ResponseError},
    wit_svid::WitSvids,
};

/// A client that sends what every request must have.
pub(super) type Client = SpiffeWorkloadApiClient<InterceptedService<Channel, WorkloadHeader>>;

/// Attempts are never further apart, give or take a quarter: a Workload API is on the same machine, and who asks is a workload that
/// cannot work.
const LONGEST_DELAY: Duration = Duration::from_secs(4);

/// For a connection, and for an answer on one that is idle: a path over TCP that drops everything is noticed.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two such questions.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A stream that lasted this long was a success. One that ends sooner, though it brought something, counts as a failure more.
const STABLE: Duration = Duration::from_secs(10);

/// The longest message that is read: a thousand bundles of the usual size.
const LONGEST_MESSAGE: usize = 16 * 1024 * 1024;

/// `workload.spiffe.io: true` (SPIFFE Workload Endpoint, section 3).
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkloadHeader;

impl Interceptor for WorkloadHeader {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
        Ok(request)
    }
}

pub(super) fn client(address: Address) -> Client {
    let mut endpoint = Endpoint::from_static("http://localhost").connect_timeout(PING_TIMEOUT);
    if matches!(address, Address::Tcp(_)) {
        endpoint = endpoint
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
    }
    let connect = tower::service_fn(move |_: Uri| {
        let address = address.clone();
        async move {
            Ok::<_, io::Error>(match address {
                Address::Unix(path) => TokioIo::new(Either::Left(UnixStream::connect(path).await?)),
                Address::Tcp(address) => TokioIo::new(Either::Right(TcpStream::connect(address).await?)),
            })
        }
    });
    let channel = endpoint.connect_with_connector_lazy(connect);
    SpiffeWorkloadApiClient::with_interceptor(channel, WorkloadHeader).max_decoding_message_size(LONGEST_MESSAGE)
}

pub(super) fn x509(runtime: &Handle, client: Client) -> (Watched<X509Credentials>, JoinHandle<()>) {
    let open = move || {
        let mut client = client.clone();
        async move { client.fetch_x509svid(X509svidRequest {}).await }
    };
    follow(runtime, "FetchX509SVID", open, |response| responses::x509(response, Timestamp::now()))
}

pub(super) fn jwt_bundles(runtime: &Handle, client: Client) -> (Watched<BundleSet>, JoinHandle<()>) {
    let open = move || {
        let mut client = client.clone();
        async move { client.fetch_jwt_bundles(JwtBundlesRequest {}).await }
    };
    follow(runtime, "FetchJWTBundles", open, |response| responses::jwt_bundles(&response))
}

pub(super) fn wit_bundles(runtime: &Handle, client: Client) -> (Watched<BundleSet>, JoinHandle<()>) {
    let open = move || {
        let mut client = client.clone();
        async move { client.fetch_wit_bundles(WitBundlesRequest {}).await }
    };
    follow(runtime, "FetchWITBundles", open, |response| responses::wit_bundles(&response))
}

/// Each WIT-SVID is verified by `bundles`, which are awaited first.
pub(super) fn wit_svids(
    runtime: &Handle,
    client: Client,
    bundles: Watched<BundleSet>,
) -> (Watched<WitSvids>, JoinHandle<()>) {
    let verified_by = bundles.clone();
    let open = move || {
        let (mut client, bundles) = (client.clone(), bundles.clone());
        async move {
            match bundles.first(|_| true).await {
                Ok(_) => client.fetch_witsvid(WitsvidRequest::default()).await,
                Err(error) => Err(Status::invalid_argument(error.to_string())),
            }
        }
    };
    follow(runtime, "FetchWITSVID", open, move |response| {
        let bundles = verified_by.current().map_err(|_| ResponseError::NoWitBundles)?;
        responses::wit_svids(response, &bundles, Timestamp::now())
    })
}

fn follow<Response, Content, Open, Opened>(
    runtime: &Handle,
    method: &'static str,
    open: Open,
    read: impl Fn(Response) -> Result<Content, ResponseError> + Send + Sync + 'static,
) -> (Watched<Content>, JoinHandle<()>)
where
    Response: Send + 'static,
    Content: PartialEq + Send + Sync + 'static,
    Open: Fn() -> Opened + Send + 'static,
    Opened: Future<Output = Result<tonic::Response<Streaming<Response>>, Status>> + Send,
{
    let (publisher, watched) = channel();
    let task = async move {
        let mut failures = 0_u32;
        loop {
            let begun = Instant::now();
            let ended = match open().await {
                Ok(stream) => receive(method, stream.into_inner(), &read, &publisher).await,
                Err(status) => status,
            };
            failures = if begun.elapsed() >= STABLE { 1 } else { failures.saturating_add(1) };
            match ended.code() {
                Code::InvalidArgument => {
                    tracing::error!(method, error = %ended.message(), "the Workload API refuses to be asked");
                    return publisher.withdraw(SourceError::Refused { reason: ended.message().into() });
                }
                Code::PermissionDenied => {
                    publisher.withdraw(SourceError::NoIdentity { reason: ended.message().into() });
                }
                code => {
                    let is_first = publisher.failed(&format!("{code:?}: {}", ended.message()));
                    // A wrong address, say: otherwise nobody learns why there is no identity.
                    if is_first {
                        tracing::warn!(method, ?code, error = %ended.message(), "the Workload API does not answer yet; retrying");
                    }
                }
            }
            tracing::debug!(method, code = ?ended.code(), error = %ended.message(), failures, "a stream of the Workload API ended");
            let delay = next_attempt(failures, rand::random_range(-1.0..=1.0), None);
            sleep(delay.min(LONGEST_DELAY.mul_f64(rand::random_range(0.75..=1.25)))).await;
        }
    };
    (watched, runtime.spawn(task))
}

/// Publishes what a stream brings until it ends.
async fn receive<Response, Content: PartialEq>(
    method: &'static str,
    mut stream: Streaming<Response>,
    read: &(impl Fn(Response) -> Result<Content, ResponseError> + Sync),
    publisher: &Publisher<Content>,
) -> Status {
    loop {
        match stream.message().await {
            Ok(Some(response)) => match read(response) {
                Ok(content) => publisher.publish(content),
                Err(error) => {
                    publisher.failed(&format!("a response was discarded: {error}"));
                    tracing::warn!(method, %error, "a response of the Workload API was discarded");
                    if error.is_of_time() {
                        return Status::unavailable("the clocks of the Workload API and of this workload differ");
                    }
                }
            },
            Ok(None) => return Status::unavailable("the Workload API ended the stream"),
            Err(status) => return status,
        }
    }
}
