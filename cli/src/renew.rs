//! `renew`: has the agent of a pod renew all credentials of the pod now, with new keys.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use countersign_contract::metadata::annotation::{INJECTED, RENEW_AFTER};
use countersign_crds::Lifetime;
use countersign_reasons::Reason;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Options, Outcome,
    access::{not_written, unless_denied},
    cluster::Cluster,
    finding::Finding,
    objects::sessions,
    output::{self, Page},
    reading::Right,
    times,
};

/// Renew all credentials of a pod now, with new keys.
///
/// Certificates, tokens in files and WIT-SVIDs are issued anew while the workload runs; what it has stays until the new ones are there.
/// What was issued before stays valid until it expires: to withdraw it, taint or revoke the authority. Sets the annotation
/// countersign.dev/renew-after of the pod. Exit code 1 if the operator does not confirm it in time.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pod.
    pod: String,
    /// Return once it is requested.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait until the operator confirms that every certificate was issued anew.
    #[arg(long, default_value = "1m", value_name = "SPAN")]
    timeout: Lifetime,
}

/// Between two looks at the events.
const LOOK: Duration = Duration::from_secs(1);
/// The field manager of what is written.
const MANAGER: &str = "kubectl-countersign";

pub(crate) async fn run(Args { pod, no_wait, timeout }: Args, options: &Options) -> Result<Outcome> {
    let cluster = options.cluster().await?;
    let namespace = &cluster.namespace;
    let Some(object) = cluster.pod(&pod).await? else {
        bail!("there is no pod {pod} in namespace {namespace}: see kubectl get pods -n {namespace}");
    };
    let asked = ask(&object, Timestamp::now()).map_err(anyhow::Error::msg)?;
    write(&cluster, &pod, asked).await?;
    let mut report = Report {
        pod: format!("{namespace}/{pod}"),
        asked_at: asked,
        sessions: sessions(&object).into_iter().map(|name| Session { name, renewed: false }).collect(),
        findings: Vec::new(),
        is_awaited: !no_wait,
    };
    if !no_wait {
        follow(&cluster, &object, timeout.duration(), &mut report).await?;
    }
    options.print(&report)?;
    Ok(if report.findings.iter().any(Finding::has_failed) { Outcome::Problem } else { Outcome::Well })
}

/// The time to write: now, or just after the one in the annotation, since only a later one asks for anything.
fn ask(pod: &Pod, now: Timestamp) -> Result<Timestamp, String> {
    let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    if !pod.annotations().contains_key(INJECTED) {
        let reason = Reason::NoAgent;
        return Err(format!(
            "pod {name} has no agent, so that it has no credentials ({reason}, {}): kubectl countersign why -n {} {}",
            reason.code(),
            pod.namespace().unwrap_or_default(),
            pod.name_any()
        ));
    }
    let before = pod.annotations().get(RENEW_AFTER).and_then(|text| text.parse::<Timestamp>().ok());
    let least = before.and_then(|before| before.checked_add(SignedDuration::from_millis(1)).ok());
    let at = least.map_or(now, |least| least.max(now));
    Timestamp::from_millisecond(at.as_millisecond()).map_err(|error| error.to_string())
}

async fn write(cluster: &Cluster, pod: &str, asked: Timestamp) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let patch: Value = json!({"metadata": {"annotations": {RENEW_AFTER: asked.to_string()}}});
    let written = pods.patch(pod, &parameters, &Patch::Merge(patch)).await;
    let written = written.with_context(|| format!("annotating pod {}/{pod}", cluster.namespace));
    written.map(drop).map_err(|error| not_written(error, "patch", &format!("pods in namespace {}", cluster.namespace)))
}

