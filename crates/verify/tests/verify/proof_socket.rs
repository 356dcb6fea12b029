//! The client of the agent's proof socket.

use axum::{Router, http::StatusCode, routing::post};
use countersign_verify::{
    proof_socket::{
        AcceptedProof, PROVE_REQUEST_PATH, ProofSocket, ProofSocketError, ProveRequest, RequestDescription,
        RequestProof, VERIFY_REQUEST_PATH, VerifyRequest,
    },
    prover::{ProveError, Prover, RequestToProve},
};
use tokio::net::UnixListener;

use crate::{agent::Agent, fixtures::Domain, sender::Sent};

fn described(sent: &Sent) -> RequestDescription {
    RequestDescription {
        method: sent.method.to_owned(),
        path: sent.path.to_owned(),
        query: None,
        authority: None,
        headers: sent.headers.clone(),
        body_sha256: None,
    }
}

fn ask(spiffe_id: Option<&str>) -> ProveRequest {
    ProveRequest {
        spiffe_id: spiffe_id.map(str::to_owned),
        proof: RequestProof::Wpt,
        audience: "orders".to_owned(),
        request: described(&Sent::get()),
        sign_response: false,
    }
}

#[tokio::test]
async fn what_the_agent_proves_the_agent_verifies() {
    let domain = Domain::new("a.test");
    let agent = Agent::start(&domain, "/caller");
    let socket = agent.socket();
    let proof = socket.prove_request(&ask(None)).await.unwrap();
    assert_eq!(proof.spiffe_id, "spiffe://a.test/caller");
    let verify = |audience: &str| VerifyRequest {
        proofs: vec![AcceptedProof::Wpt],
        audiences: vec![audience.to_owned()],
        origins: Vec::new(),
        jwt_audience: None,
        callers: Vec::new(),
        request: RequestDescription { headers: proof.headers.clone(), ..described(&Sent::get()) },
    };
    let verified = socket.verify_request(&verify("orders")).await.unwrap().unwrap();
    assert_eq!((verified.spiffe_id.as_str(), verified.proof), ("spiffe://a.test/caller", AcceptedProof::Wpt));
    let refused = socket.verify_request(&verify("payments")).await.unwrap().unwrap_err();
    assert_eq!((refused.response.status, refused.response.headers.len()), (401, 1));
}

#[tokio::test]
async fn why_the_agent_refuses_is_known() {
    let domain = Domain::new("a.test");
    let agent = Agent::start(&domain, "/caller");
    let refused = agent.socket().prove_request(&ask(Some("spiffe://a.test/other"))).await.unwrap_err();
    assert_eq!(refused, ProofSocketError::Status { status: 404, error: "no such identity".to_owned() });
    let no_proofs = VerifyRequest {
        proofs: Vec::new(),
        audiences: Vec::new(),
        origins: Vec::new(),
        jwt_audience: None,
        callers: Vec::new(),
        request: described(&Sent::get()),
    };
    let refused = agent.socket().verify_request(&no_proofs).await.unwrap_err();
    assert_eq!(refused, ProofSocketError::Status { status: 400, error: "no such policy".to_owned() });
}

#[tokio::test]
async fn an_agent_that_is_away_or_answers_something_else_makes_no_proof() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proof.sock");
    let socket = ProofSocket::at(&path);
    assert!(matches!(socket.prove_request(&ask(None)).await, Err(ProofSocketError::Connection(_))));

    let app = Router::new()
        .route(PROVE_REQUEST_PATH, post(async || "{}"))
        .route(VERIFY_REQUEST_PATH, post(async || (StatusCode::OK, "x".repeat(300 * 1024))));
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async { axum::serve(listener, app).await });
    assert_eq!(socket.prove_request(&ask(None)).await, Err(ProofSocketError::Malformed));
    let verify = VerifyRequest {
        proofs: vec![AcceptedProof::Wpt],
        audiences: vec!["orders".to_owned()],
        origins: Vec::new(),
        jwt_audience: None,
        callers: Vec::new(),
        request: described(&Sent::get()),
    };
    assert_eq!(socket.verify_request(&verify).await, Err(ProofSocketError::Malformed));
}

#[test]
fn the_address_is_that_of_a_unix_socket() {
    assert!(ProofSocket::from_address("unix:///run/countersign/proof.sock").is_ok());
    for wrong in ["", "/run/countersign/proof.sock", "tcp://127.0.0.1:80", "http://127.0.0.1"] {
        assert!(matches!(ProofSocket::from_address(wrong), Err(ProofSocketError::Address(_))), "{wrong}");
    }
}

#[tokio::test]
async fn what_the_agent_cannot_bind_is_not_left_unbound() {
    let domain = Domain::new("a.test");
    let agent = Agent::start(&domain, "/caller");
    let sent = Sent::get();
    let fields = sent.fields();
    let names = ["x-context".to_owned()];
    let ask = RequestToProve {
        proof: RequestProof::Wpt,
        audience: "orders",
        request: sent.request(&fields),
        sign_response: false,
        context_fields: &names,
    };
    assert!(matches!(Prover::prove_request(&agent.socket(), &ask).await, Err(ProveError::Refused { .. })));
    assert_eq!(agent.asked(), 0);
}
