//! The kinds of credentials for which a journal keeps authorities.

use std::fmt;

/// A kind of credential, for which a trust domain has authorities. To add one: a variant here, what its authorities hold in
/// [`Authority`](super::Authority), and how they are made in [`AuthorityRequest`](super::AuthorityRequest). Until every
/// replica knows it, those of the release before carry its slots along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// X509-SVIDs, and the control plane's server certificates.
    X509,
    /// JWT-SVIDs.
    Jwt,
    /// WIT-SVIDs.
    Wit,
}

impl Kind {
    /// All of them, in the order in which they are planned.
    pub const ALL: [Self; 3] = [Self::X509, Self::Jwt, Self::Wit];

    /// Its name in the stored form.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X509 => "x509",
            Self::Jwt => "jwt",
            Self::Wit => "wit",
        }
    }

    /// Whether a journal may have authorities of it: that of a trust domain, or the control plane's.
    pub(super) const fn belongs(self, to_trust_domain: bool) -> bool {
        match self {
            Self::X509 => true,
            Self::Jwt | Self::Wit => to_trust_domain,
        }
    }

    /// Whether every journal of format 1 has authorities of it where it belongs. A kind that came later is not in those that
    /// were written before.
    pub(super) const fn is_in_every_first_format(self) -> bool {
        match self {
            Self::X509 | Self::Jwt => true,
            Self::Wit => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X509 => "X.509",
            Self::Jwt => "JWT",
            Self::Wit => "WIT",
        })
    }
}
