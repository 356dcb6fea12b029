//! How an answer goes over the wire.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    time::interval,
};

use super::document::{Document, Marker};

/// Between two bytes of a slow answer.
const PAUSE: Duration = Duration::from_secs(1);
/// More than any client should read of the head of an answer, in bytes.
const LONG: usize = 256 * 1024;

/// What a client gets.
pub(super) enum Answer {
    /// As HTTP should be: status, type and body.
    Whole { status: &'static str, kind: &'static str, body: String },
    /// To this URL.
    Redirect(String),
    /// A byte now and then, without end.
    Slow,
    /// So many bytes are announced, and sent for as long as the client reads.
    Announced(u64),
    /// Chunks without end.
    Endless,
    /// Compressed: this document, followed by blanks without end, a hundred times as many as bytes are sent.
    Bomb(Document),
    /// The first half of this document, though all of it was announced.
    BrokenOff(Document),
    /// A header of a quarter of a mebibyte.
    LongHead,
}

impl Answer {
    pub(super) fn text(status: &'static str, kind: &'static str, body: String) -> Self {
        Self::Whole { status, kind, body }
    }

    pub(super) fn json(document: Document) -> Self {
        Self::text("200 OK", "application/json", document.json())
    }

    /// # Errors
    /// The client went away.
    pub(super) async fn send(self, stream: &mut (impl AsyncWrite + Unpin), marker: &Marker) -> Result<()> {
        let head = |headers: &str| format!("HTTP/1.1 200 {marker}\r\nContent-Type: application/json\r\n{headers}\r\n");
        let mut write = async |bytes: &[u8]| {
            stream.write_all(bytes).await.context("write an answer")?;
            stream.flush().await.context("write an answer")
        };
        match self {
            Self::Whole { status, kind, body } => {
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nX-Note: {marker}\r\nContent-Length: {length}"
                );
                write(format!("{head}\r\n\r\n{body}").as_bytes()).await
            }
            Self::Redirect(to) => {
                let head = format!("HTTP/1.1 302 Found\r\nLocation: {to}#{marker}\r\nContent-Length: 0\r\n\r\n");
                write(head.as_bytes()).await
            }
            Self::Slow => {
                write(head("Content-Length: 1000000\r\n").as_bytes()).await?;
                let mut pace = interval(PAUSE);
                for byte in marker.to_string().bytes().cycle() {
                    pace.tick().await;
                    write(&[byte]).await?;
                }
                Ok(())
            }
            Self::Announced(length) => {
                write(head(&format!("Content-Length: {length}\r\n")).as_bytes()).await?;
                let block = marker.to_string().repeat(1024);
                for _ in 0..length / block.len() as u64 {
                    write(block.as_bytes()).await?;
                }
                Ok(())
            }
            Self::Endless => {
                write(head("Transfer-Encoding: chunked\r\n").as_bytes()).await?;
                let block = marker.to_string().repeat(1024);
                let chunk = format!("{:x}\r\n{block}\r\n", block.len());
                loop {
                    write(chunk.as_bytes()).await?;
                }
            }
            Self::Bomb(document) => {
                write(head("Content-Encoding: gzip\r\nConnection: close\r\n").as_bytes()).await?;
                let (begin, blanks) = bomb(&document.json());
                write(&begin).await?;
                let blanks = blanks.repeat(1024);
                loop {
                    write(&blanks).await?;
                }
            }
            Self::BrokenOff(document) => {
                let json = document.json();
                write(head(&format!("Content-Length: {}\r\n", json.len())).as_bytes()).await?;
                write(json.as_bytes().get(..json.len() / 2).unwrap_or_default()).await
            }
            Self::LongHead => {
                let long = marker.to_string().repeat(LONG / marker.to_string().len());
                write(head(&format!("X-Note: {long}\r\nContent-Length: 0\r\n")).as_bytes()).await
            }
        }
    }
}

/// A compressed text that begins like this, and what may be repeated after it as often as one likes: 13 bytes for 2,064 blanks
/// (RFC 1951, RFC 1952).
fn bomb(text: &str) -> (Vec<u8>, Vec<u8>) {
    const PERIOD: usize = 13;
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    // As it is (RFC 1951, section 3.2.4), in blocks that are not the last.
    for block in text.as_bytes().chunks(0xffff) {
        let length = u16::try_from(block.len()).unwrap_or_default();
        bytes.push(0);
        bytes.extend(length.to_le_bytes());
        bytes.extend((!length).to_le_bytes());
        bytes.extend(block);
    }
    // A block with fixed codes (section 3.2.6): a blank, then copies of 258 bytes from one byte before.
    let blank = [0, 1, 0].into_iter().chain(code(0x30 + 0x20, 8));
    let copy = || code(0xc5, 8).chain(code(0, 5));
    let bits: Vec<u8> = blank.chain((0..24).flat_map(|_| copy())).collect();
    let packed: Vec<u8> =
        bits.chunks_exact(8).map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit)).collect();
    // What comes after the two bytes of the beginning repeats.
    let (begin, rest) = packed.split_at(2);
    bytes.extend(begin);
    (bytes, rest.iter().copied().take(PERIOD).collect())
}

/// The bits of a code, the most significant first (RFC 1951, section 3.1.1).
fn code(value: u16, length: u32) -> impl Iterator<Item = u8> {
    (0..length).rev().map(move |bit| u8::from(value >> bit & 1 == 1))
}
