//! Requests and responses of AdmissionReview (`admission.k8s.io/v1`). A request borrows from its body; only the required fields of
//! its object are built, see [`crate::projection`].

use countersign_reasons::Reason;
use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use countersign_contract::API_GROUP;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    control_plane::Settings,
    inject::{AgentOptions, Outcome, POD, Refusal, Trigger, inject},
    projection::project,
    validate::{self, Resource},
};

/// The longest AdmissionReview read, in bytes. The API server accepts requests of up to 3 MiB and stores objects of up to
/// 1.5 MiB, so a longer review has an object that could not be stored, or does not come from an API server. A review of an
/// update has two objects, of which the old one was stored.
pub const LONGEST_REVIEW: usize = 3 * 1024 * 1024;

/// The most messages of a refusal, and the longest of each, in characters: they may repeat text of the object's author.
const MOST_MESSAGES: usize = 32;
const LONGEST_MESSAGE: usize = 1024;

/// An admission request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// The uid, which the response repeats.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// The kind of `object`.
    #[serde(borrow)]
    pub kind: Kind<'a>,
    /// The object's name, if it has one yet.
    #[serde(borrow, default)]
    pub name: Cow<'a, str>,
    /// The object's namespace, if it is in one.
    #[serde(borrow, default)]
    pub namespace: Cow<'a, str>,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    #[serde(borrow, default)]
    pub operation: Cow<'a, str>,
    /// The object as it would be stored; none on deletion.
    #[serde(borrow, default)]
    pub object: Option<&'a RawValue>,
    /// The object as it is stored; none on creation.
    #[serde(borrow, default)]
    pub old_object: Option<&'a RawValue>,
}

/// A kind in its group and version.
#[derive(Debug, Deserialize)]
pub struct Kind<'a> {
    /// "" for the core group.
    #[serde(borrow, default)]
    pub group: Cow<'a, str>,
    /// The version.
    #[serde(borrow, default)]
    pub version: Cow<'a, str>,
    /// The kind.
    #[serde(borrow, default)]
    pub kind: Cow<'a, str>,
}

/// Why a body is not an admission request.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not an AdmissionReview.
    #[error("the request's body is no AdmissionReview of admission.k8s.io/v1: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It is of another version, or a response.
    #[error(
        "the request's body is a {kind} of {version}, not an AdmissionReview of admission.k8s.io/v1 with a request"
    )]
    Other {
        /// The `apiVersion`.
        version: String,
        /// The `kind`.
        kind: String,
    },
}

/// The answer to an admission request.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// The object is admitted, possibly patched.
    Allow {
        /// RFC 6902; empty: unchanged.
        operations: Vec<Value>,
        /// Shown to the user who made the request.
        warnings: Vec<String>,
        /// For the API server's audit log: a key and a value.
        audit: Option<(&'static str, &'static str)>,
    },
    /// The object is refused.
    Deny {
        /// HTTP status.
        code: u16,
        /// Why, as a program reads it.
        reason: Reason,
        /// Human-readable; each names a field or an object.
        messages: Vec<String>,
    },
}

impl Answer {
    /// `allowed`, `patched`, `skipped` or `denied`, and the reason: for metrics.
    #[must_use]
    pub fn outcome(&self) -> (&'static str, &'static str) {
        match self {
            Self::Allow { audit: Some(("skipped", reason)), .. } => ("skipped", reason),
            Self::Allow { operations, .. } if operations.is_empty() => ("allowed", ""),
            Self::Allow { .. } => ("patched", ""),
            Self::Deny { reason, .. } => ("denied", reason.name()),
        }
    }

    /// The AdmissionReview with the response.
    #[must_use]
    pub fn review(&self, uid: &str) -> Value {
        let mut response = match self {
            Self::Allow { operations, warnings, audit } => allowed(operations, warnings, *audit),
            Self::Deny { code, reason, messages } => denied(*code, *reason, messages),
        };
        if let Some(fields) = response.as_object_mut() {
            fields.insert("uid".to_owned(), json!(uid));
        }
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
    }
}

/// Reads an AdmissionReview.
///
/// # Errors
/// When `body` is not an AdmissionReview with a request.
pub fn read(body: &[u8]) -> Result<Request<'_>, ReadError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Review<'a> {
        #[serde(borrow, default)]
        api_version: Cow<'a, str>,
        #[serde(borrow, default)]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        request: Option<Request<'a>>,
    }
    let review: Review<'_> = serde_json::from_slice(body)?;
    match review.request {
        Some(request) if review.api_version == "admission.k8s.io/v1" && review.kind == "AdmissionReview" => Ok(request),
        _ => Err(ReadError::Other { version: shortened(&review.api_version), kind: shortened(&review.kind) }),
    }
}

