//! Lets clients in whose `:authority` is not one: gRPC C-core (Python, C++, Ruby) and grpc-java send the socket's path
//! there, which the `h2` crate answers with PROTOCOL_ERROR before any handler sees the request (hyperium/h2 #487). A small,
//! bounded filter on the accepted stream puts `localhost` in its place.

mod hpack;
mod huffman;
mod stream;
mod transformer;

pub use hpack::HpackError;
pub use stream::Filtered;
pub use transformer::{FilterError, Transformer};
