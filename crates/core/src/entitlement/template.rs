//! The path of a WorkloadIdentity: literal segments and placeholders, from which a pod's SPIFFE ID is rendered.
//! A template that parses renders valid ids only, or says why it cannot.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::facts::PodFacts;
use super::segment::{Placeholder, Segment, SegmentError, check_path_segment, shortened};

/// The longest path that fits a SPIFFE ID (2048 bytes, SPIFFE-ID 2.3) beside the longest trust domain (255).
const LONGEST_PATH: usize = 2048 - "spiffe://".len() - 255;

/// The most segments of a path: each is kept once for each account that is selected.
pub(super) const MOST_SEGMENTS: usize = 32;

/// A path template such as `/ns/{namespace}/sa/{serviceAccount}` (the default).
///
/// Equal templates render equal paths; cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathTemplate(Arc<[Segment]>);

impl PathTemplate {
    /// Reads a template. Its longest rendering fits a SPIFFE ID of any trust domain.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let raw = split(text)?;
        let segments = raw
            .into_iter()
            .enumerate()
            .map(|(index, raw)| {
                Segment::parse(raw, check_path_segment).map_err(|problem| in_segment(index, raw, problem))
            })
            .collect::<Result<Arc<[_]>, _>>()?;
        if longest(&segments) > LONGEST_PATH {
            return Err(TemplateError::TooLong);
        }
        Ok(Self(segments))
    }

    /// Its segments, in order; at least one.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether the placeholder stands in it.
    pub fn uses(&self, placeholder: Placeholder) -> bool {
        self.0.contains(&Segment::Fact(placeholder))
    }

    /// The path for a pod. Fails where a fact is no path segment; a rendered path always fits a SPIFFE ID.
    pub fn render(&self, pod: &PodFacts, cluster: &str) -> Result<String, RenderError> {
        let mut path = String::with_capacity(64);
        for segment in self.0.iter() {
            path.push('/');
            path.push_str(rendered(segment, pod, cluster, check_path_segment)?);
        }
        if path.len() > LONGEST_PATH {
            return Err(RenderError::TooLong);
        }
        Ok(path)
    }
}

impl Default for PathTemplate {
    fn default() -> Self {
        let literal = |text: &str| Segment::Literal(text.into());
        Self(Arc::new([
            literal("ns"),
            Segment::Fact(Placeholder::Namespace),
            literal("sa"),
            Segment::Fact(Placeholder::ServiceAccount),
        ]))
    }
}

impl FromStr for PathTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for PathTemplate {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<PathTemplate> for String {
    fn from(template: PathTemplate) -> Self {
        template.to_string()
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|segment| write!(f, "/{segment}"))
    }
}

/// Why a text is no path template or path pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// No leading slash.
    #[error("a path begins with \"/\", such as /ns/{{namespace}}/sa/{{serviceAccount}}")]
    NotAbsolute,
    /// Nothing after the leading slash: a workload's id has a path (X509-SVID 4.1).
    #[error("a path has at least one segment")]
    NoSegments,
    /// It could render an id longer than SPIFFE allows.
    #[error(
        "the path is too long: with the longest names Kubernetes allows, a SPIFFE ID rendered from it could exceed 2048 bytes"
    )]
    TooLong,
    /// More than [`MOST_SEGMENTS`].
    #[error("a path has at most {MOST_SEGMENTS} segments")]
    TooManySegments,
    /// One segment is wrong.
    #[error("segment {position} ({segment:?}) {problem}")]
    Segment {
        /// Counted from 1.
        position: usize,
        /// As it was written, shortened.
        segment: String,
        /// What is wrong.
        problem: SegmentError,
    },
}

/// Why a template cannot be rendered for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RenderError {
    /// The trust domain uses `{cluster}` and its owner gave the cluster no name.
    #[error("{{cluster}} is not set; name the cluster by the operator's --cluster-name or leave {{cluster}} out")]
    NoCluster,
    /// A fact is not usable where it stands.
    #[error("{placeholder} is {value:?}, which {problem}")]
    Fact {
        /// The placeholder that stands for it.
        placeholder: Placeholder,
        /// Its value, shortened.
        value: String,
        /// What is wrong.
        problem: SegmentError,
    },
    /// Longer than a SPIFFE ID or a DNS name may be.
    #[error("it is too long once rendered")]
    TooLong,
}

