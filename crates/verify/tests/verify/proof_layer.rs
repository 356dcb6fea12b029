//! Clients that prove who they are, and verify who answers.

use std::sync::Arc;

use axum::{Extension, Router, body::Body};
use bytes::Bytes;
use countersign_verify::{
    Authorizer, MtlsConnector, Source,
    layer::{AuthenticationLayer, MaybeBuffered, ProofAudience, ProofLayer, ProofLayerError, ResponseSigner},
    proof::{Authenticator, AuthenticatorBuilder, Caller},
    tls::{FixedBundles, mtls_client_config, mtls_server_config},
    wimse::Audience,
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;
use tower::{Layer as _, ServiceExt as _};

use crate::{
    agent::Agent,
    fixtures::{Domain, TTL, bundle_set, trusting},
    orders::{Orders, SERVICE, accepting_all, described, plain_client},
    workload_api::{WorkloadApi, wit_message},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A workload with its Workload API, which must be kept.
pub(crate) struct Workload {
    api: WorkloadApi,
    pub(crate) source: Source,
}

impl Workload {
    pub(crate) async fn new(domain: &Domain, path: &str) -> Self {
        let api = WorkloadApi::start(domain);
        api.send_wit(Ok(vec![wit_message(domain, path, "", &domain.wit(path))]), &[&domain.bundle()]);
        let source = Source::from_address(&api.address()).unwrap().ready_to_prove().await.unwrap();
        Self { api, source }
    }
}

/// Accepts targets of the address at which it listens.
fn builder(domain: &Domain, port: u16) -> AuthenticatorBuilder {
    Authenticator::builder(FixedBundles(bundle_set(&[domain])))
        .wpt()
        .http_signature()
        .audience(Audience::targets_of(format!("http://127.0.0.1:{port}")).unwrap())
        .callers(Authorizer::anybody())
}

pub(crate) async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Says who calls and what was sent, over plain HTTP; its port.
async fn serve(domain: &Domain, with: impl FnOnce(AuthenticationLayer) -> AuthenticationLayer) -> u16 {
    let (listener, port) = listen().await;
    let layer = with(AuthenticationLayer::new(builder(domain, port).build().unwrap()));
    let handler = async |Extension(caller): Extension<Caller>, body: Bytes| {
        let (status, text) = if body == "fail" { (StatusCode::CONFLICT, "failed") } else { (StatusCode::OK, "done") };
        (status, format!("{text} for {}", described(&caller)))
    };
    let app = Router::new().fallback(handler).layer(layer);
    tokio::spawn(async { axum::serve(listener, app).await });
    port
}

/// A body, by a client of hyper behind the layer.
pub(crate) async fn call(layer: &ProofLayer, uri: &str, body: &'static str) -> Result<Response<Bytes>, BoxError> {
    let client: Client<_, MaybeBuffered<Full<Bytes>>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(uri).header("content-type", "text/plain").body(Full::from(body)).unwrap();
    let (parts, body) = layer.layer(client).oneshot(request).await?.into_parts();
    Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
}

pub(crate) fn error(failed: Result<Response<Bytes>, BoxError>) -> ProofLayerError {
    *failed.unwrap_err().downcast().unwrap()
}

// R12, R62.
#[tokio::test]
async fn clients_of_hyper_prove_each_request_by_their_own_key_or_by_the_agent() {
    let domain = Domain::new("a.test");
    let port = serve(&domain, |layer| layer).await;
    let (own, agent) = (Workload::new(&domain, "/caller").await, Agent::start(&domain, "/caller"));
    for (layer, method) in [
        (ProofLayer::wpt(own.source.clone(), ProofAudience::Target), "wpt"),
        (ProofLayer::http_signature(own.source.clone(), ProofAudience::Target), "http-signature"),
        (ProofLayer::wpt(agent.socket(), ProofAudience::Target), "wpt"),
        (ProofLayer::http_signature(agent.socket(), ProofAudience::Target), "http-signature"),
    ] {
        for uri in ["/orders/7", "/orders/7?a=b", "/orders/7", "/"] {
            let answered = call(&layer, &format!("http://127.0.0.1:{port}{uri}"), "seven").await.unwrap();
            let expected = format!("done for spiffe://a.test/caller by {method} via nobody");
            assert_eq!((answered.status(), answered.body().as_ref()), (StatusCode::OK, expected.as_bytes()));
        }
    }
    assert_eq!(agent.asked(), 8);
}

// R24.
#[tokio::test]
async fn neither_proving_nor_verifying_asks_anybody() {
    let domain = Domain::new("a.test");
    let (caller, server) = (Workload::new(&domain, "/caller").await, Workload::new(&domain, "/server").await);
    let (listener, port) = listen().await;
    let authenticator = Authenticator::builder(server.source.clone())
        .http_signature()
        .audience(Audience::exactly("orders"))
        .callers(Authorizer::anybody());
    let layer = AuthenticationLayer::new(authenticator.build().unwrap()).sign_responses(server.source.clone());
    let app = Router::new().fallback(async || "done").layer(layer);
    tokio::spawn(async { axum::serve(listener, app).await });
    let asked = || caller.api.asked_for_wit() + server.api.asked_for_wit() + caller.api.asked() + server.api.asked();
    let before = asked();
    let layer = ProofLayer::http_signature(caller.source.clone(), "orders")
        .expect_signed_responses(Authorizer::anybody(), caller.source.clone());
    for _ in 0..20 {
        assert!(call(&layer, &format!("http://127.0.0.1:{port}/"), "seven").await.is_ok());
    }
    assert_eq!(asked(), before);
}

// R77, R86.
#[tokio::test]
async fn a_signed_response_is_that_of_the_server_that_was_called() {
    let domain = Domain::new("a.test");
    let (caller, server) = (Workload::new(&domain, "/caller").await, Workload::new(&domain, "/server").await);
    let port = serve(&domain, |layer| layer.sign_responses(server.source.clone())).await;
    let uri = format!("http://127.0.0.1:{port}/orders/7?a=b");
    let expecting = |id: &str| {
        ProofLayer::http_signature(caller.source.clone(), ProofAudience::Target)
            .expect_signed_responses(Authorizer::id(id).unwrap(), caller.source.clone())
    };
    for (body, status) in [("seven", StatusCode::OK), ("fail", StatusCode::CONFLICT)] {
        let answered = call(&expecting("spiffe://a.test/server"), &uri, body).await.unwrap();
        let signer = answered.extensions().get::<ResponseSigner>().unwrap();
        assert_eq!((answered.status(), signer.id()), (status, &domain.id("/server")));
    }
    let refused = error(call(&expecting("spiffe://a.test/other"), &uri, "seven").await);
    assert!(matches!(refused, ProofLayerError::Server { id } if id == domain.id("/server")));
}

// R12.
#[tokio::test]
async fn a_service_may_sign_by_the_agent_and_does_not_sign_unasked() {
    let domain = Domain::new("a.test");
    let (caller, agent) = (Workload::new(&domain, "/caller").await, Agent::start(&domain, "/server"));
    let port = serve(&domain, |layer| layer.sign_responses(agent.socket())).await;
    let uri = format!("http://127.0.0.1:{port}/orders/7");
    let layer = ProofLayer::http_signature(caller.source.clone(), ProofAudience::Target);
    let unsigned = call(&layer, &uri, "seven").await.unwrap();
    assert!(!unsigned.headers().contains_key("signature") && agent.asked() == 0);
    let servers = Authorizer::id("spiffe://a.test/server").unwrap();
    let signed = call(&layer.expect_signed_responses(servers, caller.source.clone()), &uri, "seven").await.unwrap();
    assert_eq!(signed.extensions().get::<ResponseSigner>().unwrap().id(), &domain.id("/server"));
}

#[tokio::test]
async fn a_response_that_cannot_be_signed_is_not_successful() {
    let domain = Domain::new("a.test");
    let (caller, server) = (Workload::new(&domain, "/caller").await, Workload::new(&domain, "/server").await);
    let expecting = ProofLayer::http_signature(caller.source.clone(), ProofAudience::Target)
        .expect_signed_responses(Authorizer::anybody(), caller.source.clone());
    // One that signs none.
    let port = serve(&domain, |layer| layer).await;
    let refused = error(call(&expecting, &format!("http://127.0.0.1:{port}/"), "seven").await);
    assert!(matches!(refused, ProofLayerError::Response { status: 501, .. }), "{refused}");
    // A response that is too long.
    let port = serve(&domain, |layer| layer.sign_responses(server.source.clone()).body_limit(8)).await;
    let refused = error(call(&expecting, &format!("http://127.0.0.1:{port}/"), "seven").await);
    assert!(matches!(refused, ProofLayerError::Response { status: 400, .. }), "{refused}");
    // Fields after the body, which no signature covers.
    let (listener, port) = listen().await;
    let layer = AuthenticationLayer::new(builder(&domain, port).build().unwrap()).sign_responses(server.source.clone());
    let with_trailers = async || {
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), "7".parse().unwrap())]);
        let frames = [http_body::Frame::data(Bytes::from("done")), http_body::Frame::trailers(trailers)];
        Body::new(StreamBody::new(futures::stream::iter(frames.map(Ok::<_, std::convert::Infallible>))))
    };
    let app = Router::new().fallback(with_trailers).layer(layer);
    tokio::spawn(async { axum::serve(listener, app).await });
    let refused = error(call(&expecting, &format!("http://127.0.0.1:{port}/"), "seven").await);
    assert!(matches!(refused, ProofLayerError::Response { status: 400, .. }), "{refused}");
    // Nobody who could sign.
    let away = countersign_verify::proof_socket::ProofSocket::at("/nonexistent/proof.sock");
    let port = serve(&domain, |layer| layer.sign_responses(away)).await;
    let refused = error(call(&expecting, &format!("http://127.0.0.1:{port}/"), "seven").await);
    assert!(matches!(refused, ProofLayerError::Response { status: 400, .. }), "{refused}");
}

