//! The peer's identity in axum, hyper, tonic and reqwest: R77.

use std::sync::Arc;

use axum::{Router, extract::ConnectInfo, routing::get};
use countersign_proto::workload::{
    X509BundlesRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient,
    spiffe_workload_api_server::SpiffeWorkloadApiServer,
};
use countersign_verify::{
    Authorizer, MtlsConnector, MtlsListener, PeerError, PeerIdentity,
    tls::{mtls_client_config, mtls_server_config},
};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls::{ClientConfig, ServerConfig};
use tonic::transport::{Endpoint, Server};

use crate::{
    fixtures::{Domain, trusting},
    workload_api::Echo,
};

fn configs(server: &str) -> (Domain, ServerConfig, ClientConfig) {
    let domain = Domain::new("a.test");
    let bundles = trusting(&[&domain]);
    let callers = Authorizer::id("spiffe://a.test/client").unwrap();
    let serving = mtls_server_config(Arc::new(domain.svid("/server")), bundles.clone(), callers).unwrap();
    let servers = Authorizer::id(&format!("spiffe://a.test{server}")).unwrap();
    let calling = mtls_client_config(Arc::new(domain.svid("/client")), bundles, servers).unwrap();
    (domain, serving, calling)
}

/// A service of axum that says who calls; its port.
async fn axum(config: ServerConfig) -> u16 {
    let app = Router::new().route("/", get(async |ConnectInfo(peer): ConnectInfo<PeerIdentity>| peer.to_string()));
    let listener = MtlsListener::bind("127.0.0.1:0", config).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = app.into_make_service_with_connect_info::<PeerIdentity>();
    tokio::spawn(async { axum::serve(listener, service).await });
    port
}

#[tokio::test]
async fn handlers_of_axum_and_responses_of_reqwest_know_the_peer() {
    let (domain, server, client) = configs("/server");
    let port = axum(server).await;
    let client = reqwest::Client::builder().use_preconfigured_tls(client).tls_info(true).build().unwrap();
    let response = client.get(format!("https://127.0.0.1:{port}/")).send().await.unwrap();
    assert_eq!(*PeerIdentity::of_response(&response).unwrap().id(), domain.id("/server"));
    assert_eq!(response.text().await.unwrap(), "spiffe://a.test/client");
}

#[tokio::test]
async fn responses_of_hyper_know_the_peer_also_on_a_connection_that_is_used_again() {
    let (domain, server, client) = configs("/server");
    let port = axum(server).await;
    let client = Client::builder(TokioExecutor::new()).build::<_, axum::body::Body>(MtlsConnector::new(client));
    for _ in 0..2 {
        let response = client.get(format!("https://localhost:{port}/").parse().unwrap()).await.unwrap();
        assert_eq!(*response.extensions().get::<PeerIdentity>().unwrap().id(), domain.id("/server"));
    }
}

#[tokio::test]
async fn services_of_tonic_know_their_callers() {
    let (_, server, client) = configs("/server");
    let listener = MtlsListener::bind("127.0.0.1:0", server).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = Server::builder().add_service(SpiffeWorkloadApiServer::new(Echo));
    tokio::spawn(service.serve_with_incoming(listener.incoming()));
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
    let channel = endpoint.connect_with_connector(MtlsConnector::new(client)).await.unwrap();
    let mut client = SpiffeWorkloadApiClient::new(channel);
    let refused = client.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap_err();
    assert_eq!(refused.message(), "spiffe://a.test/client");
}

#[tokio::test]
async fn clients_say_which_server_was_refused() {
    let (domain, server, client) = configs("/other");
    let port = axum(server).await;
    let expected = PeerError::NotAccepted { id: domain.id("/server") };

    let reqwest = reqwest::Client::builder().use_preconfigured_tls(client.clone()).build().unwrap();
    let error = reqwest.get(format!("https://127.0.0.1:{port}/")).send().await.unwrap_err();
    assert_eq!(PeerError::within(&error), Some(&expected), "{error:?}");

    let connector = MtlsConnector::new(client);
    let hyper = Client::builder(TokioExecutor::new()).build::<_, axum::body::Body>(connector.clone());
    let error = hyper.get(format!("https://127.0.0.1:{port}/").parse().unwrap()).await.unwrap_err();
    assert_eq!(PeerError::within(&error), Some(&expected), "{error:?}");

    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
    let error = endpoint.connect_with_connector(connector.clone()).await.unwrap_err();
    assert_eq!(PeerError::within(&error), Some(&expected), "{error:?}");
}

#[tokio::test]
async fn nothing_is_sent_in_the_clear() {
    let (_, server, client) = configs("/server");
    let port = axum(server).await;
    let hyper = Client::builder(TokioExecutor::new()).build::<_, axum::body::Body>(MtlsConnector::new(client));
    let error = hyper.get(format!("http://127.0.0.1:{port}/").parse().unwrap()).await.unwrap_err();
    assert!(format!("{error:?}").contains("NotHttps"), "{error:?}");
}
