//! What the demonstration shows: a request that is proven by a Workload Proof Token, the same request again, and one that is signed.

use std::time::Duration;

use anyhow::Result;
use axum::body::Bytes;
use clap::Args;
use countersign_verify::{
    proof::Method,
    proof_socket::{ProofSocket, ProveRequest, RequestDescription, RequestProof},
};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use serde_json::json;

use crate::{
    call::{Client, Next},
    say, source,
};

/// The service that is called.
#[derive(Debug, Args)]
pub(crate) struct Shown {
    /// Its URL, of `http`.
    #[arg(long)]
    url: Uri,
    /// The SPIFFE ID that it must have.
    #[arg(long)]
    expect: String,
}

/// Between two demonstrations.
const PAUSE: Duration = Duration::from_secs(10);

pub(crate) async fn run(shown: Shown) -> Result<()> {
    let source = source().await?;
    let signing = Next::signed(shown.url.clone(), shown.expect.clone());
    let client = Client::new(&signing, &source).await?;
    loop {
        if let Err(error) = show(&shown, &client).await {
            say(&json!({"event": "failed", "error": format!("{error:#}")}));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn show(shown: &Shown, client: &Client) -> Result<()> {
    let path = shown.url.path().to_owned();
    let request = RequestDescription {
        method: "GET".to_owned(),
        path,
        query: None,
        authority: None,
        headers: Vec::new(),
        body_sha256: None,
    };
    let audience = shown.url.to_string();
    let ask = ProveRequest { spiffe_id: None, proof: RequestProof::Wpt, audience, request, sign_response: false };
    let proof = ProofSocket::from_env()?.prove_request(&ask).await?;
    let http = HttpClient::builder(TokioExecutor::new()).build_http();
    for event in ["proof", "replay"] {
        let mut request = Request::get(shown.url.clone());
        for (name, value) in &proof.headers {
            request = request.header(name, value);
        }
        let response = http.request(request.body(Full::<Bytes>::default())?).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        let answer = String::from_utf8_lossy(&body);
        say(&json!({"event": event, "proof": Method::Wpt.as_str(), "status": status, "answer": answer.trim()}));
    }
    let (status, answer) = client.call(Bytes::from_static(b"two of them")).await?;
    let (proof, signed_by) = (Method::HttpSignature.as_str(), &shown.expect);
    say(&json!({
        "event": "proof", "proof": proof, "status": status.as_u16(), "answer": answer.trim(), "signed_by": signed_by,
    }));
    Ok(())
}
