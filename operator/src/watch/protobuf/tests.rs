//! A real kube client and watcher above, an API server's binary answers below.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response, header::ACCEPT, header::CONTENT_TYPE};
use kube::{
    Api, Client,
    api::ListParams,
    client::Body,
    runtime::watcher::{self, Event, watcher},
};
use prost::Message;

use super::messages::{
    Container, Entry, ListMeta, ObjectMeta, Pod, PodList, PodSpec, PodStatus, RawExtension, Status, Time, TypeMeta,
    Unknown, WatchEvent,
};
use crate::{
    metrics::Metrics,
    watch::{ObjectKey, Sink, follow, pods::PodLite},
};
use countersign_index::PodRecord;
use countersign_issuer::freshness::Freshness;
use countersign_runtime::clock::Clock;

/// A pod as it is stored: with fields that nobody here reads.
#[derive(Clone, PartialEq, Message)]
struct WholePod {
    #[prost(message, optional, tag = "1")]
    metadata: Option<WholeMeta>,
    #[prost(message, optional, tag = "2")]
    spec: Option<PodSpec>,
    #[prost(message, optional, tag = "3")]
    status: Option<PodStatus>,
    #[prost(string, tag = "77")]
    future: String,
}

#[derive(Clone, PartialEq, Message)]
struct WholeMeta {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "5")]
    uid: String,
    #[prost(string, tag = "6")]
    resource_version: String,
    #[prost(message, optional, tag = "9")]
    deletion_timestamp: Option<Time>,
    #[prost(message, repeated, tag = "11")]
    labels: Vec<Entry>,
    #[prost(message, repeated, tag = "12")]
    annotations: Vec<Entry>,
    #[prost(message, repeated, tag = "17")]
    managed_fields: Vec<Entry>,
}

fn entry(key: &'static str, value: &'static str) -> Entry {
    Entry { key: Bytes::from_static(key.as_bytes()), value: Bytes::from_static(value.as_bytes()) }
}

fn container(name: &str) -> Container {
    Container { name: name.to_owned(), image: format!("{name}:1") }
}

fn whole(uid: &str, phase: &str) -> WholePod {
    WholePod {
        metadata: Some(WholeMeta {
            name: format!("pod-{uid}"),
            namespace: "shop".to_owned(),
            uid: uid.to_owned(),
            resource_version: "7".to_owned(),
            deletion_timestamp: (uid == "deleted").then_some(Time { seconds: 1_800_000_000 }),
            labels: vec![entry("app", "orders"), entry("empty", "")],
            annotations: vec![
                entry("countersign.dev/injected", "sidecar"),
                // One has the annotation under its name in release 0.1.
                entry(
                    if uid == "deleted" { "countersign.dev/never-refreshes" } else { "countersign.dev/stale-mounts" },
                    "app",
                ),
                entry("secret-ish", "not kept"),
            ],
            managed_fields: vec![entry("manager", "kubelet")],
        }),
        spec: Some(PodSpec {
            containers: vec![container("app")],
            service_account_name: "orders".to_owned(),
            init_containers: vec![container("agent")],
        }),
        status: Some(PodStatus { phase: phase.to_owned() }),
        future: "of a later version".to_owned(),
    }
}

/// The pod as the decoder's own message reads it, to put it into a list.
fn pod(uid: &str) -> Pod {
    Pod::decode(whole(uid, "Running").encode_to_vec().as_slice()).expect("decodes")
}

fn enveloped(kind: &str, message: &impl Message) -> Vec<u8> {
    let type_meta = Some(TypeMeta { kind: kind.to_owned() });
    let unknown = Unknown { type_meta, raw: message.encode_to_vec().into() };
    [b"k8s\0".as_slice(), &unknown.encode_to_vec()].concat()
}

fn framed(event: &str, object: Vec<u8>) -> Vec<u8> {
    let event = WatchEvent { kind: event.to_owned(), object: Some(RawExtension { raw: object.into() }) };
    let event = event.encode_to_vec();
    let length = u32::try_from(event.len()).expect("short");
    [length.to_be_bytes().as_slice(), &event].concat()
}

