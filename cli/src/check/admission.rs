//! The webhook, by the real path: a pod and a WorkloadIdentity are created in a dry run, so that the API server calls the webhook and
//! stores nothing.

use countersign_contract::{
    metadata::label::INJECT,
    objects::{AUTHORITIES_NAMESPACE, WEBHOOK, WEBHOOK_CA},
    pod::AGENT,
};
use countersign_crds::WorkloadIdentity;
use countersign_reasons::Reason;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Resource, api::PostParams, core::Status};
use serde_json::json;

use crate::{
    cluster::Cluster,
    finding::Finding,
    reading::{Reading, Right, describe},
};

/// The name of what is created and never stored.
const NAME: &str = "countersign-check";

/// A DNS name that the schema accepts and the webhook refuses, as no certificate of ours has a wildcard.
const REFUSED_DNS_NAME: &str = "*.countersign-check";

/// What the API server answered.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    namespace: String,
    injection: Reading<Answer>,
    validation: Reading<Answer>,
}

/// The answer to a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The object would be stored; of a pod: with its init containers.
    Accepted { init_containers: Vec<String> },
    /// The webhook refused it.
    Refused(String),
    /// Something else refused it.
    RefusedByAnother(String),
    /// The webhook did not answer.
    Unreachable(String),
}

pub(super) async fn observe(cluster: &Cluster, system: &str) -> Seen {
    let namespace = trial_namespace(&cluster.namespace, system).to_owned();
    let (injection, validation) =
        futures::join!(trial(cluster, &namespace, pod()), trial(cluster, &namespace, identity()));
    Seen {
        injection: injection.map(|answer| answer.map_or_else(|refused| refused, |pod| accepted(&pod))),
        validation: validation
            .map(|answer| answer.map_or_else(|refused| refused, |_| Answer::Accepted { init_containers: Vec::new() })),
        namespace,
    }
}

/// The namespace that is asked about, unless the webhook is never called there.
fn trial_namespace<'a>(asked: &'a str, system: &str) -> &'a str {
    if ["kube-system", AUTHORITIES_NAMESPACE, system].contains(&asked) { "default" } else { asked }
}

async fn trial<K>(cluster: &Cluster, namespace: &str, object: Option<K>) -> Reading<Result<K, Answer>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let Some(object) = object else { return Reading::Failed("the trial object cannot be made".to_owned()) };
    let api: Api<K> = Api::namespaced(cluster.client.clone(), namespace);
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    match api.create(&parameters, &object).await {
        Ok(created) => Reading::Found(Ok(created)),
        Err(kube::Error::Api(status)) => match answer(&status) {
            Some(answer) => Reading::Found(Err(answer)),
            None => Reading::from(Err(kube::Error::Api(status)), || Right::of::<K>("create", Some(namespace))),
        },
        Err(error) => Reading::Failed(describe(&error)),
    }
}

/// What a refusal means; `None`: the caller may not create such objects, or the request came to nothing.
fn answer(status: &Status) -> Option<Answer> {
    let message = status.message.clone();
    if message.contains("failed calling webhook") && message.contains("countersign.dev") {
        return Some(Answer::Unreachable(message));
    }
    if message.contains("admission webhook") && message.contains("countersign.dev\" denied the request") {
        return Some(Answer::Refused(message));
    }
    // The refusal of the authorizer; policies and quotas refuse with the same code.
    if status.code == 403 && (message.contains(" cannot create resource ") || message.is_empty()) {
        return None;
    }
    (status.code == 400 || status.code == 403 || status.code == 422 || message.contains("admission webhook"))
        .then_some(Answer::RefusedByAnother(message))
}

fn accepted(pod: &Pod) -> Answer {
    let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    Answer::Accepted { init_containers: containers.map(|container| container.name.clone()).collect() }
}

/// A pod that requests injection, and that every level of Pod Security and most quotas accept.
fn pod() -> Option<Pod> {
    let pod = json!({
        "metadata": { "generateName": format!("{NAME}-"), "labels": { INJECT: "sidecar" } },
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "app",
                "image": "countersign.local/check",
                "resources": {
                    "requests": { "cpu": "1m", "memory": "1Mi" },
                    "limits": { "cpu": "1m", "memory": "1Mi" },
                },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    });
    serde_json::from_value(pod).ok()
}

