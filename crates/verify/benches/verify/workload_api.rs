//! A Workload API whose X.509 state is replaced on demand, and which may have a WIT-SVID.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use countersign_core::{
    jwt::JwtAuthority,
    key::{KeyType, PrivateKey},
    x509::{LeafRequest, X509Authority},
};
use countersign_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, Witsvid, WitsvidRequest, WitsvidResponse,
    X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse,
    spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer},
};
use futures::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::watch};
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::{Request, Response, Status, transport::Server};

use crate::{TTL, id, workload::Workload};

/// Trust domains that the workload federates with, beside its own: ten in all.
const FOREIGN: usize = 9;

pub(crate) struct WorkloadApi {
    folder: TempDir,
    state: watch::Sender<X509svidResponse>,
    /// Signed the SVID of now; stays trusted for one replacement more.
    last: Mutex<X509Authority>,
    calls: Arc<AtomicUsize>,
}

impl WorkloadApi {
    pub(crate) async fn start() -> Self {
        Self::serve(None).await
    }

    /// With the WIT-SVID of `workload`, which does not change.
    pub(crate) async fn start_with_wit(workload: &Workload) -> Self {
        Self::serve(Some(Wit::of(workload))).await
    }

    async fn serve(wit: Option<Wit>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("workload.sock")).unwrap();
        let first = authority("bench.example");
        let calls = Arc::<AtomicUsize>::default();
        let (state, receiver) = watch::channel(response(&first, &first));
        let service = SpiffeWorkloadApiServer::new(Service { x509: receiver, wit, calls: calls.clone() });
        let server = Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self { folder, state, last: Mutex::new(first), calls }
    }

    /// How often it was called, by any method.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}/workload.sock", self.folder.path().display())
    }

    /// A new authority signs a new SVID, and the nine foreign trust domains have new authorities.
    pub(crate) fn replace(&self) {
        let next = authority("bench.example");
        let mut last = self.last.lock().unwrap();
        self.state.send_replace(response(&next, &last));
        *last = next;
    }
}

fn authority(trust_domain: &str) -> X509Authority {
    X509Authority::generate(&trust_domain.parse().unwrap(), KeyType::EcP256, TTL * 24, Timestamp::now()).unwrap()
}

fn response(signs: &X509Authority, before: &X509Authority) -> X509svidResponse {
    let (id, key) = (id(), PrivateKey::generate(KeyType::EcP256).unwrap());
    let request = LeafRequest { spki: key.public_key(), id: &id, dns_names: &[], ttl: TTL };
    let issued = signs.issue(&request, Timestamp::now()).unwrap();
    let foreign = |number| {
        let name = format!("foreign-{number}.example");
        (format!("spiffe://{name}"), authority(&name).certificate().der().to_vec())
    };
    X509svidResponse {
        svids: vec![X509svid {
            spiffe_id: id.to_string(),
            x509_svid: issued.chain.concat(),
            x509_svid_key: key.pkcs8_der().to_vec(),
            bundle: [before.certificate().der(), signs.certificate().der()].concat(),
            hint: String::new(),
        }],
        crl: Vec::new(),
        federated_bundles: (0..FOREIGN).map(foreign).collect::<BTreeMap<_, _>>(),
    }
}

struct Service {
    x509: watch::Receiver<X509svidResponse>,
    wit: Option<Wit>,
    calls: Arc<AtomicUsize>,
}

/// What is answered about WITs.
struct Wit {
    svids: WitsvidResponse,
    bundles: WitBundlesResponse,
}

impl Wit {
    fn of(workload: &Workload) -> Self {
        let svid = Witsvid {
            spiffe_id: id().to_string(),
            wit_svid: workload.wit.clone(),
            wit_svid_key: workload.key.jwk_json().unwrap().to_string(),
            hint: String::new(),
        };
        let keys = key_set(workload.authority.verification_key().jwk());
        let bundles = [(id().trust_domain().id_string(), keys)].into();
        Self { svids: WitsvidResponse { svids: vec![svid] }, bundles: WitBundlesResponse { bundles } }
    }
}

fn key_set(key: Map<String, Value>) -> String {
    json!({ "keys": [key] }).to_string()
}

type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SpiffeWorkloadApi for Service {
    type FetchX509SVIDStream = Updates<X509svidResponse>;
    type FetchX509BundlesStream = Updates<X509BundlesResponse>;
    type FetchJWTBundlesStream = Updates<JwtBundlesResponse>;
    type FetchWITSVIDStream = Updates<WitsvidResponse>;
    type FetchWITBundlesStream = Updates<WitBundlesResponse>;

    async fn fetch_x509svid(&self, _: Request<X509svidRequest>) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.called();
        Ok(Response::new(Box::pin(WatchStream::new(self.x509.clone()).map(Ok))))
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        Err(self.unimplemented())
    }

    async fn fetch_jwtsvid(&self, _: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        Err(self.unimplemented())
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.called();
        // A source asks again where there is no answer.
        let keys = key_set(JwtAuthority::generate(KeyType::EcP256).unwrap().verification_key().jwk());
        let bundles = [(id().trust_domain().id_string(), keys.into_bytes())].into();
        Ok(Response::new(unchanging(JwtBundlesResponse { bundles })))
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        Err(self.unimplemented())
    }

    async fn fetch_witsvid(&self, _: Request<WitsvidRequest>) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        let wit = self.wit.as_ref().ok_or_else(|| self.unimplemented())?;
        self.called();
        Ok(Response::new(unchanging(wit.svids.clone())))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        let wit = self.wit.as_ref().ok_or_else(|| self.unimplemented())?;
        self.called();
        Ok(Response::new(unchanging(wit.bundles.clone())))
    }
}

impl Service {
    fn called(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn unimplemented(&self) -> Status {
        self.called();
        Status::unimplemented("not measured")
    }
}

fn unchanging<T: Send + 'static>(message: T) -> Updates<T> {
    Box::pin(stream::iter([Ok(message)]).chain(stream::pending()))
}
