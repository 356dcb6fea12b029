//! WIT-SVIDs of a whole agent: over the Workload API, and as proofs on the socket beside it. `a` and `b` are two sessions, each with
//! its own socket and memory of proofs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_core::bundle::Bundle;
use countersign_core::id::{SpiffeId, TrustDomain};
use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::wimse::wpt::{WptRequest, make_wpt};
use countersign_core::wit::{WitAuthority, WitRequest, read_wit_svid};
use countersign_proto::issuer::v1::{self, Identity};
use countersign_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use countersign_proto::workload::{WitBundlesRequest, WitsvidRequest, WitsvidResponse};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use support::DEFAULT_ID;
use support::issuer::{Fault, identity};
use support::sessions::TwoSessions;
use tokio::net::UnixStream;
use tonic::{Code, Status};

const TARGET: &str = "https://payments.example/pay";

/// An agent, whose sessions are two workloads to each other.
struct Agents(TwoSessions);

fn with_wit(seconds: u32, export_key: bool) -> Identity {
    Identity { wit_ttl: seconds, wit_export_key: export_key, ..identity(DEFAULT_ID) }
}

impl Agents {
    async fn ready(identity: Identity) -> Self {
        let agents = Self::start(identity).await;
        agents.0.until("both are ready", || agents.0.marker("ready").lines().count() == 2).await;
        agents
    }

    async fn start(identity: Identity) -> Self {
        Self(TwoSessions::start(identity, &["a", "b"], |_| {}).await)
    }

    async fn post(&self, session: &str, path: &str, body: &Value) -> (u16, Value) {
        self.send(session, path, body.to_string(), &[("workload.spiffe.io", "true")]).await
    }

    async fn send(&self, session: &str, path: &str, body: String, headers: &[(&str, &str)]) -> (u16, Value) {
        let stream = UnixStream::connect(self.0.home.path(session).join("proof.sock")).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::post(path).header("host", "agent");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// The request with what `a` adds to it as a proof.
    async fn proven(&self, proof: &str, mut request: Value, more: &Value) -> (Value, Value) {
        let mut ask = json!({"proof": proof, "audience": TARGET, "request": request});
        ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, proof) = self.post("a", "/v1/prove-request", &ask).await;
        assert_eq!(status, 200, "{proof}");
        request["headers"].as_array_mut().unwrap().extend(proof["headers"].as_array().unwrap().clone());
        (request, proof)
    }

    async fn verified(&self, session: &str, request: &Value) -> (u16, Value) {
        let ask = json!({"proofs": ["wpt", "http-signature"], "audiences": [TARGET], "request": request});
        self.post(session, "/v1/verify-request", &ask).await
    }

    async fn workload_api(&self) -> SpiffeWorkloadApiClient<tonic::transport::Channel> {
        let path = self.0.home.path("a/workload.sock");
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
        SpiffeWorkloadApiClient::new(endpoint.connect_with_connector(connector).await.unwrap())
    }

    async fn wit_svids(&self, id: &str) -> Result<tonic::Streaming<WitsvidResponse>, Status> {
        let response = self.workload_api().await.fetch_witsvid(call(WitsvidRequest { spiffe_id: id.into() })).await?;
        Ok(response.into_inner())
    }
}

fn call<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

fn post(headers: &Value) -> Value {
    json!({"method": "POST", "path": "/pay", "query": "to=me", "headers": headers, "body_sha256": hash(7)})
}

fn hash(byte: u8) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode([byte; 32])
}

/// R62: FetchWITSVID brings a new WIT-SVID with a new key at each renewal, and FetchWITBundles what verifies them.
#[tokio::test]
async fn a_workload_that_may_have_the_key_gets_a_new_one_with_each_wit_svid() {
    let agents = Agents::ready(with_wit(2, true)).await;
    let mut updates = agents.wit_svids("").await.unwrap();
    let mut thumbprints = Vec::new();
    for _ in 0..3 {
        let svid = updates.message().await.unwrap().unwrap().svids.remove(0);
        let claims = read_wit_svid(&svid.wit_svid).unwrap();
        let key: Value = serde_json::from_str(&svid.wit_svid_key).unwrap();
        let public = claims.confirmation.jwk();
        assert_eq!((&key["x"], &key["y"]), (&public["x"], &public["y"]));
        assert!(key["d"].is_string());
        assert_eq!(svid.spiffe_id, DEFAULT_ID);
        thumbprints.push(claims.confirmation.thumbprint().to_owned());
    }
    thumbprints.sort();
    thumbprints.dedup();
    assert_eq!(thumbprints.len(), 3, "a key of its own for each");
    let mut bundles =
        agents.workload_api().await.fetch_wit_bundles(call(WitBundlesRequest {})).await.unwrap().into_inner();
    let bundles = bundles.message().await.unwrap().unwrap().bundles;
    let keys: Value = serde_json::from_str(&bundles["spiffe://example.org"]).unwrap();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
}