/// An identity that admission must refuse.
fn identity() -> Option<WorkloadIdentity> {
    let identity = json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "WorkloadIdentity",
        "metadata": { "generateName": format!("{NAME}-") },
        "spec": {
            "trustDomain": "countersign-check.invalid",
            "selector": { "serviceAccounts": [NAME] },
            "x509": { "dnsNames": [REFUSED_DNS_NAME] },
        },
    });
    serde_json::from_value(identity).ok()
}

pub(super) fn checks(seen: &Seen, system: &str) -> Vec<Finding> {
    vec![injection(seen, system), validation(seen, system)]
}

fn injection(Seen { namespace, injection, .. }: &Seen, system: &str) -> Finding {
    let name = "injection";
    let answer = match injection {
        Reading::Found(answer) => answer,
        other => return other.gap().map_or_else(|| Finding::ok(name, ""), |gap| Finding::gap(name, gap)),
    };
    match answer {
        Answer::Accepted { init_containers } if init_containers.iter().any(|container| container == AGENT) => {
            Finding::ok(name, format!("a pod created in a dry run in {namespace} gets its agent"))
        }
        Answer::Accepted { .. } => {
            let message = format!(
                "a pod created in a dry run in {namespace} gets no agent, although its label requests it: the API server does not call the webhook"
            );
            Finding::failed(name, Reason::InjectionInactive, message).with_mends(
                "kubectl get mutatingwebhookconfiguration countersign -o yaml\ncompare its rules and selectors with the manifests",
            )
        }
        Answer::Refused(message) => Finding::failed(name, Reason::InjectionInactive, message.clone())
            .with_mends(format!("kubectl logs -n {system} deployment/{WEBHOOK}")),
        Answer::RefusedByAnother(message) => refused_by_another(name, namespace, message),
        Answer::Unreachable(message) => unreachable(name, message, system),
    }
}

fn validation(Seen { namespace, validation, .. }: &Seen, system: &str) -> Finding {
    let name = "validation";
    let answer = match validation {
        Reading::Found(answer) => answer,
        other => return other.gap().map_or_else(|| Finding::ok(name, ""), |gap| Finding::gap(name, gap)),
    };
    match answer {
        Answer::Refused(_) => {
            Finding::ok(name, "a WorkloadIdentity that cannot be used is refused, with the reason, in a dry run")
        }
        Answer::Accepted { .. } => {
            let message = format!(
                "a WorkloadIdentity with the DNS name {REFUSED_DNS_NAME} is accepted in a dry run: the API server does not call the webhook"
            );
            Finding::failed(name, Reason::ValidationInactive, message).with_mends(
                "kubectl get validatingwebhookconfiguration countersign -o yaml\ncompare its rules with the manifests",
            )
        }
        Answer::RefusedByAnother(message) => refused_by_another(name, namespace, message),
        Answer::Unreachable(message) => unreachable(name, message, system),
    }
}

fn refused_by_another(name: &'static str, namespace: &str, message: &str) -> Finding {
    let message = format!("the trial in namespace {namespace} was refused by something else: {message}");
    Finding::warning(name, Reason::TrialRefused, message)
        .with_mends("kubectl countersign check -n NAMESPACE\nwith a namespace of workloads")
}

fn unreachable(name: &'static str, message: &str, system: &str) -> Finding {
    let check = Finding::failed(name, Reason::WebhookUnreachable, message);
    // The API server reached it, and did not accept its certificate: the CA in the configuration is not the one that signed it.
    if message.contains("x509: ") {
        return check.with_mends(format!("kubectl logs -n {system} deployment/{WEBHOOK_CA}"));
    }
    check.with_mends(format!(
        "kubectl get pods,endpointslices -n {system} -l app.kubernetes.io/name={WEBHOOK}\nif they are well, look at the network between the API server and port 9443 of these pods"
    ))
}

#[cfg(test)]
mod tests;
