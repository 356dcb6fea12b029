//! What a command found: of which subject, whether it is well, and for a problem its reason and what mends it. Every command has the
//! same type; their JSON names its parts in three ways, which are here and beside the reports of `why` and `check`.

use std::fmt;

use countersign_reasons::Reason;
use serde::{Serialize, Serializer};

use crate::{
    output::{Mark, Page},
    reading::{Gap, Right},
};

/// What was found of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) about: String,
    pub(crate) mark: Mark,
    /// Absent where all is well.
    pub(crate) reason: Option<Stated>,
    /// As it was given: that of a condition or an event may end in the code.
    pub(crate) message: String,
    /// Sentences, commands, and YAML to apply, each shown by itself.
    pub(crate) mends: Vec<String>,
}

/// A reason as an object or this program states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stated {
    Known(Reason),
    /// Of a newer operator.
    Unknown(String),
}

impl Finding {
    /// It is as it should be.
    pub(crate) fn ok(about: &str, message: impl Into<String>) -> Self {
        Self::new(about, Mark::Ok, None, message)
    }

    /// It could not be looked at.
    pub(crate) fn skipped(about: &str, message: impl Into<String>) -> Self {
        Self::new(about, Mark::Skipped, None, message)
    }

    /// Somebody should look at it.
    pub(crate) fn warning(about: &str, reason: Reason, message: impl Into<String>) -> Self {
        Self::new(about, Mark::Warning, Some(reason), message)
    }

    /// It is wrong.
    pub(crate) fn failed(about: &str, reason: Reason, message: impl Into<String>) -> Self {
        Self::new(about, Mark::Failed, Some(reason), message)
    }

    /// The caller may not look at it.
    pub(crate) fn denied(about: &str, needed: &Right) -> Self {
        let Right { verb, resource, .. } = needed;
        let mend = format!("ask for a role with the verb {verb} on {resource}, such as countersign-view");
        let message = Gap::Forbidden(needed).to_string();
        Self::new(about, Mark::Skipped, Some(Reason::NotPermitted), message).with_mend(mend)
    }

    /// It was not read. A missing right is not a problem of the installation; an API server that does not answer may be.
    pub(crate) fn gap(about: &str, gap: Gap<'_>) -> Self {
        let (mark, reason) = match gap {
            Gap::Absent => (Mark::Skipped, None),
            Gap::Forbidden(_) => (Mark::Skipped, Some(Reason::NotPermitted)),
            Gap::Failed(_) => (Mark::Warning, Some(Reason::Unreadable)),
        };
        Self::new(about, mark, reason, gap.to_string())
    }

    /// As a condition or an event says it; its reason has a code if it is one of the list.
    pub(crate) fn reported(about: &str, mark: Mark, reason: &str, message: &str) -> Self {
        let known: Option<Reason> = reason.parse().ok();
        let message = Reason::without_code(message);
        match known {
            Some(_) if mark == Mark::Ok => Self::new(about, mark, None, message),
            Some(_) => Self::new(about, mark, known, message),
            None => Self::new(about, mark, None, format!("{message} ({reason})")),
        }
    }

    fn new(about: &str, mark: Mark, reason: Option<Reason>, message: impl Into<String>) -> Self {
        let (about, reason) = (about.to_owned(), reason.map(Stated::Known));
        Self { about, mark, reason, message: message.into(), mends: Vec::new() }
    }

    pub(crate) fn marked(self, mark: Mark) -> Self {
        Self { mark, ..self }
    }

    /// With a reason that an object gives, which a newer operator may know and this build not.
    pub(crate) fn because(self, reason: &str) -> Self {
        Self { reason: Some(Stated::from(reason)), ..self }
    }

    /// Adds what mends it: a sentence, a command, or YAML of several lines.
    pub(crate) fn with_mend(mut self, mend: impl Into<String>) -> Self {
        self.mends.push(mend.into());
        self
    }

    /// Adds sentences and commands, each on a line.
    pub(crate) fn with_mends(mut self, lines: impl AsRef<str>) -> Self {
        self.mends.extend(lines.as_ref().lines().map(str::to_owned));
        self
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.mark == Mark::Failed
    }

    pub(crate) fn is(&self, reason: Reason) -> bool {
        self.known_reason() == Some(reason)
    }

    pub(crate) fn known_reason(&self) -> Option<Reason> {
        self.reason.as_ref().and_then(Stated::known)
    }

    pub(crate) fn code(&self) -> Option<&'static str> {
        self.known_reason().map(Reason::code)
    }

    /// The message without the code, where this stands beside it.
    pub(crate) fn plain_message(&self) -> &str {
        if self.code().is_some() { Reason::without_code(&self.message) } else { &self.message }
    }

    /// The message and the reason, in a line for people.
    pub(crate) fn text(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{} ({reason})", self.plain_message()),
            None => self.message.clone(),
        }
    }

    pub(crate) fn write(&self, page: &mut Page) {
        page.item(self.mark, &self.about, self.text());
        self.write_mends(page);
    }

    pub(crate) fn write_mends(&self, page: &mut Page) {
        self.mends.iter().for_each(|mend| page.mend(mend));
    }

    /// What mends it, in one text for programs.
    pub(crate) fn joined_mends(&self) -> Option<String> {
        (!self.mends.is_empty()).then(|| self.mends.join("\n"))
    }
}