// R12.
#[tokio::test]
async fn requests_of_reqwest_are_proven_and_their_responses_verified() {
    let domain = Domain::new("a.test");
    let (caller, server) = (Workload::new(&domain, "/caller").await, Workload::new(&domain, "/server").await);
    let port = serve(&domain, |layer| layer.sign_responses(server.source.clone())).await;
    let client = plain_client();
    let layer = ProofLayer::http_signature(caller.source.clone(), ProofAudience::Target)
        .expect_signed_responses(Authorizer::id("spiffe://a.test/server").unwrap(), caller.source.clone());
    let request = || client.post(format!("http://127.0.0.1:{port}/orders/7?a=b")).body("seven").build().unwrap();

    let mut proven = request();
    let sent = layer.prove(&mut proven).await.unwrap();
    let response = client.execute(proven).await.unwrap();
    let verified = sent.verify(response).await.unwrap();
    assert_eq!(verified.extensions().get::<ResponseSigner>().unwrap().id(), &domain.id("/server"));
    assert_eq!(verified.text().await.unwrap(), "done for spiffe://a.test/caller by http-signature via nobody");

    // The response to another request.
    let mut other = request();
    let other_sent = layer.prove(&mut other).await.unwrap();
    let mut again = request();
    let _again_sent = layer.prove(&mut again).await.unwrap();
    let refused = other_sent.verify(client.execute(again).await.unwrap()).await;
    assert!(matches!(refused, Err(ProofLayerError::Response { status: 200, .. })));

    let mut streamed =
        client.post("http://127.0.0.1:1/").body(reqwest::Body::wrap(Full::new(Bytes::new()))).build().unwrap();
    assert!(matches!(layer.prove(&mut streamed).await, Err(ProofLayerError::Body { .. })));
    let long = layer.clone().body_limit(4);
    assert!(matches!(long.prove(&mut request()).await, Err(ProofLayerError::Body { .. })));
}