/// R10: without exportKey nobody gets the key, over the socket or in a file.
#[tokio::test]
async fn the_key_stays_in_the_agent_unless_it_is_exported() {
    let agents = Agents::ready(with_wit(600, false)).await;
    let refused = agents.wit_svids("").await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("wit.exportKey"), "{}", refused.message());
    let (request, _) = agents.proven("wpt", post(&json!([])), &json!({})).await;
    let headers = request["headers"].as_array().unwrap();
    let token = headers.iter().find(|header| header[0] == "workload-identity-token").unwrap()[1].as_str().unwrap();
    let mut folders = vec![agents.0.home.path("a"), agents.0.home.path("private")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.path().is_file() {
                let content = std::fs::read(entry.path()).unwrap();
                assert!(!String::from_utf8_lossy(&content).contains(token), "{}", entry.path().display());
            }
        }
    }
}

#[tokio::test]
async fn an_identity_without_wit_svids_or_another_s_is_refused_with_the_reason() {
    let agents = Agents::ready(identity(DEFAULT_ID)).await;
    let refused = agents.wit_svids("").await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("spec.authority.wit"), "{}", refused.message());
    let refused = agents.wit_svids("spiffe://example.org/another").await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(agents.wit_svids("no id").await.err().unwrap().code(), Code::InvalidArgument);
    let ask = json!({"proof": "wpt", "audience": TARGET, "request": post(&json!([]))});
    let (status, body) = agents.post("a", "/v1/prove-request", &ask).await;
    assert_eq!(status, 404);
    assert!(body["error"].as_str().unwrap().contains("spec.wit"), "{body}");
    assert_eq!(agents.0.issuer.state.wits.load(Ordering::Relaxed), 0, "nobody asked for one");
}

/// What the issuer sends is verified, and bound to the key that was asked for, before anyone uses it.
#[tokio::test]
async fn a_wit_svid_of_another_key_is_never_used() {
    let agents = Agents::start(with_wit(600, true)).await;
    agents.0.issuer.set_fault(Fault::OtherKey);
    agents.0.until("a WIT-SVID was refused", || agents.0.issuer.state.wits.load(Ordering::Relaxed) > 0).await;
    assert!(agents.wit_svids("").await.is_err());
}

/// R9, R62: a proof is accepted once by each memory, and by nobody else's audience.
#[tokio::test]
async fn a_workload_proof_token_is_accepted_once() {
    let agents = Agents::ready(with_wit(600, false)).await;
    let (request, proof) = agents.proven("wpt", post(&json!([["content-type", "text/plain"]])), &json!({})).await;
    assert_eq!(proof["spiffe_id"], DEFAULT_ID);

    let elsewhere = json!({"proofs": ["wpt"], "audiences": ["https://orders.example/pay"], "request": request});
    let (status, refused) = agents.post("b", "/v1/verify-request", &elsewhere).await;
    assert_eq!((status, &refused["response"]["status"]), (403, &json!(401)), "{refused}");

    let (status, caller) = agents.verified("b", &request).await;
    assert_eq!(status, 200, "{caller}");
    assert_eq!((&caller["spiffe_id"], &caller["proof"]), (&json!(DEFAULT_ID), &json!("wpt")));
    let (status, refused) = agents.verified("b", &request).await;
    assert_eq!((status, &refused["response"]["status"]), (403, &json!(401)));
    assert_eq!(refused["response"]["headers"], json!([["WWW-Authenticate", "WPT"]]));
    // The other session has a memory of its own: that is the window that is documented.
    assert_eq!(agents.verified("a", &request).await.0, 200);
}

