//! A service that says who calls it, behind the layer of servers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Extension, Router, extract::DefaultBodyLimit};
use bytes::Bytes;
use countersign_verify::{
    Authorizer, PeerIdentity,
    layer::AuthenticationLayer,
    proof::{Authenticator, AuthenticatorBuilder, Caller},
    tls::FixedBundles,
    wimse::Audience,
};
use tokio::net::TcpListener;

use crate::{
    fixtures::{Domain, bundle_set},
    sender::{ORIGIN, Sent},
};

/// The audience of JWT-SVIDs.
pub(crate) const SERVICE: &str = "orders";

/// A running service.
pub(crate) struct Orders {
    pub(crate) port: u16,
    /// Requests that reached it.
    served: Arc<AtomicUsize>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) challenge: Option<String>,
    pub(crate) media_type: Option<String>,
    pub(crate) body: String,
}

/// Accepts every method, from everybody of this trust domain, for [`ORIGIN`].
pub(crate) fn accepting_all(domain: &Domain) -> AuthenticatorBuilder {
    Authenticator::builder(FixedBundles(bundle_set(&[domain])))
        .mtls()
        .jwt_svid(SERVICE)
        .wpt()
        .http_signature()
        .audience(Audience::targets_of(ORIGIN).unwrap())
        .callers(Authorizer::anybody())
}

/// An application that says who calls, and counts who reached it.
pub(crate) fn application(layer: AuthenticationLayer) -> (Router, Arc<AtomicUsize>) {
    let served = Arc::<AtomicUsize>::default();
    let counter = served.clone();
    let handler = async move |Extension(caller): Extension<Caller>, body: Bytes| {
        counter.fetch_add(1, Ordering::SeqCst);
        format!("{} and {} bytes", described(&caller), body.len())
    };
    // `layer` of a router is inside of its extensions, and outside of its handlers.
    let app = Router::new().fallback(handler).layer(DefaultBodyLimit::disable()).layer(layer);
    (app, served)
}

pub(crate) fn described(caller: &Caller) -> String {
    let via = caller.via().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    format!("{} by {} via {via}", caller.id(), caller.method())
}

impl Orders {
    /// Over plain HTTP.
    pub(crate) async fn start(layer: AuthenticationLayer) -> Self {
        let (app, served) = application(layer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async { axum::serve(listener, app).await });
        Self { port, served }
    }

    /// Over mutual TLS.
    pub(crate) async fn start_mtls(layer: AuthenticationLayer, config: rustls::ServerConfig) -> Self {
        let (app, served) = application(layer);
        let listener = countersign_verify::MtlsListener::bind("127.0.0.1:0", config).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = app.into_make_service_with_connect_info::<PeerIdentity>();
        tokio::spawn(async { axum::serve(listener, service).await });
        Self { port, served }
    }

    pub(crate) fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    pub(crate) async fn send(&self, sent: &Sent) -> Answered {
        send(&plain_client(), "http", self.port, sent).await
    }
}

/// A client that trusts nobody: for plain HTTP.
pub(crate) fn plain_client() -> reqwest::Client {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = builder.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    reqwest::Client::builder().use_preconfigured_tls(config).build().unwrap()
}

pub(crate) async fn send(client: &reqwest::Client, scheme: &str, port: u16, sent: &Sent) -> Answered {
    let query = sent.query.map(|query| format!("?{query}")).unwrap_or_default();
    let url = format!("{scheme}://127.0.0.1:{port}{}{query}", sent.path);
    let mut request = client.request(sent.method.parse().unwrap(), url).body(sent.body);
    for (name, value) in &sent.headers {
        request = request.header(name, value);
    }
    let response = request.send().await.unwrap();
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, challenge, media_type) =
        (response.status().as_u16(), header("www-authenticate"), header("content-type"));
    Answered { status, challenge, media_type, body: response.text().await.unwrap() }
}