// R12.
#[tokio::test]
async fn a_jwt_svid_is_sent_over_tls_alone() {
    let domain = Domain::new("a.test");
    let caller = Workload::new(&domain, "/caller").await;
    let token = domain.token("/caller", SERVICE, TTL);
    caller.api.answer_tokens(move |_| {
        let spiffe_id = "spiffe://a.test/caller".to_owned();
        Ok(vec![countersign_proto::workload::Jwtsvid { spiffe_id, svid: token.clone(), hint: String::new() }])
    });
    let layer = ProofLayer::jwt_svid(caller.source.clone(), SERVICE);
    let refused = error(call(&layer, "http://127.0.0.1:1/", "seven").await);
    assert!(matches!(refused, ProofLayerError::NotHttps { .. }), "{refused}");

    let bundles = trusting(&[&domain]);
    let serving = mtls_server_config(Arc::new(domain.svid("/orders")), bundles.clone(), Authorizer::anybody()).unwrap();
    let authentication = AuthenticationLayer::new(accepting_all(&domain).build().unwrap());
    let orders = Orders::start_mtls(authentication, serving).await;
    let calling = mtls_client_config(Arc::new(domain.svid("/gateway")), bundles, Authorizer::anybody()).unwrap();
    let connector = MtlsConnector::new(calling);
    let client: Client<_, MaybeBuffered<Full<Bytes>>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::get(format!("https://127.0.0.1:{}/", orders.port)).body(Full::default()).unwrap();
    let answered = layer.layer(client).oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(answered, "spiffe://a.test/caller by jwt-svid via spiffe://a.test/gateway and 0 bytes");
}

