//! Admission reviews of pods and of resources of `countersign.dev`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::entitlement::{NameTemplate, PathTemplate};
use countersign_crds::WorkloadIdentity;
use countersign_webhook::admission::{self, Answer, Request};
use countersign_webhook::control_plane::Settings;
use countersign_webhook::head::{Head, LONGEST, head};
use countersign_webhook::inject::{AgentOptions, AgentResources, Outcome, PullPolicy, Trigger, inject};
use serde::Deserialize as _;
use serde_json::{Value, json};

/// The answer equals that of reading the whole pod. The patch of an accepted pod applies, removes nothing, and yields a pod
/// that needs no patch. The first byte chooses the entry; then follows an AdmissionReview, or with the byte's highest bit a
/// pod.
pub(crate) fn mutate(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let body = if kind & 0x80 == 0 {
        rest.to_vec()
    } else {
        let Ok(pod) = serde_json::from_slice::<Value>(rest) else {
            return;
        };
        review("", "v1", "Pod", &pod)
    };
    let trigger =
        [Trigger::NamespaceLabel, Trigger::PodLabel, Trigger::UnsupportedNamespaceLabel][usize::from(kind & 0x7f) % 3];
    let Ok(request) = admission::read(&body) else {
        return;
    };
    assert_begins_alike(&body, &request);
    let answer = admission::mutate(&request, trigger, &options(), Some(&settings()));
    assert_is_response(&answer, &request.uid);
    assert!(matches!(admission::mutate(&request, trigger, &options(), None), Answer::Deny { code: 503, .. }));
    let object = whole(&request);
    assert_reads_enough(&answer, &request, &object, trigger);
    let Answer::Allow { operations, .. } = answer else {
        return;
    };
    let patched = apply(&object, &operations);
    assert!(grew(&object, &patched), "{operations:?} takes something away from {object}");
    let reviewed = review("", "v1", "Pod", &patched);
    let again = admission::read(&reviewed).unwrap();
    match admission::mutate(&again, trigger, &options(), Some(&settings())) {
        Answer::Allow { operations: more, .. } => {
            assert!(more.is_empty(), "{object} after {operations:?}: {more:?}");
        }
        Answer::Deny { messages, .. } => panic!("what we made of {object} is refused: {messages:?}"),
    }
}

/// The fields found in the beginning of a review equal those of the whole review.
fn assert_begins_alike(body: &[u8], request: &Request<'_>) {
    if request.uid.len() > LONGEST || request.namespace.len() > LONGEST {
        return;
    }
    let whole = Head { uid: Some(request.uid.to_string()), namespace: request.namespace.to_string() };
    assert_eq!(head(body), whole);
    for end in (0..body.len()).step_by(body.len().div_ceil(16)) {
        let beginning = head(&body[..end]);
        assert!(beginning.uid.is_none() || beginning.uid == whole.uid);
        assert!(beginning.namespace.is_empty() || beginning.namespace == whole.namespace);
    }
}

/// Only a part of the pod is read: unless that part is refused, the answer equals that of reading all of it.
fn assert_reads_enough(answer: &Answer, request: &Request<'_>, object: &Value, trigger: Trigger) {
    let refusal = match answer {
        Answer::Deny { reason, .. } => reason.name(),
        Answer::Allow { .. } => "",
    };
    if ["NotAPod", "LimitExceeded", "MalformedObject"].contains(&refusal) {
        return;
    }
    match (answer, inject(object, trigger, &options(), &settings())) {
        (Answer::Allow { operations, .. }, Ok(Outcome::Skip(_))) => assert!(operations.is_empty()),
        (Answer::Allow { operations, warnings, .. }, Ok(Outcome::Inject { operations: all, warnings: warned })) => {
            assert_eq!((operations, warnings), (&all, &warned), "{}", request.uid);
        }
        (Answer::Deny { messages, .. }, Err(refusal)) => assert_eq!(messages, &[refusal.to_string()]),
        (answer, outcome) => panic!("{answer:?} but {outcome:?} for the whole of {object}"),
    }
}

