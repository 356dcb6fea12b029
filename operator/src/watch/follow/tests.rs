//! A real kube client above, an API server whose answers a test scripts below.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    client::Body,
    core::{DeserializeGuard, Status},
    runtime::watcher,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, sleep},
};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{FollowError, follow};
use crate::{
    metrics::Metrics,
    watch::{ObjectKey, Sink},
};
use countersign_issuer::freshness::{Freshness, MAX_VIEW_AGE, Moment, View};
use countersign_runtime::clock::Clock;

enum Answer {
    Object(u16, Value),
    /// The events of a watch, which ends when the sender is dropped.
    Events(UnboundedReceiver<Value>),
}

/// An API server that gives these answers in turn and then none: a request stays open and hears nothing.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            server.asked.lock().push((Instant::now(), request.uri().to_string()));
            let answer = server.answers.lock().pop_front();
            async move {
                let (status, body): (u16, UnsyncBoxBody<Bytes, std::io::Error>) = match answer {
                    None => return std::future::pending().await,
                    Some(Answer::Object(status, object)) => {
                        let whole = Full::from(object.to_string());
                        (status, whole.map_err(|never| match never {}).boxed_unsync())
                    }
                    Some(Answer::Events(events)) => {
                        let lines = UnboundedReceiverStream::new(events)
                            .map(|event| Ok(Frame::data(Bytes::from(format!("{event}\n")))));
                        (200, StreamBody::new(lines).boxed_unsync())
                    }
                };
                Response::builder().status(status).body(body).map_err(std::io::Error::other)
            }
        });
        Client::new(service, "default")
    }

    fn lists(&self, version: &str, names: &[&str]) {
        let items: Vec<_> = names.iter().map(|name| namespace(name, "1")).collect();
        let list = json!({"apiVersion": "v1", "kind": "NamespaceList", "metadata": {"resourceVersion": version}, "items": items});
        self.answers.lock().push_back(Answer::Object(200, list));
    }

    fn refuses(&self, code: u16) {
        let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": "Any"});
        self.answers.lock().push_back(Answer::Object(code, status));
    }

    fn watch(&self) -> UnboundedSender<Value> {
        let (sender, events) = unbounded_channel();
        self.answers.lock().push_back(Answer::Events(events));
        sender
    }

    /// The questions so far, by what tells them apart.
    fn asked(&self) -> Vec<String> {
        let kind = |uri: &String| {
            let parameter = |name: &str| {
                let value = uri.split(['?', '&']).find_map(|parameter| parameter.strip_prefix(name));
                value.unwrap_or_default().to_owned()
            };
            if uri.contains("watch=true") {
                format!("watch {}", parameter("resourceVersion="))
            } else {
                "list".to_owned()
            }
        };
        self.asked.lock().iter().map(|(_, uri)| kind(uri)).collect()
    }
}

fn namespace(name: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name, "resourceVersion": version}})
}

fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

fn bookmark(version: &str) -> Value {
    event("BOOKMARK", &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"resourceVersion": version}}))
}

