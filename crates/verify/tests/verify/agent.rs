//! An agent's proof socket for tests: the key of one workload is its own.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use countersign_verify::{
    Authorizer,
    proof::Authenticator,
    proof_socket::{
        AcceptedProof, ErrorMessage, METADATA_FIELD, PROVE_REQUEST_PATH, PROVE_RESPONSE_PATH, Proof, ProofSocket,
        ProveRequest, ProveResponse, Refused, RequestProof, ResponseToSend, VERIFY_REQUEST_PATH, VerifiedRequest,
        VerifyRequest,
    },
    tls::FixedBundles,
    wimse::{
        Audience,
        signature::{SignRequest, SignResponse, content_digest_of_hash, sign_request, sign_response},
        wpt::{WptRequest, make_wpt},
    },
};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use tokio::net::UnixListener;

use crate::{
    fixtures::{Domain, Wit, bundle_set},
    sender::LIFE,
};

pub(crate) struct Agent {
    folder: TempDir,
    asked: Arc<AtomicUsize>,
}

struct Workload {
    id: String,
    wit: Wit,
    bundles: FixedBundles,
    asked: Arc<AtomicUsize>,
}

type Shared = State<Arc<Workload>>;

impl Agent {
    pub(crate) fn start(domain: &Domain, path: &str) -> Self {
        let (folder, asked) = (tempfile::tempdir().unwrap(), Arc::<AtomicUsize>::default());
        let workload = Workload {
            id: domain.id(path).to_string(),
            wit: domain.wit(path),
            bundles: FixedBundles(bundle_set(&[domain])),
            asked: asked.clone(),
        };
        let app = Router::new()
            .route(PROVE_REQUEST_PATH, post(prove_request))
            .route(PROVE_RESPONSE_PATH, post(prove_response))
            .route(VERIFY_REQUEST_PATH, post(verify_request))
            .with_state(Arc::new(workload));
        let listener = UnixListener::bind(folder.path().join("proof.sock")).unwrap();
        tokio::spawn(async { axum::serve(listener, app).await });
        Self { folder, asked }
    }

    pub(crate) fn socket(&self) -> ProofSocket {
        ProofSocket::from_address(&format!("unix://{}/proof.sock", self.folder.path().display())).unwrap()
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn is_allowed(workload: &Workload, headers: &HeaderMap) -> bool {
    workload.asked.fetch_add(1, Ordering::SeqCst);
    headers.get(METADATA_FIELD).is_some_and(|value| value == "true")
}

fn error(status: StatusCode, error: &str) -> Response {
    (status, Json(ErrorMessage { error: error.to_owned() })).into_response()
}

async fn prove_request(State(workload): Shared, headers: HeaderMap, Json(ask): Json<ProveRequest>) -> Response {
    if !is_allowed(&workload, &headers) {
        return error(StatusCode::BAD_REQUEST, "no metadata");
    }
    if ask.spiffe_id.as_ref().is_some_and(|id| *id != workload.id) {
        return error(StatusCode::NOT_FOUND, "no such identity");
    }
    let (wit, now) = (&workload.wit, Timestamp::now());
    let mut headers = vec![("Workload-Identity-Token".to_owned(), wit.token.clone())];
    let nonce = match ask.proof {
        RequestProof::Wpt => {
            let other_tokens = &[];
            let (audience, jti) = (ask.audience.as_str(), rand::random());
            let made = WptRequest { wit: &wit.token, audience, txn_token: None, other_tokens, life: LIFE, jti };
            headers.push(("Authorization".to_owned(), make_wpt(&wit.key, &made, now).unwrap().to_string()));
            None
        }
        RequestProof::HttpSignature => {
            let digest = ask.request.body_sha256.map(|hash| content_digest_of_hash(hash.0));
            headers.extend(digest.map(|digest| ("Content-Digest".to_owned(), digest)));
            let mut fields = ask.request.fields();
            fields.extend(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
            let (audience, sign_response) = (ask.audience.as_str(), ask.sign_response);
            let made = SignRequest { audience, life: LIFE, nonce: rand::random(), sign_response };
            let signed = sign_request(&wit.key, &ask.request.request(&fields), &made, now).unwrap();
            headers.push(("Signature-Input".to_owned(), signed.signature_input));
            headers.push(("Signature".to_owned(), signed.signature));
            Some(signed.nonce)
        }
    };
    proof(&workload, headers, nonce, now)
}

async fn prove_response(State(workload): Shared, headers: HeaderMap, Json(ask): Json<ProveResponse>) -> Response {
    if !is_allowed(&workload, &headers) {
        return error(StatusCode::BAD_REQUEST, "no metadata");
    }
    let (wit, now) = (&workload.wit, Timestamp::now());
    let mut headers = vec![("Workload-Identity-Token".to_owned(), wit.token.clone())];
    let digest = ask.response.body_sha256.map(|hash| content_digest_of_hash(hash.0));
    headers.extend(digest.map(|digest| ("Content-Digest".to_owned(), digest)));
    let mut fields = ask.response.fields();
    fields.extend(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    let made = SignResponse { request_nonce: &ask.request_nonce, life: LIFE, nonce: rand::random() };
    let request_fields = ask.request.fields();
    let (request, response) = (ask.request.request(&request_fields), ask.response.response(&fields));
    let signed = sign_response(&wit.key, &request, &response, &made, now).unwrap();
    headers.push(("Signature-Input".to_owned(), signed.signature_input));
    headers.push(("Signature".to_owned(), signed.signature));
    proof(&workload, headers, Some(signed.nonce), now)
}

async fn verify_request(State(workload): Shared, headers: HeaderMap, Json(ask): Json<VerifyRequest>) -> Response {
    if !is_allowed(&workload, &headers) {
        return error(StatusCode::BAD_REQUEST, "no metadata");
    }
    let mut builder = Authenticator::builder(workload.bundles.clone()).callers(Authorizer::anybody());
    for audience in ask.audiences {
        builder = builder.audience(Audience::exactly(audience));
    }
    for proof in ask.proofs {
        builder = match proof {
            AcceptedProof::Wpt => builder.wpt(),
            AcceptedProof::HttpSignature => builder.http_signature(),
            AcceptedProof::JwtSvid => builder.jwt_svid(ask.jwt_audience.clone().unwrap_or_default()),
        };
    }
    let Ok(authenticator) = builder.build() else { return error(StatusCode::BAD_REQUEST, "no such policy") };
    let fields = ask.request.fields();
    match authenticator.authenticate(&ask.request.request(&fields), None, Timestamp::now()).await {
        Ok(authenticated) => {
            let (caller, signature) = (authenticated.caller, authenticated.signature);
            let sign_response = signature.as_ref().is_some_and(|signature| signature.sign_response);
            Json(VerifiedRequest {
                spiffe_id: caller.id().to_string(),
                proof: AcceptedProof::from_method(caller.method()).unwrap(),
                expires_at: caller.expires_at().unwrap(),
                bound: caller.bound().to_vec(),
                nonce: signature.map(|signature| signature.nonce),
                sign_response,
            })
            .into_response()
        }
        Err(refusal) => {
            let response = ResponseToSend::from(refusal.answer());
            (StatusCode::FORBIDDEN, Json(Refused { reason: refusal.to_string(), response })).into_response()
        }
    }
}

fn proof(workload: &Workload, headers: Vec<(String, String)>, nonce: Option<String>, now: Timestamp) -> Response {
    let expires_at = now + SignedDuration::try_from(LIFE).unwrap();
    Json(Proof { spiffe_id: workload.id.clone(), headers, nonce, expires_at }).into_response()
}
