//! A whole agent against an issuer of the real protocol, seen by an unmodified client: the Rust `spiffe` crate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_agent::run::serve_sessions;
use countersign_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use countersign_proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest, X509svidRequest,
};
use futures::StreamExt;
use support::agent::{TestAgent, comes_true};
use support::issuer::{Fault, identity};
use support::{AgentHome, DEFAULT_ID, FakeIssuer};
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Code, Request};

impl TestAgent {
    async fn prepared(
        identities: Vec<countersign_proto::issuer::v1::Identity>,
        prepare: impl FnOnce(&FakeIssuer),
    ) -> Self {
        let agent = Self::start(identities, prepare).await;
        agent.until(|| agent.home.path("identity/workload.sock").exists()).await;
        agent
    }

    async fn ready(identities: Vec<countersign_proto::issuer::v1::Identity>) -> Self {
        let agent = Self::prepared(identities, |_| {}).await;
        agent.until_ready().await;
        agent
    }

    async fn until_ready(&self) {
        self.until(|| !self.ready_marker().is_empty()).await;
    }

    fn ready_marker(&self) -> String {
        std::fs::read_to_string(self.home.path("private/ready")).unwrap_or_default()
    }

    fn status(&self) -> String {
        std::fs::read_to_string(self.home.path("private/status")).unwrap_or_default()
    }

    /// Waits for a condition that only polling can see.
    async fn until(&self, condition: impl Fn() -> bool) {
        assert!(comes_true(condition).await, "{}", self.status());
    }

    /// A generated client: it adds no metadata by itself.
    async fn raw(&self) -> SpiffeWorkloadApiClient<Channel> {
        let path = self.home.path("identity/workload.sock");
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
        SpiffeWorkloadApiClient::new(endpoint.connect_with_connector(connector).await.unwrap())
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.home.credentials().join(file)).unwrap()
    }
}

fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

/// How each of the five methods is refused: the code and the message.
async fn refusals(agent: &TestAgent) -> [(Code, String); 5] {
    fn refusal<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> (Code, String) {
        let status = answer.err().unwrap();
        (status.code(), status.message().to_owned())
    }
    let mut raw = agent.raw().await;
    let token = JwtsvidRequest { audience: vec!["a".into()], ..Default::default() };
    let validate = ValidateJwtsvidRequest { audience: "a".into(), svid: "e.e.e".into() };
    [
        refusal(raw.fetch_x509svid(call(X509svidRequest {})).await),
        refusal(raw.fetch_x509_bundles(call(X509BundlesRequest {})).await),
        refusal(raw.fetch_jwtsvid(call(token)).await),
        refusal(raw.fetch_jwt_bundles(call(JwtBundlesRequest {})).await),
        refusal(raw.validate_jwtsvid(call(validate)).await),
    ]
}

#[tokio::test]
async fn key_exchange_with_the_issuer_is_post_quantum() {
    let agent = TestAgent::ready(vec![identity(DEFAULT_ID)]).await;
    assert_eq!(*agent.issuer.state.key_exchanges.lock().unwrap(), [rustls::NamedGroup::X25519MLKEM768]);
}

/// R72, R74
#[tokio::test]
async fn an_unmodified_client_fetches_everything() {
    let mut shop = identity(DEFAULT_ID);
    shop.jwt_audiences = vec!["payments".into(), "https://*".into()];
    let agent = TestAgent::ready(vec![shop]).await;
    let client = agent.client().await;
    let svid = client.fetch_x509_svid().await.unwrap();
    assert_eq!(svid.spiffe_id().to_string(), DEFAULT_ID);
    let bundles = client.fetch_x509_bundles().await.unwrap();
    assert_eq!(bundles.len(), 1);
    let token = client.fetch_jwt_token(["https://api"], None).await.unwrap();
    assert_eq!(client.fetch_jwt_bundles().await.unwrap().len(), 1);
    let validated = client.validate_jwt_token("https://api", &token).await.unwrap();
    assert_eq!(validated.spiffe_id().to_string(), DEFAULT_ID);
    assert!(client.validate_jwt_token("somebody else", &token).await.is_err());
}

