//! What it costs to know the peer, beside the same without: a handshake beside one of rustls with plain webpki, a JWT-SVID beside the
//! signature alone, a proof of possession beside its signatures, a decision over 1,000 path patterns; and handshakes while ten trust
//! domains are replaced, and requests through both layers beside those without.
//!
//! Run by `cargo bench -p countersign-verify --bench verify`; with `-- --json` it prints one JSON object a line on standard output.

// A benchmark prints, and has nobody to report an error to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod handshake;
mod layers;
mod proofs;
mod reload;
mod sockets;
mod workload;
mod workload_api;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign_core::{
    bundle::{Bundle, BundleSet},
    jwt::{JwtAuthority, JwtRequest},
    key::KeyType,
};
use countersign_verify::{Authorizer, SpiffeId, validation::validate_jwt_svid};
use jiff::Timestamp;
use serde_json::json;

use self::proofs::Compared;

const ROUNDS: usize = 4000;
const PATTERNS: usize = 1000;
const TTL: Duration = Duration::from_secs(3600);

fn main() {
    let (ours, webpki) = handshake::compare(ROUNDS / 4);
    let (validation, verification) = tokens();
    let decision = decisions();
    let (wpt, signature) = (proofs::wpt(ROUNDS), proofs::http_signature(ROUNDS));
    let issuance = proofs::issuance(ROUNDS);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let layers = runtime.block_on(layers::run());
    let reload = runtime.block_on(reload::run());
    report(&[
        ("handshake, both sides verify X509-SVIDs", ours, "us"),
        ("handshake, both sides verify by webpki", webpki, "us"),
        ("JWT-SVID validated", validation, "us"),
        ("signature of the JWT-SVID verified", verification, "us"),
        ("decision over 1,000 path patterns", decision, "us"),
        ("WIT and WPT verified", wpt.whole, "us"),
        ("two signatures verified, of WIT and WPT", wpt.cryptography, "us"),
        ("WIT and HTTP signature verified, body of 1 KiB", signature.whole, "us"),
        ("two signatures verified, and 1 KiB hashed", signature.cryptography, "us"),
        ("WIT issued for a CSR", issuance.whole, "us"),
        ("a signature verified, and one made", issuance.cryptography, "us"),
        ("request at 200/s without layers, p50", layers.without.p50, "ms"),
        ("request at 200/s without layers, p99", layers.without.p99, "ms"),
        ("request at 200/s, WPT: added, p50", layers.wpt.p50 - layers.without.p50, "ms"),
        ("request at 200/s, WPT: added, p99", layers.wpt.p99 - layers.without.p99, "ms"),
        ("request at 200/s, HTTP signature: added, p50", layers.http_signature.p50 - layers.without.p50, "ms"),
        ("request at 200/s, HTTP signature: added, p99", layers.http_signature.p99 - layers.without.p99, "ms"),
        ("calls to others meanwhile", layers.calls, "calls"),
        ("handshakes while ten trust domains are replaced", reload.handshakes, "a second"),
        ("replacements of ten trust domains", reload.replacements, "a second"),
        ("handshakes that failed meanwhile", reload.failed, "handshakes"),
    ]);
    report_shares(&[("WIT and WPT", wpt), ("WIT and HTTP signature", signature), ("WIT issued", issuance)]);
}

/// Microseconds of a validation, and of its signature alone.
fn tokens() -> (f64, f64) {
    let (id, authority, now) = (id(), JwtAuthority::generate(KeyType::EcP256).unwrap(), Timestamp::now());
    let audiences = ["service".to_owned()];
    let request = JwtRequest { id: &id, audiences: &audiences, ttl: TTL, issuer: None };
    let token = authority.issue(&request, now).unwrap().token.to_string();
    let bundle = Bundle {
        trust_domain: id.trust_domain().clone(),
        x509_authorities: Vec::new(),
        jwt_authorities: vec![authority.verification_key().clone()],
        wit_authorities: Vec::new(),
        sequence: 1,
        refresh_hint: TTL,
    };
    let bundles = BundleSet::new([bundle]).unwrap();
    let callers = Authorizer::id(&id.to_string()).unwrap();
    let (input, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let jwk = authority.verification_key().jwk();
    let number = |name: &str| URL_SAFE_NO_PAD.decode(jwk.get(name).unwrap().as_str().unwrap()).unwrap();
    let point = [&[4][..], &number("x"), &number("y")].concat();
    let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).unwrap();
    let validate = || {
        black_box(validate_jwt_svid(&token, "service", &bundles, &callers, now).unwrap());
    };
    let verify = || {
        key.verify_sig(black_box(input.as_bytes()), &signature).unwrap();
    };
    let [validation, verification] = in_turn(ROUNDS, [&validate, &verify]);
    (validation, verification)
}

/// Microseconds of a decision that the last of the patterns admits, and of one that none does: the longer.
fn decisions() -> f64 {
    let patterns: Vec<String> = (0..PATTERNS).map(|number| format!("/ns/team-{number}/sa/*/v{number}")).collect();
    let authorizer = Authorizer::paths("partner.example", patterns.iter().map(String::as_str)).unwrap();
    let last: SpiffeId = "spiffe://partner.example/ns/team-999/sa/api/v999".parse().unwrap();
    let none: SpiffeId = "spiffe://partner.example/ns/team-999/sa/api/v998".parse().unwrap();
    assert!(authorizer.permits(&last) && !authorizer.permits(&none));
    let many = |id: &SpiffeId| {
        for _ in 0..100 {
            black_box(authorizer.permits(black_box(id)));
        }
    };
    let taken = in_turn(ROUNDS / 10, [&|| many(&last), &|| many(&none)]);
    taken.into_iter().fold(0.0, f64::max) / 100.0
}

fn id() -> SpiffeId {
    "spiffe://bench.example/ns/shop/sa/cart".parse().unwrap()
}

/// Medians in microseconds. Each round takes all, so that what else the machine does falls on all alike.
fn in_turn<const N: usize>(rounds: usize, work: [&dyn Fn(); N]) -> [f64; N] {
    let mut samples = [const { Vec::new() }; N];
    for _ in 0..rounds {
        for (samples, work) in samples.iter_mut().zip(work) {
            let start = Instant::now();
            work();
            samples.push(start.elapsed());
        }
    }
    samples.map(|mut samples| {
        samples.sort_unstable();
        samples.get(samples.len() / 2).unwrap().as_secs_f64() * 1e6
    })
}

fn report(figures: &[(&str, f64, &str)]) {
    let as_json = std::env::args().any(|argument| argument == "--json");
    for (name, value, unit) in figures {
        if as_json {
            println!("{}", json!({"name": name, "value": (value * 1000.0).round() / 1000.0, "unit": unit}));
        } else {
            println!("{name:<50} {value:>9.3} {unit}");
        }
    }
}

/// For people: `cargo xtask bench` divides by itself.
fn report_shares(compared: &[(&str, Compared)]) {
    if std::env::args().any(|argument| argument == "--json") {
        return;
    }
    for (name, Compared { whole, cryptography }) in compared {
        println!("{name}: {:.1} % of the time is cryptography", cryptography / whole * 100.0);
    }
}
