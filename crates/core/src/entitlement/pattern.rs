//! The paths a grant admits: literals, placeholders and wildcards. A pattern admits a template when it admits every
//! path that the template can render.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::segment::{Placeholder, Scope, Segment, SegmentError, check_path_segment};
use super::template::{PathTemplate, TemplateError, in_segment, split};

/// A pattern such as `/ns/{namespace}/**`.
///
/// Segments: a literal; a placeholder (the same fact of the same pod); `*`, any one segment; `**`, last only, one or
/// more segments.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPattern {
    segments: Arc<[PatternSegment]>,
    /// Ends with `**`.
    rest: bool,
}

impl PathPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut raw = split(text)?;
        let rest = raw.last() == Some(&"**");
        if rest {
            raw.pop();
        }
        let segments = raw
            .into_iter()
            .enumerate()
            .map(|(index, raw)| PatternSegment::parse(raw).map_err(|problem| in_segment(index, raw, problem)))
            .collect::<Result<_, _>>()?;
        Ok(Self { segments, rest })
    }

    /// Whether it keeps namespaces apart: it has the segment `{namespace}`. One that does not is honoured only in a grant
    /// that says `shared: true`.
    pub fn is_namespaced(&self) -> bool {
        self.segments.contains(&PatternSegment::One(Segment::Fact(Placeholder::Namespace)))
    }

    /// Its segments; beyond the fixed ones, where it ends with `**`, any segment without end.
    pub(super) fn terms(&self) -> impl Iterator<Item = Term<'_>> {
        let rest = std::iter::repeat_n(Term::Any, if self.rest { usize::MAX } else { 0 });
        self.segments.iter().map(PatternSegment::term).chain(rest)
    }

    /// How many segments it has before a `**`.
    pub(super) fn fixed_segments(&self) -> usize {
        self.segments.len()
    }

    /// Whether it ends with `**`.
    pub(super) fn has_rest(&self) -> bool {
        self.rest
    }

    /// Whether it admits `path`, that of an id. A placeholder stands for a fact of a pod here and admits nothing.
    pub fn matches(&self, path: &str) -> bool {
        let mut segments = path.split('/').skip(1);
        let is_matched = self.segments.iter().all(|granted| match (granted, segments.next()) {
            (PatternSegment::Any, Some(_)) => true,
            (PatternSegment::One(Segment::Literal(literal)), Some(segment)) => **literal == *segment,
            (PatternSegment::One(Segment::Fact(_)), _) | (_, None) => false,
        });
        is_matched && segments.next().is_some() == self.rest
    }

    /// Whether it has a placeholder.
    pub fn has_placeholder(&self) -> bool {
        self.segments.iter().any(|segment| matches!(segment, PatternSegment::One(Segment::Fact(_))))
    }

    /// Whether every path that `template` can render within `scope` is admitted.
    pub fn admits(&self, template: &PathTemplate, scope: &Scope<'_>) -> bool {
        let claimed = template.segments();
        let length_fits =
            if self.rest { claimed.len() > self.segments.len() } else { claimed.len() == self.segments.len() };
        length_fits && self.segments.iter().zip(claimed).all(|(granted, claimed)| granted.admits(claimed, scope))
    }
}

impl FromStr for PathPattern {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for PathPattern {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<PathPattern> for String {
    fn from(pattern: PathPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments.iter().try_for_each(|segment| write!(f, "/{segment}"))?;
        if self.rest { f.write_str("/**") } else { Ok(()) }
    }
}

/// A segment of a pattern, for whoever compares patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Term<'a> {
    Literal(&'a str),
    Fact(Placeholder),
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum PatternSegment {
    One(Segment),
    Any,
}

impl PatternSegment {
    fn parse(raw: &str) -> Result<Self, SegmentError> {
        match raw {
            "*" => Ok(Self::Any),
            "**" => Err(SegmentError::RestNotLast),
            _ => Segment::parse(raw, check_path_segment).map(Self::One),
        }
    }

    fn term(&self) -> Term<'_> {
        match self {
            Self::Any => Term::Any,
            Self::One(Segment::Literal(literal)) => Term::Literal(literal),
            Self::One(Segment::Fact(fact)) => Term::Fact(*fact),
        }
    }

    fn admits(&self, claimed: &Segment, scope: &Scope<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::One(granted) => granted.admits(claimed, scope),
        }
    }
}

impl fmt::Display for PatternSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(segment) => segment.fmt(f),
            Self::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(pattern: &str, template: &str, service_accounts: &[&str]) -> bool {
        let service_accounts: Vec<_> = service_accounts.iter().map(|&name| name.to_owned()).collect();
        let scope = Scope { namespace: "shop", cluster: "prod", service_accounts: &service_accounts };
        PathPattern::parse(pattern).unwrap().admits(&PathTemplate::parse(template).unwrap(), &scope)
    }

