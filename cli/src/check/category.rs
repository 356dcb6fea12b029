//! Checks of one subject, and how `check` shows them.

use serde::{Serialize, Serializer};

use crate::{
    finding::{Finding, Stated},
    output::{Mark, Page},
};

/// Checks of one subject, in the order in which they depend on each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Category {
    pub(crate) name: &'static str,
    #[serde(serialize_with = "as_checks")]
    pub(crate) checks: Vec<Finding>,
}

impl Category {
    pub(crate) fn new(name: &'static str, checks: Vec<Finding>) -> Self {
        Self { name, checks }
    }

    /// What stands in for checks that depend on one that failed.
    pub(crate) fn skipped(name: &'static str, because: &str) -> Self {
        Self::new(name, vec![Finding::skipped("all", because)])
    }

    pub(crate) fn write(&self, page: &mut Page) {
        page.heading(self.name);
        self.checks.iter().for_each(|check| write(check, page));
    }
}

/// A check for people. A problem has a page, which is named.
fn write(check: &Finding, page: &mut Page) {
    // That it is a missing right is said already.
    let text = if check.mark == Mark::Skipped { check.plain_message().to_owned() } else { check.text() };
    page.item(check.mark, &check.about, text);
    check.write_mends(page);
    if let (Some(code), Mark::Warning | Mark::Failed) = (check.code(), check.mark) {
        page.mend(format_args!("kubectl countersign explain {code}"));
    }
}

/// Checks for programs.
fn as_checks<S: Serializer>(checks: &[Finding], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Check<'a> {
        name: &'a str,
        mark: Mark,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    }
    serializer.collect_seq(checks.iter().map(|check| Check {
        name: &check.about,
        mark: check.mark,
        message: &check.message,
        reason: check.reason.as_ref().map(Stated::name),
        code: check.code(),
        hint: check.joined_mends(),
    }))
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
    use serde_json::json;

    use super::*;
    use crate::output::count;

    #[test]
    fn a_problem_shows_its_reason_its_code_and_what_to_do() {
        let mut page = Page::new(None);
        let check = Finding::failed("version", Reason::KubernetesTooOld, "it is 1.31").with_mends("upgrade it");
        write(&check, &mut page);
        let text = page.into_text();
        for part in ["FAIL", "it is 1.31", "(CS5001 KubernetesTooOld)", "upgrade it", "explain CS5001"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn programs_find_the_parts_of_a_check_by_their_names() {
        let check = Finding::failed("version", Reason::KubernetesTooOld, "it is 1.31").with_mends("upgrade it\nsoon");
        let category = serde_json::to_value(Category::new("cluster", vec![check])).unwrap();
        assert_eq!(
            category["checks"],
            json!([{
                "name": "version", "mark": "failed", "message": "it is 1.31", "reason": "KubernetesTooOld",
                "code": "CS5001", "hint": "upgrade it\nsoon",
            }])
        );
    }

    #[test]
    fn many_names_are_counted() {
        assert_eq!(some(["a", "b"]), "a, b");
        assert_eq!(some(["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
        assert_eq!((count(1, "pod"), count(0, "pod")), ("1 pod".to_owned(), "0 pods".to_owned()));
    }
}