/// The value of a segment for a pod, checked.
pub(super) fn rendered<'a>(
    segment: &'a Segment,
    pod: &'a PodFacts,
    cluster: &'a str,
    check: fn(&str) -> Result<(), SegmentError>,
) -> Result<&'a str, RenderError> {
    let placeholder = match segment {
        Segment::Literal(literal) => return Ok(literal),
        Segment::Fact(Placeholder::Cluster) if cluster.is_empty() => return Err(RenderError::NoCluster),
        Segment::Fact(placeholder) => *placeholder,
    };
    let value = placeholder.value(pod, cluster);
    check(value).map_err(|problem| RenderError::Fact { placeholder, value: shortened(value), problem })?;
    Ok(value)
}

/// The raw segments of an absolute path, within its length.
pub(super) fn split(text: &str) -> Result<Vec<&str>, TemplateError> {
    if text.len() > LONGEST_PATH {
        return Err(TemplateError::TooLong);
    }
    match text.strip_prefix('/') {
        None => Err(TemplateError::NotAbsolute),
        Some("") => Err(TemplateError::NoSegments),
        Some(rest) if rest.split('/').nth(MOST_SEGMENTS).is_some() => Err(TemplateError::TooManySegments),
        Some(rest) => Ok(rest.split('/').collect()),
    }
}

pub(super) fn in_segment(index: usize, raw: &str, problem: SegmentError) -> TemplateError {
    TemplateError::Segment { position: index + 1, segment: shortened(raw), problem }
}

