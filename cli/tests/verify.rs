//! `verify` as it is run in a pipeline: from standard input, with an exit code for scripts, and without a cluster.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
    time::Duration,
};

use countersign_core::{
    bundle::Bundle,
    key::{KeyType, PrivateKey},
    x509::{LeafRequest, X509Authority},
};
use jiff::Timestamp;
use serde_json::Value;

fn verify(arguments: &[&str], input: &[u8]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_kubectl-countersign"));
    program.arg("verify").args(arguments).args(["-o", "json"]).env("KUBECONFIG", "/nonexistent");
    let mut program = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    program.stdin.take().unwrap().write_all(input).unwrap();
    program.wait_with_output().unwrap()
}

#[test]
fn the_exit_code_says_whether_it_is_acceptable() {
    let domain = "shop.example".parse().unwrap();
    let life = Duration::from_secs(3600);
    let authority = X509Authority::generate(&domain, KeyType::EcP256, life, Timestamp::now()).unwrap();
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let id = "spiffe://shop.example/orders".parse().unwrap();
    let request = LeafRequest { spki: key.public_key(), id: &id, dns_names: &[], ttl: life };
    let leaf = authority.issue(&request, Timestamp::now()).unwrap().chain.remove(0);
    let bundle = Bundle {
        trust_domain: domain,
        x509_authorities: vec![authority.certificate().clone()],
        jwt_authorities: Vec::new(),
        wit_authorities: Vec::new(),
        sequence: 1,
        refresh_hint: life,
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bundle.json");
    std::fs::write(&file, bundle.to_json()).unwrap();
    let file = file.to_str().unwrap();

    let good = verify(&["-", "--bundle", file], &leaf);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let report: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!(report["subject"]["chain"][0]["spiffeId"], "spiffe://shop.example/orders");
    assert_eq!(report["acceptable"], true);

    let stranger = verify(&["-", "--bundle", &format!("other.example={file}")], &leaf);
    assert_eq!(stranger.status.code(), Some(1), "{stranger:?}");
    assert_eq!(verify(&["-"], b"hello").status.code(), Some(1));
    assert_eq!(verify(&["/nonexistent"], b"").status.code(), Some(2), "there is no answer");
    let pem = verify(&["-"], key.pkcs8_pem().as_bytes());
    let shown = String::from_utf8(pem.stdout).unwrap() + &String::from_utf8(pem.stderr).unwrap();
    assert!(!shown.contains(key.pkcs8_pem().lines().nth(1).unwrap()), "{shown}");
}