/// Answers a request about a pod. `settings` are `None` until they have been read.
#[must_use]
pub fn mutate(request: &Request<'_>, trigger: Trigger, options: &AgentOptions, settings: Option<&Settings>) -> Answer {
    let Some(settings) = settings else {
        return Answer::Deny {
            code: 503,
            reason: Reason::NotReady,
            messages: vec!["the webhook has not seen ConfigMap countersign-control-plane yet, which the operator writes: see whether the operator runs".to_owned()],
        };
    };
    let outcome = pod(request).and_then(|pod| inject(&pod, trigger, options, settings));
    match outcome {
        Ok(Outcome::Skip(skip)) => {
            Answer::Allow { operations: vec![], warnings: vec![], audit: Some(("skipped", skip.reason().name())) }
        }
        Ok(Outcome::Inject { operations, warnings }) => {
            Answer::Allow { operations, warnings, audit: Some(("injected", "sidecar")) }
        }
        Err(refusal) => Answer::Deny { code: 403, reason: refusal.reason(), messages: vec![refusal.to_string()] },
    }
}

/// Answers a request about a resource of `countersign.dev` by the resource alone.
#[must_use]
pub fn check(request: &Request<'_>) -> Answer {
    check_beside(request, |_| Vec::new())
}

/// Answers a request about a resource of `countersign.dev`. `beside` warns of what depends on other objects, and is asked about a
/// resource that is admitted; a WorkloadIdentity has its status then.
#[must_use]
pub fn check_beside(request: &Request<'_>, beside: impl FnOnce(&Resource) -> Vec<String>) -> Answer {
    if request.operation == "DELETE" {
        return Answer::Allow { operations: vec![], warnings: vec![], audit: None };
    }
    let read = |object: Option<&RawValue>, part| object.map_or(Ok(Value::Null), |object| project(object, part));
    let both = read(request.object, &validate::RESOURCE)
        .and_then(|object| Ok((object, read(request.old_object, &validate::STORED)?)));
    let (object, stored) = match both {
        Ok(both) => both,
        Err(unreadable) => {
            return Answer::Deny { code: 403, reason: unreadable.reason(), messages: vec![unreadable.to_string()] };
        }
    };
    let (group, kind) = (&*request.kind.group, &*request.kind.kind);
    let checked = (group == API_GROUP).then(|| validate::resource(kind, &object, &stored)).flatten();
    let Some((mut verdict, resource)) = checked else {
        let message = format!(
            "the object is of kind `{}` in group `{}`, of which this webhook knows nothing: point only resources of countersign.dev at it",
            shortened(kind),
            shortened(group)
        );
        return Answer::Deny { code: 403, reason: Reason::Invalid, messages: vec![message] };
    };
    if kind == "WorkloadIdentity" {
        verdict.problems.extend(request.object.and_then(|raw| validate::too_large(raw, &object)));
    }
    if !verdict.problems.is_empty() {
        return Answer::Deny { code: 403, reason: Reason::Invalid, messages: verdict.problems };
    }
    drop((object, stored));
    if let Some(resource) = resource.and_then(|resource| with_status(resource, request.object)) {
        verdict.warnings.extend(beside(&resource));
    }
    Answer::Allow { operations: vec![], warnings: verdict.warnings, audit: None }
}

/// With the ages of its claims, by which warnings are decided; none if these cannot be read.
fn with_status(resource: Resource, raw: Option<&RawValue>) -> Option<Resource> {
    match resource {
        Resource::WorkloadIdentity(mut object) => {
            object.status = validate::status(raw?).ok()?;
            Some(Resource::WorkloadIdentity(object))
        }
        other @ Resource::TrustDomain(_) => Some(other),
    }
}

fn pod(request: &Request<'_>) -> Result<Value, Refusal> {
    let object = request.object.map_or(Ok(Value::Null), |object| project(object, &POD))?;
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let is_pod = (&*request.kind.group, &*request.kind.version, &*request.kind.kind) == ("", "v1", "Pod")
        && text("kind").is_none_or(|kind| kind == "Pod")
        && text("apiVersion").is_none_or(|version| version == "v1")
        && ["/metadata", "/spec"].iter().all(|part| object.pointer(part).is_some_and(Value::is_object));
    if is_pod {
        return Ok(object);
    }
    let kind = text("kind").unwrap_or(&request.kind.kind);
    Err(Refusal::NotAPod { found: format!("`{}`", shortened(kind)) })
}