/// R86: what a signature covers cannot be changed, and a WPT does not bind it.
#[tokio::test]
async fn a_signature_binds_query_and_body_and_a_workload_proof_token_does_not() {
    let agents = Agents::ready(with_wit(600, false)).await;
    for (member, value) in [("method", json!("PUT")), ("query", json!("to=you")), ("body_sha256", json!(hash(8)))] {
        for (proof, expected) in [("http-signature", 403), ("wpt", 200)] {
            let (mut request, _) = agents.proven(proof, post(&json!([])), &json!({})).await;
            request[member] = value.clone();
            let (status, body) = agents.verified("b", &request).await;
            assert_eq!(status, expected, "{member} {proof}: {body}");
        }
    }
}

/// A signed response names the server, and answers one request alone.
#[tokio::test]
async fn a_response_is_signed_for_the_request_that_it_answers() {
    let agents = Agents::ready(with_wit(600, false)).await;
    let (request, proof) = agents.proven("http-signature", post(&json!([])), &json!({"sign_response": true})).await;
    let (status, caller) = agents.verified("b", &request).await;
    assert_eq!((status, &caller["sign_response"]), (200, &json!(true)), "{caller}");
    let mut response = json!({"status": 200, "headers": [["content-type", "text/plain"]], "body_sha256": hash(3)});
    let ask = json!({"request": request, "response": response, "request_nonce": caller["nonce"]});
    let (status, signed) = agents.post("b", "/v1/prove-response", &ask).await;
    assert_eq!(status, 200, "{signed}");
    let unsigned = response.clone();
    response["headers"].as_array_mut().unwrap().extend(signed["headers"].as_array().unwrap().clone());

    let verify = |response: Value, servers: Value, required: bool| {
        json!({"servers": servers, "request": request, "response": response,
               "request_nonce": proof["nonce"], "signature_required": required})
    };
    let ask = verify(unsigned.clone(), json!([]), true);
    assert_eq!(agents.post("a", "/v1/verify-response", &ask).await.0, 403, "an unsigned one, where it is required");
    let ask = verify(unsigned, json!([]), false);
    assert_eq!(agents.post("a", "/v1/verify-response", &ask).await, (200, json!({"spiffe_id": null})));
    let mut altered = response.clone();
    altered["status"] = json!(500);
    assert_eq!(agents.post("a", "/v1/verify-response", &verify(altered, json!([]), true)).await.0, 403);
    let ask = verify(response.clone(), json!([DEFAULT_ID]), true);
    assert_eq!(agents.post("a", "/v1/verify-response", &ask).await, (200, json!({"spiffe_id": DEFAULT_ID})));
    let mut of_another = ask;
    of_another["request_nonce"] = json!("bm90IG9mIHRoaXMgcmVxdWVzdA");
    assert_eq!(agents.post("a", "/v1/verify-response", &of_another).await.0, 403, "it answers another request");
}

/// Only those who are named may call.
#[tokio::test]
async fn callers_are_ids_patterns_and_trust_domains() {
    let agents = Agents::ready(with_wit(600, false)).await;
    for (callers, expected) in [
        (json!([DEFAULT_ID]), 200),
        (json!(["spiffe://example.org/ns/shop/**"]), 200),
        (json!(["example.org"]), 200),
        (json!(["spiffe://example.org/ns/shop/sa/payments"]), 403),
        (json!(["another.example"]), 403),
        (json!(["not an id"]), 400),
    ] {
        let (request, _) = agents.proven("wpt", post(&json!([])), &json!({})).await;
        let ask = json!({"proofs": ["wpt"], "audiences": [TARGET], "callers": callers, "request": request});
        let (status, body) = agents.post("b", "/v1/verify-request", &ask).await;
        assert_eq!(status, expected, "{callers}: {body}");
    }
}

/// R88: what a server can be tricked into sending has no such field (SPIFFE Workload Endpoint, section 3).
#[tokio::test]
async fn a_request_without_the_field_of_the_workload_api_is_refused() {
    let agents = Agents::ready(with_wit(600, false)).await;
    let ask = json!({"proof": "wpt", "audience": TARGET, "request": post(&json!([]))}).to_string();
    for headers in [&[][..], &[("workload.spiffe.io", "false")]] {
        let (status, body) = agents.send("a", "/v1/prove-request", ask.clone(), headers).await;
        assert_eq!(status, 400);
        assert!(body["error"].as_str().unwrap().contains("workload.spiffe.io"), "{body}");
    }
}

