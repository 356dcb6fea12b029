//! Audiences of JWT-SVIDs: exact, or a prefix that ends in `*`. A WorkloadIdentity and a grant write them alike.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

const LONGEST: usize = 512;

/// An audience, or all audiences with a prefix (`https://api.example.org/*`; `*` alone: every audience).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AudiencePattern {
    text: Box<str>,
    prefix: bool,
}

impl AudiencePattern {
    /// Reads `audience` or `prefix*`.
    pub fn parse(text: &str) -> Result<Self, AudienceError> {
        if text.len() > LONGEST {
            return Err(AudienceError::TooLong);
        }
        let (body, prefix) = match text.strip_suffix('*') {
            Some(body) => (body, true),
            None => (text, false),
        };
        if body.is_empty() && !prefix {
            return Err(AudienceError::Empty);
        }
        if body.contains('*') {
            return Err(AudienceError::WildcardNotLast { text: text.to_owned() });
        }
        if body.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(AudienceError::Whitespace { text: text.to_owned() });
        }
        Ok(Self { text: body.into(), prefix })
    }

    /// The audience, where it is one and not a prefix: such a token can be made before anyone asks.
    pub fn exact(&self) -> Option<&str> {
        (!self.prefix).then_some(&self.text)
    }

    /// Whether a token for `audience` is covered. What a workload puts in place of the `*` is as long and of such characters
    /// as [`check_requested`] allows.
    pub fn matches(&self, audience: &str) -> bool {
        if !self.prefix {
            return audience == &*self.text;
        }
        let chosen = audience.strip_prefix(&*self.text);
        chosen.is_some_and(|chosen| check_length(audience).and(check_characters(chosen)).is_ok())
    }

    /// Whether it is exact, or what it covers ends where a name ends: a prefix stops after one of `/ : ? # = &`, and that of
    /// a URL after its host and port. `https://a.org*` covers `https://a.org.evil.com` too.
    pub fn ends_at_boundary(&self) -> bool {
        let text = &*self.text;
        if !self.prefix || text.is_empty() {
            return true;
        }
        let host_ends = text.split_once("://").is_none_or(|(_, rest)| rest.contains(['/', '?', '#']));
        host_ends && text.ends_with(['/', ':', '?', '#', '=', '&'])
    }

    /// Whether a grant of this allows a WorkloadIdentity to name `claimed`: an exact audience of any characters, or a prefix.
    pub fn admits(&self, claimed: &Self) -> bool {
        if self.prefix { claimed.text.starts_with(&*self.text) } else { self == claimed }
    }
}

/// Checks an audience that a workload asks for: 1 to 512 bytes, of the characters of a URI (RFC 3986) without `*`. Others have
/// no place in a URL nor in an identifier, and some who read them would not see or not compare them as they were signed.
///
/// An audience that a WorkloadIdentity names exactly may have others.
pub fn check_requested(audience: &str) -> Result<(), AudienceError> {
    check_length(audience).and(check_characters(audience))
}

fn check_length(audience: &str) -> Result<(), AudienceError> {
    match audience.len() {
        0 => Err(AudienceError::Empty),
        1..=LONGEST => Ok(()),
        _ => Err(AudienceError::TooLong),
    }
}

fn check_characters(text: &str) -> Result<(), AudienceError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()+,;=%".contains(c);
    match text.chars().find(|&c| !allowed(c)) {
        Some(character) => Err(AudienceError::Character { character }),
        None => Ok(()),
    }
}

