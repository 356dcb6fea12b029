//! A whole issuer with its watches, before an API server of which one part alone is dead: connections stay open and say
//! nothing, requests are not answered. What is known of that part is issued from up to a bound, and no longer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use countersign_core::{
    csr::Csr,
    key::{KeyType, PrivateKey},
};
use countersign_issuer::freshness::{MAX_VIEW_AGE, View};
use countersign_operator::watch::{self, stored::Stored};
use countersign_proto::issuer::v1::{self, session_request};
use futures::{StreamExt as _, stream};
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use support::{EPOCH, World, claims, orders, trust_domain};
use tokio::time::sleep;
use tonic::Code;

const AUTHORITIES: &str = "countersign-authorities";

/// An API server that has what [`World`] has, sends each watch a bookmark a minute, and is dead in the part that the test names.
#[derive(Clone, Default)]
struct ApiServer {
    dead: Arc<Mutex<Option<View>>>,
}

impl ApiServer {
    fn is_dead(&self, view: View) -> bool {
        *self.dead.lock().unwrap() == Some(view)
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let view = view_of(request.uri().path());
                if server.is_dead(view) {
                    return std::future::pending().await;
                }
                let query = request.uri().query().unwrap_or_default();
                let (status, body) = if query.contains("sendInitialEvents=true") {
                    let refusal = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 422, "message": "no WatchList", "reason": "Invalid"});
                    (StatusCode::UNPROCESSABLE_ENTITY, whole(&refusal))
                } else if query.contains("watch=true") {
                    (StatusCode::OK, server.bookmarks(view))
                } else {
                    (StatusCode::OK, whole(&list(view)))
                };
                let answer = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
                answer.body(body).map_err(std::io::Error::other)
            }
        });
        Client::new(service, "default")
    }

    fn bookmarks(&self, view: View) -> UnsyncBoxBody<Bytes, std::io::Error> {
        let server = self.clone();
        let lines = stream::unfold(server, move |server| async move {
            loop {
                sleep(Duration::from_secs(60)).await;
                if !server.is_dead(view) {
                    break;
                }
            }
            let mut object = list(view)["items"][0].clone();
            object["metadata"] = json!({"resourceVersion": "9", "creationTimestamp": null});
            let line = format!("{}\n", json!({"type": "BOOKMARK", "object": object}));
            Some((Ok(Frame::data(Bytes::from(line))), server))
        });
        StreamBody::new(lines.boxed()).boxed_unsync()
    }
}

fn whole(object: &Value) -> UnsyncBoxBody<Bytes, std::io::Error> {
    Full::from(object.to_string()).map_err(|never| match never {}).boxed_unsync()
}

fn view_of(path: &str) -> View {
    match path.rsplit('/').next() {
        Some("pods") => View::Pods,
        Some("namespaces") => View::Namespaces,
        Some("trustdomains") => View::TrustDomains,
        Some("workloadidentities") => View::WorkloadIdentities,
        Some("secrets") => View::Journals,
        other => panic!("{other:?} was not to be asked for"),
    }
}

fn list(view: View) -> Value {
    let (kind, items) = match view {
        View::Pods => {
            let metadata = json!({"name": "orders-0", "namespace": "shop", "uid": "p0", "resourceVersion": "1"});
            let containers = json!([{"name": "app"}, {"name": "proxy"}]);
            let pod = json!({"metadata": metadata, "spec": {"serviceAccountName": "orders", "containers": containers}});
            ("v1/Pod", json!([pod]))
        }
        View::Namespaces => {
            let labels = json!({"team": "a"});
            (
                "v1/Namespace",
                json!([{"metadata": {"name": "shop", "uid": "ns", "labels": labels, "resourceVersion": "1"}}]),
            )
        }
        View::TrustDomains => ("countersign.dev/v1alpha1/TrustDomain", json!([trust_domain()])),
        View::WorkloadIdentities => ("countersign.dev/v1alpha1/WorkloadIdentity", json!([orders()])),
        View::Journals => {
            let version = |name: &str, version: &str| json!({"metadata": {"name": name, "resourceVersion": version}});
            ("v1/Secret", json!([version("control-plane", "1"), version("trust-domain.example.org", "2")]))
        }
        View::TokenKeys => panic!("they are no list"),
    };
    let (version, kind) = kind.rsplit_once('/').unwrap();
    let mut items = items;
    for item in items.as_array_mut().unwrap() {
        item["apiVersion"] = json!(version);
        item["kind"] = json!(kind);
    }
    json!({"apiVersion": version, "kind": format!("{kind}List"), "metadata": {"resourceVersion": "5"}, "items": items})
}

