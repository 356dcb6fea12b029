//! The rewriting without I/O: the input is the client's half of an HTTP/2 connection, the output is the same with header
//! blocks re-encoded and an invalid `:authority` replaced. Every other frame passes byte for byte.

use http::uri::Authority;

use super::error::RewriteError;
use super::hpack::{Decoder, encode};
use super::limits::{MAX_BLOCK, MAX_CONTINUATIONS, MAX_FRAME};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
/// Replaces an invalid authority. The Workload API has no virtual hosts: nothing reads it.
const REPLACEMENT: &[u8] = b"localhost";

const HEADERS: u8 = 0x1;
const PUSH_PROMISE: u8 = 0x5;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The state of one connection.
#[derive(Debug)]
pub struct Transformer {
    state: State,
    /// The bytes so far of the preface or of the frame header that is being read.
    partial: Vec<u8>,
    open: Option<Block>,
    decoder: Decoder,
}

#[derive(Debug)]
enum State {
    Preface,
    FrameHeader,
    /// Bytes of a frame that passes as it is.
    Passing {
        left: usize,
    },
    /// Payload of HEADERS or CONTINUATION, gathered whole.
    Gathering {
        frame: Frame,
        payload: Vec<u8>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
    /// As on the wire, with the reserved bit.
    stream: [u8; 4],
}

/// A header block whose last frame has not arrived.
#[derive(Debug)]
struct Block {
    stream: [u8; 4],
    /// The flags of HEADERS that are kept: END_STREAM and PRIORITY.
    flags: u8,
    /// Empty, or the five bytes of the priority.
    priority: Vec<u8>,
    fragments: Vec<u8>,
    continuations: usize,
}

impl Default for Transformer {
    fn default() -> Self {
        Self {
            state: State::Preface,
            partial: Vec::with_capacity(PREFACE.len()),
            open: None,
            decoder: Decoder::default(),
        }
    }
}

impl Transformer {
    /// Takes the next bytes of the client, cut anywhere, and appends to `output` what the server may read.
    ///
    /// # Errors
    /// See [`RewriteError`]: the connection must end, and nothing more may be pushed.
    pub fn push(&mut self, mut input: &[u8], output: &mut Vec<u8>) -> Result<(), RewriteError> {
        while !input.is_empty() {
            match &mut self.state {
                State::Preface => {
                    if !fill(&mut self.partial, &mut input, PREFACE.len()) {
                        let so_far = PREFACE.get(..self.partial.len());
                        return if so_far == Some(self.partial.as_slice()) {
                            Ok(())
                        } else {
                            Err(RewriteError::Preface)
                        };
                    }
                    if self.partial != PREFACE {
                        return Err(RewriteError::Preface);
                    }
                    output.append(&mut self.partial);
                    self.state = State::FrameHeader;
                }
                State::FrameHeader => {
                    if !fill(&mut self.partial, &mut input, FRAME_HEADER) {
                        return Ok(());
                    }
                    let frame = Frame::parse(&self.partial).ok_or(RewriteError::Order)?;
                    self.begin(frame, output)?;
                    self.partial.clear();
                }
                State::Passing { left } => {
                    let (head, rest) = input.split_at((*left).min(input.len()));
                    output.extend_from_slice(head);
                    input = rest;
                    *left -= head.len();
                    if *left == 0 {
                        self.state = State::FrameHeader;
                    }
                }
                State::Gathering { frame, payload } => {
                    if !fill(payload, &mut input, frame.length) {
                        return Ok(());
                    }
                    let (frame, payload) = (*frame, std::mem::take(payload));
                    self.state = State::FrameHeader;
                    self.end_of_payload(frame, &payload, output)?;
                }
            }
        }
        Ok(())
    }

    /// Decides from a frame's header whether its payload is passed or gathered.
    fn begin(&mut self, frame: Frame, output: &mut Vec<u8>) -> Result<(), RewriteError> {
        if frame.length > MAX_FRAME {
            return Err(RewriteError::FrameSize(frame.length));
        }
        match (frame.kind, &self.open) {
            (HEADERS, None) | (CONTINUATION, Some(_)) => {
                self.state = State::Gathering { frame, payload: Vec::with_capacity(frame.length.min(1024)) };
                if frame.length == 0 {
                    self.state = State::FrameHeader;
                    self.end_of_payload(frame, &[], output)?;
                }
                Ok(())
            }
            (CONTINUATION, None) | (_, Some(_)) => Err(RewriteError::Order),
            (PUSH_PROMISE, None) => Err(RewriteError::Push),
            (_, None) => {
                output.extend_from_slice(&self.partial);
                if frame.length > 0 {
                    self.state = State::Passing { left: frame.length };
                }
                Ok(())
            }
        }
    }

