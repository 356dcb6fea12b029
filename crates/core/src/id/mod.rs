//! SPIFFE IDs and trust domains as types that cannot be wrong (SPIFFE-ID, sections 2.1 to 2.3).
//!
//! Nothing is normalised: an upper-case trust domain, a dot segment or an escape is refused, so
//! that an id has one spelling.

mod spiffe_id;
mod trust_domain;

pub use spiffe_id::{SpiffeId, check_path, check_segment};
pub use trust_domain::TrustDomain;

/// The longest SPIFFE ID accepted or made, in bytes (SPIFFE-ID, section 2.3).
pub const MAX_ID_LENGTH: usize = 2048;

/// The longest trust domain name, in bytes (SPIFFE-ID, section 2.3).
pub const MAX_TRUST_DOMAIN_LENGTH: usize = 255;

/// Why a text is not a trust domain, a path or a SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The id has more than [`MAX_ID_LENGTH`] bytes.
    #[error("SPIFFE ID of {length} bytes is longer than {MAX_ID_LENGTH}")]
    TooLong {
        /// Of the id, in bytes.
        length: usize,
    },
    /// The id does not begin with `spiffe://`.
    #[error("SPIFFE ID does not begin with spiffe:// (in lower case)")]
    Scheme,
    /// The trust domain has no character.
    #[error("trust domain is empty; write a name such as example.org")]
    EmptyTrustDomain,
    /// The trust domain has more than [`MAX_TRUST_DOMAIN_LENGTH`] bytes.
    #[error("trust domain of {length} bytes is longer than {MAX_TRUST_DOMAIN_LENGTH}")]
    TrustDomainTooLong {
        /// Of the trust domain, in bytes.
        length: usize,
    },
    /// The trust domain holds a character outside `[a-z0-9.-_]`: upper case, a port, user
    /// information or an escape.
    #[error(
        "trust domain has {character:?} at byte {position}; allowed: a-z, 0-9, '.', '-', '_' (no upper case, port, user)"
    )]
    TrustDomainCharacter {
        /// The first that is refused.
        character: char,
        /// Its offset in bytes from the beginning of the trust domain.
        position: usize,
    },
    /// A path that is not empty does not begin with `/`.
    #[error("path does not begin with '/'")]
    PathNotAbsolute,
    /// The path ends with `/`, or two `/` follow one another.
    #[error("path has an empty segment at position {segment}; remove the extra or trailing '/'")]
    EmptySegment {
        /// Counted from 1.
        segment: usize,
    },
    /// A segment is `.` or `..`.
    #[error("path segment {segment} is a dot segment; '.' and '..' are not allowed")]
    DotSegment {
        /// Counted from 1.
        segment: usize,
    },
    /// A segment holds a character outside `[a-zA-Z0-9.-_]`: an escape, a query, a fragment or a
    /// space, say.
    #[error("path segment {segment} has {character:?}; allowed are a-z, A-Z, 0-9, '.', '-' and '_'")]
    PathCharacter {
        /// The first that is refused.
        character: char,
        /// The segment's position, counted from 1.
        segment: usize,
    },
}