fn initial_events_end(version: &str) -> Value {
    let mut event = bookmark(version);
    event["object"]["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    event
}

/// What the sink was told, and how fresh that made the view.
#[derive(Clone)]
struct Told {
    log: Arc<Mutex<Vec<String>>>,
    freshness: Freshness,
    metrics: Arc<Metrics>,
    wall_ahead: Arc<AtomicI64>,
}

impl Sink<Namespace> for Told {
    fn listing(&mut self) {
        self.log.lock().push("listing".to_owned());
    }
    fn applied(&mut self, object: Namespace) {
        self.log.lock().push(format!("applied {}", object.metadata.name.unwrap_or_default()));
    }
    fn gone(&mut self, object: &ObjectKey) {
        self.log.lock().push(format!("gone {}", object.name));
    }
    fn listed(&mut self, present: &HashSet<ObjectKey>) {
        let mut names: Vec<_> = present.iter().map(|key| key.name.as_str()).collect();
        names.sort_unstable();
        self.log.lock().push(format!("listed {}", names.join(",")));
    }
    fn confirmed(&mut self, at: Moment) {
        self.freshness.confirm(View::Namespaces, at);
    }
}

impl Told {
    fn age(&self) -> u64 {
        self.freshness.age(View::Namespaces).as_secs()
    }
}

/// Follows namespaces for the rest of the test.
fn following(server: &Server, config: watcher::Config) -> Told {
    let (begin, wall_ahead) = (Instant::now(), Arc::new(AtomicI64::new(0)));
    let ahead = wall_ahead.clone();
    let clock = Clock::new(move || {
        let seconds = i64::try_from(begin.elapsed().as_secs()).expect("short") + ahead.load(Ordering::SeqCst);
        Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
    });
    let freshness = Freshness::new(clock);
    let told = Told { log: Arc::default(), freshness, metrics: Arc::new(Metrics::new()), wall_ahead };
    let api: Api<DeserializeGuard<Namespace>> = Api::all(server.client());
    let (freshness, metrics) = (told.freshness.clone(), told.metrics.clone());
    tokio::spawn(follow("namespaces", api, config, told.clone(), freshness, metrics));
    told
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_list_replaces_what_was_and_an_object_that_cannot_be_decoded_counts_as_absent() {
    let server = Server::default();
    let undecodable = |name: &str| {
        let mut object = namespace(name, "9");
        object["spec"] = json!("none");
        object
    };
    let items = [namespace("a", "1"), undecodable("b"), namespace("c", "2")];
    let list =
        json!({"apiVersion": "v1", "kind": "NamespaceList", "metadata": {"resourceVersion": "5"}, "items": items});
    server.answers.lock().push_back(Answer::Object(200, list));
    let watch = server.watch();
    let told = following(&server, watcher::Config::default());
    watch.send(event("MODIFIED", &undecodable("a"))).expect("it watches");
    watch.send(event("DELETED", &namespace("c", "10"))).expect("it watches");
    seconds(1).await;
    let expected = ["listing", "applied a", "gone b", "applied c", "listed a,b,c", "gone a", "gone c"];
    assert_eq!(*told.log.lock(), expected);
    assert_eq!(told.metrics.undecodable.get(), 2);
}

/// R25: where nothing happens the view stays fresh by bookmarks alone, and nothing is asked for but the next watch.
#[tokio::test(start_paused = true)]
async fn a_quiet_watch_with_bookmarks_stays_fresh_and_is_resumed_from_the_last() {
    let server = Server::default();
    server.lists("5", &["a"]);
    let (first, second) = (server.watch(), server.watch());
    let told = following(&server, watcher::Config::default());
    for (watch, versions) in [(first, 6..11), (second, 11..60)] {
        for version in versions {
            seconds(60).await;
            assert!(told.age() <= 125, "{}", told.age());
            watch.send(bookmark(&version.to_string())).expect("it watches");
        }
        seconds(1).await;
    }
    assert_eq!(server.asked()[..3], ["list", "watch 5", "watch 10"]);
    assert_eq!(*told.log.lock(), ["listing", "applied a", "listed a"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_says_nothing_is_resumed_and_then_replaced_by_a_list() {
    let server = Server::default();
    server.lists("5", &["a"]);
    let silent = [server.watch(), server.watch()];
    server.lists("8", &["b"]);
    let watch = server.watch();
    let told = following(&server, watcher::Config::default());
    seconds(149).await;
    assert_eq!(server.asked(), ["list", "watch 5"]);
    seconds(20).await;
    assert_eq!(server.asked(), ["list", "watch 5", "watch 5"]);
    seconds(160).await;
    assert_eq!(server.asked(), ["list", "watch 5", "watch 5", "list", "watch 8"]);
    assert_eq!(told.log.lock()[3..], ["listing", "applied b", "listed b"]);
    assert!(told.age() < 30, "{}", told.age());
    drop((silent, watch));
}

/// The connection is open, and neither it nor any other says anything: the view is not held to be fresh for that.
#[tokio::test(start_paused = true)]
async fn a_view_whose_watch_is_dead_is_too_old_after_the_bound_and_fresh_again_once_it_is_alive() {
    let server = Server::default();
    server.lists("5", &["a"]);
    let silent = server.watch();
    let told = following(&server, watcher::Config::default());
    sleep(MAX_VIEW_AGE).await;
    assert!(told.age() <= MAX_VIEW_AGE.as_secs());
    seconds(2).await;
    assert!(told.age() > MAX_VIEW_AGE.as_secs(), "{}", told.age());
    let watch = server.watch();
    watch.send(bookmark("6")).expect("it watches");
    // A request that gets no answer is given up after a minute, the next is made within ten seconds.
    seconds(75).await;
    watch.send(bookmark("7")).expect("it watches");
    seconds(1).await;
    assert!(told.age() <= 90, "{}", told.age());
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn what_waited_while_the_machine_was_suspended_confirms_nothing() {
    let server = Server::default();
    server.lists("5", &["a"]);
    let (before, after) = (server.watch(), server.watch());
    let told = following(&server, watcher::Config::default());
    seconds(30).await;
    told.wall_ahead.store(3_600, Ordering::SeqCst);
    for version in ["6", "7"] {
        before.send(bookmark(version)).expect("it watches");
    }
    seconds(10).await;
    assert!(told.age() >= 3_600, "{}", told.age());
    assert_eq!(server.asked(), ["list", "watch 5", "watch 5"]);
    after.send(bookmark("8")).expect("it watches");
    seconds(1).await;
    assert!(told.age() <= 20, "{}", told.age());
}

#[tokio::test(start_paused = true)]
async fn a_history_that_is_gone_is_listed_anew_and_a_broken_connection_is_resumed() {
    let server = Server::default();
    server.lists("5", &["a"]);
    let watch = server.watch();
    server.refuses(500);
    server.refuses(410);
    server.lists("20", &["b"]);
    let ended = server.watch();
    server.lists("30", &["c"]);
    let told = following(&server, watcher::Config::default());
    watch.send(event("ADDED", &namespace("x", "7"))).expect("it watches");
    drop(watch);
    seconds(20).await;
    let gone = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 410, "message": "too old resource version", "reason": "Expired"});
    ended.send(event("ERROR", &gone)).expect("it watches");
    seconds(20).await;
    let asked = ["list", "watch 5", "watch 7", "watch 7", "list", "watch 20", "list", "watch 30"];
    assert_eq!(server.asked(), asked);
    assert_eq!(told.log.lock().last().map(String::as_str), Some("listed c"));
}

/// R25: of what is most recent, see `protobuf`.
#[tokio::test(start_paused = true)]
async fn a_streamed_list_ends_with_its_bookmark_and_becomes_the_watch() {
    let server = Server::default();
    let (broken, watch) = (server.watch(), server.watch());
    broken.send(event("ADDED", &namespace("lost", "1"))).expect("it watches");
    drop(broken);
    watch.send(event("ADDED", &namespace("a", "1"))).expect("it watches");
    watch.send(bookmark("3")).expect("it watches");
    let told = following(&server, watcher::Config::default().streaming_lists());
    seconds(20).await;
    assert_eq!(told.age(), Duration::MAX.as_secs(), "a list that is not complete says nothing");
    watch.send(initial_events_end("4")).expect("it watches");
    watch.send(event("MODIFIED", &namespace("a", "6"))).expect("it watches");
    seconds(1).await;
    assert!(told.age() <= 25, "{}", told.age());
    assert_eq!(*told.log.lock(), ["listing", "applied lost", "listing", "applied a", "listed a", "applied a"]);
    assert!(server.asked.lock()[1].1.contains("sendInitialEvents=true"));
}

#[test]
fn only_a_refusal_of_the_question_itself_leads_to_another() {
    let refused = |code| {
        let status = Status { code, ..Status::default() };
        FollowError::Open(kube::Error::Api(status.boxed()))
    };
    assert!(refused(422).is_refused_as_invalid());
    assert!([403, 429, 500, 410].into_iter().all(|code| !refused(code).is_refused_as_invalid()));
    assert!(refused(410).needs_list());
    assert!([403, 422, 429, 500].into_iter().all(|code| !refused(code).needs_list()));
}
