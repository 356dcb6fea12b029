//! From the binary form to the JSON that kube's client reads, with what the index keeps and no more.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::{Buf as _, Bytes};
use countersign_contract::metadata::PREFIX;
use jiff::Timestamp;
use prost::Message as _;
use serde::Serialize;

use super::{
    ProtobufError,
    messages::{Container, Entry, Pod, PodList, Status, Unknown, WatchEvent},
};

/// What every object in this form begins with.
const MAGIC: &[u8] = b"k8s\0";

/// The annotations that anybody reads: ours, and the mark at the end of a streamed list.
const ANNOTATIONS: [&str; 2] = [PREFIX, "k8s.io/initial-events-end"];

/// A list of pods, a pod, or the status that came instead; as JSON.
pub(super) fn object(bytes: Bytes) -> Result<Vec<u8>, ProtobufError> {
    let (kind, raw) = open(bytes)?;
    Ok(match kind.as_str() {
        "PodList" => serde_json::to_vec(&JsonList::of(&PodList::decode(raw)?))?,
        "Pod" => serde_json::to_vec(&JsonPod::of(&Pod::decode(raw)?))?,
        "Status" => serde_json::to_vec(&JsonStatus::of(&Status::decode(raw)?))?,
        _ => return Err(ProtobufError::UnexpectedKind(kind)),
    })
}

/// An event of a watch, as a line of JSON.
pub(super) fn event(frame: Bytes) -> Result<Vec<u8>, ProtobufError> {
    let event = WatchEvent::decode(frame)?;
    let object = object(event.object.unwrap_or_default().raw)?;
    let mut line = Vec::with_capacity(object.len() + 40);
    line.extend_from_slice(b"{\"type\":");
    serde_json::to_writer(&mut line, &event.kind)?;
    line.extend_from_slice(b",\"object\":");
    line.extend_from_slice(&object);
    line.extend_from_slice(b"}\n");
    Ok(line)
}

/// The kind and the object within the envelope.
fn open(mut bytes: Bytes) -> Result<(String, Bytes), ProtobufError> {
    if !bytes.starts_with(MAGIC) {
        return Err(ProtobufError::NoEnvelope);
    }
    bytes.advance(MAGIC.len());
    let unknown = Unknown::decode(bytes)?;
    Ok((unknown.type_meta.unwrap_or_default().kind, unknown.raw))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonList<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: JsonListMeta<'a>,
    items: Vec<JsonPod<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonListMeta<'a> {
    resource_version: &'a str,
    r#continue: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonPod<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: JsonMeta<'a>,
    spec: JsonSpec<'a>,
    status: JsonPodStatus<'a>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonMeta<'a> {
    name: &'a str,
    namespace: &'a str,
    uid: &'a str,
    resource_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_timestamp: Option<Timestamp>,
    labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    annotations: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonSpec<'a> {
    service_account_name: &'a str,
    containers: Vec<JsonContainer<'a>>,
    init_containers: Vec<JsonContainer<'a>>,
}

#[derive(Serialize)]
struct JsonContainer<'a> {
    name: &'a str,
    image: &'a str,
}

#[derive(Default, Serialize)]
struct JsonPodStatus<'a> {
    phase: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonStatus<'a> {
    api_version: &'static str,
    kind: &'static str,
    status: &'a str,
    message: &'a str,
    reason: &'a str,
    code: i32,
}

impl<'a> JsonList<'a> {
    fn of(list: &'a PodList) -> Self {
        let metadata = list.metadata.as_ref();
        Self {
            api_version: "v1",
            kind: "PodList",
            metadata: JsonListMeta {
                resource_version: metadata.map_or("", |metadata| &metadata.resource_version),
                r#continue: metadata.map_or("", |metadata| &metadata.next),
            },
            items: list.items.iter().map(JsonPod::of).collect(),
        }
    }
}

impl<'a> JsonPod<'a> {
    fn of(pod: &'a Pod) -> Self {
        let metadata = pod.metadata.as_ref().map(|metadata| JsonMeta {
            name: &metadata.name,
            namespace: &metadata.namespace,
            uid: &metadata.uid,
            resource_version: &metadata.resource_version,
            deletion_timestamp: metadata.deletion_timestamp.and_then(|time| Timestamp::from_second(time.seconds).ok()),
            labels: metadata.labels.iter().map(pair).collect(),
            annotations: metadata.annotations.iter().filter(|entry| is_read(entry)).map(pair).collect(),
        });
        let spec = pod.spec.as_ref().map(|spec| JsonSpec {
            service_account_name: &spec.service_account_name,
            containers: spec.containers.iter().map(JsonContainer::of).collect(),
            init_containers: spec.init_containers.iter().map(JsonContainer::of).collect(),
        });
        Self {
            api_version: "v1",
            kind: "Pod",
            metadata: metadata.unwrap_or_default(),
            spec: spec.unwrap_or_default(),
            status: pod.status.as_ref().map(|status| JsonPodStatus { phase: &status.phase }).unwrap_or_default(),
        }
    }
}

impl<'a> JsonContainer<'a> {
    fn of(container: &'a Container) -> Self {
        Self { name: &container.name, image: &container.image }
    }
}

impl<'a> JsonStatus<'a> {
    fn of(status: &'a Status) -> Self {
        let Status { status, message, reason, code } = status;
        Self { api_version: "v1", kind: "Status", status, message, reason, code: *code }
    }
}

fn is_read(annotation: &Entry) -> bool {
    ANNOTATIONS.iter().any(|prefix| annotation.key.starts_with(prefix.as_bytes()))
}

/// Kubernetes' strings are UTF-8; one that is not is read as well as it can be.
fn pair(entry: &Entry) -> (Cow<'_, str>, Cow<'_, str>) {
    (String::from_utf8_lossy(&entry.key), String::from_utf8_lossy(&entry.value))
}
