//! `kubectl countersign why` on mistakes that owners of pods and of clusters make: it names the cause and what mends it.
//!
//! Each case has a pod, and mostly a WorkloadIdentity, of its own name, in one of a few namespaces that differ in their labels and
//! in what is granted to them.

#![allow(clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    apply::delete,
    cli,
    fixture::PodSpec,
    scenario::scenario_without_namespace,
    wait::{DEFAULT_TIMEOUT, until, watch},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    api::core::v1::{Container, Namespace},
    jiff::Timestamp,
};
use kube::Api;
use serde_json::Value;
use tokio::task::spawn_blocking;

mod containers;
mod grants;
mod injection;
mod refused;
mod selection;

/// For how long nothing may change before what is still open has failed.
const SETTLES: Duration = Duration::from_secs(30);

/// How many programs run at a time.
const AT_A_TIME: usize = 8;

/// One mistake, and what its owner is to be told.
struct Case {
    /// What `why` is asked about.
    target: String,
    namespace: String,
    /// The mistake.
    yaml: String,
    /// The reason of the step that fails, or of a warning if none does; [`WELL`], or [`ANY`].
    reason: &'static str,
    /// Whether the pod has an identity all the same.
    warns: bool,
    /// Words of the message.
    says: Vec<String>,
    /// Words of the mend; of a warning, also words of the message.
    mend: Vec<String>,
}

/// Nothing is wrong.
const WELL: &str = "Well";

/// A warning of any reason.
const ANY: &str = "Any";

impl Case {
    fn new(namespace: String, target: &str, yaml: String, reason: &'static str) -> Self {
        Self {
            target: target.to_owned(),
            namespace,
            yaml,
            reason,
            warns: reason == ANY,
            says: Vec::new(),
            mend: Vec::new(),
        }
    }

    fn says(mut self, words: &str) -> Self {
        self.says.push(words.to_owned());
        self
    }

    fn mend(mut self, words: &str) -> Self {
        self.mend.push(words.to_owned());
        self
    }

    fn warns(mut self) -> Self {
        self.warns = true;
        self
    }

    /// Whether `why` says what it should.
    ///
    /// # Errors
    /// It does not; the error shows what it says.
    fn check(&self) -> Result<()> {
        let (code, report) = cli::json(&["why", &self.target, "--namespace", &self.namespace])?;
        let told = Told::from(&report);
        let is_expected = told.is_warning == self.warns && (self.reason == ANY || told.reason == self.reason);
        let has_all = |words: &[String], text: &str| words.iter().all(|words| text.contains(words));
        ensure!(
            is_expected && has_all(&self.says, &told.message) && has_all(&self.mend, &told.mend),
            "why {} -n {}: expected {} with {:?} and the mend {:?}; exit code {code}, {}: {}\n    mend: {}",
            self.target,
            self.namespace,
            self.reason,
            self.says,
            self.mend,
            told.reason,
            told.message,
            told.mend
        );
        ensure!((code == 0) == (self.warns || self.reason == WELL), "why {}: exit code {code}", self.target);
        Ok(())
    }
}

/// What a report of `why` comes to.
struct Told {
    reason: String,
    message: String,
    mend: String,
    is_warning: bool,
}

impl From<&Value> for Told {
    fn from(report: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let cause = report["steps"].as_array().and_then(|steps| steps.iter().find_map(|step| step.get("cause")));
        if let Some(cause) = cause {
            let mend: Vec<_> = cause["mend"].as_array().into_iter().flatten().map(text).collect();
            let (reason, message) = (text(&cause["reason"]), text(&cause["message"]));
            return Self { reason, message, mend: mend.join("\n"), is_warning: false };
        }
        let Some(warning) = report["warnings"].as_array().and_then(|warnings| warnings.first()) else {
            return Self { reason: WELL.to_owned(), message: String::new(), mend: String::new(), is_warning: false };
        };
        let message = text(&warning["message"]);
        let mend = warning["mend"].as_array().into_iter().flatten().map(text);
        let mend: Vec<_> = mend.chain([message.clone()]).collect();
        Self { reason: text(&warning["reason"]), mend: mend.join("\n"), message, is_warning: true }
    }
}

/// The namespaces and trust domains of the cases.
struct Places<'a> {
    world: &'a World,
}

/// Namespaces beside the world's, by the ends of their names, with their labels.
const NAMESPACES: [(&str, &str); 10] = [
    // Nothing is injected.
    ("bare", ""),
    ("late", ""),
    ("misspelt", "countersign.dev/injects: sidecar"),
    ("unknown", "countersign.dev/inject: 'true'"),
    // Nothing is granted.
    ("stray", "countersign.dev/inject: sidecar"),
    // There is no WorkloadIdentity.
    ("fresh", "countersign.dev/inject: sidecar"),
    // WorkloadIdentities that concern other pods too.
    ("labels", "countersign.dev/inject: sidecar"),
    ("unreadable", "countersign.dev/inject: sidecar"),
    // Kubernetes refuses pods.
    ("quota", "countersign.dev/inject: sidecar"),
    ("limits", "countersign.dev/inject: sidecar"),
];

