//! A Workload API for tests: what it answers is set by the test, and how often it was asked is counted.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use countersign_core::{bundle::Bundle, wit::WitVerificationKey};
use countersign_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, Witsvid, WitsvidRequest, WitsvidResponse,
    X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse,
    spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer},
};
use countersign_verify::PeerIdentity;
use futures::{Stream, StreamExt as _};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::watch};
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::{Request, Response, Status, transport::Server};

use crate::{
    fixtures::{Domain, Fixed, Wit},
    orders::described,
};

type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What `FetchJWTSVID` answers, by the audiences asked for.
type Tokens = Box<dyn Fn(Vec<String>) -> Result<Vec<Jwtsvid>, Status> + Send>;

pub(crate) struct WorkloadApi {
    folder: TempDir,
    x509: watch::Sender<X509svidResponse>,
    jwt: watch::Sender<JwtBundlesResponse>,
    tokens: Arc<Mutex<Tokens>>,
    asked: Arc<AtomicUsize>,
    wit: watch::Sender<Option<Served>>,
    asked_for_wit: Arc<AtomicUsize>,
}

/// What is answered about WITs.
#[derive(Clone)]
struct Served {
    svids: Result<WitsvidResponse, Status>,
    bundles: WitBundlesResponse,
}

#[derive(Clone)]
struct Service {
    x509: watch::Receiver<X509svidResponse>,
    jwt: watch::Receiver<JwtBundlesResponse>,
    tokens: Arc<Mutex<Tokens>>,
    asked: Arc<AtomicUsize>,
    wit: watch::Receiver<Option<Served>>,
    asked_for_wit: Arc<AtomicUsize>,
}

impl WorkloadApi {
    /// Of a workload with one SVID of `domain`, by an implementation without WIT-SVIDs.
    pub(crate) fn start(domain: &Domain) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("workload.sock")).unwrap();
        let svid = domain.svid("/workload");
        let (x509, x509_seen) = watch::channel(response(vec![message(domain, "/workload", "", &svid)]));
        let (jwt, jwt_seen) = watch::channel(jwt_response(&[&domain.bundle()]));
        let tokens: Arc<Mutex<Tokens>> = Arc::new(Mutex::new(Box::new(|_| Err(Status::unavailable("no tokens")))));
        let asked = Arc::<AtomicUsize>::default();
        let ((wit, wit_seen), asked_for_wit) = (watch::channel(None), Arc::<AtomicUsize>::default());
        let service = Service {
            x509: x509_seen,
            jwt: jwt_seen,
            tokens: tokens.clone(),
            asked: asked.clone(),
            wit: wit_seen,
            asked_for_wit: asked_for_wit.clone(),
        };
        let server = Server::builder().add_service(SpiffeWorkloadApiServer::new(service));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self { folder, x509, jwt, tokens, asked, wit, asked_for_wit }
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}/workload.sock", self.folder.path().display())
    }

    pub(crate) fn send(&self, response: X509svidResponse) {
        self.x509.send_replace(response);
    }

    pub(crate) fn send_jwt(&self, bundles: &[&Bundle]) {
        self.jwt.send_replace(jwt_response(bundles));
    }

    pub(crate) fn answer_tokens(&self, tokens: impl Fn(Vec<String>) -> Result<Vec<Jwtsvid>, Status> + Send + 'static) {
        *self.tokens.lock().unwrap() = Box::new(tokens);
    }

    /// From now on these WIT-SVIDs, or this refusal, and these bundles of WIT authorities.
    pub(crate) fn send_wit(&self, svids: Result<Vec<Witsvid>, Status>, bundles: &[&Bundle]) {
        let entry = |bundle: &&Bundle| (format!("spiffe://{}", bundle.trust_domain), wit_jwks(bundle));
        let bundles = WitBundlesResponse { bundles: bundles.iter().map(entry).collect() };
        self.wit.send_replace(Some(Served { svids: svids.map(|svids| WitsvidResponse { svids }), bundles }));
    }

    /// How often streams about WITs were opened.
    pub(crate) fn asked_for_wit(&self) -> usize {
        self.asked_for_wit.load(Ordering::SeqCst)
    }

    /// How often tokens were asked for.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