/// The whole object.
fn whole(request: &Request<'_>) -> Value {
    request.object.map_or(Value::Null, |object| serde_json::from_str(object.get()).unwrap_or_default())
}

/// A resource is allowed, or every problem is named; an allowed one can be read and parsed. First byte 0: a review; 1: a
/// TrustDomain; otherwise a WorkloadIdentity.
pub(crate) fn validate(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let body = if *kind == 0 {
        rest.to_vec()
    } else {
        let Ok(object) = serde_json::from_slice::<Value>(rest) else {
            return;
        };
        let kind = if *kind == 1 { "TrustDomain" } else { "WorkloadIdentity" };
        review("countersign.dev", "v1alpha1", kind, &object)
    };
    let Ok(request) = admission::read(&body) else {
        return;
    };
    let answer = admission::check(&request);
    assert_is_response(&answer, &request.uid);
    assert_eq!(answer, admission::check(&request));
    let ours = request.kind.group == "countersign.dev" && request.operation != "DELETE";
    if ours && request.kind.kind == "WorkloadIdentity" && matches!(answer, Answer::Allow { .. }) {
        let spec = WorkloadIdentity::deserialize(whole(&request)).expect("what is allowed can be read").spec;
        PathTemplate::parse(&spec.path).expect("an allowed path is a path");
        for name in spec.x509.iter().flat_map(|x509| &x509.dns_names) {
            NameTemplate::parse(name).expect("an allowed name is a name");
        }
    }
}

fn review(group: &str, version: &str, kind: &str, object: &Value) -> Vec<u8> {
    let request = json!({
        "uid": "u",
        "kind": { "group": group, "version": version, "kind": kind },
        "operation": "CREATE",
        "object": object,
    });
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request })
        .to_string()
        .into_bytes()
}

/// The response: the request's uid, and a patch with the operations, or a reason.
fn assert_is_response(answer: &Answer, uid: &str) {
    let review = answer.review(uid);
    let response = &review["response"];
    assert_eq!(response["uid"], uid);
    match answer {
        Answer::Allow { operations, .. } => {
            assert_eq!(response["allowed"], true);
            let patch = response["patch"].as_str().map(|patch| STANDARD.decode(patch).unwrap());
            let patch = patch.map_or(json!([]), |patch| serde_json::from_slice(&patch).unwrap());
            assert_eq!(patch, json!(operations));
        }
        Answer::Deny { code, messages, .. } => {
            assert_eq!(response["allowed"], false);
            assert!([403, 503].contains(code));
            assert!(!messages.is_empty() && messages.iter().all(|message| !message.is_empty()));
        }
    }
}

fn apply(object: &Value, operations: &[Value]) -> Value {
    let mut patched = object.clone();
    let patch: json_patch::Patch = serde_json::from_value(json!(operations)).expect("a patch of RFC 6902");
    json_patch::patch(&mut patched, &patch).unwrap_or_else(|error| panic!("{error}: {operations:?} on {object}"));
    patched
}

/// Whether everything of `before` is in `after`. Lists may have grown anywhere. A null, or a value in place of a list or an
/// object, is no loss: the API server sends no such pod.
fn grew(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            before.iter().all(|(key, value)| after.get(key).is_some_and(|after| grew(value, after)))
        }
        (Value::Array(before), Value::Array(after)) => {
            let mut after = after.iter();
            before.iter().all(|item| after.any(|found| grew(item, found)))
        }
        (Value::Null, _) | (_, Value::Array(_) | Value::Object(_)) => true,
        _ => before == after,
    }
}

fn options() -> AgentOptions {
    AgentOptions {
        image: "countersign.local/agent:dev".into(),
        pull_policy: PullPolicy::IfNotPresent,
        resources: AgentResources::default(),
        log: None,
        meshes: vec![],
    }
}

fn settings() -> Settings {
    Settings {
        roots: "R".into(),
        issuer: "10.96.0.7:8443".into(),
        issuer_name: "countersign-issuer.countersign-system.svc".into(),
        audience: "countersign.dev/00000000-0000-0000-0000-000000000001".into(),
        cluster_name: String::new(),
    }
}
