//! A hand-written client of the Workload API, for requests that violate its rules.

use anyhow::{Context as _, Result};
use serde_json::json;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::report::say;

/// Calls a method with an empty request, reads the first answer, and prints the status code.
pub(crate) async fn call(method: &str, with_metadata: bool) -> Result<()> {
    let address = std::env::var("SPIFFE_ENDPOINT_SOCKET").context("SPIFFE_ENDPOINT_SOCKET")?;
    let channel = Endpoint::from_shared(address)?.connect().await.context("connect to the Workload API")?;
    let (code, message) = match first(channel, method, with_metadata).await {
        Ok(()) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    };
    say(&json!({ "event": "workload-api", "method": method, "code": format!("{code:?}"), "message": message }));
    Ok(())
}

async fn first(channel: Channel, method: &str, with_metadata: bool) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(());
    if with_metadata {
        request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    }
    let path = PathAndQuery::try_from(format!("/SpiffeWorkloadAPI/{method}"))
        .map_err(|error| Status::internal(error.to_string()))?;
    // The fields do not matter here: the empty message skips unknown fields.
    let codec = ProstCodec::<(), ()>::default();
    grpc.server_streaming(request, path, codec).await?.into_inner().message().await?;
    Ok(())
}
