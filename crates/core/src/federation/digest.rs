//! Digests by which a document or an endpoint is recognised later.

use std::fmt;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const PREFIX: &str = "sha256:";

/// A SHA-256, stored as `sha256:` and 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Digest([u8; 32]);

/// Not the stored form of a digest.
#[derive(Debug, thiserror::Error)]
#[error("not sha256: and 64 hexadecimal digits")]
pub(super) struct NoDigest;

impl Digest {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut content = [0; 32];
        for (to, from) in content.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
            *to = *from;
        }
        Self(content)
    }

    /// The same for the same JSON value, however it is formatted and in whatever order its members are: they are sorted where
    /// they are read. So it does not depend on the release that computes it either. Of what is no JSON value, the bytes count.
    pub(super) fn of_json(document: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(document) {
            Ok(value) => Self::of(value.to_string().as_bytes()),
            Err(_) => Self::of(document),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = NoDigest;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let hex = text.strip_prefix(PREFIX).ok_or(NoDigest)?.as_bytes();
        let mut content = [0; 32];
        if hex.len() != 2 * content.len() {
            return Err(NoDigest);
        }
        for (to, digits) in content.iter_mut().zip(hex.chunks_exact(2)) {
            *to = digits.iter().try_fold(0, |byte, digit| Some(byte << 4 | nibble(*digit)?)).ok_or(NoDigest)?;
        }
        Ok(Self(content))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_was_written_and_nothing_else_is() {
        let digest = Digest::of(b"abc");
        let text = digest.to_string();
        assert_eq!(text, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Digest::try_from(text.clone()).unwrap(), digest);
        for wrong in [
            text.replace("sha256", "sha512"),
            text.replace("ba78", "BA78"),
            text.replace("ba78", "ba7"),
            text.replace("ba78", "+a78"),
            format!("{text}00"),
            String::new(),
        ] {
            assert!(Digest::try_from(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_document_that_is_only_formatted_anew_has_the_same_digest() {
        let digest = |text: &str| Digest::of_json(text.as_bytes());
        let one = digest(r#"{"keys":[{"kid":"a","x":1},"b"],"spiffe_sequence":7}"#);
        assert_eq!(
            one,
            digest("{ \"spiffe_sequence\": 7,\n \"keys\": [ {\"x\": 1, \"kid\": \"\\u0061\"}, \"b\" ] }\n")
        );
        for other in [
            r#"{"keys":[{"kid":"a","x":1},"b"],"spiffe_sequence":8}"#,
            r#"{"keys":["b",{"kid":"a","x":1}],"spiffe_sequence":7}"#,
            r#"{"keys":[{"kid":"a","x":1,"y":2},"b"],"spiffe_sequence":7}"#,
            r#"{"keys":[{"kid":"a"},{"x":1},"b"],"spiffe_sequence":7}"#,
        ] {
            assert_ne!(one, digest(other), "{other}");
        }
    }

    #[test]
    fn what_is_no_json_is_recognised_by_its_bytes() {
        assert_eq!(Digest::of_json(b"{"), Digest::of_json(b"{"));
        assert_ne!(Digest::of_json(b"{"), Digest::of_json(b"{ "));
    }
}