/// R71, R105
#[tokio::test]
async fn files_hold_what_the_contract_names() {
    let mut shop = identity(DEFAULT_ID);
    shop.jwt_audiences = vec!["https://pay/v1".into(), "any*".into()];
    let mut second = identity("spiffe://example.org/second");
    second.hint = "reports".into();
    let agent = TestAgent::ready(vec![shop, second, identity("spiffe://example.org/third")]).await;
    let bundle = agent.read("credential-bundle.private-key.x509.pem");
    assert_eq!(bundle, agent.read("tls.key") + &agent.read("tls.crt"));
    assert!(bundle.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert_eq!(agent.read("ca.crt"), agent.issuer.state.x509.certificate().pem());
    assert_eq!(agent.read("ca.crt"), agent.read("example.org.spiffe-trust-bundle.x509.pem"));
    assert_eq!(agent.read("ca.crt"), agent.read("example.org.trust-bundle.pem"));
    assert_eq!(bundle, agent.read("credential-bundle.pem"), "under the former name");
    assert!(agent.read("jwt/https%3A%2F%2Fpay%2Fv1.token").starts_with("eyJ"));
    assert_eq!(std::fs::read_dir(agent.home.credentials().join("jwt")).unwrap().count(), 1);
    for further in ["reports/credential-bundle.private-key.x509.pem", "3/tls.key"] {
        assert!(agent.read(further).starts_with("-----BEGIN PRIVATE KEY-----\n"));
    }
}

/// R2, R27, R69: renewed at half of its lifetime, on an open stream and in the files, with a new key.
#[tokio::test]
async fn renewal_reaches_watchers_and_files() {
    let agent = TestAgent::prepared(vec![identity(DEFAULT_ID)], |issuer| issuer.x509_ttl(2)).await;
    agent.until_ready().await;
    let mut updates = Box::pin(agent.client().await.stream_x509_svids().await.unwrap());
    let (mut leaves, mut keys) = (HashSet::new(), HashSet::new());
    for _ in 0..3 {
        let svid = updates.next().await.unwrap().unwrap();
        leaves.insert(svid.leaf().as_bytes().to_vec());
        keys.insert(svid.private_key().as_bytes().to_vec());
    }
    assert_eq!((leaves.len(), keys.len()), (3, 3));
    assert_eq!(agent.issuer.state.hellos.load(Ordering::Relaxed), 1, "on one stream");
}

#[tokio::test]
async fn a_call_without_metadata_is_an_invalid_argument() {
    let agent = TestAgent::ready(vec![identity(DEFAULT_ID)]).await;
    let mut raw = agent.raw().await;
    let codes = [
        raw.fetch_x509svid(X509svidRequest {}).await.err().unwrap().code(),
        raw.fetch_x509_bundles(X509BundlesRequest {}).await.err().unwrap().code(),
        raw.fetch_jwt_bundles(JwtBundlesRequest {}).await.err().unwrap().code(),
        raw.fetch_jwtsvid(JwtsvidRequest { audience: vec!["a".into()], ..Default::default() })
            .await
            .err()
            .unwrap()
            .code(),
        raw.validate_jwtsvid(ValidateJwtsvidRequest::default()).await.err().unwrap().code(),
    ];
    assert_eq!(codes, [Code::InvalidArgument; 5]);
    let mut wrong = Request::new(X509svidRequest {});
    wrong.metadata_mut().insert("workload.spiffe.io", "yes".parse().unwrap());
    assert_eq!(raw.fetch_x509svid(wrong).await.err().unwrap().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_pod_without_identity_is_denied_with_the_reason() {
    let agent = TestAgent::prepared(Vec::new(), |_| {}).await;
    agent.until(|| agent.status().contains("no WorkloadIdentity selects it")).await;
    // Every method of the SPIFFE Workload API.
    for (code, message) in refusals(&agent).await {
        assert_eq!((code, message.as_str()), (Code::PermissionDenied, "no WorkloadIdentity selects it"));
    }
    assert_eq!(agent.ready_marker(), "");
    agent.issuer.grant(vec![identity(DEFAULT_ID)]);
    agent.until_ready().await;
    assert!(agent.client().await.fetch_x509_svid().await.is_ok(), "without a restart");
}

#[tokio::test]
async fn before_readiness_it_is_unavailable() {
    let agent = TestAgent::prepared(vec![identity(DEFAULT_ID)], |issuer| issuer.set_fault(Fault::Silent)).await;
    assert_eq!(refusals(&agent).await.map(|(code, _)| code), [Code::Unavailable; 5]);
    assert!(!agent.home.credentials().exists());
}

#[tokio::test]
async fn what_does_not_verify_is_never_published_and_says_why() {
    let faults = [
        (Fault::WrongRoot, "does not verify"),
        (Fault::OtherId("spiffe://example.org/mallory".into()), "sent an X509-SVID of spiffe://example.org/mallory"),
        (Fault::OtherKey, "of another key"),
        (Fault::Refuse(7, "outside the grant".into()), "outside the grant"),
    ];
    for (fault, why) in faults {
        let agent = TestAgent::prepared(vec![identity(DEFAULT_ID)], |issuer| issuer.set_fault(fault.clone())).await;
        agent.until(|| agent.status().contains(why)).await;
        let status = agent.raw().await.fetch_x509svid(call(X509svidRequest {})).await.err().unwrap();
        assert_eq!(status.code(), Code::Unavailable, "{fault:?}");
        assert!(status.message().contains(why), "{status}");
        assert!(!agent.home.credentials().exists());
    }
}

#[tokio::test]
async fn withdrawal_ends_streams_and_takes_the_files_away() {
    let agent = TestAgent::ready(vec![identity(DEFAULT_ID)]).await;
    let mut raw = agent.raw().await;
    let mut updates = raw.fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    let mut x509_bundles = raw.fetch_x509_bundles(call(X509BundlesRequest {})).await.unwrap().into_inner();
    let mut jwt_bundles = raw.fetch_jwt_bundles(call(JwtBundlesRequest {})).await.unwrap().into_inner();
    assert!(updates.message().await.unwrap().is_some());
    assert!(x509_bundles.message().await.unwrap().is_some());
    assert!(jwt_bundles.message().await.unwrap().is_some());
    agent.issuer.withdraw("its WorkloadIdentity was deleted");
    for status in [
        updates.message().await.err().unwrap(),
        x509_bundles.message().await.err().unwrap(),
        jwt_bundles.message().await.err().unwrap(),
    ] {
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "its WorkloadIdentity was deleted"));
    }
    for (code, message) in refusals(&agent).await {
        assert_eq!((code, message.as_str()), (Code::PermissionDenied, "its WorkloadIdentity was deleted"));
    }
    let names = || {
        let entries = std::fs::read_dir(agent.home.path("identity")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    agent.until(|| names() == ["proof.sock", "workload.sock"]).await;
}

/// R27: while the issuer is away the agent serves the credentials it has; it reconnects when the issuer is back.
#[tokio::test]
async fn an_issuer_that_goes_and_comes_back_is_not_noticed_by_the_workload() {
    let mut agent = TestAgent::ready(vec![identity(DEFAULT_ID)]).await;
    let client = agent.client().await;
    let before = client.fetch_x509_svid().await.unwrap();
    let spare = FakeIssuer::start(Vec::new()).await;
    let (address, state, control_plane) = std::mem::replace(&mut agent.issuer, spare).stop().await;
    let error = client.fetch_jwt_token(["never asked for"], None).await.unwrap_err();
    assert!(
        error.to_string().to_lowercase().contains("unavailable") || error.to_string().contains("issuer"),
        "{error}"
    );
    assert_eq!(client.fetch_x509_svid().await.unwrap().leaf(), before.leaf());
    agent.issuer = FakeIssuer::bind_with(address, state, control_plane).await;
    agent.until(|| agent.issuer.state.hellos.load(Ordering::Relaxed) == 2).await;
    assert_eq!(client.fetch_x509_svid().await.unwrap().leaf(), before.leaf(), "no new certificate was needed");
}

// A replica of the issuer terminates: the stream moves to a new connection, and pending requests are repeated there.
#[tokio::test]
async fn a_token_that_was_asked_for_when_the_stream_moved_is_had_on_the_next() {
    let agent = TestAgent::ready(vec![identity(DEFAULT_ID)]).await;
    let state = Arc::clone(&agent.issuer.state);
    agent.issuer.set_fault(Fault::Silent);
    let before = state.requests.load(Ordering::Relaxed);
    let client = agent.client().await;
    let call = tokio::spawn(async move { client.fetch_jwt_token(["payments"], None).await });
    agent.until(|| state.requests.load(Ordering::Relaxed) > before).await;
    agent.issuer.set_fault(Fault::None);
    agent.issuer.move_streams(Duration::from_millis(20));
    call.await.unwrap().expect("nobody notices");
    assert_eq!(state.hellos.load(Ordering::Relaxed), 2);
    assert_eq!(state.connections.load(Ordering::Relaxed), 2, "another connection can lead to another replica");
}

// As above, for a call while there is no stream.
#[tokio::test]
async fn a_token_asked_for_between_two_streams_waits_for_the_next() {
    let agent = TestAgent::ready(vec![identity(DEFAULT_ID)]).await;
    let state = Arc::clone(&agent.issuer.state);
    let client = agent.client().await;
    agent.issuer.move_streams(Duration::from_millis(500));
    agent.until(|| state.streams.load(Ordering::Relaxed) == 0).await;
    client.fetch_jwt_token(["payments"], None).await.expect("nobody notices");
    assert_eq!(state.hellos.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_operator_of_a_later_version_is_understood_as_far_as_it_is_known() {
    let agent = TestAgent::prepared(vec![identity(DEFAULT_ID)], |issuer| {
        issuer.state.speaks_later_version.store(true, Ordering::Relaxed);
    })
    .await;
    agent.until_ready().await;
    let client = agent.client().await;
    assert_eq!(client.fetch_x509_svid().await.unwrap().spiffe_id().to_string(), DEFAULT_ID);
    client.fetch_jwt_token(["payments"], None).await.unwrap();
    assert_eq!(agent.issuer.state.hellos.load(Ordering::Relaxed), 1, "on one stream");
}

#[tokio::test]
async fn an_agent_says_which_it_is_and_what_it_can_do() {
    let agent = TestAgent::ready(vec![identity(DEFAULT_ID)]).await;
    let hello = agent.issuer.state.hello.lock().unwrap().clone();
    assert_eq!(hello.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(hello.capabilities, ["move", "ack", "receipt"]);
}

#[tokio::test]
async fn an_expired_svid_is_withdrawn_from_the_socket_and_stays_in_the_files() {
    let agent = TestAgent::prepared(vec![identity(DEFAULT_ID)], |issuer| issuer.x509_ttl(2)).await;
    agent.until_ready().await;
    let mut updates = agent.raw().await.fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    agent.issuer.set_fault(Fault::Refuse(14, "the authority is stalled".into()));
    let status = loop {
        if let Err(status) = updates.message().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("the authority is stalled"), "{status}");
    assert!(agent.home.credentials().join("tls.crt").exists());
}

#[tokio::test]
async fn a_restarted_agent_brings_a_new_key_and_keeps_the_files_meanwhile() {
    let mut agent = TestAgent::ready(vec![identity(DEFAULT_ID)]).await;
    let before = agent.read("tls.key");
    agent.stop();
    agent.issuer.set_fault(Fault::Silent);
    agent.start_again();
    agent.until(|| agent.ready_marker().is_empty()).await;
    assert_eq!(agent.read("tls.key"), before);
    agent.issuer.set_fault(Fault::None);
    agent.issuer.close_streams();
    agent.until_ready().await;
    assert_ne!(agent.read("tls.key"), before);
    assert!(agent.client().await.fetch_x509_svid().await.is_ok(), "on the socket bound anew");
}

#[tokio::test]
async fn a_tainted_authority_renews_at_once_and_not_for_ever() {
    let agent = TestAgent::ready(vec![identity(DEFAULT_ID)]).await;
    let mut updates = agent.raw().await.fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    let first = updates.message().await.unwrap().unwrap();
    let mut tainted = identity(DEFAULT_ID);
    tainted.tainted_authorities = vec![agent.issuer.state.x509.certificate().subject_key_id().to_vec()];
    agent.issuer.grant(vec![tainted]);
    let second = updates.message().await.unwrap().unwrap();
    assert_ne!(first.svids[0].x509_svid, second.svids[0].x509_svid);
    // The same authority signed it again: the next request is delayed, or the agent would do nothing else.
    let third = tokio::time::timeout(Duration::from_millis(300), updates.message()).await;
    assert!(third.is_err());
}

#[tokio::test]
async fn tokens_are_cached_and_refusals_keep_their_code() {
    let agent = TestAgent::ready(vec![identity(DEFAULT_ID), identity("spiffe://example.org/second")]).await;
    let mut raw = agent.raw().await;
    let ask = |audience: &str, id: &str| call(JwtsvidRequest { audience: vec![audience.into()], spiffe_id: id.into() });
    let first = raw.fetch_jwtsvid(ask("a", DEFAULT_ID)).await.unwrap().into_inner();
    let again = raw.fetch_jwtsvid(ask("a", DEFAULT_ID)).await.unwrap().into_inner();
    assert_eq!(first, again);
    assert_eq!(agent.issuer.state.jwts.load(Ordering::Relaxed), 1);
    assert_eq!(raw.fetch_jwtsvid(ask("a", "")).await.unwrap().into_inner().svids.len(), 2);
    let code = |result: Result<_, tonic::Status>| result.map(|_: tonic::Response<_>| ()).unwrap_err().code();
    assert_eq!(code(raw.fetch_jwtsvid(ask("forbidden", "")).await), Code::PermissionDenied);
    assert_eq!(code(raw.fetch_jwtsvid(ask("a", "spiffe://example.org/other")).await), Code::PermissionDenied);
    assert_eq!(code(raw.fetch_jwtsvid(ask("a", "not an id")).await), Code::InvalidArgument);
    assert_eq!(code(raw.fetch_jwtsvid(ask("", "")).await), Code::InvalidArgument);
    let none = call(JwtsvidRequest::default());
    assert_eq!(code(raw.fetch_jwtsvid(none).await), Code::InvalidArgument);
}

#[tokio::test]
async fn a_newer_token_lengthens_the_stream_s_life() {
    let agent = TestAgent::ready(vec![identity(DEFAULT_ID)]).await;
    agent.home.write_token(7200);
    agent.client().await.fetch_jwt_token(["a"], None).await.unwrap();
    agent.until(|| agent.issuer.state.refreshes.load(Ordering::Relaxed) == 1).await;
}

/// The issuer is pinned: a server at its address without a certificate of the control plane gets no token.
#[tokio::test]
async fn an_issuer_of_other_roots_gets_no_token() {
    let (home, right, wrong) =
        (AgentHome::new(), FakeIssuer::start(Vec::new()).await, FakeIssuer::start(Vec::new()).await);
    let mut config = home.config(&right);
    config.issuer = wrong.address.to_string();
    let task = tokio::spawn(serve_sessions(config)).abort_handle();
    let agent = TestAgent { home, issuer: wrong, task };
    agent.until(|| agent.status().contains("no TLS with the issuer")).await;
    assert_eq!(agent.issuer.state.hellos.load(Ordering::Relaxed), 0);
}
