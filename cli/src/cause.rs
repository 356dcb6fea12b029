//! A problem as every command reports it.

use countersign_reasons::Reason;
use serde::Serialize;

use crate::output::{Mark, Page};

/// Why something is not as it should be, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cause {
    /// CamelCase, of a closed set.
    #[serde(serialize_with = "name")]
    pub(crate) reason: Reason,
    /// That of the reason: `kubectl countersign explain` has its page.
    code: &'static str,
    /// What is wrong here.
    pub(crate) message: String,
    /// Commands, or YAML to apply; lines of it are to be copied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) mend: Vec<String>,
}

impl Cause {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        // What comes from a status has the code already.
        let message: String = message.into();
        let message = Reason::without_code(&message).to_owned();
        Self { reason, code: reason.code(), message, mend: Vec::new() }
    }

    /// Adds what mends it: a sentence, a command, or YAML of several lines.
    pub(crate) fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend.push(mend.into());
        self
    }

    /// Writes it below a label.
    pub(crate) fn write(&self, page: &mut Page, mark: Mark, label: &str) {
        page.item(mark, label, format_args!("{} ({} {})", self.message, self.code, self.reason));
        self.mend.iter().for_each(|mend| page.mend(mend));
    }
}

pub(crate) fn name<S: serde::Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.name())
}