fn denied(code: u16, reason: Reason, messages: &[String]) -> Value {
    let mut repeated: Vec<String> =
        messages.iter().take(MOST_MESSAGES).map(|message| message.chars().take(LONGEST_MESSAGE).collect()).collect();
    if messages.len() > MOST_MESSAGES {
        repeated.push(format!("and {} more", messages.len() - MOST_MESSAGES));
    }
    let causes: Vec<Value> =
        repeated.iter().map(|message| json!({ "reason": reason.name(), "message": message })).collect();
    let status = match code {
        403 => "Forbidden",
        413 => "RequestEntityTooLarge",
        429 => "TooManyRequests",
        _ => "ServiceUnavailable",
    };
    json!({
        "allowed": false,
        "status": {
            "status": "Failure",
            "code": code,
            "reason": status,
            "message": format!("countersign: {}", reason.with_code(&repeated.join("; "))),
            "details": { "causes": causes },
        },
    })
}

fn allowed(operations: &[Value], warnings: &[String], audit: Option<(&str, &str)>) -> Value {
    let mut fields = serde_json::Map::new();
    fields.insert("allowed".to_owned(), json!(true));
    if !operations.is_empty() {
        let patch = Value::Array(operations.to_vec()).to_string();
        fields.insert("patchType".to_owned(), json!("JSONPatch"));
        fields.insert("patch".to_owned(), json!(STANDARD.encode(patch)));
    }
    if !warnings.is_empty() {
        fields.insert("warnings".to_owned(), json!(warnings));
    }
    if let Some((key, value)) = audit {
        fields.insert("auditAnnotations".to_owned(), json!({ key: value }));
    }
    Value::Object(fields)
}

