//! The parts of which paths and DNS names are templated: a literal, or one attested fact taken whole.
//! The list of facts is closed; labels are not among them, since whoever edits a pod edits its labels.

use std::fmt;

use thiserror::Error;

use super::facts::PodFacts;

/// An attested fact that a template may stand for. Closed: each is signed by the API server in the pod's token, or
/// fixed by the owner of the trust domain (`cluster`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Placeholder {
    /// `{namespace}`: the pod's namespace, which is the WorkloadIdentity's too.
    Namespace,
    /// `{serviceAccount}`: the pod's service account.
    ServiceAccount,
    /// `{podName}`: the pod's name.
    PodName,
    /// `{cluster}`: the cluster's name, set by the trust domain's owner.
    Cluster,
}

impl Placeholder {
    /// Every placeholder, in the order in which messages list them.
    pub const ALL: [Self; 4] = [Self::Namespace, Self::ServiceAccount, Self::PodName, Self::Cluster];

    /// The name between the braces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::ServiceAccount => "serviceAccount",
            Self::PodName => "podName",
            Self::Cluster => "cluster",
        }
    }

    /// The longest value Kubernetes allows for it, in bytes.
    pub(super) const fn longest(self) -> usize {
        match self {
            Self::Namespace => 63,
            Self::ServiceAccount | Self::PodName | Self::Cluster => 253,
        }
    }

    /// What it stands for in `pod`.
    pub(super) fn value<'a>(self, pod: &'a PodFacts, cluster: &'a str) -> &'a str {
        match self {
            Self::Namespace => &pod.namespace,
            Self::ServiceAccount => &pod.service_account,
            Self::PodName => &pod.name,
            Self::Cluster => cluster,
        }
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.name())
    }
}

/// One segment of a path template, or one label of a DNS name template.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// Itself.
    Literal(Box<str>),
    /// The value of a fact, whole.
    Fact(Placeholder),
}

impl Segment {
    /// Reads `{placeholder}`, or a literal that `check` accepts.
    pub(super) fn parse(raw: &str, check: fn(&str) -> Result<(), SegmentError>) -> Result<Self, SegmentError> {
        if !raw.contains(['{', '}']) {
            check(raw)?;
            return Ok(Self::Literal(raw.into()));
        }
        let name = raw
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .filter(|name| !name.contains(['{', '}']))
            .ok_or(SegmentError::NotWhole)?;
        Placeholder::ALL
            .into_iter()
            .find(|placeholder| placeholder.name() == name)
            .map(Self::Fact)
            .ok_or_else(|| SegmentError::UnknownPlaceholder { name: shortened(name) })
    }

    /// The value, where it is known before any pod is.
    pub(super) fn constant<'a>(&'a self, scope: &Scope<'a>) -> Option<&'a str> {
        match self {
            Self::Literal(literal) => Some(literal),
            Self::Fact(Placeholder::Namespace) => Some(scope.namespace),
            Self::Fact(Placeholder::Cluster) => Some(scope.cluster).filter(|cluster| !cluster.is_empty()),
            Self::Fact(Placeholder::ServiceAccount) => {
                let (first, rest) = scope.service_accounts.split_first()?;
                rest.iter().all(|other| other == first).then_some(first)
            }
            Self::Fact(Placeholder::PodName) => None,
        }
    }

    /// Whether every value of `claimed` is a value of this segment, for the same pod.
    pub(super) fn admits(&self, claimed: &Self, scope: &Scope<'_>) -> bool {
        let same_fact = matches!((self, claimed), (Self::Fact(granted), Self::Fact(asked)) if granted == asked);
        same_fact || self.constant(scope).is_some_and(|granted| claimed.constant(scope) == Some(granted))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => f.write_str(literal),
            Self::Fact(placeholder) => placeholder.fmt(f),
        }
    }
}

/// What is known of every pod that a WorkloadIdentity can select.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The WorkloadIdentity's namespace.
    pub namespace: &'a str,
    /// The cluster's name; empty where the owner gave none.
    pub cluster: &'a str,
    /// The service accounts selected; empty means any.
    pub service_accounts: &'a [String],
}

/// What is wrong with one segment or label.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// Two separators in a row, or one at the end.
    #[error("is empty; write no doubled and no trailing separator")]
    Empty,
    /// `.` or `..` (SPIFFE-ID 2.2).
    #[error("is a relative path step; \".\" and \"..\" are not allowed")]
    DotSegment,
    /// A character outside the set.
    #[error("has the character {character:?}; allowed are {allowed}")]
    Character {
        /// The first one that is not allowed.
        character: char,
        /// The set, for people.
        allowed: &'static str,
    },
    /// Braces that do not enclose the whole segment.
    #[error("mixes braces and text; a placeholder is a whole segment, such as {{namespace}}")]
    NotWhole,
    /// A placeholder outside the closed list.
    #[error(
        "has the unknown placeholder {{{name}}}; allowed are {{namespace}}, {{serviceAccount}}, {{podName}}, {{cluster}}"
    )]
    UnknownPlaceholder {
        /// What stood between the braces, shortened.
        name: String,
    },
    /// `*` where only a grant may have it.
    #[error("is a wildcard; only a TrustDomain's grants may have wildcards")]
    Wildcard,
    /// `**` before the end of a pattern.
    #[error("is \"**\", which may only stand last")]
    RestNotLast,
    /// A DNS label over 63 bytes (RFC 1035, 2.3.4).
    #[error("is longer than the 63 bytes of a DNS label")]
    LongLabel,
    /// A DNS label with a hyphen at its edge (RFC 1123, 2.1).
    #[error("begins or ends with a hyphen")]
    HyphenAtEdge,
}

/// The rule for a path segment (SPIFFE-ID 2.2).
pub(super) fn check_path_segment(segment: &str) -> Result<(), SegmentError> {
    if segment.is_empty() {
        return Err(SegmentError::Empty);
    }
    if segment.contains('*') {
        return Err(SegmentError::Wildcard);
    }
    if matches!(segment, "." | "..") {
        return Err(SegmentError::DotSegment);
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match segment.chars().find(|c| !allowed(c)) {
        Some(character) => {
            Err(SegmentError::Character { character, allowed: "letters, digits, \".\", \"_\" and \"-\"" })
        }
        None => Ok(()),
    }
}

/// The rule for one label of a DNS name (RFC 1123, lower case only: names are compared byte by byte).
pub(crate) fn check_dns_label(label: &str) -> Result<(), SegmentError> {
    if label.is_empty() {
        return Err(SegmentError::Empty);
    }
    if label.contains('*') {
        return Err(SegmentError::Wildcard);
    }
    if label.len() > 63 {
        return Err(SegmentError::LongLabel);
    }
    let allowed = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
    if let Some(character) = label.chars().find(|c| !allowed(c)) {
        return Err(SegmentError::Character { character, allowed: "lower-case letters, digits and \"-\"" });
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(SegmentError::HyphenAtEdge);
    }
    Ok(())
}

/// At most 64 characters of what somebody wrote, for messages.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 64;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST).chain(['…']).collect()
}