/// Each says what is wrong and where.
#[tokio::test]
async fn what_cannot_be_read_or_proven_is_an_error_that_says_why() {
    let agents = Agents::ready(with_wit(600, false)).await;
    let request = post(&json!([]));
    for (path, ask, status, says) in [
        ("/v1/prove", json!({}), 404, "/v1/prove-request"),
        ("/v1/prove-request", json!({"proof": "wpt"}), 400, "audience"),
        ("/v1/prove-request", json!({"proof": "jwt", "audience": TARGET, "request": request}), 400, "jwt"),
        ("/v1/prove-request", json!({"proof": "wpt", "audience": TARGET, "request": request, "ttl": 900}), 400, "ttl"),
        ("/v1/prove-request", json!({"proof": "wpt", "audience": "https://a/b?c", "request": request}), 400, "query"),
        (
            "/v1/prove-request",
            json!({"proof": "wpt", "audience": TARGET, "request": request, "sign_response": true}),
            400,
            "sign_response",
        ),
        (
            "/v1/prove-request",
            json!({"proof": "wpt", "audience": TARGET, "request": post(&json!([["authorization", "Bearer x"]]))}),
            400,
            "Authorization",
        ),
        (
            "/v1/prove-request",
            json!({"spiffe_id": "spiffe://example.org/another", "proof": "wpt", "audience": TARGET, "request": request}),
            404,
            "entitled",
        ),
        ("/v1/verify-request", json!({"proofs": [], "audiences": [TARGET], "request": request}), 400, "no way"),
        ("/v1/verify-request", json!({"proofs": ["wpt"], "request": request}), 400, "audience"),
        ("/v1/verify-request", json!({"proofs": ["jwt-svid"], "request": request}), 400, "jwt_audience"),
    ] {
        let (found, body) = agents.post("a", path, &ask).await;
        let error = body["error"].as_str().unwrap_or_default();
        assert_eq!(found, status, "{path} {ask}: {body}");
        assert!(error.contains(says), "{ask}: {error}");
    }
    let long = json!({"proof": "wpt", "audience": "a".repeat(33_000), "request": request});
    assert_eq!(agents.post("a", "/v1/prove-request", &long).await.0, 413);
}

/// R16: of a foreign trust domain only the accepted paths may call, and what is refused uses up no proof.
#[tokio::test]
async fn of_a_foreign_trust_domain_only_the_accepted_paths_prove_requests() {
    let partner: TrustDomain = "partner.example".parse().unwrap();
    let authority = WitAuthority::generate(KeyType::EcP256).unwrap();
    let bundle = Bundle {
        trust_domain: partner.clone(),
        x509_authorities: Vec::new(),
        jwt_authorities: Vec::new(),
        wit_authorities: vec![authority.verification_key().clone()],
        sequence: 1,
        refresh_hint: Duration::from_secs(300),
    };
    let agents = Agents::start(Identity { federates_with: vec![partner.to_string()], ..with_wit(600, false) }).await;
    agents.0.issuer.state.foreign_bundles.lock().unwrap().push(v1::Bundle {
        trust_domain: partner.to_string(),
        document: bundle.to_json().into(),
        sequence: 1,
        path_patterns: vec!["/api/*".to_owned()],
        ..v1::Bundle::default()
    });
    agents.0.issuer.publish_sequence(2);
    agents.0.until("both are ready", || agents.0.marker("ready").lines().count() == 2).await;
    for (path, expected) in [("/api/orders", 200), ("/batch/orders", 403)] {
        let id = SpiffeId::new(&partner, path).unwrap();
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let ask = WitRequest { id: &id, confirmation: key.public_key(), ttl: Duration::from_secs(60) };
        let wit = authority.issue(&ask, Timestamp::now()).unwrap().token;
        let ask = WptRequest {
            wit: &wit,
            audience: TARGET,
            txn_token: None,
            other_tokens: &[],
            life: Duration::from_secs(30),
            jti: rand::random(),
        };
        let proof = make_wpt(&key, &ask, Timestamp::now()).unwrap();
        let request = post(&json!([["workload-identity-token", *wit], ["authorization", *proof]]));
        let (status, body) = agents.verified("a", &request).await;
        assert_eq!(status, expected, "{path}: {body}");
    }
}
