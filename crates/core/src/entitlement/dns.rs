//! DNS names in X509-SVIDs: templates in a WorkloadIdentity, patterns in a grant. A fact fills one whole label, so that
//! no pod can render a name with more labels than were granted.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::facts::PodFacts;
use super::segment::{Placeholder, Scope, Segment, SegmentError, check_dns_label, shortened};
use super::template::{RenderError, rendered};

/// The longest DNS name in text form (RFC 1035, 2.3.4).
const LONGEST: usize = 253;

/// The most labels of a DNS name: each is kept once for each account that is selected.
const MOST_LABELS: usize = 16;

/// A DNS name of a WorkloadIdentity, such as `{serviceAccount}.{namespace}.svc`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NameTemplate(Arc<[Segment]>);

impl NameTemplate {
    /// Reads a template: lower-case labels and whole-label placeholders; no wildcard.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        parse_labels(text, 0).map(Self)
    }

    /// Whether the placeholder stands in it.
    pub fn uses(&self, placeholder: Placeholder) -> bool {
        self.0.contains(&Segment::Fact(placeholder))
    }

    /// The name for a pod. Fails where a fact is not exactly one DNS label, or the name is too long.
    pub fn render(&self, pod: &PodFacts, cluster: &str) -> Result<String, RenderError> {
        let mut name = String::with_capacity(64);
        for label in self.0.iter() {
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(rendered(label, pod, cluster, check_dns_label)?);
        }
        if name.len() > LONGEST { Err(RenderError::TooLong) } else { Ok(name) }
    }
}

/// The DNS names a grant admits: a name, a template, or either below a leading `*.` that stands for one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamePattern {
    any_first: bool,
    labels: Arc<[Segment]>,
}

impl NamePattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (any_first, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let labels = parse_labels(rest, usize::from(any_first))?;
        Ok(Self { any_first, labels })
    }

    /// Whether a grant of it keeps namespaces apart: it has the label `{namespace}`, or only one namespace can use the grant.
    /// `names` are the only ones that can (`matchNames`); empty: any.
    pub fn keeps_namespaces_apart(&self, names: &[String]) -> bool {
        names.len() == 1 || self.labels.contains(&Segment::Fact(Placeholder::Namespace))
    }

    /// Whether every name that `template` can render within `scope` is admitted.
    pub fn admits(&self, template: &NameTemplate, scope: &Scope<'_>) -> bool {
        let claimed = match (self.any_first, template.0.split_first()) {
            (true, Some((_, rest))) => rest,
            _ => &template.0,
        };
        let label_count = self.labels.len() + usize::from(self.any_first);
        template.0.len() == label_count
            && self.labels.iter().zip(claimed).all(|(granted, claimed)| granted.admits(claimed, scope))
    }
}

/// Why a text is no DNS name template or pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing.
    #[error("a DNS name is not empty")]
    Empty,
    /// More than 253 bytes.
    #[error("a DNS name has at most {LONGEST} bytes")]
    TooLong,
    /// More than [`MOST_LABELS`].
    #[error("a DNS name has at most {MOST_LABELS} labels")]
    TooManyLabels,
    /// The last label is a number, as in an IPv4 address.
    #[error("the DNS name {text:?} ends in a number; an IP address is no DNS name")]
    LooksLikeAddress {
        /// As it was written.
        text: String,
    },
    /// One label is wrong.
    #[error("label {position} ({label:?}) {problem}")]
    Label {
        /// Counted from 1.
        position: usize,
        /// As it was written, shortened.
        label: String,
        /// What is wrong.
        problem: SegmentError,
    },
}

macro_rules! text_form {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.to_string()
            }
        }
    };
}

text_form!(NameTemplate);
text_form!(NamePattern);

impl fmt::Display for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_labels(f, &self.0)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.any_first {
            f.write_str("*.")?;
        }
        write_labels(f, &self.labels)
    }
}

fn parse_labels(text: &str, labels_before: usize) -> Result<Arc<[Segment]>, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > LONGEST {
        return Err(NameError::TooLong);
    }
    if text.split('.').nth(MOST_LABELS).is_some() {
        return Err(NameError::TooManyLabels);
    }
    let last = text.rsplit('.').next().unwrap_or(text);
    if !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NameError::LooksLikeAddress { text: shortened(text) });
    }
    text.split('.')
        .enumerate()
        .map(|(index, raw)| {
            Segment::parse(raw, check_dns_label).map_err(|problem| NameError::Label {
                position: index + 1 + labels_before,
                label: shortened(raw),
                problem,
            })
        })
        .collect()
}

