//! Why a connection is ended instead of rewritten.

use super::limits::{MAX_BLOCK, MAX_CONTINUATIONS, MAX_FRAME, MAX_HEADER_LIST};

/// Why the connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// Not HTTP/2 with prior knowledge, which gRPC over a Unix socket is.
    #[error("the client does not speak HTTP/2: its first bytes are not the connection preface")]
    Preface,
    /// A frame above the default limit, which the server never raises.
    #[error("a frame of {0} bytes is longer than {MAX_FRAME}")]
    FrameSize(usize),
    /// HEADERS whose padding or priority does not fit.
    #[error("a HEADERS frame is shorter than its padding and priority")]
    Padding,
    /// A header block interrupted by another frame, continued on another stream, or continued where none is open.
    #[error("frames of a header block are out of order")]
    Order,
    /// A header block in too many bytes or frames.
    #[error("a header block is longer than {MAX_BLOCK} bytes or {MAX_CONTINUATIONS} continuations")]
    BlockSize,
    /// A client may not push.
    #[error("the client sent PUSH_PROMISE")]
    Push,
    /// The header block itself.
    #[error(transparent)]
    Hpack(#[from] HpackError),
}

/// Why a header block cannot be decoded: each ends the connection (RFC 9113, 4.3: COMPRESSION_ERROR).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HpackError {
    /// The block ends within a field.
    #[error("the header block ends within a field")]
    Truncated,
    /// An integer above 2^28.
    #[error("an integer in the header block is too large")]
    Integer,
    /// An index that neither table has.
    #[error("the header block refers to an entry that is in neither table")]
    Index,
    /// A string whose Huffman coding is not valid.
    #[error("a string of the header block is not valid Huffman code")]
    Huffman,
    /// A change of the table's size after a field, or beyond what was announced.
    #[error("the header block changes the table's size where or as it may not")]
    TableSize,
    /// More than the limit once decoded.
    #[error("the header list is longer than {MAX_HEADER_LIST} bytes")]
    TooLarge,
}
