//! A pod that goes the whole way to an identity: in a namespace and a TrustDomain of its own, which are deleted with it whatever
//! happens. Its application is the agent's image, which prints its version: it starts only once the agent has the identity.

use std::time::Duration;

use countersign_contract::{
    metadata::label::INJECT,
    objects::{AUTHORITIES_NAMESPACE, journal},
};
use countersign_crds::{TrustDomain, WorkloadIdentity};
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, LogParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::category::Category;
use crate::{
    cluster::Cluster,
    finding::Finding,
    installation::why_not_ready,
    reading::{Reading, describe},
    times::length,
};

/// How often the pod is read.
const POLL: Duration = Duration::from_millis(500);

/// The service account, the WorkloadIdentity and the pod.
const NAME: &str = "probe";

/// What came of the pod.
#[derive(Debug)]
pub(super) struct Seen {
    namespace: String,
    pod: Result<Identity, Problem>,
    /// What could not be deleted: a command for each.
    left_behind: Vec<String>,
}

/// That the pod got one.
#[derive(Debug)]
struct Identity {
    took: Duration,
    /// What the agent's image says of itself.
    version: Option<String>,
}

/// Why it did not.
#[derive(Debug)]
enum Problem {
    /// An object could not be created.
    NotCreated(String),
    /// The pod has no identity in time, or failed.
    NotReady(String),
}

/// Creates the pod, waits for its identity, and deletes everything, also when interrupted.
pub(super) async fn observe(cluster: &Cluster, prefix: &str, image: &Reading<String>, timeout: Duration) -> Seen {
    let unique = Timestamp::now().as_nanosecond().unsigned_abs() / 1000 % 0x0100_0000;
    let namespace = format!("{prefix}-{unique:06x}");
    let Some(image) = image.found() else {
        let why = image.gap().map(|gap| gap.to_string()).unwrap_or_default();
        let problem = Problem::NotCreated(format!("the agent's image, in the ConfigMap countersign-agent: {why}"));
        return Seen { namespace, pod: Err(problem), left_behind: Vec::new() };
    };
    let attempt =
        Attempt { client: cluster.client.clone(), name: namespace.clone(), deadline: Instant::now() + timeout };
    let pod = tokio::select! {
        pod = attempt.run(image) => pod,
        _ = tokio::signal::ctrl_c() => Err(Problem::NotReady("it was interrupted".to_owned())),
    };
    Seen { namespace, pod, left_behind: attempt.clean_up().await }
}

struct Attempt {
    client: Client,
    /// Of the namespace and of the TrustDomain.
    name: String,
    deadline: Instant,
}

impl Attempt {
    async fn run(&self, image: &str) -> Result<Identity, Problem> {
        let Self { client, name, .. } = self;
        self.create::<Namespace>(Api::all(client.clone()), namespace(name)).await?;
        self.create::<TrustDomain>(Api::all(client.clone()), trust_domain(name)).await?;
        let account = json!({ "metadata": { "name": NAME } });
        self.create::<ServiceAccount>(Api::namespaced(client.clone(), name), account).await?;
        self.create::<WorkloadIdentity>(Api::namespaced(client.clone(), name), identity(name)).await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), name);
        let created = Instant::now();
        self.create(pods.clone(), pod(image)).await?;
        self.wait(&pods).await?;
        let took = created.elapsed();
        let log = pods.logs(NAME, &LogParams { container: Some("app".to_owned()), ..LogParams::default() }).await;
        Ok(Identity { took, version: log.ok().map(|log| log.trim().to_owned()).filter(|log| !log.is_empty()) })
    }

    /// Creates an object. A new namespace refuses some for a moment, until the API server has seen it and its service account.
    async fn create<K>(&self, api: Api<K>, object: Value) -> Result<(), Problem>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    {
        let kind = K::kind(&());
        let object: K =
            serde_json::from_value(object).map_err(|error| Problem::NotCreated(format!("{kind}: {error}")))?;
        loop {
            let error = match api.create(&PostParams::default(), &object).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let is_early = matches!(&error, kube::Error::Api(status)
                if status.code == 404 || status.code == 403 && status.message.contains("serviceaccount"));
            if !is_early || Instant::now() >= self.deadline {
                return Err(Problem::NotCreated(format!("{kind} {}: {}", self.name, describe(&error))));
            }
            sleep(POLL).await;
        }
    }

    async fn wait(&self, pods: &Api<Pod>) -> Result<(), Problem> {
        loop {
            let pod = pods.get(NAME).await.map_err(|error| Problem::NotReady(describe(&error)))?;
            match end(&pod) {
                Some(end) => return end,
                None if Instant::now() >= self.deadline => {
                    let why = why_not_ready(&pod).unwrap_or_else(|| "its application has not ended".to_owned());
                    return Err(Problem::NotReady(why));
                }
                None => sleep(POLL).await,
            }
        }
    }

    /// Deletes everything; the namespace takes what is in it along. The journal outlives its TrustDomain, so it is deleted too.
    async fn clean_up(&self) -> Vec<String> {
        let Self { client, name, .. } = self;
        let now = DeleteParams::background().grace_period(0);
        let mut left = Vec::new();
        let pods: Api<Pod> = Api::namespaced(client.clone(), name);
        // Otherwise the namespace waits until the pod has ended by itself.
        left.extend(rest(pods.delete(NAME, &now).await.map(drop), || format!("kubectl delete pod -n {name} {NAME}")));
        let namespaces: Api<Namespace> = Api::all(client.clone());
        left.extend(rest(namespaces.delete(name, &now).await.map(drop), || format!("kubectl delete namespace {name}")));
        let domains: Api<TrustDomain> = Api::all(client.clone());
        left.extend(rest(domains.delete(name, &now).await.map(drop), || format!("kubectl delete trustdomain {name}")));
        let secrets: Api<Secret> = Api::namespaced(client.clone(), AUTHORITIES_NAMESPACE);
        let secret = journal::trust_domain_secret(name);
        let command = || format!("kubectl delete secret -n {AUTHORITIES_NAMESPACE} {secret}");
        left.extend(rest(secrets.delete(&secret, &now).await.map(drop), command));
        left
    }
}

