//! What becomes of what was fetched: from the endpoint to the decision of `core`.

use std::collections::BTreeSet;

use countersign_core::bundle::Bundle;
use countersign_core::federation::{
    Decision, DocumentFault, Endpoint, FetchError, PollOutcome, Refusal, Remote, RemoteSpec, Stored, StoredRemote,
    decide, poll_target, trusted,
};
use countersign_core::id::TrustDomain;

use crate::peer::{Domain, ENDPOINT_ID, PEER, at, fetcher, spiffe};
use crate::server::{Script, Server, answering, redirect, serving};

/// A cluster that trusts [`PEER`] by a bundle in the TrustDomain, and polls its endpoint.
struct Cluster {
    spec: RemoteSpec,
    own: BTreeSet<TrustDomain>,
    stored: StoredRemote,
    _server: Server,
}

impl Cluster {
    async fn new(domain: &Domain, script: Script) -> Self {
        let server = Server::start(domain.svid(ENDPOINT_ID), script).await;
        let endpoint = Endpoint { url: server.url("/").parse().unwrap(), profile: spiffe(ENDPOINT_ID) };
        let spec =
            RemoteSpec::new(PEER.parse().unwrap(), Some(endpoint)).with_bootstrap(&domain.bundle().to_json(), false);
        let own = BTreeSet::new();
        let remote = Remote { spec: &spec, own: &own, stored: Stored::Absent };
        let stored = decide(&remote, None, at(0), 0.0).stored;
        Self { spec, own, stored, _server: server }
    }

    fn remote(&self) -> Remote<'_> {
        Remote { spec: &self.spec, own: &self.own, stored: Stored::Read(&self.stored) }
    }

    async fn poll(&mut self) -> Decision {
        let target = poll_target(&self.remote(), at(0)).unwrap();
        let observation = fetcher().fetch(target, None).await;
        let decision = decide(&self.remote(), Some(&observation), at(0), 0.0);
        self.stored = decision.stored.clone();
        decision
    }

    fn trusted(&self) -> Option<Bundle> {
        trusted(&self.remote(), at(0)).bundle
    }
}

// R26: keys that were trusted stay so while nothing better can be had.
#[tokio::test]
async fn an_endpoint_that_serves_no_bundle_leaves_the_last_good_one() {
    let domain = Domain::new(PEER);
    let not_found = |_: &str| b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
    let malformed = |fault, position| Refusal::Malformed { fault, position };
    for (script, refusal) in [
        (serving("<html><body>Log in</body></html>"), malformed(DocumentFault::NoKeySet, None)),
        (serving(""), malformed(DocumentFault::NoKeySet, None)),
        (serving("{}"), malformed(DocumentFault::NoKeySet, None)),
        (serving(r#"{"keys":[1]}"#), malformed(DocumentFault::NoKeySet, None)),
        (serving(vec![b'['; 1024 * 1024]), malformed(DocumentFault::NoKeySet, None)),
        (answering(not_found), Refusal::Fetch(FetchError::Status(404))),
        (answering(|_| redirect(302, "http://127.0.0.1/")), Refusal::Fetch(FetchError::Redirect)),
    ] {
        let mut cluster = Cluster::new(&domain, script).await;
        let before = cluster.trusted();
        assert!(before.is_some());
        let decision = cluster.poll().await;
        assert_eq!(decision.poll, Some(PollOutcome::Refused(refusal)));
        assert_eq!(cluster.trusted(), before);
    }
}

// R50: a trust domain follows what the other publishes, and nothing else of it.
#[tokio::test]
async fn a_new_bundle_of_an_endpoint_is_trusted() {
    let (domain, next) = (Domain::new(PEER), Domain::new(PEER));
    let mut published = domain.bundle();
    published.sequence = 2;
    published.x509_authorities.extend(next.bundle().x509_authorities);
    let mut cluster = Cluster::new(&domain, serving(published.to_json())).await;
    let decision = cluster.poll().await;
    assert_eq!(decision.poll, Some(PollOutcome::Updated));
    let trusted = cluster.trusted().unwrap().x509_authorities;
    assert!(published.x509_authorities.iter().all(|authority| trusted.contains(authority)));
}

// A set without keys is a bundle: its owner trusts nothing any more (ADR 30).
#[tokio::test]
async fn a_key_set_without_keys_is_a_bundle_by_which_nothing_is_trusted() {
    let domain = Domain::new(PEER);
    let mut cluster = Cluster::new(&domain, serving(r#"{"keys":[],"spiffe_sequence":2}"#)).await;
    assert_eq!(cluster.poll().await.poll, Some(PollOutcome::Updated));
    assert!(cluster.trusted().unwrap().x509_authorities.is_empty());
}
