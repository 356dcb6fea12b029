//! Proofs by the agent's socket, made and verified over a kept connection, beside the same by `core` in this process. The agent is a
//! process of the release binary (`COUNTERSIGN_AGENT` names another) with an in-process issuer. `--json` prints one object a line:
//! name, value, unit.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark prints, and fails by panicking"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::bundle::BundleSet;
use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::wimse::signature::{SignRequest, content_digest_of_hash, sign_request, verify_request};
use countersign_core::wimse::wpt::{WptRequest, make_wpt, verify_wpt};
use countersign_core::wimse::{
    Audience, Body, DEFAULT_PROOF_LIFE, Field, MemoryReplayCache, Policy, Request, WIT_FIELD,
};
use countersign_core::wit::WitRequest;
use countersign_proto::issuer::v1::Identity;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use support::issuer::identity;
use support::{AgentHome, DEFAULT_ID, FakeIssuer};
use tokio::net::UnixStream;

const WARM_UP: usize = 50;
/// The agent remembers 4,096 proofs of one key, two of which come with each round.
const ROUNDS: usize = 1500;
/// Between two rounds of four requests: the agent answers 2,000 a second.
const EVERY: Duration = Duration::from_millis(5);
/// An agent that is not ready then fails the benchmark.
const TIMEOUT: Duration = Duration::from_secs(10);

const TARGET: &str = "https://payments.example/pay";
/// Of a body; the agent never sees one.
const HASH: [u8; 32] = [7; 32];

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    // The issuer has its own thread: it must not wait for the one that waits for the agent.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let kinds = runtime.block_on(measure());
    for Kind { proof, by_socket, in_process } in kinds {
        for (what, by_socket, in_process) in
            [("made", by_socket.made, in_process.made), ("verified", by_socket.verified, in_process.verified)]
        {
            for (place, samples) in [("by the agent's socket", by_socket), ("in process", in_process)] {
                let samples = sorted(samples);
                for (share, name) in [(0.50, "p50"), (0.99, "p99")] {
                    let micros = percentile(&samples, share).as_secs_f64() * 1e6;
                    let name = format!("{proof} {what} {place}, {name}");
                    if json {
                        println!(r#"{{"name":"{name}","value":{micros:.3},"unit":"us"}}"#);
                    } else {
                        println!("{name:55} {micros:9.1} us");
                    }
                }
            }
        }
    }
}

/// Of one kind of proof.
struct Kind {
    proof: Proof,
    by_socket: Taken,
    in_process: Taken,
}

#[derive(Default)]
struct Taken {
    made: Vec<Duration>,
    verified: Vec<Duration>,
}

#[derive(Clone, Copy)]
enum Proof {
    Wpt,
    HttpSignature,
}

async fn measure() -> [Kind; 2] {
    let with_wit = Identity { wit_ttl: 3600, ..identity(DEFAULT_ID) };
    let (home, issuer) = (AgentHome::new(), FakeIssuer::start(vec![with_wit]).await);
    let _agent = Agent::start(&home, &issuer).await;
    let (mut socket, peer) = (Socket::connect(&home).await, Peer::new(&issuer));
    let of = |proof| Kind { proof, by_socket: Taken::default(), in_process: Taken::default() };
    let mut kinds = [of(Proof::Wpt), of(Proof::HttpSignature)];
    let mut tick = tokio::time::interval(EVERY);
    for round in 0..WARM_UP + ROUNDS {
        tick.tick().await;
        for Kind { proof, by_socket, in_process } in &mut kinds {
            let made = socket.post("/v1/prove-request", &proof.ask()).await;
            let sent = peer.prove(*proof);
            let ask = json!({"proofs": [proof.name()], "audiences": [TARGET], "request": described(&sent)});
            let verified = socket.post("/v1/verify-request", &ask).await;
            if round < WARM_UP {
                continue;
            }
            by_socket.made.push(made);
            by_socket.verified.push(verified);
            in_process.made.push(timed(|| peer.prove(*proof)));
            let sent = peer.prove(*proof);
            in_process.verified.push(timed(|| peer.verify(*proof, &sent)));
        }
    }
    kinds
}

impl Proof {
    fn name(self) -> &'static str {
        match self {
            Self::Wpt => "wpt",
            Self::HttpSignature => "http-signature",
        }
    }

    fn ask(self) -> Value {
        json!({"proof": self.name(), "audience": TARGET, "request": described(&plain())})
    }
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Wpt => "WPT",
            Self::HttpSignature => "HTTP signature",
        })
    }
}