/// Trust domains beside the world's, by the beginnings of their names.
const TRUST_DOMAINS: [&str; 6] = ["a", "empty", "object", "twin", "partner", "elsewhere"];

impl Places<'_> {
    /// The namespace in which pods are injected, and most things are granted.
    fn shop(&self) -> String {
        self.world.namespace.clone()
    }

    fn namespace(&self, end: &str) -> String {
        format!("{}-{end}", self.world.namespace)
    }

    fn trust_domain(&self, beginning: &str) -> String {
        format!("{beginning}.{}", self.world.trust_domain)
    }

    /// A WorkloadIdentity; `more` are additional fields of its spec, one a line.
    fn identity(&self, namespace: &str, name: &str, selector: &str, more: &str) -> String {
        self.identity_of(&self.world.trust_domain, namespace, name, selector, more)
    }

    fn identity_of(&self, trust_domain: &str, namespace: &str, name: &str, selector: &str, more: &str) -> String {
        let mut text = format!(
            "---
apiVersion: countersign.dev/v1alpha1
kind: WorkloadIdentity
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  trustDomain: {trust_domain}
  selector: {{{selector}}}
"
        );
        for line in more.lines() {
            let _ = writeln!(text, "  {line}");
        }
        text
    }

    /// What is there before the cases are.
    fn yaml(&self) -> String {
        let mut text = self.world.namespace_yaml();
        for (end, labels) in NAMESPACES {
            let name = self.namespace(end);
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n"
            );
        }
        let granted: Vec<_> =
            NAMESPACES.iter().filter(|(end, _)| *end != "stray").map(|(end, _)| self.namespace(end)).collect();
        let granted = format!("{}, {}", self.shop(), granted.join(", "));
        let domain = |name: &str, spec: &str| {
            format!(
                "---\napiVersion: countersign.dev/v1alpha1\nkind: TrustDomain\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
            )
        };
        let grants = format!(
            "authority: {{}}, grants: [
  {{namespaces: {{matchNames: [{granted}]}}, paths: ['/ns/{{namespace}}/**', '/{{cluster}}/{{namespace}}/*'],
   dnsNames: ['{{serviceAccount}}.{{namespace}}.svc'], audiences: [orders.example],
   federatesWith: [{0}, {1}, missing.example]}},
  {{namespaces: {{matchNames: [{2}]}}, paths: ['/apart/{{namespace}}/*'], audiences: [billing.example]}},
  {{namespaces: {{matchNames: [{2}, {3}]}}, paths: ['/front/{{namespace}}'], dnsNames: [front.test], shared: true}}]",
            self.trust_domain("partner"),
            self.trust_domain("elsewhere"),
            self.shop(),
            self.namespace("labels"),
        );
        text += &domain(&self.world.trust_domain, &grants);
        // The first by name grants nothing to any of the namespaces, since none has the label.
        let labelled =
            "authority: {}, grants: [{namespaces: {matchLabels: {team: none}}, paths: ['/ns/{namespace}/**']}]";
        text += &domain(&self.trust_domain("a"), labelled);
        text += &domain(&self.trust_domain("empty"), "authority: {}");
        let named = format!("trustDomain: {}, authority: {{}}", self.trust_domain("named"));
        text += &domain(&self.trust_domain("object"), &named);
        for (beginning, admits) in [("partner", self.shop()), ("elsewhere", "nowhere".to_owned())] {
            let remote = format!(
                "remote: {{namespaces: {{matchNames: [{admits}]}}, endpoint: {{profile: https_web, url: 'https://bundles.invalid/'}}}}"
            );
            text += &domain(&self.trust_domain(beginning), &remote);
        }
        text
    }

    /// WorkloadIdentities that hold what others claim after them.
    fn holders_yaml(&self) -> String {
        let front = "path: '/front/{namespace}'\nx509: {dnsNames: [front.test]}";
        self.identity(&self.shop(), "holder", "serviceAccounts: [holder]", "path: '/ns/{namespace}/taken'")
            + &self.identity(&self.namespace("labels"), "front", "serviceAccounts: [front]", front)
    }

    /// Makes all this, and waits until it is older than whatever is made next.
    async fn make(&self) -> Result<()> {
        let cluster = &self.world.cluster;
        cluster.apply(&self.yaml()).await?;
        let holders = cluster.apply(&self.holders_yaml()).await?;
        holds_its_claims(self, &self.shop(), "holder").await?;
        holds_its_claims(self, &self.namespace("labels"), "front").await?;
        // Creation times have a resolution of one second.
        let made = holders.last().and_then(|holder| holder.metadata.creation_timestamp.clone()).context("a time")?;
        until("a second has passed", DEFAULT_TIMEOUT, async || {
            Ok((Timestamp::now().as_second() > made.0.as_second()).then_some(()))
        })
        .await
    }

    /// Deletes what the world does not delete itself.
    async fn end(&self) -> Result<()> {
        let cluster = &self.world.cluster;
        for (end, _) in NAMESPACES {
            delete(&Api::<Namespace>::all(cluster.client.clone()), &self.namespace(end)).await?;
        }
        for beginning in TRUST_DOMAINS {
            let trust_domain = self.trust_domain(beginning);
            World { cluster: cluster.clone(), namespace: self.shop(), trust_domain }.end().await?;
        }
        Ok(())
    }
}

