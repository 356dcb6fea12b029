//! A SPIFFE ID: a trust domain and a path.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{IdError, MAX_ID_LENGTH, TrustDomain};

const SCHEME: &str = "spiffe://";

/// A SPIFFE ID, such as `spiffe://example.org/ns/shop/sa/cart`, in its only spelling (SPIFFE-ID,
/// section 2). Cheap to clone. Its path is empty for the id of a trust domain itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    path: Arc<str>,
}

impl SpiffeId {
    /// The id of `path` within `trust_domain`; `path` is empty, or `/` and segments.
    ///
    /// # Errors
    /// When the path breaks a rule of SPIFFE-ID section 2.2, or the whole is longer than
    /// [`MAX_ID_LENGTH`].
    pub fn new(trust_domain: &TrustDomain, path: &str) -> Result<Self, IdError> {
        let length = SCHEME.len() + trust_domain.as_str().len() + path.len();
        if length > MAX_ID_LENGTH {
            return Err(IdError::TooLong { length });
        }
        check_path(path)?;
        Ok(Self { trust_domain: trust_domain.clone(), path: Arc::from(path) })
    }

    /// The trust domain this id belongs to.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Empty, or `/` and the segments: `/ns/shop/sa/cart`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path's segments in order; none when the path is empty.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.path.split('/').skip(1)
    }
}

impl FromStr for SpiffeId {
    type Err = IdError;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        if id.len() > MAX_ID_LENGTH {
            return Err(IdError::TooLong { length: id.len() });
        }
        let rest = id.strip_prefix(SCHEME).ok_or(IdError::Scheme)?;
        let (trust_domain, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        Self::new(&trust_domain.parse()?, path)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = IdError;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        id.parse()
    }
}

impl TryFrom<&str> for SpiffeId {
    type Error = IdError;

    fn try_from(id: &str) -> Result<Self, Self::Error> {
        id.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.trust_domain, self.path)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({self})")
    }
}

/// Whether `path` may follow a trust domain: empty, or `/` and segments that pass
/// [`check_segment`].
///
/// # Errors
/// With the rule of SPIFFE-ID section 2.2 that it breaks.
pub fn check_path(path: &str) -> Result<(), IdError> {
    if path.is_empty() {
        return Ok(());
    }
    let segments = path.strip_prefix('/').ok_or(IdError::PathNotAbsolute)?;
    (1..).zip(segments.split('/')).try_for_each(|(position, segment)| check_at(segment, position))
}

/// Whether `segment` may stand alone as one segment of a path; errors count it as segment 1.
///
/// # Errors
/// When it is empty, a dot segment, or holds a character outside `[a-zA-Z0-9.-_]`.
pub fn check_segment(segment: &str) -> Result<(), IdError> {
    check_at(segment, 1)
}

fn check_at(text: &str, segment: usize) -> Result<(), IdError> {
    match text {
        "" => return Err(IdError::EmptySegment { segment }),
        "." | ".." => return Err(IdError::DotSegment { segment }),
        _ => {}
    }
    match text.chars().find(|character| !is_allowed(*character)) {
        Some(character) => Err(IdError::PathCharacter { character, segment }),
        None => Ok(()),
    }
}

fn is_allowed(character: char) -> bool {
    matches!(character, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_')
}
