//! The four methods.

use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_core::rate::{Bucket, Rate};
use countersign_core::wimse::MemoryReplayCache;
use countersign_verify::proof::SharedReplayCache;
use countersign_verify::proof_socket::{
    METADATA_FIELD, PROVE_REQUEST_PATH, PROVE_RESPONSE_PATH, VERIFY_REQUEST_PATH, VERIFY_RESPONSE_PATH,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::refusal::{Body, ProofError, json};
use super::{prove, verify};
use crate::publish::{Credentials, Published};

/// The body of a request.
pub(super) trait HttpBody: hyper::body::Body<Error: std::error::Error + Send + Sync + 'static> + Send {}
impl<B: hyper::body::Body<Error: std::error::Error + Send + Sync + 'static> + Send> HttpBody for B {}

/// In bytes: the description of a message, whose body is not in it. Peers decide how many fields a message has, and what is parsed takes
/// twenty times as much for a moment: an agent that runs out of memory forgets which proofs were used.
const MAX_REQUEST: usize = 32 * 1024;
/// For a request's body to arrive.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that are answered, 2,000 a second in the long run: a signature takes tens of microseconds.
const REQUESTS: Rate = Rate { each: Duration::from_micros(500), burst: 1_000 };
/// Proofs that are remembered: about 2 MiB, which the agent's memory has room for.
const MAX_REMEMBERED: usize = 8_192;
/// Of one key: a caller cannot use up the room of others. With proofs of half a minute, that is 150 a second of one caller.
const MAX_REMEMBERED_OF_SENDER: usize = 6_144;

/// One session's proofs. Clones share what they remember.
#[derive(Clone)]
pub struct ProofApi(Arc<Inner>);

struct Inner {
    published: watch::Receiver<Published>,
    replays: Arc<MemoryReplayCache>,
    requests: Mutex<Bucket>,
}

impl ProofApi {
    /// Proofs by the WIT-SVIDs and the bundles that are published.
    pub fn new(published: watch::Receiver<Published>) -> Self {
        Self::limited(published, REQUESTS)
    }

    fn limited(published: watch::Receiver<Published>, requests: Rate) -> Self {
        let replays = Arc::new(MemoryReplayCache::new(MAX_REMEMBERED, MAX_REMEMBERED_OF_SENDER));
        let requests = Mutex::new(Bucket::new(requests));
        Self(Arc::new(Inner { published, replays, requests }))
    }

    /// Answers one request.
    pub(super) async fn answer<B: HttpBody>(&self, request: Request<B>) -> Response<Body> {
        match self.dispatch(request).await {
            Ok(response) => response,
            Err(error) => error.response(),
        }
    }

    async fn dispatch<B: HttpBody>(&self, request: Request<B>) -> Result<Response<Body>, ProofError> {
        if request.headers().get(METADATA_FIELD).is_none_or(|value| value != "true") {
            return Err(ProofError::NoHeader);
        }
        if request.method() != Method::POST {
            return Err(ProofError::NotPost);
        }
        self.0.requests.lock().take(Instant::now()).map_err(ProofError::TooMany)?;
        let path = request.uri().path().to_owned();
        let now = Timestamp::now;
        match path.as_str() {
            PROVE_REQUEST_PATH => {
                let ask = read(request).await?;
                ok(&prove::request(&ask, &*self.credentials()?, now())?)
            }
            PROVE_RESPONSE_PATH => {
                let ask = read(request).await?;
                ok(&prove::response(&ask, &*self.credentials()?, now())?)
            }
            VERIFY_REQUEST_PATH => {
                let ask = read(request).await?;
                let replays: Arc<dyn SharedReplayCache> = Arc::clone(&self.0.replays) as _;
                verdict(verify::request(&ask, &self.credentials()?, replays, now()).await?)
            }
            VERIFY_RESPONSE_PATH => {
                let ask = read(request).await?;
                verdict(verify::response(&ask, &*self.credentials()?, now())?)
            }
            _ => Err(ProofError::NotFound),
        }
    }

    fn credentials(&self) -> Result<Arc<Credentials>, ProofError> {
        match &*self.0.published.borrow() {
            Published::Ready(credentials) => Ok(Arc::clone(credentials)),
            Published::NotReady(reason) => Err(ProofError::NotReady(reason.to_string())),
            Published::NoIdentity(reason) => Err(ProofError::NoIdentity(reason.to_string())),
        }
    }
}

async fn read<T: DeserializeOwned, B: HttpBody>(request: Request<B>) -> Result<T, ProofError> {
    let body = Limited::new(request.into_body(), MAX_REQUEST).collect();
    let body = tokio::time::timeout(READ_TIMEOUT, body).await.map_err(|_| ProofError::TooSlow(READ_TIMEOUT))?;
    let body = body.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            ProofError::TooLong { limit: MAX_REQUEST }
        } else {
            ProofError::Malformed("its body did not arrive".to_owned())
        }
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| ProofError::Malformed(error.to_string()))
}

fn ok(message: &impl Serialize) -> Result<Response<Body>, ProofError> {
    Ok(json(StatusCode::OK, message))
}

/// 200 of what is verified, 403 of what is refused.
fn verdict<V: Serialize, R: Serialize>(verdict: Result<V, R>) -> Result<Response<Body>, ProofError> {
    Ok(match verdict {
        Ok(verified) => json(StatusCode::OK, &verified),
        Err(refused) => json(StatusCode::FORBIDDEN, &refused),
    })
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;

    use super::*;

    fn request() -> Request<http_body_util::Full<Bytes>> {
        let request = Request::post("/v1/prove-request").header("workload.spiffe.io", "true");
        request.body(http_body_util::Full::default()).unwrap()
    }

    #[tokio::test]
    async fn a_request_beyond_the_rate_is_asked_to_come_back() {
        let (_sender, published) = watch::channel(Published::NotReady("not yet".into()));
        let api = ProofApi::limited(published, Rate { each: Duration::from_secs(1_000), burst: 1 });
        assert_eq!(api.answer(request()).await.status(), StatusCode::BAD_REQUEST, "it was read, and is empty");
        let limited = api.answer(request()).await;
        assert_eq!(limited.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(limited.headers().contains_key(http::header::RETRY_AFTER));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_arrive_is_given_up() {
        let (_sender, published) = watch::channel(Published::NotReady("not yet".into()));
        let never = futures::stream::pending::<Result<hyper::body::Frame<Bytes>, std::io::Error>>();
        let request = Request::post("/v1/prove-request").header("workload.spiffe.io", "true");
        let request = request.body(http_body_util::StreamBody::new(never)).unwrap();
        assert_eq!(ProofApi::new(published).answer(request).await.status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn without_credentials_it_is_unavailable() {
        let (_sender, published) = watch::channel(Published::NotReady("waiting for the issuer".into()));
        let body = r#"{"proof":"wpt","audience":"a","request":{"method":"GET","path":"/","headers":[]}}"#;
        let request = Request::post("/v1/prove-request").header("workload.spiffe.io", "true");
        let request = request.body(http_body_util::Full::new(Bytes::from(body))).unwrap();
        let response = ProofApi::new(published).answer(request).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("waiting for the issuer"));
    }
}