/// Shortens text from outside that messages repeat.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::{AgentResources, PullPolicy};

    fn options() -> AgentOptions {
        AgentOptions {
            image: "agent".into(),
            pull_policy: PullPolicy::IfNotPresent,
            resources: AgentResources::default(),
            meshes: vec![],
            log: None,
        }
    }

    fn settings() -> Settings {
        Settings {
            roots: "R".into(),
            issuer: "10.0.0.1:8443".into(),
            issuer_name: "n".into(),
            audience: "a".into(),
            cluster_name: String::new(),
        }
    }

    fn review(kind: &Value, object: &Value) -> String {
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u", "kind": kind, "operation": "CREATE", "object": object,
        } })
        .to_string()
    }

    fn mutated(kind: &Value, object: &Value, trigger: Trigger, settings: Option<&Settings>) -> Answer {
        mutate(&read(review(kind, object).as_bytes()).unwrap(), trigger, &options(), settings)
    }

    fn checked(kind: &Value, object: &Value) -> Answer {
        check(&read(review(kind, object).as_bytes()).unwrap())
    }

    fn pod_kind() -> Value {
        json!({ "group": "", "version": "v1", "kind": "Pod" })
    }

    #[test]
    fn what_is_not_a_pod_is_refused() {
        let object = json!({ "kind": "Deployment", "metadata": {}, "spec": {} });
        for (kind, object) in [
            (json!({ "group": "apps", "version": "v1", "kind": "Deployment" }), object.clone()),
            (pod_kind(), object),
            (pod_kind(), json!({ "metadata": {} })),
            (pod_kind(), json!([1])),
            (pod_kind(), Value::Null),
        ] {
            let answer = mutated(&kind, &object, Trigger::NamespaceLabel, Some(&settings()));
            assert_eq!(answer.outcome(), ("denied", "NotAPod"), "{kind} {object}");
        }
    }

    #[test]
    fn nothing_is_injected_before_the_settings_are_seen() {
        let pod = json!({ "metadata": {}, "spec": { "containers": [{ "name": "app" }] } });
        let answer = mutated(&pod_kind(), &pod, Trigger::NamespaceLabel, None);
        assert_eq!(answer.outcome(), ("denied", "NotReady"));
        assert_eq!(answer.review("u")["response"]["status"]["code"], 503);
        assert_eq!(mutated(&pod_kind(), &pod, Trigger::NamespaceLabel, Some(&settings())).outcome().0, "patched");
    }

    #[test]
    fn what_is_no_review_is_an_error() {
        for body in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"apiVersion":"v1","kind":"Pod"}"#,
            r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"u","kind":{}}}"#,
        ] {
            assert!(read(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_skip_says_why_in_the_audit_log() {
        let pod = json!({ "metadata": { "labels": { "countersign.dev/inject": "false" } }, "spec": { "containers": [{ "name": "app" }] } });
        let answer = mutated(&pod_kind(), &pod, Trigger::NamespaceLabel, Some(&settings()));
        let review = answer.review("u");
        assert_eq!(
            review["response"],
            json!({ "uid": "u", "allowed": true, "auditAnnotations": { "skipped": "OptedOut" } })
        );
    }

    #[test]
    fn a_denial_names_its_reason() {
        let pod = json!({ "metadata": { "labels": { "countersign.dev/inject": "node" } }, "spec": { "containers": [{ "name": "app" }] } });
        let review = mutated(&pod_kind(), &pod, Trigger::PodLabel, Some(&settings())).review("u");
        let status = &review["response"]["status"];
        assert_eq!(status["code"], 403);
        assert_eq!(status["details"]["causes"][0]["reason"], "ModeNotOffered");
        assert!(status["message"].as_str().unwrap().starts_with("countersign: the mode `node`"));
    }

    #[test]
    fn a_resource_of_others_is_refused() {
        assert_eq!(checked(&pod_kind(), &json!({})).outcome().0, "denied");
    }

    #[test]
    fn what_depends_on_other_objects_is_asked_of_what_is_admitted_with_the_ages_of_its_claims() {
        let kind = json!({ "group": API_GROUP, "version": "v1alpha1", "kind": "WorkloadIdentity" });
        let claims = json!([{ "kind": "Path", "value": "/a", "since": "2026-01-01T00:00:00Z" }]);
        let identity = |path: &str, claims: &Value| {
            json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
                "metadata": { "name": "cart", "namespace": "shop", "managedFields": [{ "manager": "kubectl" }] },
                "spec": { "trustDomain": "example.org", "selector": { "serviceAccounts": ["cart"] }, "path": path },
                "status": { "claims": claims },
            })
        };
        let asked = |object: &Value| {
            let mut seen = None;
            let review = review(&kind, object);
            let answer = check_beside(&read(review.as_bytes()).unwrap(), |resource| {
                let Resource::WorkloadIdentity(object) = resource else { panic!("{resource:?}") };
                seen = Some(object.clone());
                vec!["beside".to_owned()]
            });
            (answer, seen)
        };
        let (answer, seen) = asked(&identity("/a", &claims));
        assert_eq!(answer, Answer::Allow { operations: vec![], warnings: vec!["beside".to_owned()], audit: None });
        let seen = seen.unwrap();
        assert_eq!(seen.status.unwrap().claims.unwrap()[0].value, "/a");
        assert_eq!(seen.metadata.managed_fields, None);

        let (refused, seen) = asked(&identity("/a//b", &claims));
        assert_eq!((refused.outcome().0, seen), ("denied", None));
        let (unread, seen) = asked(&identity("/a", &json!("of another release")));
        assert_eq!((unread.outcome().0, seen), ("allowed", None));
    }

    #[test]
    fn an_update_is_compared_with_the_authorities_of_the_stored_object() {
        let domain = |authority: Value| {
            let grant = json!({ "namespaces": { "matchNames": ["shop"] }, "paths": ["/ns/{namespace}/**"] });
            let metadata = json!({ "name": "example.org" });
            json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": metadata,
                "spec": { "authority": authority, "grants": [grant] }, "status": { "authorities": [{ "id": "known" }] },
            })
        };
        let updated = |name: &str| {
            let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
                "uid": "u", "kind": { "group": API_GROUP, "version": "v1alpha1", "kind": "TrustDomain" },
                "operation": "UPDATE", "object": domain(json!({ "revoked": [name] })), "oldObject": domain(json!({})),
            } });
            check(&read(review.to_string().as_bytes()).unwrap()).review("u")["response"].clone()
        };
        assert_eq!(updated("known"), json!({ "uid": "u", "allowed": true }));
        let warning = "spec.authority.revoked[0]: no authority has the id other: compare with status.authorities";
        assert_eq!(updated("other"), json!({ "uid": "u", "allowed": true, "warnings": [warning] }));
    }

    #[test]
    fn a_refusal_repeats_only_part_of_what_the_author_wrote() {
        let answer = Answer::Deny { code: 403, reason: Reason::Invalid, messages: vec!["a".repeat(1 << 20); 1 << 10] };
        let review = answer.review("u");
        assert!(review.to_string().len() < 3 * MOST_MESSAGES * LONGEST_MESSAGE);
        assert!(review["response"]["status"]["message"].as_str().unwrap().ends_with("; and 992 more (CS1013)"));
    }
}