#[tokio::test]
async fn what_could_not_be_accepted_is_not_sent() {
    let domain = Domain::new("a.test");
    let caller = Workload::new(&domain, "/caller").await;
    let nowhere = "http://127.0.0.1:1/";
    let source = || caller.source.clone();
    let wpt = ProofLayer::wpt(source(), ProofAudience::Target);
    let expecting = wpt.clone().expect_signed_responses(Authorizer::anybody(), source());
    assert!(matches!(error(call(&expecting, nowhere, "seven").await), ProofLayerError::Prove(_)));
    let tokens = ProofLayer::jwt_svid(source(), "orders").expect_signed_responses(Authorizer::anybody(), source());
    assert!(matches!(error(call(&tokens, nowhere, "seven").await), ProofLayerError::Prove(_)));
    let long = ProofLayer::http_signature(source(), ProofAudience::Target).body_limit(4);
    assert!(matches!(error(call(&long, nowhere, "seven").await), ProofLayerError::Body { .. }));

    let inner =
        tower::service_fn(async |_: Request<MaybeBuffered<Full<Bytes>>>| -> Result<Response<Full<Bytes>>, BoxError> {
            panic!("it is sent")
        });
    for (name, value) in [("authorization", "Basic c2VjcmV0"), ("workload-identity-token", "a.b.c")] {
        let request = Request::get("http://orders/").header(name, value).body(Full::default()).unwrap();
        let refused = wpt.layer(inner).oneshot(request).await.unwrap_err();
        assert!(refused.downcast_ref::<ProofLayerError>().is_some(), "{name}");
    }
    let relative = Request::get("/orders/7").body(Full::default()).unwrap();
    let refused = wpt.layer(inner).oneshot(relative).await.unwrap_err();
    assert!(matches!(refused.downcast_ref(), Some(ProofLayerError::NoTarget)));
}
