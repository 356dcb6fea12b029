//! Proofs of possession verified, and WIT-SVIDs issued, beside the operations of cryptography that they need.

use std::{cell::Cell, hint::black_box, time::Duration};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED,
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, ParsedPublicKey, UnparsedPublicKey,
    },
};
use countersign_core::{
    csr::Csr,
    key::{KeyType, PrivateKey},
    wit::WitRequest,
};
use countersign_verify::{
    Authorizer,
    proof::Authenticator,
    wimse::{
        Audience, Body, DEFAULT_PROOF_LIFE, Field, Request,
        signature::{SignRequest, content_digest, sign_request},
        wpt::{WptRequest, make_wpt},
    },
};
use futures::FutureExt as _;
use jiff::Timestamp;

use crate::{TTL, id, in_turn, workload::Workload};

const ORIGIN: &str = "https://orders.bench.example";
const PATH: &str = "/orders";
const TARGET: &str = "https://orders.bench.example/orders";
/// Of a request.
const BODY: usize = 1024;
/// As long as verifiers accept.
const LIFE: Duration = DEFAULT_PROOF_LIFE;

/// The dot and the signature by ES256 at the end of a token.
const SIGNATURE: usize = 1 + 86;

/// Microseconds, and those of the operations of cryptography alone.
pub(crate) struct Compared {
    pub(crate) whole: f64,
    pub(crate) cryptography: f64,
}

/// A WIT and a Workload Proof Token, each of which is new, beside their two signatures.
pub(crate) fn wpt(rounds: usize) -> Compared {
    let workload = Workload::new();
    let requests: Vec<_> = (0..rounds).map(|_| Sent::post().wpt(&workload)).collect();
    let proof = requests.first().unwrap().header("authorization").len();
    let (first, second) = (Signed::of_length(workload.wit.len() - SIGNATURE), Signed::of_length(proof - SIGNATURE));
    verified(&workload, &requests, &|| {
        first.verify();
        second.verify();
    })
}

/// A WIT and the signature of a `POST`, each of which is new, beside their two signatures and the hash of the body.
pub(crate) fn http_signature(rounds: usize) -> Compared {
    let workload = Workload::new();
    let requests: Vec<_> = (0..rounds).map(|_| Sent::post().signed(&workload)).collect();
    // What is signed has the fields and the parameters in it.
    let base = requests.first().unwrap().headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let (first, second) = (Signed::of_length(workload.wit.len() - SIGNATURE), Signed::of_length(base));
    let body = vec![b'a'; BODY];
    verified(&workload, &requests, &|| {
        first.verify();
        second.verify();
        black_box(digest(&SHA256, black_box(&body)));
    })
}

/// A WIT-SVID for the key of a certificate signing request, beside one verification and one signature.
pub(crate) fn issuance(rounds: usize) -> Compared {
    let workload = Workload::new();
    let (id, csr) = (id(), Csr::create(&PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap());
    let issue = || {
        let csr = Csr::verify(&csr).unwrap();
        let request = WitRequest { id: &id, confirmation: csr.public_key_spki(), ttl: TTL };
        black_box(workload.authority.issue(&request, Timestamp::now()).unwrap());
    };
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let random = SystemRandom::new();
    let (asked, issued) = (vec![b'a'; csr.len()], vec![b'a'; workload.wit.len() - SIGNATURE]);
    let proof = pair.sign(&random, &asked).unwrap();
    let cryptography = || {
        // A key that was never seen, as that of every request is.
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref());
        key.verify(black_box(&asked), proof.as_ref()).unwrap();
        black_box(pair.sign(&random, black_box(&issued)).unwrap());
    };
    let [whole, cryptography] = in_turn(rounds, [&issue, &cryptography]);
    Compared { whole, cryptography }
}

/// Each of `requests` verified once.
fn verified(workload: &Workload, requests: &[Sent], cryptography: &dyn Fn()) -> Compared {
    let authenticator = Authenticator::builder(workload.bundles())
        .wpt()
        .http_signature()
        .audience(Audience::targets_of(ORIGIN).unwrap())
        .callers(Authorizer::id(&id().to_string()).unwrap())
        .build()
        .unwrap();
    let next = Cell::new(0);
    let authenticate = || {
        let sent = requests.get(next.replace(next.get() + 1)).unwrap();
        let fields = sent.fields();
        let request = sent.request(&fields);
        // Proofs are remembered in memory, so that there is nothing to wait for.
        let caller = authenticator.authenticate(&request, None, Timestamp::now()).now_or_never().unwrap();
        black_box(caller.unwrap());
    };
    let [whole, cryptography] = in_turn(requests.len(), [&authenticate, cryptography]);
    Compared { whole, cryptography }
}

/// A `POST` as its recipient sees it.
#[derive(Clone)]
struct Sent {
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Sent {
    fn post() -> Self {
        let headers = [
            ("host", "orders.bench.example".to_owned()),
            ("content-type", "application/json".to_owned()),
            ("content-length", BODY.to_string()),
        ];
        Self { headers: headers.to_vec(), body: vec![b'a'; BODY] }
    }

    fn wpt(mut self, Workload { wit, key, .. }: &Workload) -> Self {
        let jti = rand::random();
        let ask = WptRequest { wit, audience: TARGET, txn_token: None, other_tokens: &[], life: LIFE, jti };
        let proof = make_wpt(key, &ask, Timestamp::now()).unwrap().to_string();
        self.headers.extend([("workload-identity-token", wit.clone()), ("authorization", proof)]);
        self
    }

    fn signed(mut self, Workload { wit, key, .. }: &Workload) -> Self {
        let digest = content_digest(&self.body);
        self.headers.extend([("workload-identity-token", wit.clone()), ("content-digest", digest)]);
        let ask = SignRequest { audience: TARGET, life: LIFE, nonce: rand::random(), sign_response: false };
        let made = sign_request(key, &self.request(&self.fields()), &ask, Timestamp::now()).unwrap();
        self.headers.extend([("signature-input", made.signature_input), ("signature", made.signature)]);
        self
    }

    fn header(&self, name: &str) -> &str {
        &self.headers.iter().find(|(header, _)| *header == name).unwrap().1
    }

    fn fields(&self) -> Vec<Field<'_>> {
        self.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
    }

    fn request<'a>(&'a self, fields: &'a [Field<'a>]) -> Request<'a> {
        let (authority, body) = (Some("orders.bench.example"), Body::Bytes(&self.body));
        Request { method: "POST", path: PATH, query: None, authority, fields, body }
    }
}

/// A message that is signed by ES256, and the key that verifies it.
struct Signed {
    message: Vec<u8>,
    signature: Vec<u8>,
    key: ParsedPublicKey,
}

impl Signed {
    fn of_length(length: usize) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let message = vec![b'a'; length];
        let signature = pair.sign(&SystemRandom::new(), &message).unwrap().as_ref().to_vec();
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref()).unwrap();
        Self { message, signature, key }
    }

    fn verify(&self) {
        self.key.verify_sig(black_box(&self.message), &self.signature).unwrap();
    }
}
