//! What an issue costs in the process, beside the cryptography that no issuer can avoid: the
//! service account token verified, the CSR verified, the certificate signed, against one RS256
//! verify, one P-256 verify and one P-256 sign in the same run.
//!
//! Run by `cargo bench -p countersign-core --bench issue`; with `-- --json` it prints one JSON object
//! a line on standard output.

// A benchmark prints, and has nobody to report an error to.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::csr::Csr;
use countersign_core::id::{SpiffeId, TrustDomain};
use countersign_core::jwt::JwtVerificationKey;
use countersign_core::key::{KeyType, PrivateKey, Signer};
use countersign_core::service_account::{ClusterJwks, Expected, verify_token};
use countersign_core::x509::{LeafRequest, X509Authority};
use jiff::Timestamp;
use serde_json::{Value, json};

const ROUNDS: usize = 4000;
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const AUDIENCE: &str = "countersign.dev/6f4f0c1e-6d4c-4d0c-9d52-0a4f6f2f7c11";

fn main() {
    let now = Timestamp::from_second(1_790_000_000).unwrap();
    let cluster = Cluster::new(now);
    let trust_domain: TrustDomain = "example.org".parse().unwrap();
    let authority = X509Authority::generate(&trust_domain, KeyType::EcP256, Duration::from_secs(86_400), now).unwrap();
    let id = SpiffeId::new(&trust_domain, "/ns/shop/sa/cart").unwrap();
    let csr = Csr::create(&PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap();
    let floor = Floor::new(&cluster);

    let expected = Expected { issuer: ISSUER, audience: AUDIENCE, max_life: Duration::from_secs(2 * 3600) };
    let token = || verify_token(&cluster.token, &cluster.jwks, expected, now).unwrap();
    let request = || Csr::verify(&csr).unwrap();
    let sign = |csr: &Csr| {
        let ttl = Duration::from_secs(3600);
        let request = LeafRequest { spki: csr.public_key_spki(), id: &id, dns_names: &[], ttl };
        authority.issue(&request, now).unwrap()
    };
    let verified = request();

    let mut samples: [Vec<Duration>; 7] = Default::default();
    // Interleaved, so that what else the machine does falls on all alike.
    for _ in 0..ROUNDS {
        let taken = [
            timed(|| {
                let token = token();
                let csr = request();
                (token, sign(&csr))
            }),
            timed(token),
            timed(request),
            timed(|| sign(&verified)),
            timed(|| floor.rs256_verify()),
            timed(|| floor.p256_verify()),
            timed(|| floor.p256_sign()),
        ];
        for (samples, taken) in samples.iter_mut().zip(taken) {
            samples.push(taken);
        }
    }
    let [issue, token, request, sign, rs256_verify, p256_verify, p256_sign] = samples.map(median);
    let floor = rs256_verify + p256_verify + p256_sign;
    report(&[
        ("issue", issue, "us"),
        ("issue.token", token, "us"),
        ("issue.csr", request, "us"),
        ("issue.sign", sign, "us"),
        ("floor.rs256-verify", rs256_verify, "us"),
        ("floor.p256-verify", p256_verify, "us"),
        ("floor.p256-sign", p256_sign, "us"),
        ("floor", floor, "us"),
        ("issue.rate-to-floor", floor / issue, "ratio"),
    ]);
}

fn report(figures: &[(&str, f64, &str)]) {
    let as_json = std::env::args().any(|argument| argument == "--json");
    for (name, value, unit) in figures {
        if as_json {
            println!("{}", json!({"name": name, "value": (value * 1000.0).round() / 1000.0, "unit": unit}));
        } else {
            println!("{name:<22} {value:>9.3} {unit}");
        }
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(work());
    start.elapsed()
}

/// In microseconds.
fn median(mut samples: Vec<Duration>) -> f64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).unwrap().as_secs_f64() * 1e6
}

/// A cluster's signing key, its key set, and a token of a pod as the kubelet projects it.
struct Cluster {
    key: PrivateKey,
    jwks: ClusterJwks,
    token: String,
}

impl Cluster {
    fn new(now: Timestamp) -> Self {
        let key = PrivateKey::generate(KeyType::Rsa2048).unwrap();
        let mut jwk = JwtVerificationKey::new("k8s", key.public_key()).unwrap().jwk();
        jwk.insert("use".to_owned(), Value::from("sig"));
        let jwks = ClusterJwks::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
        let claims = json!({
            "aud": [AUDIENCE], "exp": now.as_second() + 3600, "iat": now.as_second(), "iss": ISSUER,
            "jti": "b0b7e2a8-8f3f-4f52-8f0e-6f2f7c11d9aa",
            "kubernetes.io": {
                "namespace": "shop",
                "node": {"name": "node-1", "uid": "3f1c2b0a-58a4-43b4-a9a1-04ef2b2a8c11"},
                "pod": {"name": "cart-5d9c7b6f8-x2x4q", "uid": "0a4f6f2f-7c11-4d0c-9d52-6f4f0c1e6d4c"},
                "serviceaccount": {"name": "cart", "uid": "9d520a4f-6f2f-4c11-8f0e-6d4c4d0c6f4f"},
                "warnafter": now.as_second() + 3607,
            },
            "nbf": now.as_second(), "sub": "system:serviceaccount:shop:cart",
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(&json!({"alg": "RS256", "kid": "k8s"})), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes()).unwrap());
        Self { key, jwks, token: format!("{input}.{signature}") }
    }
}

/// The bare operations of the cryptographic library, over messages of the sizes that an issue has.
struct Floor {
    rsa: ParsedPublicKey,
    rsa_message: Vec<u8>,
    rsa_signature: Vec<u8>,
    ec: EcdsaKeyPair,
    ec_message: Vec<u8>,
    ec_signature: Vec<u8>,
}

impl Floor {
    fn new(cluster: &Cluster) -> Self {
        let rsa = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, cluster.key.public_key().key_bits()).unwrap();
        let rsa_message = vec![b'a'; cluster.token.len() - 343];
        let rsa_signature = cluster.key.sign(&rsa_message).unwrap();
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let ec_message = vec![b'a'; 400];
        let ec_signature = ec.sign(&SystemRandom::new(), &ec_message).unwrap().as_ref().to_vec();
        Self { rsa, rsa_message, rsa_signature, ec, ec_message, ec_signature }
    }

    fn rs256_verify(&self) {
        self.rsa.verify_sig(&self.rsa_message, &self.rsa_signature).unwrap();
    }

    /// A key that was never seen, as every CSR's is.
    fn p256_verify(&self) {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.ec.public_key().as_ref());
        key.verify(&self.ec_message, &self.ec_signature).unwrap();
    }

    fn p256_sign(&self) -> Vec<u8> {
        self.ec.sign(&SystemRandom::new(), &self.ec_message).unwrap().as_ref().to_vec()
    }
}
