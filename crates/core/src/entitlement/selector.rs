//! Which pods a WorkloadIdentity is for, and which namespaces a grant is for. Label selectors mean what they mean in
//! Kubernetes (`LabelSelector`, apimachinery meta/v1).

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use super::facts::{Labels, PodFacts};

/// A label selector: all of it must hold; an empty one holds for everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// Labels that must be there with exactly these values.
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions.
    pub match_expressions: Vec<Requirement>,
}

impl LabelSelector {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether `labels` satisfy all of it.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }

    /// The first condition that `labels` do not satisfy, for people.
    pub(super) fn first_unmet(&self, labels: &Labels) -> Option<String> {
        let unmet_label = self.match_labels.iter().find(|(key, value)| labels.get(*key) != Some(value));
        unmet_label.map(|(key, value)| format!("{key}={value}")).or_else(|| {
            self.match_expressions.iter().find(|requirement| !requirement.matches(labels)).map(Requirement::to_string)
        })
    }
}

/// One condition on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold for it.
    pub condition: Condition,
}

/// What must hold for a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is there, with one of these values.
    In(Vec<String>),
    /// It is absent, or has none of these values.
    NotIn(Vec<String>),
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

impl Requirement {
    /// Reads the API's form: a key, an operator's name, values.
    pub fn parse(key: &str, operator: &str, values: &[String]) -> Result<Self, SelectorError> {
        let condition = match (operator, values.is_empty()) {
            ("In", false) => Condition::In(values.to_vec()),
            ("NotIn", false) => Condition::NotIn(values.to_vec()),
            ("Exists", true) => Condition::Exists,
            ("DoesNotExist", true) => Condition::DoesNotExist,
            ("In" | "NotIn", true) => {
                return Err(SelectorError::ValuesMissing { key: key.into(), operator: operator.into() });
            }
            ("Exists" | "DoesNotExist", false) => {
                return Err(SelectorError::ValuesNotAllowed { key: key.into(), operator: operator.into() });
            }
            _ => return Err(SelectorError::UnknownOperator { key: key.into(), operator: operator.into() }),
        };
        Ok(Self { key: key.to_owned(), condition })
    }

    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.condition {
            Condition::In(values) => value.is_some_and(|value| values.contains(value)),
            Condition::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Condition::Exists => value.is_some(),
            Condition::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.condition {
            Condition::In(values) => write!(f, "{key} in ({})", values.join(", ")),
            Condition::NotIn(values) => write!(f, "{key} notin ({})", values.join(", ")),
            Condition::Exists => write!(f, "{key} exists"),
            Condition::DoesNotExist => write!(f, "{key} does not exist"),
        }
    }
}

/// Why a requirement is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// `In` or `NotIn` of nothing.
    #[error("matchExpressions for {key:?}: {operator} needs at least one value")]
    ValuesMissing {
        /// The label's key.
        key: String,
        /// The operator's name.
        operator: String,
    },
    /// `Exists` or `DoesNotExist` with values.
    #[error("matchExpressions for {key:?}: {operator} takes no values")]
    ValuesNotAllowed {
        /// The label's key.
        key: String,
        /// The operator's name.
        operator: String,
    },
    /// Another operator.
    #[error("matchExpressions for {key:?}: unknown operator {operator:?}; allowed are In, NotIn, Exists, DoesNotExist")]
    UnknownOperator {
        /// The label's key.
        key: String,
        /// The operator's name.
        operator: String,
    },
}

/// The pods, and in them the containers, for which a WorkloadIdentity is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Service accounts by name; empty: any, which a grant must allow (`allowLabelOnly`).
    pub service_accounts: Vec<String>,
    /// Narrows by the pod's labels.
    pub labels: LabelSelector,
    /// Narrows to sessions of these containers; empty: every session of the pod.
    pub containers: Vec<String>,
}

impl Selector {
    /// Whether it relies on labels alone.
    pub fn is_label_only(&self) -> bool {
        self.service_accounts.is_empty()
    }

    /// Whether the pod is selected, in any of its sessions. The namespace is the caller's to compare.
    pub fn selects_pod(&self, pod: &PodFacts) -> bool {
        self.selects_account(&pod.service_account) && self.labels.matches(&pod.labels)
    }

    /// Whether a session (a container's name, or "" for the pod's own) is served.
    pub fn selects_session(&self, session: &str) -> bool {
        self.containers.is_empty() || self.containers.iter().any(|container| container == session)
    }

    pub(super) fn selects_account(&self, service_account: &str) -> bool {
        self.is_label_only() || self.service_accounts.iter().any(|name| name == service_account)
    }
}

/// The namespaces for which a grant is: those that satisfy all that is given. Given nothing, it selects none; an empty
/// label selector selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceSelector {
    /// By name; empty: does not narrow.
    pub names: Vec<String>,
    /// By the namespace's labels; absent: does not narrow.
    pub labels: Option<LabelSelector>,
}

