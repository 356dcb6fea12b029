//! Requests through the layer of clients and that of servers, beside the same requests without, at a fixed rate by kept connections on
//! loopback; and whom else the process talked to meanwhile.

use std::time::{Duration, Instant};

use axum::{Extension, Router, body::Bytes};
use countersign_verify::{
    Authorizer, Source,
    layer::{AuthenticationLayer, MaybeBuffered, ProofAudience, ProofLayer},
    proof::{Authenticator, Caller},
    wimse::Audience,
};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, task::JoinSet, time::MissedTickBehavior};
use tower::{Layer as _, ServiceExt as _};

use crate::{sockets::Sockets, workload::Workload, workload_api::WorkloadApi};

/// Between two requests: 200 a second.
const EVERY: Duration = Duration::from_millis(5);
/// Each kind of request has its turn in each round: 20 s in all.
const ROUNDS: usize = 10;
const TURN: usize = 400;
/// Before the first round: connections are made.
const WARM_UP: usize = 100;
/// Of a request, in bytes.
const BODY: usize = 1024;

/// Milliseconds.
pub(crate) struct Times {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

pub(crate) struct Layers {
    pub(crate) without: Times,
    pub(crate) wpt: Times,
    pub(crate) http_signature: Times,
    /// Connections to others than the servers, and calls of the Workload API.
    pub(crate) calls: f64,
}

pub(crate) async fn run() -> Layers {
    let workload = Workload::new();
    let api = WorkloadApi::start_with_wit(&workload).await;
    let source = Source::from_address(&api.address()).unwrap().ready_to_prove().await.unwrap();
    let open = serve(listen().await, Router::new().fallback(async |body: Bytes| body.len().to_string()));
    let guarded = serve_authenticated(&source).await;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let kinds = [
        Kind { port: open, layer: None, client: client.clone() },
        Kind {
            port: guarded,
            layer: Some(ProofLayer::wpt(source.clone(), ProofAudience::Target)),
            client: client.clone(),
        },
        Kind { port: guarded, layer: Some(ProofLayer::http_signature(source, ProofAudience::Target)), client },
    ];
    for kind in &kinds {
        kind.requests(WARM_UP).await;
    }
    let (calls, sockets) = (api.calls(), Sockets::watch(&[open, guarded]));
    let mut taken = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (taken, kind) in taken.iter_mut().zip(&kinds) {
            taken.extend(kind.requests(TURN).await);
        }
    }
    let calls = sockets.opened().await + api.calls() - calls;
    let [without, wpt, http_signature] = taken.map(Times::of);
    Layers { without, wpt, http_signature, calls: calls as f64 }
}

/// Accepts targets of the address at which it listens, and what is asked for is who asks.
async fn serve_authenticated(source: &Source) -> u16 {
    let listener = listen().await;
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let authenticator = Authenticator::builder(source.clone())
        .wpt()
        .http_signature()
        .audience(Audience::targets_of(origin).unwrap())
        .callers(Authorizer::id(&crate::id().to_string()).unwrap())
        .build()
        .unwrap();
    let handler = async |Extension(_): Extension<Caller>, body: Bytes| body.len().to_string();
    serve(listener, Router::new().fallback(handler).layer(AuthenticationLayer::new(authenticator)))
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Its port.
fn serve(listener: TcpListener, app: Router) -> u16 {
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async { axum::serve(listener, app).await });
    port
}

/// A kind of request, and where it is sent.
struct Kind {
    port: u16,
    layer: Option<ProofLayer>,
    client: Client<HttpConnector, MaybeBuffered<Full<Bytes>>>,
}

impl Kind {
    /// Sends so many at the rate, whether those before were answered or not, and returns how long each took.
    async fn requests(&self, count: usize) -> Vec<Duration> {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut running = JoinSet::new();
        for _ in 0..count {
            tick.tick().await;
            running.spawn(request(self.port, self.layer.clone(), self.client.clone()));
        }
        running.join_all().await
    }
}

async fn request(
    port: u16,
    layer: Option<ProofLayer>,
    client: Client<HttpConnector, MaybeBuffered<Full<Bytes>>>,
) -> Duration {
    let body = Full::from(vec![b'a'; BODY]);
    let request = Request::post(format!("http://127.0.0.1:{port}/orders")).header("content-type", "application/json");
    let begun = Instant::now();
    let answer = match layer {
        None => read(client.request(request.body(MaybeBuffered::Right(body)).unwrap()).await.unwrap()).await,
        Some(layer) => read(layer.layer(client).oneshot(request.body(body).unwrap()).await.unwrap()).await,
    };
    let taken = begun.elapsed();
    assert_eq!(answer, "1024");
    taken
}

async fn read<B: Body<Error: std::fmt::Debug>>(response: Response<B>) -> Bytes {
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().collect().await.unwrap().to_bytes()
}

impl Times {
    fn of(mut taken: Vec<Duration>) -> Self {
        taken.sort_unstable();
        let last = taken.len() - 1;
        let at = |share: f64| taken.get((last as f64 * share).round() as usize).unwrap().as_secs_f64() * 1000.0;
        Self { p50: at(0.50), p99: at(0.99) }
    }
}