    /// The payload of HEADERS or CONTINUATION is complete; with END_HEADERS the block is re-encoded.
    fn end_of_payload(&mut self, frame: Frame, payload: &[u8], output: &mut Vec<u8>) -> Result<(), RewriteError> {
        let block = match self.open.take() {
            None => Block::open(frame, payload)?,
            Some(block) => block.continued(frame, payload)?,
        };
        if block.fragments.len() > MAX_BLOCK || block.continuations > MAX_CONTINUATIONS {
            return Err(RewriteError::BlockSize);
        }
        if frame.flags & END_HEADERS == 0 {
            self.open = Some(block);
            return Ok(());
        }
        let mut encoded = Vec::with_capacity(block.fragments.len() * 2);
        for mut field in self.decoder.decode(&block.fragments)? {
            if field.name == b":authority" && Authority::try_from(field.value.as_slice()).is_err() {
                field.value = REPLACEMENT.to_vec();
            }
            encode(&field, &mut encoded);
        }
        block.write(&encoded, output);
        Ok(())
    }
}

impl Frame {
    /// RFC 9113, 4.1.
    fn parse(header: &[u8]) -> Option<Self> {
        let &[l0, l1, l2, kind, flags, s0, s1, s2, s3] = header else {
            return None;
        };
        let length = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
        Some(Self { length, kind, flags, stream: [s0, s1, s2, s3] })
    }
}

impl Block {
    /// RFC 9113, 6.2: `[pad length] [priority] fragment [padding]`.
    fn open(frame: Frame, payload: &[u8]) -> Result<Self, RewriteError> {
        let (padding, rest) = if frame.flags & PADDED == 0 {
            (0, payload)
        } else {
            let (length, rest) = payload.split_first().ok_or(RewriteError::Padding)?;
            (usize::from(*length), rest)
        };
        let (priority, rest) =
            rest.split_at_checked(if frame.flags & PRIORITY == 0 { 0 } else { 5 }).ok_or(RewriteError::Padding)?;
        let length = rest.len().checked_sub(padding).ok_or(RewriteError::Padding)?;
        let (fragment, _padding) = rest.split_at(length);
        Ok(Self {
            stream: frame.stream,
            flags: frame.flags & (END_STREAM | PRIORITY),
            priority: priority.to_vec(),
            fragments: fragment.to_vec(),
            continuations: 0,
        })
    }

    fn continued(mut self, frame: Frame, payload: &[u8]) -> Result<Self, RewriteError> {
        if frame.stream != self.stream {
            return Err(RewriteError::Order);
        }
        self.fragments.extend_from_slice(payload);
        self.continuations += 1;
        Ok(self)
    }

    /// HEADERS, and CONTINUATION for what does not fit.
    fn write(&self, encoded: &[u8], output: &mut Vec<u8>) {
        let (mut fragment, mut rest) = encoded.split_at(encoded.len().min(MAX_FRAME - self.priority.len()));
        let (mut kind, mut flags, mut priority) = (HEADERS, self.flags, self.priority.as_slice());
        loop {
            let length = priority.len() + fragment.len();
            let last = if rest.is_empty() { END_HEADERS } else { 0 };
            output.extend_from_slice(&[(length >> 16) as u8, (length >> 8) as u8, length as u8, kind, flags | last]);
            output.extend_from_slice(&self.stream);
            output.extend_from_slice(priority);
            output.extend_from_slice(fragment);
            if rest.is_empty() {
                return;
            }
            (kind, flags, priority) = (CONTINUATION, 0, &[]);
            (fragment, rest) = rest.split_at(rest.len().min(MAX_FRAME));
        }
    }
}

/// Moves bytes from `input` until `buffer` holds `length`; returns whether it does.
fn fill(buffer: &mut Vec<u8>, input: &mut &[u8], length: usize) -> bool {
    let missing = length.saturating_sub(buffer.len());
    let (head, rest) = input.split_at(missing.min(input.len()));
    buffer.extend_from_slice(head);
    *input = rest;
    buffer.len() == length
}

#[cfg(test)]
#[path = "transformer_tests.rs"]
mod tests;