impl NamespaceSelector {
    /// Whether the namespace is selected.
    pub fn selects(&self, namespace: &str, labels: &Labels) -> bool {
        let given = !self.names.is_empty() || self.labels.is_some();
        let name_fits = self.names.is_empty() || self.names.iter().any(|name| name == namespace);
        let labels_fit = self.labels.as_ref().is_none_or(|selector| selector.matches(labels));
        given && name_fits && labels_fit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn requirement(operator: &str, values: &[&str]) -> Result<Requirement, SelectorError> {
        let values: Vec<_> = values.iter().map(|&value| value.to_owned()).collect();
        Requirement::parse("tier", operator, &values)
    }

    #[test]
    fn requirements_mean_what_they_mean_in_kubernetes() {
        let (web, db, none) = (labels(&[("tier", "web")]), labels(&[("tier", "db")]), labels(&[]));
        for (operator, values, expected) in [
            ("In", &["web", "api"][..], [true, false, false]),
            ("NotIn", &["web"], [false, true, true]),
            ("Exists", &[], [true, true, false]),
            ("DoesNotExist", &[], [false, false, true]),
        ] {
            let requirement = requirement(operator, values).unwrap();
            assert_eq!([&web, &db, &none].map(|labels| requirement.matches(labels)), expected, "{requirement}");
        }
    }

    #[test]
    fn refuses_operators_with_the_wrong_values() {
        assert!(matches!(requirement("In", &[]), Err(SelectorError::ValuesMissing { .. })));
        assert!(matches!(requirement("NotIn", &[]), Err(SelectorError::ValuesMissing { .. })));
        assert!(matches!(requirement("Exists", &["a"]), Err(SelectorError::ValuesNotAllowed { .. })));
        assert!(matches!(requirement("DoesNotExist", &["a"]), Err(SelectorError::ValuesNotAllowed { .. })));
        assert!(matches!(requirement("Gt", &["1"]), Err(SelectorError::UnknownOperator { .. })));
    }

    #[test]
    fn a_label_selector_is_a_conjunction() {
        let selector = LabelSelector {
            match_labels: labels(&[("app", "web")]),
            match_expressions: vec![requirement("Exists", &[]).unwrap()],
        };
        assert!(selector.matches(&labels(&[("app", "web"), ("tier", "x")])));
        assert!(!selector.matches(&labels(&[("app", "web")])));
        assert!(!selector.matches(&labels(&[("app", "api"), ("tier", "x")])));
        assert!(LabelSelector::default().matches(&labels(&[])));
        assert_eq!(selector.first_unmet(&labels(&[("tier", "x")])).as_deref(), Some("app=web"));
        assert_eq!(selector.first_unmet(&labels(&[("app", "web")])).as_deref(), Some("tier exists"));
    }

    // R1: another account or label, and the pod is not selected.
    #[test]
    fn a_pod_is_selected_by_account_and_labels() {
        let selector = Selector {
            service_accounts: vec!["orders".into()],
            labels: LabelSelector { match_labels: labels(&[("app", "web")]), ..LabelSelector::default() },
            containers: Vec::new(),
        };
        let pod =
            PodFacts { service_account: "orders".into(), labels: labels(&[("app", "web")]), ..PodFacts::default() };
        assert!(selector.selects_pod(&pod));
        assert!(!selector.selects_pod(&PodFacts { service_account: "other".into(), ..pod.clone() }));
        assert!(!selector.selects_pod(&PodFacts { labels: labels(&[]), ..pod }));
    }

    #[test]
    fn containers_narrow_to_their_sessions() {
        let all = Selector::default();
        let narrowed = Selector { containers: vec!["web".into()], ..Selector::default() };
        assert!(all.selects_session("") && all.selects_session("web"));
        assert!(narrowed.selects_session("web"));
        assert!(!narrowed.selects_session("") && !narrowed.selects_session("db"));
    }

    // R48: default nothing.
    #[test]
    fn a_namespace_selector_given_nothing_selects_nothing() {
        let team = labels(&[("team", "a")]);
        let by_label =
            |pairs: &[(&str, &str)]| Some(LabelSelector { match_labels: labels(pairs), ..LabelSelector::default() });
        for (names, selector, expected) in [
            (vec![], None, false),
            (vec![], by_label(&[]), true),
            (vec!["shop".to_owned()], None, true),
            (vec!["bank".to_owned()], None, false),
            (vec![], by_label(&[("team", "a")]), true),
            (vec![], by_label(&[("team", "b")]), false),
            (vec!["shop".to_owned()], by_label(&[("team", "b")]), false),
            (vec!["bank".to_owned()], by_label(&[("team", "a")]), false),
        ] {
            let selector = NamespaceSelector { names, labels: selector };
            assert_eq!(selector.selects("shop", &team), expected, "{selector:?}");
        }
    }
}