/// Begins everything that keeps what the issuer knows fresh.
fn keep_fresh(world: &World, server: &ApiServer) {
    let client = || server.client();
    let (index, checks, metrics) = (&world.index, &world.checks, &world.metrics);
    let shared = || (index.clone(), world.freshness.clone(), metrics.clone());
    let (index, freshness, metrics) = shared();
    tokio::spawn(watch::pods::watch(client(), index, freshness, checks.pods.clone(), metrics));
    let (index, freshness, metrics) = shared();
    tokio::spawn(watch::namespaces::watch(client(), index, freshness, checks.namespaces.clone(), metrics));
    let (index, freshness, metrics) = shared();
    tokio::spawn(watch::trust_domains::watch(
        client(),
        String::new(),
        index,
        Stored::new().1,
        freshness,
        checks.trust_domains.clone(),
        metrics,
    ));
    let (index, freshness, metrics) = shared();
    tokio::spawn(watch::workload_identities::watch(
        client(),
        index,
        Stored::new().1,
        freshness,
        checks.workload_identities.clone(),
        metrics,
    ));
    let (authorities, freshness) = (world.authorities.clone(), world.freshness.clone());
    tokio::spawn(watch::journals::confirm(client(), AUTHORITIES.to_owned(), authorities, freshness));
    let (keys, dead, source) = (world.context.token_keys.clone(), server.dead.clone(), world.cluster_keys.clone());
    tokio::spawn(async move {
        let keep_fresh = async { keys.keep_fresh().await };
        let withhold = async {
            let served = source.keys.lock().unwrap().clone();
            loop {
                let dead = *dead.lock().unwrap() == Some(View::TokenKeys);
                *source.keys.lock().unwrap() = if dead { vec![json!("damaged")] } else { served.clone() };
                sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::join!(keep_fresh, withhold)
    });
    let (freshness, metrics) = (world.freshness.clone(), world.metrics.issuer.clone());
    tokio::spawn(freshness.publish(world.checks.fresh_views.clone(), metrics));
}

fn token(world: &World) -> String {
    let mut claims = claims("orders-0", "p0");
    let now = world.clock.now().as_second();
    for (claim, at) in [("iat", now), ("nbf", now), ("exp", now + 3_600)] {
        claims[claim] = json!(at);
    }
    assert!(now >= EPOCH);
    world.signer.sign(&claims)
}

fn csr() -> Vec<u8> {
    Csr::create(&PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap()
}

/// A certificate by a stream of its own, or with what that ends.
async fn issue(world: &World) -> Result<(), tonic::Status> {
    let hello = v1::Hello { token: token(world), version: "test".to_owned(), ..v1::Hello::default() };
    let mut stream = world.client().await.hello(hello).await?;
    stream.message().await?;
    let request = v1::X509Request { id: 7, csr: csr(), spiffe_id: String::new(), token: token(world) };
    stream.send(session_request::Kind::X509(request)).await;
    match stream.message().await? {
        v1::session_response::Kind::X509(answer) => assert_eq!(answer.refusal, None),
        other => panic!("not a certificate: {other:?}"),
    }
    Ok(())
}

/// R25: for hours in which nothing happens all goes on.
#[tokio::test(start_paused = true)]
async fn in_a_cluster_in_which_nothing_happens_issuing_goes_on() {
    let (world, server) = (World::new().await, ApiServer::default());
    keep_fresh(&world, &server);
    for _ in 0..30 {
        sleep(Duration::from_secs(600)).await;
        issue(&world).await.expect("nothing is too old");
        assert!(world.checks.fresh_views.is_passing());
        for view in View::ALL {
            let age = world.freshness.age(view);
            assert!(age <= Duration::from_secs(330), "the view of {view} is {age:?} old");
        }
    }
}

/// R25: whichever part is dead, however alive the others are.
#[tokio::test(start_paused = true)]
async fn with_one_watch_alone_dead_nothing_is_issued_after_the_bound_until_it_is_alive_again() {
    for view in View::ALL {
        let (world, server) = (World::new().await, ApiServer::default());
        keep_fresh(&world, &server);
        sleep(Duration::from_secs(400)).await;
        *server.dead.lock().unwrap() = Some(view);
        // The last confirmation may be as old as the keys are fetched seldom.
        sleep(MAX_VIEW_AGE - Duration::from_secs(330)).await;
        issue(&world).await.unwrap_or_else(|status| panic!("within the bound, for {view}: {status}"));
        sleep(Duration::from_secs(340)).await;

        let refused = issue(&world).await.expect_err("it is too old");
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(refused.message().contains(&format!("view of {view} was last confirmed ")), "{refused}");
        assert!(!world.checks.fresh_views.is_passing(), "no agent is sent here");
        let text = world.metrics.encode().unwrap();
        let age = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("countersign_view_age_seconds{{view=\"{view:?}\"}} ")));
        assert!(age.unwrap().parse::<f64>().unwrap() > 900.0, "{text}");

        *server.dead.lock().unwrap() = None;
        // A request under way is given up after a minute, and a bookmark comes a minute after a watch began.
        sleep(Duration::from_secs(200)).await;
        issue(&world).await.unwrap_or_else(|status| panic!("{view} is alive again: {status}"));
        assert!(world.checks.fresh_views.is_passing());
    }
}
