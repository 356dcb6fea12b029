//! The layer of servers in those of hyper and tonic.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use countersign_proto::workload::{
    X509BundlesRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient,
    spiffe_workload_api_server::SpiffeWorkloadApiServer,
};
use countersign_verify::{
    Authorizer, MtlsConnector, MtlsListener, Source,
    layer::{AuthenticationLayer, MaybeBuffered, ProofLayer},
    proof::Caller,
    tls::{mtls_client_config, mtls_server_config},
    wimse::Audience,
};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tonic::{
    Code,
    transport::{Endpoint, Server},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::{
    fixtures::{Domain, trusting},
    orders::{Orders, SERVICE, accepting_all, described, plain_client, send},
    sender::Sent,
    workload_api::{Echo, WorkloadApi, wit_message},
};

#[tokio::test]
async fn a_server_of_hyper_inserts_the_peer_itself() {
    let domain = Domain::new("a.test");
    let wit = domain.wit("/caller");
    let service = service_fn(async |request: Request<MaybeBuffered<hyper::body::Incoming>>| {
        let caller = described(request.extensions().get::<Caller>().unwrap());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let text = format!("{caller} and {} bytes", body.len());
        Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(text))))
    });
    let service = AuthenticationLayer::new(accepting_all(&domain).build().unwrap()).layer(service);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                builder.serve_connection(TokioIo::new(connection), service).await
            });
        }
    });
    let client = plain_client();
    for sent in [Sent::post(b"seven").wpt(&wit), Sent::post(b"seven").signed(&wit, false)] {
        let answered = send(&client, "http", port, &sent).await;
        assert!(answered.body.starts_with("spiffe://a.test/caller by ") && answered.body.ends_with(" and 5 bytes"));
        assert!([400, 401].contains(&send(&client, "http", port, &sent).await.status));
    }
}

// R12.
#[tokio::test]
async fn services_of_tonic_are_called_by_wpt_over_mutual_tls_and_not_by_signature() {
    let domain = Domain::new("a.test");
    let bundles = trusting(&[&domain]);
    let api = WorkloadApi::start(&domain);
    api.send_wit(Ok(vec![wit_message(&domain, "/caller", "", &domain.wit("/caller"))]), &[&domain.bundle()]);
    let source = Source::from_address(&api.address()).unwrap().ready_to_prove().await.unwrap();

    let serving = mtls_server_config(Arc::new(domain.svid("/orders")), bundles.clone(), Authorizer::anybody()).unwrap();
    let listener = MtlsListener::bind("127.0.0.1:0", serving).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let layer = AuthenticationLayer::new(accepting_all(&domain).audience(Audience::exactly(SERVICE)).build().unwrap());
    let server = Server::builder().layer(layer).add_service(SpiffeWorkloadApiServer::new(Echo));
    tokio::spawn(server.serve_with_incoming(listener.incoming()));

    let calling = mtls_client_config(Arc::new(domain.svid("/gateway")), bundles, Authorizer::anybody()).unwrap();
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
    let channel = endpoint.connect_with_connector(MtlsConnector::new(calling)).await.unwrap();

    let mut plain = SpiffeWorkloadApiClient::new(channel.clone());
    let answer = plain.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap_err();
    assert_eq!(answer.message(), "spiffe://a.test/gateway by mtls via nobody");

    // A channel takes no other body than that of tonic.
    let channel = channel.map_request(|request: Request<MaybeBuffered<_>>| request.map(tonic::body::Body::new));
    let mut proven = SpiffeWorkloadApiClient::new(ProofLayer::wpt(source.clone(), SERVICE).layer(channel.clone()));
    let answer = proven.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap_err();
    assert_eq!(answer.message(), "spiffe://a.test/caller by wpt via spiffe://a.test/gateway");

    let mut wrong = SpiffeWorkloadApiClient::new(ProofLayer::wpt(source.clone(), "payments").layer(channel.clone()));
    let answer = wrong.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap_err();
    assert_eq!(answer.code(), Code::Unauthenticated);

    let mut signed = SpiffeWorkloadApiClient::new(ProofLayer::http_signature(source, SERVICE).layer(channel));
    let error = signed.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap_err();
    assert!(format!("{error:?}").contains("Grpc"), "{error:?}");
}

#[tokio::test]
async fn a_signed_message_of_grpc_is_refused() {
    let domain = Domain::new("a.test");
    let layer = AuthenticationLayer::new(accepting_all(&domain).build().unwrap());
    let orders = Orders::start(layer).await;
    for media_type in ["application/grpc", "application/grpc+proto", "Application/GRPC"] {
        let sent = Sent::post(b"seven").with("content-type", media_type).signed(&domain.wit("/caller"), false);
        let refused = orders.send(&sent).await;
        assert_eq!((refused.status, refused.media_type.as_deref()), (200, Some("application/grpc")), "{media_type}");
    }
    assert_eq!(orders.served(), 0);
}
