//! Why a pod has its identities, or has none: the steps from the pod to its credentials, in order. Pure.

mod steps;

use anyhow::Result;
use serde::Serialize;

use crate::{
    Options, Outcome,
    objects::Objects,
    output::{self, Mark, Page},
};

/// Say why a pod has its identities, or has none: the first step that fails, and what mends it. Exit code 1 if one fails.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pod.
    pod: String,
}

pub(crate) async fn run(Args { pod }: Args, options: &Options) -> Result<Outcome> {
    let cluster = options.cluster().await?;
    let mut objects = cluster.objects_of_namespace().await?;
    objects.pods.extend(cluster.pod(&pod).await?);
    let report = report(&About { namespace: cluster.namespace.clone(), pod, objects });
    options.print(&report)?;
    Ok(if report.is_well() { Outcome::Well } else { Outcome::Problem })
}

/// What is known of one pod.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    /// With the pod, unless there is none.
    pub(crate) objects: Objects,
}

/// The steps as far as they went.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    pod: String,
    steps: Vec<Step>,
}

/// One step.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    /// What it is about.
    name: &'static str,
    passed: bool,
    /// Of a closed set; `None` where it passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    message: String,
    /// The command or the object that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

/// Everything up to the first step that fails.
pub(crate) fn report(about: &About) -> Report {
    let pod = format!("{}/{}", about.namespace, about.pod);
    let mut steps = Vec::new();
    for step in steps::all(about) {
        let passed = step.passed;
        steps.push(step);
        if !passed {
            break;
        }
    }
    Report { pod, steps }
}

impl Report {
    pub(crate) fn is_well(&self) -> bool {
        self.steps.iter().all(|step| step.passed)
    }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        page.heading(format_args!("pod {}", self.pod));
        for Step { name, passed, reason, message, mend } in &self.steps {
            let mark = if *passed { Mark::Ok } else { Mark::Failed };
            match reason {
                Some(reason) => page.item(mark, name, format_args!("{message} ({reason})")),
                None => page.item(mark, name, message),
            }
            mend.iter().for_each(|mend| page.mend(mend));
        }
    }
}

#[cfg(test)]
mod tests;
