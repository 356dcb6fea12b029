//! `status`: an installation on one screen. It shows what is; `check` says what is wrong with it.

mod decide;
mod observe;
mod watch;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    Options, Outcome,
    installation::Installation,
    output::{self, Mark, Page},
    times::relative,
};

/// Show the components, trust domains, identities and pods of an installation on one screen.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Draw it again whenever something changes, until Ctrl-C.
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    installation: Installation,
}

pub(crate) async fn run(args: Args, options: &Options) -> Result<Outcome> {
    let cluster = options.cluster().await?;
    if args.watch {
        return watch::run(&cluster, &args.installation, options).await;
    }
    let report = look(&cluster, &args.installation).await;
    options.print(&report)?;
    Ok(Outcome::Well)
}

async fn look(cluster: &crate::Cluster, installation: &Installation) -> Report {
    decide::report(&observe::observe(cluster, &installation.system_namespace).await, Timestamp::now())
}

/// One screen.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    at: Timestamp,
    components: Vec<Component>,
    /// `None`, as of the next two: not readable.
    trust_domains: Option<Vec<Domain>>,
    identities: Option<Identities>,
    pods: Option<Pods>,
    /// The newest first.
    warnings: Vec<Warning>,
    /// What could not be read, and why.
    gaps: Vec<String>,
}

/// A Deployment.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    name: &'static str,
    #[serde(skip)]
    mark: Mark,
    wanted: i32,
    ready: i32,
    /// The pod that leads, of the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<String>,
    images: Vec<String>,
}

/// A TrustDomain.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Domain {
    name: String,
    kind: &'static str,
    ready: bool,
    reason: String,
    /// Which authorities sign, as `x509 <id>`.
    signing: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_switch: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<i64>,
    /// Of a local one: how many workloads have the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged: Option<String>,
    /// Of a remote one: when a poll confirmed the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed: Option<Timestamp>,
}

/// All WorkloadIdentities.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Identities {
    total: usize,
    by_reason: Vec<Count>,
    /// The first end of a credential of a served pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_expiry: Option<Timestamp>,
}

/// How many objects have a reason.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Count {
    reason: String,
    ready: bool,
    count: usize,
    /// One of them.
    example: String,
}

/// Sums over all WorkloadIdentities; a pod with several identities counts for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pods {
    matched: i64,
    served: i64,
    /// Of which the agents say that their workload can use what was issued last; absent unless every count has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<i64>,
    /// Problems of deliveries that statuses name.
    undelivered: usize,
    not_injected: i64,
    outdated_agents: i64,
}

/// A warning event.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Warning {
    at: Timestamp,
    object: String,
    reason: String,
    message: String,
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        page.heading("components");
        for Component { name, mark, wanted, ready, leader, images } in &self.components {
            let leader = leader.as_ref().map(|leader| format!(", {leader} leads")).unwrap_or_default();
            page.item(*mark, name, format_args!("{ready}/{wanted} ready{leader}, {}", images.join(", ")));
        }
        if let Some(domains) = &self.trust_domains {
            page.heading(format_args!("trust domains: {}", domains.len()));
            domains.iter().for_each(|domain| domain.write(page, self.at));
        }
        if let Some(identities) = &self.identities {
            identities.write(page);
        }
        self.write_pods(page);
        if !self.warnings.is_empty() {
            page.heading("recent warnings");
            for Warning { at, object, reason, message } in &self.warnings {
                page.item(Mark::Warning, &relative(*at, self.at), format_args!("{object}: {reason}: {message}"));
            }
        }
        if !self.gaps.is_empty() {
            page.heading("not shown");
            self.gaps.iter().for_each(|gap| page.item(Mark::Skipped, "", gap));
        }
    }
}

impl Report {
    fn write_pods(&self, page: &mut Page) {
        let Some(Pods { matched, served, held, undelivered, not_injected, outdated_agents }) = self.pods else {
            return;
        };
        page.heading("pods");
        let all = if served == matched { Mark::Ok } else { Mark::Warning };
        page.item(all, "served", format_args!("{served} of {matched} that identities select"));
        if let Some(held) = held.filter(|_| served > 0) {
            // Agents of earlier releases do not say what they hold.
            let mark = if undelivered == 0 { Mark::Ok } else { Mark::Warning };
            page.item(mark, "held", format_args!("{held} of {served}, on the socket and in the files"));
        }
        if not_injected > 0 {
            page.item(Mark::Warning, "not injected", format_args!("{not_injected}: restart them"));
        }
        if outdated_agents > 0 {
            page.item(Mark::Warning, "outdated", format_args!("{outdated_agents} agents: restart their pods"));
        }
        if let Some(expiry) = self.identities.as_ref().and_then(|identities| identities.next_expiry) {
            let mark = if expiry > self.at { Mark::Ok } else { Mark::Warning };
            page.item(mark, "next expiry", format_args!("{}, at {expiry}", relative(expiry, self.at)));
        }
    }
}

impl Identities {
    fn write(&self, page: &mut Page) {
        page.heading(format_args!("workload identities: {}", self.total));
        for Count { reason, ready, count, example } in &self.by_reason {
            let mark = if *ready { Mark::Ok } else { Mark::Warning };
            let example = if *ready { String::new() } else { format!(", such as {example}") };
            page.item(mark, &count.to_string(), format_args!("{reason}{example}"));
        }
    }
}

impl Domain {
    fn write(&self, page: &mut Page, now: Timestamp) {
        let part = |label: &str, value: Option<String>| value.map(|value| format!("{label} {value}"));
        let parts = [
            part("sequence", self.sequence.map(|sequence| sequence.to_string())),
            part("acknowledged by", self.acknowledged.clone()),
            part("next switch", self.next_switch.map(|at| relative(at, now))),
            part("confirmed", self.confirmed.map(|at| relative(at, now))),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let mark = if self.ready { Mark::Ok } else { Mark::Warning };
        page.item(
            mark,
            self.kind,
            format_args!("{}: {}", self.name, [vec![self.reason.clone()], parts].concat().join(", ")),
        );
    }
}

#[cfg(test)]
mod tests;
