//! What was requested, and how far it is.

use countersign_reasons::Reason;
use serde::Serialize;

use super::progress::{Step, is_complete};
use crate::{
    finding::Finding,
    output::{self, Mark, Page},
};

/// A request and what came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) action: &'static str,
    /// The name of the object.
    pub(super) name: String,
    pub(super) trust_domain: String,
    pub(super) effects: Vec<String>,
    /// Whether the object was changed; false: it asked for the same already, or nothing was to be changed.
    pub(super) written: bool,
    /// Empty unless somebody waits.
    pub(super) steps: Vec<Step>,
    /// What is wrong.
    pub(super) findings: Vec<Finding>,
    /// Whether the effects were shown before.
    #[serde(skip)]
    pub(super) are_effects_shown: bool,
}

impl Report {
    pub(super) fn is_well(&self) -> bool {
        !self.findings.iter().any(Finding::has_failed)
    }

    /// What will happen.
    pub(super) fn write_effects(&self, page: &mut Page) {
        page.heading(format_args!("{} {}", self.action, self.trust_domain));
        self.effects.iter().for_each(|effect| page.bullet(effect));
    }

    /// The time is over.
    pub(super) fn time_out(&mut self, after: &str) {
        let message = format!("it is not complete after {after}");
        let name = &self.name;
        let mend = match self.action {
            "rotate" => format!(
                "it goes on without this command:\nkubectl wait --for=condition=RotationComplete trustdomain/{name}"
            ),
            _ => format!("it goes on without this command:\nkubectl countersign bundle show {name}"),
        };
        self.findings.push(Finding::failed("wait", Reason::NotComplete, message).with_mend(mend));
    }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        if !self.are_effects_shown {
            self.write_effects(page);
        }
        for Step { name, done, message } in &self.steps {
            page.item(if *done { Mark::Ok } else { Mark::Warning }, name, message);
        }
        self.findings.iter().for_each(|finding| finding.write(page));
        if is_complete(&self.steps) {
            page.line("Complete.");
        } else if self.steps.is_empty() && self.written {
            page.line(format_args!("Requested. How far it is: kubectl countersign bundle show {}", self.name));
        }
    }
}
