//! `check`: whether an installation is well, or a cluster ready for one. Each category is read, decided by a pure function, and
//! reported in the order in which the parts depend on each other.

mod admission;
mod authorities;
mod category;
mod cluster;
mod components;
mod definitions;
mod delivery;
mod pods;
mod preflight;
mod probe;
mod replicas;
mod rights;
mod webhook;

use std::time::Duration;

use anyhow::Result;
use countersign_contract::objects::{ENDPOINT, ENDPOINT_NAMESPACE};
use countersign_crds::Lifetime;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    Options, Outcome,
    cluster::Cluster,
    finding::Finding,
    installation::Installation,
    output::{self, Mark, Page},
    reading::Reading,
};
use category::Category;

/// Finding whether Countersign is well in a cluster, or whether a cluster is ready for it. Exit code 1 if a check fails; warnings do not
/// fail.
///
/// Nothing is changed: the webhook is tried by requests in a dry run. The namespace of these is that of --namespace.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Finding a cluster before an installation: its version, your rights, and names that are taken.
    #[arg(long, conflicts_with_all = ["probe"])]
    pre: bool,
    /// Finding again until nothing fails, or the timeout ends.
    #[arg(long)]
    wait: bool,
    /// How long to wait, such as `90s` or `5m`; with --probe also for the pod.
    #[arg(long, value_name = "SPAN", default_value = "5m")]
    timeout: Lifetime,
    /// Also create a pod that gets an identity, in a namespace and a TrustDomain of its own, and delete all of it afterwards. Needs
    /// the rights of a cluster administrator. NAME is what the name of the namespace and of the TrustDomain begins with.
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "countersign-check")]
    probe: Option<String>,
    #[command(flatten)]
    installation: Installation,
}

/// How often an installation is checked while it is waited for.
const POLL: Duration = Duration::from_secs(2);

/// The ConfigMap in which the installer names the agent's image.
const AGENT_CONFIG_MAP: &str = "countersign-agent";

pub(crate) async fn run(args: Args, options: &Options) -> Result<Outcome> {
    let cluster = options.cluster().await?;
    let deadline = Instant::now() + args.timeout.duration();
    let mut waits_for = None;
    let mut report = loop {
        let report = look(&cluster, &args).await;
        let failed = report.first_failure().map(|check| check.message.clone());
        if failed.is_none() || !args.wait || Instant::now() + POLL >= deadline {
            break report;
        }
        if failed != waits_for {
            failed.iter().for_each(|message| output::note(&format!("waiting: {message}")));
            waits_for = failed;
        }
        sleep(POLL).await;
    };
    if let Some(prefix) = &args.probe {
        let category = if report.first_failure().is_some() {
            Category::skipped("probe", "checks that it depends on have failed")
        } else {
            let image = agent_image(&cluster, &args.installation.system_namespace).await;
            probe::category(&probe::observe(&cluster, prefix, &image, args.timeout.duration()).await)
        };
        report.categories.push(category);
    }
    let report = report.summarised();
    options.print(&report)?;
    Ok(if report.passed { Outcome::Well } else { Outcome::Problem })
}

/// What was found, in order.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Nothing failed.
    passed: bool,
    failed: usize,
    warnings: usize,
    /// What could not be looked at.
    skipped: usize,
    categories: Vec<Category>,
}

/// All checks of an installation, without the probe: for the other commands that show them.
pub(crate) async fn of_installation(cluster: &Cluster, installation: &Installation) -> Report {
    installed(cluster, &installation.system_namespace).await.summarised()
}

async fn look(cluster: &Cluster, args: &Args) -> Report {
    let system = &args.installation.system_namespace;
    if !args.pre {
        return installed(cluster, system).await;
    }
    let server = cluster::observe(cluster).await;
    let mut categories = vec![cluster::category(&server)];
    if server.version.found().is_some() {
        categories.push(preflight::category(&preflight::observe(cluster, system).await));
    }
    Report::new(categories)
}

