//! Events in a stream of bytes: each behind its length, four bytes, the highest first.

use bytes::{Buf as _, Bytes, BytesMut};

use super::ProtobufError;

/// Far above what etcd stores as one object (1.5 MiB).
const LONGEST: usize = 16 * 1024 * 1024;

/// What came and was not taken yet.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: BytesMut,
}

impl Frames {
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next event, if all of it came.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, ProtobufError> {
        let Some(length) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(ProtobufError::TooLong(length));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::Frames;
    use crate::watch::protobuf::ProtobufError;

    #[test]
    fn events_are_found_however_they_are_cut() {
        let stream = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x01d";
        for size in 1..=stream.len() {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for chunk in stream.chunks(size) {
                frames.push(chunk);
                while let Some(frame) = frames.next().expect("no frame is too long") {
                    found.push(frame);
                }
            }
            assert_eq!(found, ["abc", "", "d"], "in chunks of {size}");
        }
    }

    #[test]
    fn a_length_that_no_object_has_is_refused_before_it_is_waited_for() {
        let mut frames = Frames::default();
        frames.push(b"\xff\0\0\0");
        assert!(matches!(frames.next(), Err(ProtobufError::TooLong(0xff00_0000))));
    }
}
