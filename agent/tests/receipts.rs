//! What an agent says its workload can use, and when.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_core::x509::fingerprint;
use countersign_proto::issuer::RECEIPT;
use countersign_proto::issuer::v1::{HeldSvid, Receipt};
use jiff::Timestamp;
use support::DEFAULT_ID;
use support::agent::{TestAgent, comes_true};
use support::issuer::identity;

impl TestAgent {
    fn receipts(&self) -> Vec<Receipt> {
        self.issuer.state.receipts.lock().unwrap().clone()
    }

    /// The last receipt, once there are `count`. Only polling can see that.
    async fn receipt(&self, count: usize) -> Receipt {
        let in_time = comes_true(|| self.receipts().len() >= count).await;
        assert!(in_time, "receipt {count}: {:?}", self.receipts());
        self.receipts().pop().unwrap()
    }

    /// What its workload can really use.
    async fn held(&self) -> HeldSvid {
        let svid = self.client().await.fetch_x509_svid().await.unwrap();
        let file = std::fs::read(self.home.credentials().join("tls.crt")).unwrap();
        HeldSvid {
            socket_sha256: fingerprint(svid.leaf().as_bytes()).to_vec(),
            files_sha256: fingerprint(pem::parse(file).unwrap().contents()).to_vec(),
        }
    }
}

#[tokio::test]
async fn a_receipt_says_what_is_on_the_socket_and_in_the_files_and_what_time_it_is() {
    let before = Timestamp::now().as_millisecond();
    let agent = TestAgent::start(vec![identity(DEFAULT_ID)], |_| {}).await;
    let receipt = agent.receipt(1).await;
    assert_eq!(receipt.svids, [agent.held().await]);
    assert!(receipt.svids.iter().all(|svid| svid.socket_sha256 == svid.files_sha256), "{receipt:?}");
    assert!((before..=Timestamp::now().as_millisecond()).contains(&receipt.clock_ms));
    assert!(agent.issuer.state.hello.lock().unwrap().capabilities.iter().any(|name| name == RECEIPT));
}

#[tokio::test]
async fn each_identity_is_in_the_receipt_and_a_withdrawn_one_is_not() {
    let agent = TestAgent::start(vec![identity(DEFAULT_ID), identity("spiffe://example.org/second")], |_| {}).await;
    let receipt = agent.receipt(1).await;
    assert_eq!(receipt.svids.len(), 2);
    assert!(receipt.svids.iter().all(|svid| svid.socket_sha256 == svid.files_sha256), "{receipt:?}");
    agent.issuer.withdraw("it was deleted");
    assert_eq!(agent.receipt(2).await.svids, []);
}

#[tokio::test]
async fn a_receipt_is_sent_for_each_renewal_and_on_each_new_stream_and_not_besides() {
    let agent = TestAgent::start(vec![identity(DEFAULT_ID)], |_| {}).await;
    let first = agent.receipt(1).await;
    // Bundles are acknowledged apart.
    agent.issuer.publish_sequence(5);
    agent.issuer.move_streams(Duration::from_millis(20));
    assert_eq!(agent.receipt(2).await.svids, first.svids);
    agent.issuer.renew();
    let renewed = agent.receipt(3).await;
    assert_ne!(renewed.svids, first.svids);
    assert_eq!(renewed.svids, [agent.held().await]);
}

#[tokio::test]
async fn files_that_cannot_be_written_are_in_the_receipt_as_they_are() {
    let agent = TestAgent::start(vec![identity(DEFAULT_ID)], |_| {}).await;
    let first = agent.receipt(1).await;
    // Files stand where the next directories would be made.
    let blocked = |n: usize| agent.home.path("identity").join(format!(".credentials-{n}"));
    let blocked: Vec<_> = (0..100).map(blocked).filter(|path| std::fs::write(path, "").is_ok()).collect();
    agent.issuer.renew();
    let receipt = agent.receipt(2).await;
    assert_eq!(receipt.svids, [agent.held().await]);
    let (before, now) = (first.svids.first().unwrap(), receipt.svids.first().unwrap());
    assert_ne!(now.socket_sha256, before.socket_sha256);
    assert_eq!(now.files_sha256, before.files_sha256, "the former ones stay");
    blocked.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    // What wakes the agent up.
    agent.issuer.publish_sequence(2);
    let mended = agent.receipt(3).await;
    assert!(mended.svids.iter().all(|svid| svid.socket_sha256 == svid.files_sha256), "{mended:?}");
}

#[tokio::test]
async fn an_operator_of_an_earlier_version_that_ignores_receipts_serves_it() {
    let agent = TestAgent::start(vec![identity(DEFAULT_ID)], |_| {}).await;
    agent.receipt(1).await;
    agent.issuer.state.speaks_earlier_version.store(true, Ordering::Relaxed);
    agent.issuer.move_streams(Duration::from_millis(20));
    agent.client().await.fetch_jwt_token(["payments"], None).await.unwrap();
    assert_eq!(agent.receipts().len(), 1);
}
