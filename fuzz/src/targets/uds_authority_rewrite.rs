//! The agent's rewriting of what a Workload API client sends: HTTP/2 frames and compressed headers.

use countersign_agent::uds_authority_rewrite::{RewriteError, Transformer};
use http::uri::Authority;
use loona_hpack::Decoder;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// A header block decodes to at most 32 KiB, counting 32 bytes a field; the frames around it are a few bytes each.
const MOST_PER_BLOCK: usize = 32 * 1024 + 64;
const MAX_BLOCK: usize = 16 * 1024;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// The output does not depend on how the input is cut. Every frame other than HEADERS and CONTINUATION passes unchanged. The
/// headers are those that another decoder reads from the input, except for an invalid authority. Rewriting the output again
/// changes nothing, and the output is never longer than its header blocks may become. The highest bit of the first byte says
/// whether the preface is put before the input; the other bits are the length of the pieces.
pub(crate) fn rewrite(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let input = if kind & 0x80 == 0 { rest.to_vec() } else { [PREFACE, rest].concat() };
    let (outcome, output) = transform(&input, input.len().max(1));
    let (cut_outcome, cut_output) = transform(&input, usize::from(kind & 0x7f) + 1);
    assert_eq!((outcome, &output), (cut_outcome, &cut_output));

    let (before, after) = (Connection::read(&input), Connection::read(&output));
    let blocks = before.blocks.len() + usize::from(before.open);
    assert!(output.len() <= input.len() + blocks * MOST_PER_BLOCK, "{} bytes became {}", input.len(), output.len());
    if outcome.is_err() {
        return;
    }
    assert_eq!(before.others, after.others, "a frame that is not of headers was changed");
    assert_eq!(before.blocks.len(), after.blocks.len());
    let written = after.decoded().expect("what was written cannot be read");
    for (name, value) in written.iter().flatten() {
        assert!(name != b":authority" || Authority::try_from(value.as_slice()).is_ok());
    }
    if let Some(mut read) = before.decoded() {
        for (name, value) in read.iter_mut().flatten() {
            if name == b":authority" && Authority::try_from(value.as_slice()).is_err() {
                *value = b"localhost".to_vec();
            }
        }
        assert_eq!(read, written, "another decoder reads other headers");
    }
    if after.blocks.iter().all(|block| block.len() <= MAX_BLOCK) {
        assert_eq!(transform(&output, output.len().max(1)), (Ok(()), output));
    }
}

fn transform(input: &[u8], piece: usize) -> (Result<(), RewriteError>, Vec<u8>) {
    let (mut transformer, mut output) = (Transformer::default(), Vec::new());
    let outcome = input.chunks(piece).try_for_each(|piece| transformer.push(piece, &mut output));
    (outcome, output)
}

/// The frames of a valid connection, parsed by a simple reference parser.
#[derive(Default)]
struct Connection {
    /// Frames other than header frames, including a last incomplete one.
    others: Vec<u8>,
    /// Complete header blocks.
    blocks: Vec<Vec<u8>>,
    /// Whether the last header block is incomplete.
    open: bool,
}

impl Connection {
    fn read(bytes: &[u8]) -> Self {
        let (mut read, mut block) = (Self::default(), Vec::new());
        let mut rest = bytes.strip_prefix(PREFACE).unwrap_or_default();
        while let Some((header, after)) = rest.split_at_checked(9) {
            let length = header[..3].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            let (payload, next) = after.split_at(length.min(after.len()));
            let (kind, flags) = (header[3], header[4]);
            rest = next;
            if kind != HEADERS && kind != CONTINUATION {
                read.others.extend_from_slice(header);
                read.others.extend_from_slice(payload);
                continue;
            }
            read.open = true;
            if payload.len() < length {
                break;
            }
            block.extend_from_slice(if kind == HEADERS { fragment(flags, payload) } else { payload });
            if flags & END_HEADERS != 0 {
                read.blocks.push(std::mem::take(&mut block));
                read.open = false;
            }
        }
        read
    }

    /// The blocks as decoded by another decoder; `None` if it refuses one.
    fn decoded(&self) -> Option<Vec<Fields>> {
        let mut decoder = Decoder::new();
        self.blocks.iter().map(|block| decoder.decode(block).ok()).collect()
    }
}

/// The payload of HEADERS without padding and priority (RFC 9113, 6.2).
fn fragment(flags: u8, payload: &[u8]) -> &[u8] {
    let (padding, rest) = match payload.split_first() {
        Some((padding, rest)) if flags & 0x8 != 0 => (usize::from(*padding), rest),
        _ => (0, payload),
    };
    let rest = if flags & 0x20 == 0 { rest } else { rest.get(5..).unwrap_or_default() };
    &rest[..rest.len().saturating_sub(padding)]
}