async fn installed(cluster: &Cluster, system: &str) -> Report {
    let server = cluster::observe(cluster).await;
    let mut categories = vec![cluster::category(&server)];
    if server.version.found().is_none() {
        return Report::new(categories);
    }
    let (definitions, rights, webhook, seen, components, endpoint, image) = futures::join!(
        definitions::observe(cluster),
        rights::observe(cluster, system),
        webhook::observe(cluster, system),
        pods::Seen::observe(cluster),
        components::observe(cluster, system),
        cluster.replicas(ENDPOINT_NAMESPACE, ENDPOINT),
        agent_image(cluster, system),
    );
    // By the API server's clock, which wrote most of the times. What was read is as old as that answer, or a little younger.
    let now = server.now();
    categories.extend([
        definitions::category(&definitions),
        rights::category(&rights),
        components::category(&components, system, now),
        webhook::category(&webhook, system, now),
        authorities::local(&seen.domains, system, now),
        versions(&components, &seen, &image, system),
        authorities::remote(&seen.domains, &endpoint, system, now),
        pods::category(&seen, now),
    ]);
    Report::new(categories)
}

fn versions(components: &components::Seen, seen: &pods::Seen, image: &Reading<String>, system: &str) -> Category {
    let mut checks = vec![Finding::ok("this program", format!("kubectl countersign {}", env!("CARGO_PKG_VERSION")))];
    checks.extend(components::versions(components, system));
    checks.extend(pods::agents(seen, image, components.outdated_agents()));
    Category::new("versions", checks)
}

/// The agent's image that the webhook injects.
async fn agent_image(cluster: &Cluster, system: &str) -> Reading<String> {
    let config_map: Reading<ConfigMap> = cluster.read_in(system, AGENT_CONFIG_MAP).await;
    match config_map.map(|found| found.data.and_then(|mut data| data.remove("image"))) {
        Reading::Found(Some(image)) => Reading::Found(image.trim().to_owned()),
        Reading::Found(None) => Reading::Absent,
        other => other.map(|_| String::new()),
    }
}

impl Report {
    fn new(categories: Vec<Category>) -> Self {
        Self { passed: false, failed: 0, warnings: 0, skipped: 0, categories }.summarised()
    }

    /// With its numbers.
    fn summarised(self) -> Self {
        let with = |mark| {
            let checks = self.categories.iter().flat_map(|category| &category.checks);
            checks.filter(|check| check.mark == mark).count()
        };
        let (failed, warnings, skipped) = (with(Mark::Failed), with(Mark::Warning), with(Mark::Skipped));
        Self { passed: failed == 0, failed, warnings, skipped, categories: self.categories }
    }

    fn first_failure(&self) -> Option<&Finding> {
        self.categories.iter().flat_map(|category| &category.checks).find(|check| check.mark == Mark::Failed)
    }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        self.categories.iter().for_each(|category| category.write(page));
        let parts = [
            (self.failed, output::count(self.failed, "check") + " failed"),
            (self.warnings, output::count(self.warnings, "warning")),
            (self.skipped, output::count(self.skipped, "check") + " skipped"),
        ];
        let parts: Vec<String> = parts.into_iter().filter(|(number, _)| *number > 0).map(|(_, text)| text).collect();
        let summary = if parts.is_empty() { "every check passed".to_owned() } else { parts.join(", ") };
        page.heading(summary);
    }
}

#[cfg(test)]
mod tests {
    use countersign_reasons::Reason;

    use super::{Category, Finding, Report};
    use crate::output::{Page, Report as _};

    #[test]
    fn warnings_and_skipped_checks_do_not_fail() {
        let warning = Finding::warning("a", Reason::ClockDiffers, "");
        let report = Report::new(vec![Category::new("one", vec![warning.clone(), Finding::skipped("b", "")])]);
        assert!(report.passed && report.first_failure().is_none());
        assert_eq!((report.failed, report.warnings, report.skipped), (0, 1, 1));
        let failed = Finding::failed("c", Reason::NoLeader, "nobody leads");
        let report = Report::new(vec![Category::new("one", vec![warning, failed])]);
        assert!(!report.passed);
        assert_eq!(report.first_failure().map(|check| check.about.as_str()), Some("c"));
    }

    #[test]
    fn the_last_line_is_a_summary() {
        let text = |checks| {
            let mut page = Page::new(Some(80));
            Report::new(vec![Category::new("one", checks)]).write(&mut page);
            page.into_text()
        };
        assert!(text(vec![Finding::ok("a", "")]).contains("every check passed"));
        let checks = vec![Finding::failed("a", Reason::NoLeader, ""), Finding::skipped("b", "")];
        assert!(text(checks).contains("1 check failed, 1 check skipped"));
    }
}
