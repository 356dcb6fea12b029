//! One request over HTTP/1.1, on a connection of its own.

use bytes::Bytes;
use countersign_core::bundle::MAX_BUNDLE_LENGTH;
use countersign_core::federation::FetchError;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::location::Location;

/// The longest head of an answer, in bytes.
const MAX_HEAD_LENGTH: usize = 16 * 1024;

const AGENT: &str = concat!("countersign-operator/", env!("CARGO_PKG_VERSION"));

/// What an endpoint answered.
pub(crate) enum Answer {
    /// A body of at most [`MAX_BUNDLE_LENGTH`].
    Document(Vec<u8>),
    /// The document is elsewhere.
    Redirect(Location),
}

/// Sends a GET for `location` and reads the answer (SPIFFE Federation, sections 5.2.1.4 and 5.2.2.4).
///
/// # Errors
/// When the answer is neither a document nor a redirect, breaks off or is too long.
pub(crate) async fn get(stream: TlsStream<TcpStream>, location: &Location) -> Result<Answer, FetchError> {
    let request = request(location).ok_or(FetchError::Resolve)?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD_LENGTH);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|_| FetchError::Interrupted)?;
    // Dropped, and with it the connection, when this function returns or is cancelled.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let answer = sender.send_request(request).await.map_err(|_| FetchError::Interrupted)?;
    match answer.status() {
        StatusCode::OK if is_encoded(answer.headers()) => Err(FetchError::Interrupted),
        // The type of the content is not looked at: a server should set it, but need not (sections 5.2.1.3 and 5.2.2.3), and
        // what is no bundle is refused when it is parsed.
        StatusCode::OK => document(answer.into_body()).await.map(Answer::Document),
        status if is_redirect(status) => {
            let to = answer.headers().get(LOCATION).and_then(|to| location.redirected(to));
            to.map(Answer::Redirect).ok_or(FetchError::Redirect)
        }
        status => Err(FetchError::Status(status.as_u16())),
    }
}

fn request(location: &Location) -> Option<Request<Empty<Bytes>>> {
    let request = Request::builder()
        .method(Method::GET)
        .uri(Uri::from(location.path_and_query()?))
        .header(HOST, location.authority())
        .header(ACCEPT, "application/json")
        .header(ACCEPT_ENCODING, "identity")
        .header(USER_AGENT, AGENT);
    request.body(Empty::new()).ok()
}

/// Those of RFC 7231, section 6.4, after which a client may send its GET elsewhere, and 308 (RFC 7538). The permanent ones are
/// followed as if they were temporary: nothing remembers where they led (SPIFFE Federation, section 7.5.1). 300 and 305 name
/// no one place to go on.
fn is_redirect(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    )
}

/// Nothing is decompressed, so that a short answer cannot become a long one.
fn is_encoded(headers: &HeaderMap) -> bool {
    let is_identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    !headers.get_all(CONTENT_ENCODING).iter().all(is_identity)
}

async fn document(mut body: Incoming) -> Result<Vec<u8>, FetchError> {
    let announced = body.size_hint().lower();
    if usize::try_from(announced).map_or(true, |length| length > MAX_BUNDLE_LENGTH) {
        return Err(FetchError::TooLong);
    }
    let mut document = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| FetchError::Interrupted)?.into_data() else { continue };
        if document.len() + data.len() > MAX_BUNDLE_LENGTH {
            return Err(FetchError::TooLong);
        }
        document.extend_from_slice(&data);
    }
    Ok(document)
}