/// The command for what could not be deleted.
fn rest(deleted: kube::Result<()>, command: impl FnOnce() -> String) -> Option<String> {
    match deleted {
        Ok(()) => None,
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(_) => Some(command()),
    }
}

/// How the pod ended, if it has.
fn end(pod: &Pod) -> Option<Result<(), Problem>> {
    match pod.status.as_ref()?.phase.as_deref()? {
        "Succeeded" => Some(Ok(())),
        "Failed" => {
            let why = why_not_ready(pod).unwrap_or_else(|| "it failed".to_owned());
            Some(Err(Problem::NotReady(why)))
        }
        _ => None,
    }
}

fn namespace(name: &str) -> Value {
    json!({ "metadata": { "name": name, "labels": {
        INJECT: "sidecar", "pod-security.kubernetes.io/enforce": "restricted",
    } } })
}

fn trust_domain(name: &str) -> Value {
    json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": { "name": name },
        "spec": {
            "authority": {},
            "grants": [{ "namespaces": { "matchNames": [name] }, "paths": ["/ns/{namespace}/sa/*"] }],
        },
    })
}

fn identity(domain: &str) -> Value {
    json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
        "metadata": { "name": NAME },
        "spec": { "trustDomain": domain, "selector": { "serviceAccounts": [NAME] } },
    })
}

fn pod(image: &str) -> Value {
    json!({
        "metadata": { "name": NAME },
        "spec": {
            "serviceAccountName": NAME,
            "automountServiceAccountToken": false,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "app",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": ["--version"],
                "resources": { "requests": { "cpu": "10m", "memory": "8Mi" }, "limits": { "memory": "32Mi" } },
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    })
}

pub(super) fn category(seen: &Seen) -> Category {
    let Seen { namespace, pod, left_behind } = seen;
    let name = "pod";
    let check = match pod {
        Ok(Identity { took, version }) => {
            let version = version.as_ref().map(|version| format!(", from {version}")).unwrap_or_default();
            let id = format!("spiffe://{namespace}/ns/{namespace}/sa/{NAME}");
            let took = if took.as_secs() == 0 { "less than a second".to_owned() } else { length(*took) };
            Finding::ok(name, format!("a new pod got {id}{version}, in {took}"))
        }
        Err(Problem::NotCreated(why)) => {
            Finding::failed(name, Reason::ProbeNotCreated, format!("the probe was not created: {why}"))
                .with_mends("the probe needs the rights of cluster-admin: it makes a namespace, a TrustDomain, a WorkloadIdentity and a pod")
        }
        Err(Problem::NotReady(why)) => {
            Finding::failed(name, Reason::ProbeNotReady, format!("the pod in namespace {namespace} got no identity: {why}"))
                .with_mends("kubectl countersign check\nmend what fails there, or try again with a longer --timeout")
        }
    };
    let mut checks = vec![check];
    if !left_behind.is_empty() {
        let check =
            Finding::warning("rest", Reason::ProbeNotRemoved, "not everything that the probe made could be deleted");
        checks.push(check.with_mends(left_behind.join("\n")));
    }
    Category::new("probe", checks)
}

#[cfg(test)]
mod tests;