impl Stated {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Known(reason) => reason.name(),
            Self::Unknown(name) => name,
        }
    }

    fn known(&self) -> Option<Reason> {
        match self {
            Self::Known(reason) => Some(*reason),
            Self::Unknown(_) => None,
        }
    }
}

impl From<&str> for Stated {
    fn from(name: &str) -> Self {
        name.parse().map_or_else(|_| Self::Unknown(name.to_owned()), Self::Known)
    }
}

/// `CS1003 NotGranted`
impl fmt::Display for Stated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(reason) => write!(f, "{} {reason}", reason.code()),
            Self::Unknown(name) => f.write_str(name),
        }
    }
}

/// As `findings` has it.
impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Json<'a> {
            about: &'a str,
            mark: Mark,
            #[serde(skip_serializing_if = "Option::is_none")]
            reason: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            code: Option<&'a str>,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            mend: Option<String>,
        }
        Json {
            about: &self.about,
            mark: self.mark,
            reason: self.reason.as_ref().map(Stated::name),
            code: self.code(),
            message: &self.message,
            mend: self.joined_mends(),
        }
        .serialize(serializer)
    }
}

/// As `cause` and `warnings` of `why`, `policy` and `discover` have it: what it is about, and how bad it is, follows from its place.
#[derive(Debug, Serialize)]
pub(crate) struct Cause<'a> {
    reason: Option<&'a str>,
    code: Option<&'static str>,
    message: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    mend: &'a [String],
}

impl<'a> From<&'a Finding> for Cause<'a> {
    fn from(finding: &'a Finding) -> Self {
        Self {
            reason: finding.reason.as_ref().map(Stated::name),
            code: finding.code(),
            message: finding.plain_message(),
            mend: &finding.mends,
        }
    }
}

/// For `serialize_with`.
pub(crate) fn as_cause<S: Serializer>(finding: &Finding, serializer: S) -> Result<S::Ok, S::Error> {
    Cause::from(finding).serialize(serializer)
}

/// For `serialize_with`.
#[expect(clippy::ref_option, reason = "serde passes the field so")]
pub(crate) fn as_cause_if_any<S: Serializer>(finding: &Option<Finding>, serializer: S) -> Result<S::Ok, S::Error> {
    finding.as_ref().map(Cause::from).serialize(serializer)
}

/// For `serialize_with`.
pub(crate) fn as_causes<S: Serializer>(findings: &[Finding], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(findings.iter().map(Cause::from))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reading::Right;

    #[test]
    fn the_code_is_said_once() {
        let known = Finding::ok("leader", "nobody leads (CS5033)").marked(Mark::Failed).because("NoLeader");
        assert_eq!(known.text(), "nobody leads (CS5033 NoLeader)");
        assert_eq!(known, Finding::failed("leader", Reason::NoLeader, "nobody leads (CS5033)"));
    }

    #[test]
    fn a_reason_that_this_build_does_not_know_has_no_code() {
        let unknown = Finding::ok("ready", "new").because("OfTheFuture");
        assert_eq!((unknown.code(), unknown.text().as_str()), (None, "new (OfTheFuture)"));
    }

    #[test]
    fn a_missing_right_is_skipped_and_an_error_is_a_warning() {
        let right = Right::new("list", "pods", None);
        let missing = Finding::gap("pods", Gap::Forbidden(&right));
        assert_eq!((missing.mark, missing.code()), (Mark::Skipped, Some("CS4100")));
        assert!(missing.message.contains("list pods"), "{missing:?}");
        assert_eq!(Finding::gap("pods", Gap::Failed("timeout")).mark, Mark::Warning);
    }

    #[test]
    fn programs_find_the_parts_by_the_names_that_each_command_has() {
        let finding = Finding::failed("match", Reason::NotGranted, "no (CS1003)").with_mends("one\ntwo");
        assert_eq!(
            serde_json::to_value(&finding).unwrap(),
            json!({
                "about": "match", "mark": "failed", "reason": "NotGranted", "code": "CS1003", "message": "no (CS1003)",
                "mend": "one\ntwo",
            })
        );
        assert_eq!(
            serde_json::to_value(Cause::from(&finding)).unwrap(),
            json!({"reason": "NotGranted", "code": "CS1003", "message": "no", "mend": ["one", "two"]})
        );
        let well = Finding::ok("match", "it is");
        assert_eq!(serde_json::to_value(&well).unwrap(), json!({"about": "match", "mark": "ok", "message": "it is"}));
    }
}
