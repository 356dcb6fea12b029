//! What a check found: a mark, a message, and for a problem its reason and what to do.

use std::str::FromStr as _;

use countersign_reasons::Reason;
use serde::Serialize;

use crate::{
    output::{Mark, Page},
    reading::Gap,
};

/// Checks of one subject, in the order in which they depend on each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Category {
    pub(crate) name: &'static str,
    pub(crate) checks: Vec<Check>,
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) mark: Mark,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// That of the reason's page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<&'static str>,
    /// What to do: commands and sentences, each on a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

impl Check {
    pub(crate) fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, mark: Mark::Ok, message: message.into(), reason: None, code: None, hint: None }
    }

    pub(crate) fn failed(name: &'static str, reason: Reason, message: impl Into<String>) -> Self {
        Self::ok(name, message).marked(Mark::Failed).because(reason.name())
    }

    pub(crate) fn warning(name: &'static str, reason: Reason, message: impl Into<String>) -> Self {
        Self::ok(name, message).marked(Mark::Warning).because(reason.name())
    }

    pub(crate) fn skipped(name: &'static str, message: impl Into<String>) -> Self {
        Self::ok(name, message).marked(Mark::Skipped)
    }

    /// What could not be read. A missing right is not a problem of the installation; an API server that does not answer may be.
    pub(crate) fn gap(name: &'static str, gap: Gap<'_>) -> Self {
        let check = Self::skipped(name, gap.to_string());
        match gap {
            Gap::Absent => check,
            Gap::Forbidden(_) => check.because(Reason::NotAllowed.name()),
            Gap::Failed(_) => check.marked(Mark::Warning).because(Reason::Unreadable.name()),
        }
    }

    pub(crate) fn marked(mut self, mark: Mark) -> Self {
        self.mark = mark;
        self
    }

    /// With a reason that an object gives, which a newer operator may know and this build not.
    pub(crate) fn because(mut self, reason: &str) -> Self {
        self.code = Reason::from_str(reason).ok().map(Reason::code);
        self.reason = Some(reason.to_owned());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn write(&self, page: &mut Page) {
        let Self { name, mark, message, reason, code, hint } = self;
        // The messages of conditions end in the code.
        let message = if code.is_some() { Reason::without_code(message) } else { message };
        match (code, reason) {
            // That it is a missing right is said already.
            _ if *mark == Mark::Skipped => page.item(*mark, name, message),
            (Some(code), Some(reason)) => page.item(*mark, name, format_args!("{message} ({code} {reason})")),
            (None, Some(reason)) => page.item(*mark, name, format_args!("{message} ({reason})")),
            _ => page.item(*mark, name, message),
        }
        hint.iter().flat_map(|hint| hint.lines()).for_each(|line| page.mend(line));
        if let (Some(code), Mark::Warning | Mark::Failed) = (code, mark) {
            page.mend(format_args!("kubectl countersign explain {code}"));
        }
    }
}

impl Category {
    pub(crate) fn new(name: &'static str, checks: Vec<Check>) -> Self {
        Self { name, checks }
    }

    /// What stands in for checks that depend on one that failed.
    pub(crate) fn skipped(name: &'static str, because: &str) -> Self {
        Self::new(name, vec![Check::skipped("all", because)])
    }

    pub(crate) fn write(&self, page: &mut Page) {
        page.heading(self.name);
        self.checks.iter().for_each(|check| check.write(page));
    }
}

/// The first of several names, and how many more there are.
pub(crate) fn some(names: impl IntoIterator<Item = impl Into<String>>) -> String {
    const SHOWN: usize = 3;
    let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let shown = names.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

#[cfg(test)]
mod tests {
    use countersign_reasons::Reason;

    use super::{Check, some};
    use crate::{
        output::{Mark, Page, count},
        reading::{Gap, Right},
    };

    #[test]
    fn a_problem_shows_its_reason_its_code_and_what_to_do() {
        let mut page = Page::new(None);
        Check::failed("version", Reason::KubernetesTooOld, "it is 1.31").hint("upgrade it").write(&mut page);
        let text = page.into_text();
        for part in ["FAIL", "it is 1.31", "(CS5001 KubernetesTooOld)", "upgrade it", "explain CS5001"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn the_code_is_said_once() {
        let mut page = Page::new(None);
        Check::failed("leader", Reason::NoLeader, "nobody leads (CS5033)").write(&mut page);
        assert!(page.into_text().contains("nobody leads (CS5033 NoLeader)"));
    }

    #[test]
    fn a_missing_right_is_skipped_and_an_error_is_a_warning() {
        let right = Right::new("list", "pods", None);
        let check = Check::gap("pods", Gap::Forbidden(&right));
        assert_eq!((check.mark, check.code), (Mark::Skipped, Some("CS5081")));
        assert!(check.message.contains("list pods"), "{check:?}");
        assert_eq!(Check::gap("pods", Gap::Failed("timeout")).mark, Mark::Warning);
    }

    #[test]
    fn a_reason_that_this_build_does_not_know_has_no_code() {
        let check = Check::ok("ready", "").because("OfTheFuture");
        assert_eq!((check.code, check.reason.as_deref()), (None, Some("OfTheFuture")));
    }

    #[test]
    fn many_names_are_counted() {
        assert_eq!(some(["a", "b"]), "a, b");
        assert_eq!(some(["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
        assert_eq!((count(1, "pod"), count(0, "pod")), ("1 pod".to_owned(), "0 pods".to_owned()));
    }
}
