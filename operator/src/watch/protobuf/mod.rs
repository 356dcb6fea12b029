//! Pods in the API server's binary form, of which only what the index keeps is decoded: a list of a hundred thousand pods
//! costs the API server and us a fraction of what JSON does, and managedFields, environments and statuses never become
//! values here. A layer below kube's client: above it pods are the pruned JSON that [`super::pods::PodLite`] reads, so that
//! kube's watcher does the listing, resuming and backing off as for every other resource.
//!
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>

mod frames;
mod messages;
mod transcode;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::{
    HeaderMap, HeaderValue, Request, Response, Uri,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE},
    uri::{InvalidUri, PathAndQuery},
};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::{Client, client::Body};
use tower::BoxError;

use self::frames::Frames;

/// A server that does not offer it answers in JSON, which passes as it is.
const ACCEPTED: HeaderValue = HeaderValue::from_static("application/vnd.kubernetes.protobuf,application/json;q=0.5");

const BINARY: &str = "application/vnd.kubernetes.protobuf";

/// An answer that is not what the API server's content type says.
#[derive(Debug, thiserror::Error)]
pub enum ProtobufError {
    /// The magic number of Kubernetes' envelope is missing.
    #[error("the answer does not begin as Kubernetes' protobuf does")]
    NoEnvelope,
    /// An object of a kind that was not asked for.
    #[error("the answer holds {0:?} where pods were asked for")]
    UnexpectedKind(String),
    /// A frame that no object fills.
    #[error("an event of {0} bytes is longer than any object")]
    TooLong(usize),
    /// Ends or fields that no message has.
    #[error("the answer is no such message: {0}")]
    Message(#[from] prost::DecodeError),
    /// What was decoded cannot be written.
    #[error("the answer cannot be passed on: {0}")]
    Json(#[from] serde_json::Error),
}

/// An answer that is no stream, as JSON: a list of pods, a pod, or the refusal that came instead.
///
/// # Errors
/// When it is none of these.
pub fn object(answer: impl Into<Bytes>) -> Result<Vec<u8>, ProtobufError> {
    transcode::object(answer.into())
}

/// The events of a watch, whose bytes come in pieces.
#[derive(Debug, Default)]
pub struct Events(Frames);

impl Events {
    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.0.push(piece);
    }

    /// The next event as a line of JSON, if all of it came.
    ///
    /// # Errors
    /// When what came is no event; there are none after it.
    pub fn line(&mut self) -> Result<Option<Vec<u8>>, ProtobufError> {
        self.0.next()?.map(transcode::event).transpose()
    }
}

/// A client for pods and nothing else.
pub(super) fn client(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request| {
        let client = client.clone();
        async move { exchange(&client, request).await }
    });
    Client::new(service, namespace)
}

type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

async fn exchange(client: &Client, mut request: Request<Body>) -> Result<Response<AnswerBody>, BoxError> {
    request.headers_mut().insert(ACCEPT, ACCEPTED);
    if let Some(uri) = most_recent(request.uri()) {
        *request.uri_mut() = uri?;
    }
    let (mut parts, body) = client.send(request).await?.into_parts();
    let Some(streams) = binary(&parts.headers) else {
        return Ok(Response::from_parts(parts, body.map_err(BoxError::from).boxed_unsync()));
    };
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = if streams {
        let lines = lines(body.into_data_stream().map(|chunk| chunk.map_err(BoxError::from)));
        StreamBody::new(lines.map(|line| line.map(http_body::Frame::data))).boxed_unsync()
    } else {
        Full::from(object(body.collect().await?.to_bytes())?).map_err(|never| match never {}).boxed_unsync()
    };
    Ok(Response::from_parts(parts, body))
}

/// The same question for a streamed list, but of what is most recent: kube asks for whatever the server has cached (version
/// 0), and a server that lags behind would bring back pods that are gone.
///
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists>
fn most_recent(uri: &Uri) -> Option<Result<Uri, InvalidUri>> {
    let (path, query) = (uri.path(), uri.query()?);
    let parameters = || query.split('&').filter(|parameter| !parameter.is_empty());
    if !parameters().any(|parameter| parameter == "sendInitialEvents=true") {
        return None;
    }
    let kept: Vec<&str> = parameters().filter(|parameter| *parameter != "resourceVersion=0").collect();
    Some(PathAndQuery::try_from(format!("{path}?{}", kept.join("&"))).map(Uri::from))
}

/// Whether an answer is binary, and then whether it is a stream of events.
fn binary(headers: &HeaderMap) -> Option<bool> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let parameters = text.strip_prefix(BINARY)?;
    Some(parameters.contains("stream=watch"))
}

/// A line of JSON for each event.
fn lines(
    chunks: impl Stream<Item = Result<Bytes, BoxError>> + Send,
) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
    let state = (Box::pin(chunks), Events::default());
    stream::try_unfold(state, |(mut chunks, mut events)| async move {
        loop {
            if let Some(line) = events.line()? {
                return Ok(Some((Bytes::from(line), (chunks, events))));
            }
            match chunks.next().await {
                Some(chunk) => events.push(&chunk?),
                // What is left is an event cut short: the watch is resumed from the one before.
                None => return Ok(None),
            }
        }
    })
}

#[cfg(test)]
mod tests;