pub(crate) fn response(svids: Vec<X509svid>) -> X509svidResponse {
    X509svidResponse { svids, crl: Vec::new(), federated_bundles: BTreeMap::new() }
}

pub(crate) fn message(domain: &Domain, path: &str, hint: &str, svid: &Fixed) -> X509svid {
    X509svid {
        spiffe_id: domain.id(path).to_string(),
        x509_svid: svid.chain.concat(),
        x509_svid_key: svid.key.pkcs8_der().to_vec(),
        bundle: domain.x509.certificate().der().to_vec(),
        hint: hint.to_owned(),
    }
}

pub(crate) fn wit_message(domain: &Domain, path: &str, hint: &str, wit: &Wit) -> Witsvid {
    Witsvid {
        spiffe_id: domain.id(path).to_string(),
        wit_svid: wit.token.clone(),
        wit_svid_key: wit.key.jwk_json().unwrap().to_string(),
        hint: hint.to_owned(),
    }
}

fn wit_jwks(bundle: &Bundle) -> String {
    let keys: Vec<_> = bundle.wit_authorities.iter().map(WitVerificationKey::jwk).collect();
    serde_json::json!({ "keys": keys }).to_string()
}

fn jwt_response(bundles: &[&Bundle]) -> JwtBundlesResponse {
    let entry = |bundle: &&Bundle| (format!("spiffe://{}", bundle.trust_domain), bundle.jwks_json());
    JwtBundlesResponse { bundles: bundles.iter().map(entry).collect() }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Service {
    type FetchX509SVIDStream = Updates<X509svidResponse>;
    type FetchX509BundlesStream = Updates<X509BundlesResponse>;
    type FetchJWTBundlesStream = Updates<JwtBundlesResponse>;
    type FetchWITSVIDStream = Updates<WitsvidResponse>;
    type FetchWITBundlesStream = Updates<WitBundlesResponse>;

    async fn fetch_x509svid(&self, _: Request<X509svidRequest>) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        Ok(Response::new(Box::pin(WatchStream::new(self.x509.clone()).map(Ok))))
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn fetch_jwtsvid(&self, request: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let svids = self.tokens.lock().unwrap()(request.into_inner().audience)?;
        Ok(Response::new(JwtsvidResponse { svids }))
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Ok(Response::new(Box::pin(WatchStream::new(self.jwt.clone()).map(Ok))))
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        Err(Status::unimplemented("validation is local"))
    }
    async fn fetch_witsvid(&self, _: Request<WitsvidRequest>) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        self.asked_for_wit.fetch_add(1, Ordering::SeqCst);
        match &*self.wit.borrow() {
            None => return Err(Status::unimplemented("unknown method")),
            Some(Served { svids: Err(denied), .. }) => return Err(denied.clone()),
            Some(_) => {}
        }
        let svids = WatchStream::new(self.wit.clone()).filter_map(async |served| Some(served?.svids));
        Ok(Response::new(Box::pin(svids)))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        self.asked_for_wit.fetch_add(1, Ordering::SeqCst);
        if self.wit.borrow().is_none() {
            return Err(Status::unimplemented("unknown method"));
        }
        let bundles = WatchStream::new(self.wit.clone()).filter_map(async |served| Some(Ok(served?.bundles)));
        Ok(Response::new(Box::pin(bundles)))
    }
}

/// A service of gRPC that says who calls, in its refusal.
pub(crate) struct Echo;

#[tonic::async_trait]
impl SpiffeWorkloadApi for Echo {
    type FetchX509SVIDStream = Updates<X509svidResponse>;
    type FetchX509BundlesStream = Updates<X509BundlesResponse>;
    type FetchJWTBundlesStream = Updates<JwtBundlesResponse>;
    type FetchWITSVIDStream = Updates<WitsvidResponse>;
    type FetchWITBundlesStream = Updates<WitBundlesResponse>;

    async fn fetch_x509svid(&self, _: Request<X509svidRequest>) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let extensions = request.extensions();
        let peer = || extensions.get::<PeerIdentity>().map(ToString::to_string);
        Err(Status::aborted(extensions.get().map(described).or_else(peer).unwrap_or_default()))
    }

    async fn fetch_jwtsvid(&self, _: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn fetch_witsvid(&self, _: Request<WitsvidRequest>) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(Status::unimplemented(""))
    }
}