/// A client whose server gives these answers in turn, status, content type and body, and then none; and what it was asked.
fn answering(answers: Vec<(u16, &'static str, Vec<u8>)>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (answers, questions) = (Arc::new(Mutex::new(answers.into_iter())), asked.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        questions.lock().unwrap().push(format!("{} {accepts}", request.uri()));
        let answer = answers.lock().unwrap().next();
        async move {
            let Some((status, content_type, body)) = answer else { return std::future::pending().await };
            let response = Response::builder().status(status).header(CONTENT_TYPE, content_type).body(Body::from(body));
            response.map_err(std::io::Error::other)
        }
    });
    (super::client(Client::new(service, "default")), asked)
}

const OBJECT: &str = "application/vnd.kubernetes.protobuf";
const STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";

// R25: of a pod only what decides is kept, from the wire on.
#[tokio::test]
async fn a_watcher_lists_and_follows_pods_in_binary() {
    let page = |uid: &str, next: &str| {
        let metadata = Some(ListMeta { resource_version: "5".to_owned(), next: next.to_owned() });
        enveloped("PodList", &PodList { metadata, items: vec![pod(uid)] })
    };
    let bookmark = Pod {
        metadata: Some(ObjectMeta { resource_version: "8".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let events = [
        framed("MODIFIED", enveloped("Pod", &whole("a", "Succeeded"))),
        framed("BOOKMARK", enveloped("Pod", &bookmark)),
        framed("MODIFIED", enveloped("Pod", &whole("deleted", "Running"))),
        framed("DELETED", enveloped("Pod", &whole("b", "Running"))),
    ];
    let (client, asked) =
        answering(vec![(200, OBJECT, page("a", "more")), (200, OBJECT, page("b", "")), (200, STREAM, events.concat())]);
    let pods: Api<PodLite> = Api::all(client);
    let mut events = std::pin::pin!(watcher(pods, watcher::Config::default()));
    let mut seen = Vec::new();
    for _ in 0..7 {
        let event = events.next().await.expect("an event").expect("no error");
        let uid = |pod: &PodLite| pod.metadata.uid.clone().unwrap_or_default();
        seen.push(match &event {
            Event::Init => "init".to_owned(),
            Event::InitApply(pod) => format!("listed {}", uid(pod)),
            Event::InitDone => "done".to_owned(),
            Event::Apply(pod) => format!("{} is {}", uid(pod), pod.status.phase),
            Event::Delete(pod) => format!("gone {}", uid(pod)),
        });
        if let Event::Apply(pod) = event {
            assert_eq!(pod.metadata.annotations.as_ref().map(|all| all.len()), Some(2), "only ours are passed on");
            let record = PodRecord::from(pod);
            assert_eq!(record.never_refreshes, ["app"]);
            if record.facts.uid == "deleted" {
                assert_eq!(record.deleted_at.map(|at| at.as_second()), Some(1_800_000_000));
                continue;
            }
            assert_eq!(record.deleted_at, None);
            assert_eq!((record.facts.namespace.as_str(), record.facts.name.as_str()), ("shop", "pod-a"));
            assert_eq!(record.facts.service_account, "orders");
            assert_eq!(record.facts.labels.get("empty").map(String::as_str), Some(""));
            assert_eq!(record.facts.containers, ["app", "agent"]);
            assert_eq!(record.images, ["app:1", "agent:1"]);
            assert!(record.ended && record.injected);
        }
    }
    assert_eq!(seen, ["init", "listed a", "listed b", "done", "a is Succeeded", "deleted is Running", "gone b"]);
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|question| question.contains(OBJECT)), "{asked:?}");
    assert!(asked[1].contains("continue=more") && asked[2].contains("resourceVersion=5"), "{asked:?}");
}

// R25: one that lags behind would bring back pods that are gone.
#[tokio::test]
async fn the_first_list_is_streamed_and_is_of_what_is_most_recent() {
    let end = Pod {
        metadata: Some(ObjectMeta {
            resource_version: "8".to_owned(),
            annotations: vec![entry("k8s.io/initial-events-end", "true")],
            ..Default::default()
        }),
        ..Default::default()
    };
    let events = [
        framed("ADDED", enveloped("Pod", &whole("a", "Running"))),
        framed("BOOKMARK", enveloped("Pod", &end)),
        framed("DELETED", enveloped("Pod", &whole("a", "Running"))),
    ];
    let (client, asked) = answering(vec![(200, STREAM, events.concat())]);
    let pods: Api<PodLite> = Api::all(client);
    let events = watcher(pods, watcher::Config::default().streaming_lists());
    let seen: Vec<_> = events.take(4).map(|event| event.expect("no error")).collect().await;
    assert!(
        matches!(seen.as_slice(), [Event::Init, Event::InitApply(_), Event::InitDone, Event::Delete(_)]),
        "{seen:?}"
    );
    let asked = asked.lock().unwrap();
    assert!(asked[0].contains("sendInitialEvents=true"), "{asked:?}");
    assert!(
        asked[0].contains("resourceVersionMatch=NotOlderThan") && !asked[0].contains("resourceVersion="),
        "{asked:?}"
    );
}

struct Told(tokio::sync::mpsc::UnboundedSender<String>);

impl Sink<PodLite> for Told {
    fn applied(&mut self, pod: PodLite) {
        self.0.send(pod.metadata.uid.unwrap_or_default()).expect("somebody listens");
    }
    fn gone(&mut self, _: &ObjectKey) {}
    fn listed(&mut self, _: &HashSet<ObjectKey>) {
        self.0.send("done".to_owned()).expect("somebody listens");
    }
}

#[tokio::test]
async fn a_server_that_streams_no_lists_is_asked_for_pages() {
    let refusal = Status {
        status: "Failure".to_owned(),
        message: "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled".to_owned(),
        reason: "Invalid".to_owned(),
        code: 422,
    };
    let metadata = Some(ListMeta { resource_version: "5".to_owned(), next: String::new() });
    let list = enveloped("PodList", &PodList { metadata, items: vec![pod("a")] });
    let (client, asked) =
        answering(vec![(422, OBJECT, enveloped("Status", &refusal)), (200, OBJECT, list), (200, STREAM, Vec::new())]);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let config = watcher::Config::default().streaming_lists();
    let freshness = Freshness::new(Clock::system());
    let following =
        follow("pods", Api::<PodLite>::all(client), config, Told(tell), freshness, Arc::new(Metrics::new()));
    let seen = async { [told.recv().await, told.recv().await] };
    tokio::select! {
        () = following => panic!("a watch has no end"),
        seen = seen => assert_eq!(seen, [Some("a".to_owned()), Some("done".to_owned())]),
    }
    assert!(asked.lock().unwrap()[1].contains("limit=500"));
}

#[tokio::test]
async fn a_refusal_in_binary_is_the_api_servers_refusal() {
    let gone = Status {
        status: "Failure".to_owned(),
        message: "too old resource version".to_owned(),
        reason: "Expired".to_owned(),
        code: 410,
    };
    let (client, _) = answering(vec![(410, OBJECT, enveloped("Status", &gone))]);
    let pods: Api<PodLite> = Api::all(client);
    let Err(kube::Error::Api(status)) = pods.list(&ListParams::default()).await else { panic!("no refusal") };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
}

#[tokio::test]
async fn a_server_without_the_binary_form_is_read_in_json() {
    let json = br#"{"apiVersion":"v1","kind":"PodList","metadata":{"resourceVersion":"1"},
                    "items":[{"metadata":{"name":"p","uid":"u"},"spec":{"serviceAccountName":"s"}}]}"#;
    let (client, _) = answering(vec![(200, "application/json", json.to_vec())]);
    let pods: Api<PodLite> = Api::all(client);
    let list = pods.list(&ListParams::default()).await.expect("a list");
    assert_eq!(list.items[0].spec.service_account_name, "s");
}

#[tokio::test]
async fn what_is_no_pod_is_an_error() {
    let node = enveloped("NodeList", &PodList::default());
    for answer in [node, b"k8s".to_vec(), b"k8s\0\xff".to_vec()] {
        let (client, _) = answering(vec![(200, OBJECT, answer)]);
        let pods: Api<PodLite> = Api::all(client);
        assert!(pods.list(&ListParams::default()).await.is_err());
    }
}