impl FromStr for AudiencePattern {
    type Err = AudienceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for AudiencePattern {
    type Error = AudienceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<AudiencePattern> for String {
    fn from(pattern: AudiencePattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for AudiencePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.prefix { f.write_str("*") } else { Ok(()) }
    }
}

/// Why a text is no audience.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AudienceError {
    /// Nothing.
    #[error("an audience is not empty")]
    Empty,
    /// More than 512 bytes.
    #[error("an audience has at most {LONGEST} bytes")]
    TooLong,
    /// A `*` before the end.
    #[error("the audience {text:?} has a \"*\" before its end; only a trailing one, for a prefix, is allowed")]
    WildcardNotLast {
        /// As it was written.
        text: String,
    },
    /// A character that a workload may not put in place of a `*`.
    #[error(
        "an audience asked for has the character {character:?}; allowed are letters, digits and -._~:/?#[]@!$&'()+,;=%, others only \
         where the WorkloadIdentity names the audience exactly"
    )]
    Character {
        /// The first one that is not allowed.
        character: char,
    },
    /// A blank or a control character.
    #[error("the audience {text:?} has white space or a control character")]
    Whitespace {
        /// As it was written.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> AudiencePattern {
        AudiencePattern::parse(text).unwrap()
    }

    // R48: an audience outside what is written is not covered.
    #[test]
    fn covers_the_exact_audience_or_the_prefix() {
        for (text, audience, expected) in [
            ("payments", "payments", true),
            ("payments", "payments2", false),
            ("payments", "Payments", false),
            ("https://api.example.org/*", "https://api.example.org/v1", true),
            ("https://api.example.org/*", "https://api.example.org.evil", false),
            ("*", "anything", true),
        ] {
            assert_eq!(pattern(text).matches(audience), expected, "{text} over {audience}");
        }
    }

    #[test]
    fn a_grant_admits_no_wider_claim() {
        for (granted, claimed, expected) in [
            ("a", "a", true),
            ("a", "a*", false),
            ("a*", "a", true),
            ("a*", "ab*", true),
            ("ab*", "a*", false),
            ("*", "*", true),
            ("a*", "*", false),
            ("a*", "aö", true),
            ("a*", "aö*", true),
        ] {
            assert_eq!(pattern(granted).admits(&pattern(claimed)), expected, "{granted} over {claimed}");
        }
    }

    #[test]
    fn only_what_is_no_prefix_names_an_audience() {
        assert_eq!(pattern("payments").exact(), Some("payments"));
        assert_eq!(pattern("payments*").exact(), None);
    }

    // What is in place of the `*` is chosen by whoever runs in the pod.
    #[test]
    fn a_prefix_covers_only_audiences_of_plain_characters() {
        let api = pattern("https://api.example.org/");
        let under = AudiencePattern { prefix: true, ..api };
        for chosen in ["", "orders", "a/b?c=d&e=%20#f", "~[::1]:80", "(a)+b,c;d!e$f'g@h"] {
            let audience = format!("https://api.example.org/{chosen}");
            assert!(under.matches(&audience) && check_requested(&audience).is_ok(), "{audience}");
        }
        let refused = [
            " ", "a b", "a\n", "a\0", "\u{7f}", "\u{a0}", "\u{200b}", "\u{202e}", "*", "a*", "ö", "\"", "\\", "<", "{",
            "|", "^", "`",
        ];
        for chosen in refused {
            let audience = format!("https://api.example.org/{chosen}");
            assert!(!under.matches(&audience) && !pattern("*").matches(&audience), "{audience:?}");
            assert!(matches!(check_requested(&audience), Err(AudienceError::Character { .. })), "{audience:?}");
        }
        // What is granted by name is as it was written.
        assert!(pattern("ö|x").matches("ö|x") && pattern("ö/*").matches("ö/x"));
    }

    #[test]
    fn an_audience_asked_for_has_a_length() {
        let of = |length: usize| "a".repeat(length);
        assert!(pattern("*").matches(&of(512)) && pattern("a*").matches(&of(512)));
        assert!(!pattern("*").matches(&of(513)) && !pattern("a*").matches(&of(513)) && !pattern("*").matches(""));
        assert_eq!(check_requested(&of(513)), Err(AudienceError::TooLong));
        assert_eq!(check_requested(""), Err(AudienceError::Empty));
    }

    #[test]
    fn a_prefix_without_a_boundary_is_known() {
        for open in [
            "https://a.org*",
            "https://a.org:*",
            "https://a.org:80*",
            "https://*",
            "https://a.org/pay*",
            "spiffe://a.org*",
            "team-*",
            "urn*",
            "a.*",
        ] {
            assert!(!pattern(open).ends_at_boundary(), "{open}");
        }
        for closed in [
            "*",
            "https://a.org",
            "https://a.org/*",
            "https://a.org/pay/*",
            "https://a.org/?for=*",
            "urn:a:*",
            "spiffe://a.org/ns/*",
            "https://a.org?*",
        ] {
            assert!(pattern(closed).ends_at_boundary(), "{closed}");
        }
    }

    #[test]
    fn is_written_as_it_was_read() {
        for text in ["payments", "https://api.example.org/*", "*"] {
            let written = serde_json::to_value(pattern(text)).unwrap();
            assert_eq!(written, text);
            assert_eq!(serde_json::from_value::<AudiencePattern>(written).unwrap(), pattern(text));
        }
    }

    #[test]
    fn refuses_what_is_no_audience() {
        assert!(AudiencePattern::parse(&"a".repeat(512)).is_ok());
        assert_eq!(AudiencePattern::parse(""), Err(AudienceError::Empty));
        assert_eq!(AudiencePattern::parse(&"a".repeat(513)), Err(AudienceError::TooLong));
        assert_eq!(AudiencePattern::parse("a*b"), Err(AudienceError::WildcardNotLast { text: "a*b".into() }));
        assert_eq!(AudiencePattern::parse("a b"), Err(AudienceError::Whitespace { text: "a b".into() }));
        assert_eq!(AudiencePattern::parse("a\n"), Err(AudienceError::Whitespace { text: "a\n".into() }));
    }
}
