//! The hash of a body, by which a message is described without it.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_core::wimse::Body;
use serde::{Deserialize, Serialize};

/// The SHA-256 of a body; in JSON a text in base64 with padding, as in `Content-Digest` (RFC 9530).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BodyHash(pub [u8; 32]);

/// A text is no hash of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the SHA-256 of a body: 32 bytes in base64 with padding")]
pub struct BodyHashError;

/// Of no bytes.
const OF_NOTHING: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

impl BodyHash {
    /// Of these bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.iter_mut().zip(digest(&SHA256, bytes).as_ref()).for_each(|(to, from)| *to = *from);
        Self(hash)
    }

    /// The body that it stands for: none where there is no hash, or where it is that of no bytes.
    #[must_use]
    pub fn body(hash: Option<Self>) -> Body<'static> {
        match hash {
            None | Some(Self(OF_NOTHING)) => Body::Empty,
            Some(Self(hash)) => Body::Sha256(hash),
        }
    }
}

impl TryFrom<String> for BodyHash {
    type Error = BodyHashError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = STANDARD.decode(text).map_err(|_| BodyHashError)?;
        bytes.try_into().map(Self).map_err(|_| BodyHashError)
    }
}

impl From<BodyHash> for String {
    fn from(hash: BodyHash) -> Self {
        STANDARD.encode(hash.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_32_bytes_in_base64() {
        let text = STANDARD.encode([7; 32]);
        assert_eq!(BodyHash::try_from(text.clone()), Ok(BodyHash([7; 32])));
        assert_eq!(String::from(BodyHash([7; 32])), text);
        for wrong in ["", "AAAA", text.trim_end_matches('='), &text.replace('B', "-")] {
            assert_eq!(BodyHash::try_from(wrong.to_owned()), Err(BodyHashError), "{wrong}");
        }
    }

    #[test]
    fn no_bytes_are_no_body() {
        let nothing = BodyHash::try_from("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned()).unwrap();
        assert_eq!(nothing, BodyHash::of_bytes(b""));
        assert!(matches!(BodyHash::body(Some(nothing)), Body::Empty));
        assert!(matches!(BodyHash::body(None), Body::Empty));
        assert!(matches!(BodyHash::body(Some(BodyHash([7; 32]))), Body::Sha256(_)));
    }
}
