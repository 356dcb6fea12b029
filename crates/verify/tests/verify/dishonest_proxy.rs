//! Signed requests and responses through a proxy that reads, alters and replays what passes.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Body, extract::State};
use bytes::Bytes;
use countersign_verify::{
    Authorizer,
    layer::{AuthenticationLayer, ProofLayer, ProofLayerError},
    proof::Authenticator,
    tls::FixedBundles,
    wimse::Audience,
};
use http::{HeaderMap, Response, StatusCode, Uri};

use crate::{
    fixtures::{Domain, bundle_set},
    orders::plain_client,
    proof_layer::{Workload, call, error, listen},
};

/// What a proxy between client and server does.
#[derive(Clone)]
struct Proxy {
    to: u16,
    alters: Alters,
    /// The first response, for later.
    kept: Arc<Mutex<Option<(HeaderMap, Bytes)>>>,
}

/// Applied to what passes in each direction.
type Alters = fn(Seen) -> Seen;

/// What passes through.
#[derive(Clone)]
struct Seen {
    uri: String,
    request: Bytes,
    status: StatusCode,
    response: Bytes,
    replays_first: bool,
    drops_signature: bool,
}

async fn proxy(to: u16, alters: Alters) -> u16 {
    let (listener, port) = listen().await;
    let proxy = Proxy { to, alters, kept: Arc::default() };
    let app = Router::new().fallback(pass).with_state(proxy);
    tokio::spawn(async { axum::serve(listener, app).await });
    port
}

async fn pass(State(proxy): State<Proxy>, uri: Uri, headers: HeaderMap, request: Bytes) -> Response<Body> {
    let blank = Seen {
        uri: uri.to_string(),
        request,
        status: StatusCode::OK,
        response: Bytes::new(),
        replays_first: false,
        drops_signature: false,
    };
    let seen = (proxy.alters)(blank);
    let url = format!("http://127.0.0.1:{}{}", proxy.to, seen.uri);
    let mut headers = headers;
    headers.remove("content-length");
    let sent = plain_client().post(url).headers(headers).body(seen.request.clone()).send().await.unwrap();
    let (status, mut headers) = (sent.status(), sent.headers().clone());
    headers.remove("content-length");
    headers.remove("transfer-encoding");
    let answered = Seen { status, response: sent.bytes().await.unwrap(), ..seen };
    let altered = (proxy.alters)(answered);
    if altered.drops_signature {
        headers.remove("signature");
        headers.remove("signature-input");
    }
    let mut body = altered.response;
    if altered.replays_first {
        let mut kept = proxy.kept.lock().unwrap();
        let (first_headers, first_body) = kept.get_or_insert((headers, body)).clone();
        (headers, body) = (first_headers, first_body);
    }
    let mut response = Response::new(Body::from(body));
    (*response.status_mut(), *response.headers_mut()) = (altered.status, headers);
    response
}

// R79, R86.
#[tokio::test]
async fn a_proxy_that_alters_or_reuses_signed_messages_is_found_out() {
    let domain = Domain::new("a.test");
    let (caller, server) = (Workload::new(&domain, "/caller").await, Workload::new(&domain, "/server").await);
    let (listener, port) = listen().await;
    let authenticator = Authenticator::builder(FixedBundles(bundle_set(&[&domain])))
        .http_signature()
        .audience(Audience::exactly("orders"))
        .callers(Authorizer::anybody());
    let layer = AuthenticationLayer::new(authenticator.build().unwrap()).sign_responses(server.source.clone());
    let app = Router::new().fallback(async |body: Bytes| body).layer(layer);
    tokio::spawn(async { axum::serve(listener, app).await });
    let layer = ProofLayer::http_signature(caller.source.clone(), "orders")
        .expect_signed_responses(Authorizer::id("spiffe://a.test/server").unwrap(), caller.source.clone());

    let honest = proxy(port, |seen| seen).await;
    let through = async |proxy: u16| call(&layer, &format!("http://127.0.0.1:{proxy}/orders/7?a=b"), "seven").await;
    assert_eq!(through(honest).await.unwrap().body(), "seven");

    let alterations: [(&str, Alters); 6] = [
        ("path", |seen| Seen { uri: "/orders/8?a=b".to_owned(), ..seen }),
        ("query", |seen| Seen { uri: "/orders/7?a=c".to_owned(), ..seen }),
        ("request", |seen| Seen { request: Bytes::from("eight"), ..seen }),
        ("status", |seen| Seen { status: StatusCode::ACCEPTED, ..seen }),
        ("response", |seen| Seen { response: Bytes::from("eight"), ..seen }),
        ("signature", |seen| Seen { drops_signature: true, ..seen }),
    ];
    for (part, alters) in alterations {
        let refused = error(through(proxy(port, alters).await).await);
        assert!(matches!(refused, ProofLayerError::Response { .. }), "{part}: {refused}");
    }
    let replaying = proxy(port, |seen| Seen { replays_first: true, ..seen }).await;
    assert!(through(replaying).await.is_ok());
    let refused = error(through(replaying).await);
    assert!(matches!(refused, ProofLayerError::Response { status: 200, .. }), "{refused}");
}