async fn follow(cluster: &Cluster, pod: &Pod, timeout: Duration, report: &mut Report) -> Result<()> {
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let about = ListParams::default().fields(&format!("involvedObject.uid={}", pod.uid().unwrap_or_default()));
    let begin = Instant::now();
    loop {
        let read = events.list(&about).await.context("listing events");
        match unless_denied(read, Right::new("list", "events", Some(&cluster.namespace)))? {
            Ok(list) => report.confirm(&list.items),
            Err(denied) => {
                report.findings.push(Finding::denied("confirmation", &denied));
                return Ok(());
            }
        }
        if report.is_confirmed() {
            return Ok(());
        }
        if begin.elapsed() >= timeout {
            report.time_out(timeout);
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// `namespace/name`
    pod: String,
    /// What the annotation says.
    asked_at: Timestamp,
    sessions: Vec<Session>,
    findings: Vec<Finding>,
    #[serde(skip)]
    is_awaited: bool,
}

/// The pod as a whole, or one of its containers.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Session {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    /// Whether the operator has confirmed it.
    renewed: bool,
}

impl Report {
    /// Each session has an event of its own, which says when it was asked for.
    fn confirm(&mut self, events: &[Event]) {
        let asked = self.asked_at.to_string();
        for session in &mut self.sessions {
            let prefix = if session.name.is_empty() { String::new() } else { format!("container {}: ", session.name) };
            session.renewed |= events.iter().any(|event| {
                let message = event.message.as_deref().unwrap_or_default();
                event.reason.as_deref() == Some(Reason::Renewed.name())
                    && message.starts_with(&prefix)
                    && message.ends_with(&asked)
            });
        }
    }

    fn is_confirmed(&self) -> bool {
        self.sessions.iter().all(|session| session.renewed)
    }

    fn time_out(&mut self, timeout: Duration) {
        let after = times::span(SignedDuration::try_from(timeout).unwrap_or(SignedDuration::MAX));
        let message = format!(
            "not confirmed after {after}: the agent is not connected or of an earlier release, it has no identity, or the event was \
             left out because the pod or its namespace has very many; a new pod gets new credentials as well"
        );
        let (namespace, pod) = self.pod.split_once('/').unwrap_or_default();
        let finding = Finding::failed("confirmation", Reason::NotRenewed, message)
            .with_mend(format!("kubectl countersign why -n {namespace} {pod}"));
        self.findings.push(finding);
    }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        page.heading(format_args!("pod {}", self.pod));
        page.fact("asked at", self.asked_at);
        for session in &self.sessions {
            let name = if session.name.is_empty() { "pod" } else { &session.name };
            match (session.renewed, self.is_awaited) {
                (true, _) => Finding::ok(name, "every certificate was issued anew").write(page),
                (false, true) => {}
                (false, false) => Finding::skipped(name, "requested, and not waited for").write(page),
            }
        }
        self.findings.iter().for_each(|finding| finding.write(page));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    fn pod(annotations: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "shop", "annotations": annotations},
            "spec": {"containers": [{"name": "app"}, {"name": "web"}]},
        }))
        .unwrap()
    }

    #[test]
    fn each_request_asks_for_a_later_time_than_the_one_before() {
        let asked = |before: &str| ask(&pod(&json!({INJECTED: "sidecar", RENEW_AFTER: before})), now()).unwrap();
        assert_eq!(asked("never"), now());
        assert_eq!(asked("2026-01-01T00:00:00Z"), now());
        let later = now() + SignedDuration::from_hours(1);
        assert_eq!(asked(&later.to_string()), later + SignedDuration::from_millis(1));
    }

    #[test]
    fn a_pod_without_an_agent_is_refused() {
        assert!(ask(&pod(&json!({})), now()).unwrap_err().contains("CS4142"));
    }

    #[test]
    fn a_session_is_confirmed_by_the_event_of_this_request_alone() {
        let mut report = Report {
            pod: "shop/a".to_owned(),
            asked_at: now(),
            sessions: ["app", "web"].map(|name| Session { name: name.to_owned(), renewed: false }).into(),
            findings: Vec::new(),
            is_awaited: true,
        };
        let event = |container: &str, at: Timestamp| -> Event {
            let message = format!("container {container}: every certificate was issued anew, as asked at {at}");
            serde_json::from_value(
                json!({"metadata": {}, "involvedObject": {}, "reason": "Renewed", "message": message}),
            )
            .unwrap()
        };
        report.confirm(&[event("app", now()), event("web", now() - SignedDuration::from_secs(1))]);
        assert_eq!(report.sessions.iter().map(|one| one.renewed).collect::<Vec<_>>(), [true, false]);
        report.confirm(&[event("web", now())]);
        assert!(report.is_confirmed());
    }
}
