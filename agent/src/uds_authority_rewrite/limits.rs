//! The limits within which a connection is rewritten. Each bounds what one client can cost the agent; exceeding one ends the
//! connection.

/// SETTINGS_MAX_FRAME_SIZE in bytes, which the server behind the rewriting leaves at its default (RFC 9113, 6.5.2).
pub(super) const MAX_FRAME: usize = 16_384;

/// The bytes of a header block, compressed, over all its frames.
pub(super) const MAX_BLOCK: usize = 16_384;

/// The CONTINUATION frames of one header block: empty frames cannot go on for ever.
pub(super) const MAX_CONTINUATIONS: usize = 16;

/// The decoded size of one header list in bytes, counted as in RFC 9113, 6.5.2 (32 bytes a field beside its content).
pub(super) const MAX_HEADER_LIST: usize = 32 * 1024;

/// SETTINGS_HEADER_TABLE_SIZE in bytes: the server behind the rewriting never announces another than the default (RFC 9113,
/// 6.5.2).
pub(super) const DYNAMIC_TABLE_SIZE: usize = 4096;
