//! The issuer as an operator of a later version: every message has a field, and some are of a kind, that today's agents do
//! not know.

use std::pin::Pin;

use countersign_proto::issuer::v1::issuer_server::Issuer as _;
use countersign_proto::issuer::v1::{SessionRequest, SessionResponse};
use prost::Message as _;
use prost::bytes::BufMut as _;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::issuer::Api;

pub(super) async fn serve(
    api: Api,
    request: http::Request<hyper::body::Incoming>,
) -> http::Response<tonic::body::Body> {
    Grpc::new(LaterCodec).streaming(Service(Some(api)), request).await
}

struct Service(Option<Api>);

impl StreamingService<SessionRequest> for Service {
    type Response = SessionResponse;
    type ResponseStream = <Api as countersign_proto::issuer::v1::issuer_server::Issuer>::SessionStream;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<SessionRequest>>) -> Self::Future {
        let api = self.0.take().unwrap();
        Box::pin(async move { api.session(request).await })
    }
}

struct LaterCodec;

impl Codec for LaterCodec {
    type Encode = SessionResponse;
    type Decode = SessionRequest;
    type Encoder = LaterEncoder;
    type Decoder = <ProstCodec<SessionResponse, SessionRequest> as Codec>::Decoder;

    fn encoder(&mut self) -> LaterEncoder {
        LaterEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<SessionResponse, SessionRequest>::default().decoder()
    }
}

struct LaterEncoder;

impl Encoder for LaterEncoder {
    type Item = SessionResponse;
    type Error = Status;

    fn encode(&mut self, item: SessionResponse, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(into).map_err(|error| Status::internal(error.to_string()))?;
        // Field 100, length-delimited, and field 101, a number: neither is known.
        into.put_slice(&[0xa2, 0x06, 3, 1, 2, 3]);
        into.put_slice(&[0xa8, 0x06, 7]);
        Ok(())
    }
}