fn write_labels(f: &mut fmt::Formatter<'_>, labels: &[Segment]) -> fmt::Result {
    for (index, label) in labels.iter().enumerate() {
        if index > 0 {
            f.write_str(".")?;
        }
        write!(f, "{label}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_so_many_labels_and_no_more() {
        let name = |labels: usize| vec!["a"; labels].join(".");
        assert!(NameTemplate::parse(&name(MOST_LABELS)).is_ok());
        assert_eq!(NameTemplate::parse(&name(MOST_LABELS + 1)), Err(NameError::TooManyLabels));
    }

    fn pod() -> PodFacts {
        PodFacts {
            namespace: "shop".into(),
            service_account: "orders".into(),
            name: "orders-0".into(),
            ..PodFacts::default()
        }
    }

    #[test]
    fn renders_labels_and_facts() {
        let name = NameTemplate::parse("{serviceAccount}.{namespace}.svc").unwrap();
        assert_eq!(name.render(&pod(), "").unwrap(), "orders.shop.svc");
    }

    // A service account's name may hold dots: `a.b` must not become two labels and escape `*.shop.svc`.
    #[test]
    fn a_fact_fills_exactly_one_label() {
        let name = NameTemplate::parse("{serviceAccount}.shop.svc").unwrap();
        for account in ["a.b", "", "-a", "A", "*"] {
            let odd = PodFacts { service_account: account.into(), ..pod() };
            assert!(matches!(name.render(&odd, ""), Err(RenderError::Fact { .. })), "{account}");
        }
    }

    #[test]
    fn a_rendered_name_has_at_most_253_bytes() {
        let name = NameTemplate::parse(&["{podName}"; 5].join(".")).unwrap();
        let long = PodFacts { name: "a".repeat(63), ..pod() };
        assert_eq!(name.render(&long, ""), Err(RenderError::TooLong));
    }

    // RFC 1035, 2.3.4
    #[test]
    fn a_name_of_253_bytes_is_accepted_and_one_more_is_not() {
        let longest = [&*"a".repeat(63), &"b".repeat(63), &"c".repeat(63), &"d".repeat(61)].join(".");
        assert_eq!(longest.len(), 253);
        assert_eq!(NameTemplate::parse(&longest).unwrap().render(&pod(), "").unwrap(), longest);
        assert_eq!(NameTemplate::parse(&format!("{longest}e")), Err(NameError::TooLong));
    }

    #[test]
    fn knows_its_placeholders_and_prints_what_it_parsed() {
        let name = NameTemplate::parse("{serviceAccount}.svc").unwrap();
        assert!(name.uses(Placeholder::ServiceAccount) && !name.uses(Placeholder::Cluster));
        for text in ["*.{namespace}.svc", "{serviceAccount}.svc", "api.example.org"] {
            assert_eq!(NamePattern::parse(text).unwrap().to_string(), text);
        }
    }

    // R48
    #[test]
    fn admits_a_template_when_it_admits_all_it_can_render() {
        let accounts = ["orders".to_owned()];
        let scope = Scope { namespace: "shop", cluster: "prod", service_accounts: &accounts };
        for (pattern, template, expected) in [
            ("api.example.org", "api.example.org", true),
            ("api.example.org", "api2.example.org", false),
            ("*.example.org", "api.example.org", true),
            ("*.example.org", "a.b.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.example.org", "api.example.org.evil", false),
            ("api.example.org", "api.example.org.evil", false),
            ("api.example.org", "api.example", false),
            ("*.{namespace}.svc", "{serviceAccount}.{namespace}.svc", true),
            ("*.{namespace}.svc", "orders.shop.svc", true),
            ("*.{namespace}.svc", "orders.bank.svc", false),
            ("{serviceAccount}.{namespace}.svc", "orders.{namespace}.svc", true),
            ("{serviceAccount}.{namespace}.svc", "bank.{namespace}.svc", false),
            ("orders.svc", "{podName}.svc", false),
        ] {
            let (granted, claimed) = (NamePattern::parse(pattern).unwrap(), NameTemplate::parse(template).unwrap());
            assert_eq!(granted.admits(&claimed, &scope), expected, "{pattern} over {template}");
        }
    }

    #[test]
    fn refuses_what_is_no_name_and_says_which_label() {
        let problem = |text: &str| match NameTemplate::parse(text) {
            Err(NameError::Label { position, problem, .. }) => (position, problem),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(NameTemplate::parse(""), Err(NameError::Empty));
        assert_eq!(NameTemplate::parse(&"a.".repeat(200)), Err(NameError::TooLong));
        assert_eq!(NameTemplate::parse("10.0.0.1"), Err(NameError::LooksLikeAddress { text: "10.0.0.1".into() }));
        assert_eq!(problem("*.example.org"), (1, SegmentError::Wildcard));
        assert_eq!(problem("a..b"), (2, SegmentError::Empty));
        assert_eq!(problem("a.b."), (3, SegmentError::Empty));
        assert_eq!(problem("a.-b"), (2, SegmentError::HyphenAtEdge));
        assert_eq!(problem(&format!("{}.b", "a".repeat(64))), (1, SegmentError::LongLabel));
        assert_eq!(problem("x-{namespace}.b"), (1, SegmentError::NotWhole));
        assert!(matches!(problem("API.b"), (1, SegmentError::Character { character: 'A', .. })));
        assert!(matches!(
            NamePattern::parse("*.a.*"),
            Err(NameError::Label { position: 3, problem: SegmentError::Wildcard, .. })
        ));
        assert!(matches!(
            NamePattern::parse("*"),
            Err(NameError::Label { position: 1, problem: SegmentError::Wildcard, .. })
        ));
    }
}