fn longest(segments: &[Segment]) -> usize {
    let one = |segment: &Segment| match segment {
        Segment::Literal(literal) => literal.len(),
        Segment::Fact(placeholder) => placeholder.longest(),
    };
    segments.iter().map(|segment| 1 + one(segment)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_so_many_segments_and_no_more() {
        assert!(PathTemplate::parse(&"/a".repeat(MOST_SEGMENTS)).is_ok());
        assert_eq!(PathTemplate::parse(&"/a".repeat(MOST_SEGMENTS + 1)), Err(TemplateError::TooManySegments));
    }

    fn pod() -> PodFacts {
        PodFacts {
            namespace: "shop".into(),
            name: "orders-0".into(),
            service_account: "orders".into(),
            ..PodFacts::default()
        }
    }

    fn problem(text: &str) -> (usize, SegmentError) {
        match PathTemplate::parse(text) {
            Err(TemplateError::Segment { position, problem, .. }) => (position, problem),
            other => panic!("{text}: {other:?}"),
        }
    }

    // R33: a pure template gives the id.
    #[test]
    fn renders_literals_and_facts() {
        for (template, path) in [
            ("/ns/{namespace}/sa/{serviceAccount}", "/ns/shop/sa/orders"),
            ("/{cluster}/{podName}", "/prod/orders-0"),
            ("/payments/API_v1.2", "/payments/API_v1.2"),
        ] {
            assert_eq!(PathTemplate::parse(template).unwrap().render(&pod(), "prod").unwrap(), path);
        }
    }

    #[test]
    fn the_default_is_namespace_and_service_account() {
        assert_eq!(PathTemplate::default(), PathTemplate::parse("/ns/{namespace}/sa/{serviceAccount}").unwrap());
        assert_eq!(PathTemplate::default().to_string(), "/ns/{namespace}/sa/{serviceAccount}");
    }

    // R32: canonical URIs only.
    #[test]
    fn refuses_what_is_no_canonical_path_and_names_the_segment() {
        assert_eq!(PathTemplate::parse("ns/x"), Err(TemplateError::NotAbsolute));
        assert_eq!(PathTemplate::parse(""), Err(TemplateError::NotAbsolute));
        assert_eq!(PathTemplate::parse("/"), Err(TemplateError::NoSegments));
        assert_eq!(problem("/a/../b"), (2, SegmentError::DotSegment));
        assert_eq!(problem("/./b"), (1, SegmentError::DotSegment));
        assert_eq!(problem("/a//b"), (2, SegmentError::Empty));
        assert_eq!(problem("/a/"), (2, SegmentError::Empty));
        assert!(matches!(problem("/a/b%2e"), (2, SegmentError::Character { character: '%', .. })));
        assert!(matches!(problem("/ä"), (1, SegmentError::Character { character: 'ä', .. })));
    }

    #[test]
    fn refuses_unknown_placeholders_and_lists_what_is_allowed() {
        assert_eq!(problem("/ns/{label}"), (2, SegmentError::UnknownPlaceholder { name: "label".into() }));
        assert_eq!(problem("/{Namespace}").1, SegmentError::UnknownPlaceholder { name: "Namespace".into() });
        assert_eq!(problem("/{}").1, SegmentError::UnknownPlaceholder { name: String::new() });
        let message = PathTemplate::parse("/ns/{pod}").unwrap_err().to_string();
        assert_eq!(
            message,
            "segment 2 (\"{pod}\") has the unknown placeholder {pod}; allowed are {namespace}, {serviceAccount}, {podName}, {cluster}"
        );
    }

    #[test]
    fn a_placeholder_is_a_whole_segment() {
        for text in
            ["/ns-{namespace}", "/{namespace}-x", "/{{namespace}}", "/{namespace}{podName}", "/{namespace", "/a}"]
        {
            assert_eq!(problem(text), (1, SegmentError::NotWhole), "{text}");
        }
    }

    #[test]
    fn wildcards_are_for_grants() {
        assert_eq!(problem("/a/*"), (2, SegmentError::Wildcard));
        assert_eq!(problem("/**"), (1, SegmentError::Wildcard));
    }

    #[test]
    fn refuses_what_could_render_too_long() {
        assert_eq!(PathTemplate::parse(&format!("/{}", "a".repeat(LONGEST_PATH))), Err(TemplateError::TooLong));
        assert_eq!(PathTemplate::parse(&"/{podName}".repeat(8)), Err(TemplateError::TooLong));
        assert!(PathTemplate::parse(&"/{podName}".repeat(7)).is_ok());
    }

    // 2048 bytes (SPIFFE-ID 2.3) less "spiffe://" and a trust domain of 255.
    #[test]
    fn a_path_of_the_greatest_length_is_accepted_and_one_more_is_not() {
        let longest = format!("/{}", "a".repeat(1783));
        assert_eq!(PathTemplate::parse(&longest).unwrap().render(&pod(), "").unwrap(), longest);
        assert_eq!(PathTemplate::parse(&format!("{longest}b")), Err(TemplateError::TooLong));

        // Each name may have 253, and each segment has its slash.
        let seven = "/{podName}".repeat(7);
        let template = PathTemplate::parse(&format!("{seven}/abcde")).unwrap();
        assert_eq!(PathTemplate::parse(&format!("{seven}/abcdef")), Err(TemplateError::TooLong));
        let named = |length| PodFacts { name: "a".repeat(length), ..pod() };
        assert_eq!(template.render(&named(253), "").unwrap().len(), 1784);
        let short = PathTemplate::parse("/{podName}").unwrap();
        assert_eq!(short.render(&named(1783), "").unwrap().len(), 1784);
        assert_eq!(short.render(&named(1784), ""), Err(RenderError::TooLong));
    }

    #[test]
    fn knows_the_placeholders_that_stand_in_it() {
        let template = PathTemplate::parse("/ns/{namespace}").unwrap();
        assert!(template.uses(Placeholder::Namespace) && !template.uses(Placeholder::Cluster));
    }

    #[test]
    fn is_text_in_documents_and_checked_when_read() {
        let template = PathTemplate::parse("/ns/{namespace}").unwrap();
        assert_eq!("/ns/{namespace}".parse(), Ok(template.clone()));
        let written = serde_json::to_string(&template).unwrap();
        assert_eq!(written, "\"/ns/{namespace}\"");
        assert_eq!(serde_json::from_str::<PathTemplate>(&written).unwrap(), template);
        assert!(serde_json::from_str::<PathTemplate>("\"/ns/..\"").is_err());
    }

    #[test]
    fn refuses_facts_that_are_no_segment() {
        let template = PathTemplate::parse("/x/{podName}").unwrap();
        for name in ["", ".", "..", "a/b", "a b", "a%2f", "*"] {
            let odd = PodFacts { name: name.into(), ..pod() };
            assert!(
                matches!(template.render(&odd, ""), Err(RenderError::Fact { placeholder: Placeholder::PodName, .. })),
                "{name}"
            );
        }
        assert_eq!(PathTemplate::parse("/{cluster}").unwrap().render(&pod(), ""), Err(RenderError::NoCluster));
        let long = PodFacts { name: "a".repeat(4000), ..pod() };
        assert_eq!(template.render(&long, ""), Err(RenderError::TooLong));
    }
}