    // R48: default deny; a grant admits only what every rendering satisfies.
    #[test]
    fn admits_a_template_when_it_admits_all_it_can_render() {
        for (pattern, template, accounts, expected) in [
            ("/ns/{namespace}/sa/{serviceAccount}", "/ns/{namespace}/sa/{serviceAccount}", &["a"][..], true),
            ("/ns/{namespace}/sa/*", "/ns/{namespace}/sa/{serviceAccount}", &["a"], true),
            ("/ns/{namespace}/**", "/ns/{namespace}/sa/{podName}", &["a"], true),
            ("/ns/{namespace}/**", "/ns/{namespace}", &["a"], false),
            ("/ns/{namespace}/*", "/ns/{namespace}/a/b", &["a"], false),
            // The namespace is known on both sides.
            ("/ns/{namespace}/*", "/ns/shop/x", &["a"], true),
            ("/ns/shop/*", "/ns/{namespace}/x", &["a"], true),
            ("/ns/{namespace}/*", "/ns/bank/x", &["a"], false),
            ("/ns/bank/*", "/ns/{namespace}/x", &["a"], false),
            ("/{cluster}/{namespace}", "/prod/{namespace}", &["a"], true),
            ("/{cluster}/{namespace}", "/test/{namespace}", &["a"], false),
            // A literal is the account's name only where no other account is selected.
            ("/ns/{namespace}/{serviceAccount}", "/ns/{namespace}/a", &["a"], true),
            ("/ns/{namespace}/{serviceAccount}", "/ns/{namespace}/a", &["a", "b"], false),
            ("/ns/{namespace}/{serviceAccount}", "/ns/{namespace}/a", &[], false),
            ("/ns/{namespace}/a", "/ns/{namespace}/{serviceAccount}", &["a"], true),
            ("/ns/{namespace}/a", "/ns/{namespace}/{serviceAccount}", &["a", "b"], false),
            // A pod's name is never known before.
            ("/ns/{namespace}/{podName}", "/ns/{namespace}/{podName}", &["a"], true),
            ("/ns/{namespace}/{podName}", "/ns/{namespace}/x", &["a"], false),
            ("/ns/{namespace}/x", "/ns/{namespace}/{podName}", &["a"], false),
            ("/ns/{namespace}/{serviceAccount}", "/ns/{namespace}/{podName}", &["a"], false),
            ("/**", "/anything/at/all", &[], true),
        ] {
            assert_eq!(admits(pattern, template, accounts), expected, "{pattern} over {template} for {accounts:?}");
        }
    }

    // R16: a sibling of an accepted id is not accepted.
    #[test]
    fn matches_paths_of_ids_segment_by_segment() {
        for (pattern, path, expected) in [
            ("/ns/shop/sa/api", "/ns/shop/sa/api", true),
            ("/ns/shop/sa/api", "/ns/shop/sa/api2", false),
            ("/ns/shop/sa/api", "/ns/shop/sa/api/x", false),
            ("/ns/shop/sa/api", "/ns/shop/sa", false),
            ("/ns/*/sa/api", "/ns/bank/sa/api", true),
            ("/ns/*/sa/api", "/ns/a/b/sa/api", false),
            ("/ns/shop/**", "/ns/shop/sa/api", true),
            ("/ns/shop/**", "/ns/shop", false),
            ("/ns/shop/**", "/ns/shop2/sa/api", false),
            ("/**", "/a", true),
            ("/**", "", false),
            ("/ns/{namespace}/*", "/ns/shop/x", false),
        ] {
            assert_eq!(PathPattern::parse(pattern).unwrap().matches(path), expected, "{pattern} over {path}");
        }
        assert!(PathPattern::parse("/{cluster}/a").unwrap().has_placeholder());
        assert!(!PathPattern::parse("/ns/*/**").unwrap().has_placeholder());
    }

    #[test]
    fn an_unnamed_cluster_is_equal_to_nothing() {
        let nameless = [String::new()];
        let scope = Scope { namespace: "shop", cluster: "", service_accounts: &nameless };
        let pattern = PathPattern::parse("/{namespace}/{cluster}").unwrap();
        for template in ["/{namespace}/x", "/{namespace}/{serviceAccount}"] {
            assert!(!pattern.admits(&PathTemplate::parse(template).unwrap(), &scope), "{template}");
        }
    }

    #[test]
    fn knows_whether_it_keeps_namespaces_apart() {
        for (pattern, namespaced) in
            [("/ns/{namespace}/**", true), ("/ns/*/sa/*", false), ("/**", false), ("/{cluster}/a", false)]
        {
            assert_eq!(PathPattern::parse(pattern).unwrap().is_namespaced(), namespaced, "{pattern}");
        }
    }

    #[test]
    fn wildcards_stand_alone_and_the_double_one_last() {
        for (text, position, problem) in [
            ("/**/a", 1, SegmentError::RestNotLast),
            ("/a/b*", 2, SegmentError::Wildcard),
            ("/a/***", 2, SegmentError::Wildcard),
            ("/a/..", 2, SegmentError::DotSegment),
        ] {
            let expected = in_segment(position - 1, text.split('/').nth(position).unwrap(), problem);
            assert_eq!(PathPattern::parse(text), Err(expected));
        }
    }

    #[test]
    fn prints_what_it_parsed() {
        for text in ["/ns/{namespace}/*", "/a/**", "/**", "/{cluster}/b"] {
            assert_eq!(PathPattern::parse(text).unwrap().to_string(), text);
            assert_eq!(String::from(PathPattern::parse(text).unwrap()), text);
        }
    }
}
