//! The stored form: an envelope that tells format, protection and checksum before anything inside is believed.
//! Protections other than none (KMS, PKCS#11) come in here.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::JournalError;

/// The version of the stored form. A version is read for one release before it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Format {
    /// X.509 roots and JWT authorities, with their keys.
    #[default]
    V1,
    /// Any kinds of authorities, with issuing chains, trust anchors, and keys by reference. Kinds that are not known are
    /// carried along.
    V2,
}

impl Format {
    const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// As it stands in the envelope.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1 => "countersign.dev/journal.v1",
            Self::V2 => "countersign.dev/journal.v2",
        }
    }

    /// The names of those that are read, for a message.
    pub(super) fn readable() -> String {
        Self::ALL.map(|format| format!("{:?}", format.name())).join(" and ")
    }
}

/// The longest stored form that is looked at, in bytes: what a Secret may hold.
pub const MAX_LENGTH: usize = 1024 * 1024;

const UNPROTECTED: &str = "none";

#[derive(Deserialize)]
struct Beginning {
    format: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    format: String,
    protection: String,
    /// `sha256:` and the digest of the payload's bytes, hexadecimal.
    checksum: String,
    /// Base64.
    payload: String,
}

impl Drop for Envelope {
    fn drop(&mut self) {
        self.payload.zeroize();
    }
}

/// Puts a payload into its envelope.
pub(super) fn seal(format: Format, payload: &[u8]) -> Result<Zeroizing<Vec<u8>>, JournalError> {
    let envelope = Envelope {
        format: format.name().to_owned(),
        protection: UNPROTECTED.to_owned(),
        checksum: checksum(payload),
        payload: STANDARD.encode(payload),
    };
    write_json(&envelope, envelope.payload.len() + 512)
}

/// Takes the payload out of an envelope that is whole, and its format.
pub(super) fn open(bytes: &[u8]) -> Result<(Format, Zeroizing<Vec<u8>>), JournalError> {
    if bytes.len() > MAX_LENGTH {
        return Err(JournalError::damaged(format!("{} bytes, over {MAX_LENGTH}", bytes.len())));
    }
    let Beginning { format } = read_json(bytes, "envelope")?;
    let known = Format::ALL.into_iter().find(|known| known.name() == format);
    let known = known.ok_or_else(|| JournalError::UnknownFormat { format: shortened(&format) })?;
    let envelope: Envelope = read_json(bytes, "envelope")?;
    if envelope.protection != UNPROTECTED {
        return Err(JournalError::UnknownProtection { protection: shortened(&envelope.protection) });
    }
    let payload = decode_secret(&envelope.payload).ok_or_else(|| JournalError::damaged("the payload is not base64"))?;
    if checksum(&payload) != envelope.checksum {
        return Err(JournalError::damaged("the checksum does not match the payload"));
    }
    Ok((known, payload))
}

/// What is in base64, in a buffer that is wiped, also when a part of it turns out to be none.
pub(super) fn decode_secret(base64: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(base64.len())]);
    let length = STANDARD.decode_slice(base64, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

/// Writes into a buffer of `capacity`, so that growing leaves no copy of a key behind.
pub(super) fn write_json(value: &impl Serialize, capacity: usize) -> Result<Zeroizing<Vec<u8>>, JournalError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    serde_json::to_writer(&mut *bytes, value).map_err(|_| JournalError::damaged("it cannot be written as JSON"))?;
    debug_assert!(bytes.len() <= capacity, "{} bytes outgrew a buffer of {capacity}", bytes.len());
    Ok(bytes)
}

/// Reads JSON. The reader's own message may quote what it read, so only the place is told.
pub(super) fn read_json<'a, T: Deserialize<'a>>(bytes: &'a [u8], part: &str) -> Result<T, JournalError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        JournalError::damaged(format!("the {part} is not as it was written, at line {line}, column {column}"))
    })
}

pub(super) fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

fn checksum(payload: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, payload);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::{Zeroizing, decode_secret, write_json};

    #[test]
    fn a_secret_is_decoded_whole_or_not_at_all() {
        let decoded: Option<Zeroizing<Vec<u8>>> = decode_secret("AQIDBA==");
        assert_eq!(decoded.as_deref(), Some(&vec![1, 2, 3, 4]));
        for damaged in ["AQIDBA", "AQID*A==", "AQIDBB=="] {
            assert_eq!(decode_secret(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn what_is_written_stays_in_the_buffer_it_began_in() {
        let written = write_json(&["a key"; 10], 128).expect("it is JSON");
        assert_eq!(written.capacity(), 128);
    }
}