/// An idle pod, with an identity of the default path.
fn with_identity(places: &Places<'_>, namespace: &str, pod: &PodSpec<'_>) -> String {
    let selector = format!("serviceAccounts: [{}]", pod.name);
    places.identity(namespace, pod.name, &selector, "") + &pod.pod(namespace)
}

/// As [`with_identity`], with a Deployment.
fn with_identity_deployed(places: &Places<'_>, namespace: &str, pod: &PodSpec<'_>) -> String {
    let selector = format!("serviceAccounts: [{}]", pod.name);
    places.identity(namespace, pod.name, &selector, "") + &pod.deployment(namespace, 1)
}

/// Waits until a `WorkloadIdentity` holds its claims.
async fn holds_its_claims(places: &Places<'_>, namespace: &str, name: &str) -> Result<()> {
    let identities = places.world.cluster.workload_identities(namespace).await?;
    let holds = |object: &kube::api::DynamicObject| {
        object.data["status"]["claims"].as_array().is_some_and(|claims| !claims.is_empty())
    };
    watch(&identities, name, "granted, with its claims recorded", holds).await.map(drop)
}

/// Checks all cases until each is answered as expected, and fails with those that are not.
async fn check(cases: Vec<Case>) -> Result<()> {
    let (mut changed, all) = (Instant::now(), cases.len());
    let mut open: Vec<_> = cases.into_iter().map(Arc::new).collect();
    let failed = until("every case is answered", DEFAULT_TIMEOUT, async || {
        let checked: Vec<_> = stream::iter(std::mem::take(&mut open))
            .map(|case| async {
                let checked = spawn_blocking({
                    let case = Arc::clone(&case);
                    move || case.check()
                });
                (case, checked.await.map_err(anyhow::Error::from).flatten())
            })
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        let before = checked.len();
        let mut failed = Vec::new();
        for (case, checked) in checked {
            if let Err(error) = checked {
                failed.push(format!("{error:#}"));
                open.push(case);
            }
        }
        if open.len() < before {
            changed = Instant::now();
        }
        Ok((open.is_empty() || changed.elapsed() > SETTLES).then_some(failed))
    })
    .await?;
    ensure!(failed.is_empty(), "{} of {all} cases:\n{}", failed.len(), failed.join("\n"));
    Ok(())
}

/// Each mistake is a case of its own; all are in the cluster at the same time, so none may be taken for another.
#[tokio::test]
async fn a_mistake_is_named_together_with_what_mends_it() {
    scenario_without_namespace("cli-mistakes", async |world| {
        let places = Places { world };
        let cases: Vec<_> = [injection::cases, selection::cases, grants::cases, refused::cases, containers::cases]
            .iter()
            .flat_map(|cases| cases(&places))
            .collect();
        let outcome = async {
            places.make().await?;
            stream::iter(&cases)
                .map(|case| async move { world.cluster.apply(&case.yaml).await.context(case.target.clone()) })
                .buffer_unordered(AT_A_TIME)
                .try_collect::<Vec<_>>()
                .await?;
            let unpulled = |agent: &mut Container| agent.image = Some(containers::NO_SUCH_AGENT.to_owned());
            world.handmade_pod_with_agent(&PodSpec::hold(containers::UNPULLED), unpulled).await?;
            // Now that its pod is there.
            let late = places.namespace("late");
            let label = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {late}, labels: {{countersign.dev/inject: sidecar}}}}\n");
            world.cluster.apply(&label).await?;
            check(cases).await
        };
        let outcome = outcome.await;
        if outcome.is_ok() || std::env::var_os(countersign_contract::environment::test::KEEP).is_none() {
            places.end().await?;
        }
        outcome
    })
    .await;
}
