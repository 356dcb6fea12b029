//! One line of a report: what was looked at, whether it is well, and what to do if it is not.

use countersign_reasons::Reason;
use serde::Serialize;

use crate::{
    access::Denied,
    output::{Mark, Page},
};

/// What was found of one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) about: String,
    pub(crate) mark: Mark,
    /// Of a closed set; absent where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
    /// The code of the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<&'static str>,
    pub(crate) message: String,
    /// The command or the change that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mend: Option<String>,
}

impl Finding {
    /// It is as it should be.
    pub(crate) fn ok(about: &str, message: impl Into<String>) -> Self {
        Self::new(about, Mark::Ok, None, message.into())
    }

    /// It could not be looked at.
    pub(crate) fn skipped(about: &str, message: impl Into<String>) -> Self {
        Self::new(about, Mark::Skipped, None, message.into())
    }

    /// The caller may not look at it.
    pub(crate) fn denied(about: &str, denied: &Denied) -> Self {
        let mend =
            format!("ask for a role with the verb {} on {}, such as countersign-view", denied.verb, denied.resource);
        Self::new(about, Mark::Skipped, Some(Reason::NotPermitted), denied.to_string()).with_mend(mend)
    }

    /// Somebody should look at it.
    pub(crate) fn warning(about: &str, reason: Reason, message: impl Into<String>) -> Self {
        Self::new(about, Mark::Warning, Some(reason), message.into())
    }

    /// It is wrong.
    pub(crate) fn failed(about: &str, reason: Reason, message: impl Into<String>) -> Self {
        Self::new(about, Mark::Failed, Some(reason), message.into())
    }

    /// As a condition or an event says it; its reason has a code if it is one of the list.
    pub(crate) fn reported(about: &str, mark: Mark, reason: &str, message: &str) -> Self {
        let known: Option<Reason> = reason.parse().ok();
        let message = Reason::without_code(message);
        match known {
            Some(_) if mark == Mark::Ok => Self::new(about, mark, None, message.to_owned()),
            Some(_) => Self::new(about, mark, known, message.to_owned()),
            None => Self::new(about, mark, None, format!("{message} ({reason})")),
        }
    }

    pub(crate) fn with_mend(self, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..self }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.mark == Mark::Failed
    }

    pub(crate) fn write(&self, page: &mut Page) {
        match (self.reason, self.code) {
            (Some(reason), Some(code)) => {
                page.item(self.mark, &self.about, format_args!("{} ({code} {reason})", self.message));
            }
            _ => page.item(self.mark, &self.about, &self.message),
        }
        self.mend.iter().for_each(|mend| page.mend(mend));
    }

    fn new(about: &str, mark: Mark, reason: Option<Reason>, message: String) -> Self {
        Self {
            about: about.to_owned(),
            mark,
            reason: reason.map(Reason::name),
            code: reason.map(Reason::code),
            message,
            mend: None,
        }
    }
}