type Headers = Vec<(&'static str, String)>;

/// The fields of a request before its proof.
fn plain() -> Headers {
    vec![("content-type", "application/json".to_owned())]
}

fn described(headers: &Headers) -> Value {
    let hash = STANDARD.encode(HASH);
    json!({"method": "POST", "path": "/pay", "query": "to=me", "headers": headers, "body_sha256": hash})
}

fn request<'a>(fields: &'a [Field<'a>]) -> Request<'a> {
    let (query, body) = (Some("to=me"), Body::Sha256(HASH));
    Request { method: "POST", path: "/pay", query, authority: None, fields, body }
}

fn fields(headers: &Headers) -> Vec<Field<'_>> {
    headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
}

/// Another workload, which makes and verifies proofs by itself.
struct Peer {
    wit: String,
    key: PrivateKey,
    trust: BundleSet,
    audiences: [Audience; 1],
    replays: MemoryReplayCache,
}

impl Peer {
    fn new(issuer: &FakeIssuer) -> Self {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let (id, ttl) = (DEFAULT_ID.parse().unwrap(), Duration::from_secs(3600));
        let asked = WitRequest { id: &id, confirmation: key.public_key(), ttl };
        Self {
            wit: issuer.state.wit.issue(&asked, Timestamp::now()).unwrap().token.to_string(),
            key,
            trust: BundleSet::new([issuer.state.bundle()]).unwrap(),
            audiences: [Audience::exactly(TARGET)],
            replays: MemoryReplayCache::new(8 * ROUNDS, 8 * ROUNDS),
        }
    }

    /// A request with its proof, which is new.
    fn prove(&self, proof: Proof) -> Headers {
        let (mut headers, now) = (plain(), Timestamp::now());
        let life = DEFAULT_PROOF_LIFE;
        headers.push((WIT_FIELD, self.wit.clone()));
        match proof {
            Proof::Wpt => {
                let (wit, jti) = (&self.wit, rand::random());
                let asked = WptRequest { wit, audience: TARGET, txn_token: None, other_tokens: &[], life, jti };
                headers.push(("authorization", make_wpt(&self.key, &asked, now).unwrap().to_string()));
            }
            Proof::HttpSignature => {
                headers.push(("content-digest", content_digest_of_hash(HASH)));
                let asked = SignRequest { audience: TARGET, life, nonce: rand::random(), sign_response: false };
                let made = sign_request(&self.key, &request(&fields(&headers)), &asked, now).unwrap();
                headers.extend([("signature-input", made.signature_input), ("signature", made.signature)]);
            }
        }
        headers
    }

    fn verify(&self, proof: Proof, headers: &Headers) {
        let (policy, now, fields) = (Policy::new(&self.trust, &self.audiences), Timestamp::now(), fields(headers));
        match proof {
            Proof::Wpt => drop(verify_wpt(&request(&fields), &policy, &self.replays, now).unwrap()),
            Proof::HttpSignature => drop(verify_request(&request(&fields), &policy, &self.replays, now).unwrap()),
        }
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let begun = Instant::now();
    let made = work();
    let taken = begun.elapsed();
    drop(made);
    taken
}

/// A connection to the agent's proof socket, which is kept.
struct Socket(SendRequest<Full<Bytes>>);

impl Socket {
    async fn connect(home: &AgentHome) -> Self {
        let stream = UnixStream::connect(home.path("identity/proof.sock")).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Until the whole answer is there.
    async fn post(&mut self, path: &str, body: &Value) -> Duration {
        let request = http::Request::post(path).header("host", "agent").header("workload.spiffe.io", "true");
        let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
        self.0.ready().await.unwrap();
        let begun = Instant::now();
        let response = self.0.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let taken = begun.elapsed();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        taken
    }
}

/// A process that is killed on drop.
struct Agent(Child);

impl Agent {
    /// With credentials.
    async fn start(home: &AgentHome, issuer: &FakeIssuer) -> Self {
        let binary = std::env::var("COUNTERSIGN_AGENT").unwrap_or(env!("CARGO_BIN_EXE_countersign-agent").to_owned());
        let mut command = Command::new(binary);
        command.arg("run").env_clear().envs(home.environment(issuer)).stderr(Stdio::null());
        let agent = Self(command.spawn().expect("the agent's binary starts"));
        let marker = home.path("private/ready");
        let (begun, mut poll) = (Instant::now(), tokio::time::interval(Duration::from_millis(5)));
        while !std::fs::read_to_string(&marker).is_ok_and(|ready| !ready.is_empty()) {
            assert!(begun.elapsed() < TIMEOUT, "not ready after {TIMEOUT:?}");
            poll.tick().await;
        }
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sorted(mut samples: Vec<Duration>) -> Vec<Duration> {
    samples.sort_unstable();
    samples
}

fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len() - 1;
    *sorted.get(((last as f64) * share).round() as usize).unwrap()
}
