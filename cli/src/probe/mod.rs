//! `probe`: a mutual handshake from one pod to another, with the identities that they have. The agent's image has no shell, so that a
//! command of the agent makes it, in an ephemeral container of each pod that has the pod's credentials mounted.

mod container;
mod ends;

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use countersign_crds::Lifetime;
use countersign_reasons::Reason;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    Options, Outcome,
    output::{self, Mark, Page},
};
use container::Container;
use ends::{End, Ended};

/// Make a real mTLS handshake from pod A to pod B, and say what each learned of the other, or why it refused it.
///
/// An ephemeral container with the agent's image is added to each pod. Kubernetes never removes ephemeral containers: they stay in the
/// pods, ended, for as long as these exist. Needs the right to add them, as cluster administrators have.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pod that calls, as POD or NAMESPACE/POD.
    a: String,
    /// The pod that is called, as POD or NAMESPACE/POD.
    b: String,
    /// The context of the kubeconfig for B, if it is in another cluster. Its pods must be reachable from those of A.
    #[arg(long, value_name = "CONTEXT")]
    context_b: Option<String>,
    /// The port on which B listens, if network policies allow only some; a free one may be chosen otherwise.
    #[arg(long, default_value_t = 28_443)]
    port: u16,
    /// How long each side waits for the other.
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    timeout: Lifetime,
}

pub(crate) async fn run(args: Args, options: &Options) -> Result<Outcome> {
    let cluster_a = options.cluster().await?;
    let cluster_b = match &args.context_b {
        Some(context) => options.cluster_of(context).await?,
        None => options.cluster().await?,
    };
    let context_a = options.context.as_deref();
    let a = End::find(&cluster_a, &args.a, context_a).await?;
    let b = End::find(&cluster_b, &args.b, args.context_b.as_deref().or(context_a)).await?;
    if args.context_b.is_none() && a.name() == b.name() {
        bail!("{} is asked to call itself: name two pods", a.name());
    }
    let timeout = args.timeout.duration();
    let name = container_name(Timestamp::now());
    let address = |ip: IpAddr| std::net::SocketAddr::new(ip, args.port).to_string();
    let unspecified = match b.ip {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0_u16; 8]),
    };
    let serves = Container::of(&b.pod, &name, ["--serve", &address(unspecified)], timeout)?;
    let dials = Container::of(&a.pod, &name, ["--dial", &address(b.ip)], timeout)?;

    let started = b.start(&serves, timeout).await.with_context(|| b.name().to_owned())?;
    // One that ended already says why, and nobody needs to call it.
    let dialled = if started.is_running() {
        a.start(&dials, timeout).await.with_context(|| a.name().to_owned())?;
        Some(a.ended(&name, timeout).await?)
    } else {
        None
    };
    let served = b.ended(&name, timeout).await?;
    let report = Report::new(&a, dialled, &b, served);
    options.print(&report)?;
    Ok(if report.passed { Outcome::Well } else { Outcome::Problem })
}

/// Unique in a pod: an ephemeral container cannot be replaced.
fn container_name(now: Timestamp) -> String {
    format!("countersign-probe-{:x}", now.as_microsecond().unsigned_abs() % 0x0100_0000_0000)
}

/// Both sides.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    /// Both authenticated each other.
    passed: bool,
    a: Side,
    b: Side,
}

/// One of them.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Side {
    pod: String,
    #[serde(flatten)]
    ended: Ended,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// What kubectl needs to find its cluster.
    #[serde(skip)]
    options: String,
}

impl Report {
    fn new(a: &End, dialled: Option<Ended>, b: &End, served: Ended) -> Self {
        let not_called = || Ended::not_run("it was not started, as the other pod does not listen".to_owned());
        let a = Side::new(a.name(), a.options(), dialled.unwrap_or_else(not_called));
        let b = Side::new(b.name(), b.options(), served);
        Self { passed: a.reason.is_none() && b.reason.is_none(), a, b }
    }
}

impl Side {
    fn new(pod: &str, options: &str, ended: Ended) -> Self {
        let reason = match ended.outcome.as_str() {
            "authenticated" => None,
            "refusedPeer" | "refusedByPeer" => Some(Reason::HandshakeRefused),
            "unreachable" => Some(Reason::PeerUnreachable),
            "noIdentity" => Some(Reason::NoIdentity),
            "notRun" => Some(Reason::HandshakeNotRun),
            _ => Some(Reason::HandshakeFailed),
        };
        let (reason, code) = (reason.map(Reason::name), reason.map(Reason::code));
        Self { pod: pod.to_owned(), ended, reason, code, options: options.to_owned() }
    }

    fn write(&self, page: &mut Page, label: &str) {
        let Self { pod, ended, reason, code, .. } = self;
        let own = ended.own.as_ref().map(|own| format!(" ({own})")).unwrap_or_default();
        let what = match (&ended.peer, &ended.message) {
            (Some(peer), _) => format!("authenticated {peer}"),
            (None, Some(message)) => message.clone(),
            (None, None) => ended.outcome.clone(),
        };
        match (code, reason) {
            (Some(code), Some(reason)) => {
                page.item(Mark::Failed, label, format_args!("{pod}{own}: {what} ({code} {reason})"));
            }
            _ => page.item(Mark::Ok, label, format_args!("{pod}{own}: {what}")),
        }
    }

    /// What to do; of a refusal the side that refused knows more.
    fn hint(&self) -> Option<String> {
        let (namespace, pod) = self.pod.split_once('/')?;
        let options = &self.options;
        match self.ended.outcome.as_str() {
            "refusedPeer" => Some(format!(
                "kubectl countersign why -n {namespace} {pod}{options}\nspec.federatesWith of its WorkloadIdentity adds bundles of foreign trust domains"
            )),
            "unreachable" => Some(
                "look at network policies between the two pods, or choose a port that they allow: --port".to_owned(),
            ),
            "noIdentity" => Some(format!("kubectl countersign why -n {namespace} {pod}{options}")),
            "notRun" | "failed" => Some(format!("kubectl describe pod -n {namespace} {pod}{options}")),
            _ => None,
        }
    }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        page.heading("handshake");
        self.a.write(page, "calls");
        self.a.hint().iter().flat_map(|hint| hint.lines()).for_each(|line| page.mend(line));
        self.b.write(page, "is called");
        self.b.hint().iter().flat_map(|hint| hint.lines()).for_each(|line| page.mend(line));
    }
}

#[cfg(test)]
mod tests;
