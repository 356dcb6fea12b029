//! Accepts clients that send an invalid `:authority`: gRPC C-core (Python, C++, Ruby) and grpc-java send the socket's path
//! there, which the `h2` crate answers with PROTOCOL_ERROR before any handler sees the request (hyperium/h2 #487). The
//! accepted stream of the Unix socket is rewritten within fixed limits: `localhost` replaces such an authority.

mod error;
mod hpack;
mod huffman;
mod limits;
mod stream;
mod transformer;

pub use error::{HpackError, RewriteError};
pub use stream::RewriteStream;
pub use transformer::Transformer;
