//! The two roles in which a client validates a peer: as server, the suite connects to it; as client, it calls the suite.

use super::authority::Svid;
use super::control::Decision;
use super::env::Env;
use super::failure::{Verdict, control, expect};
use super::tls::{PeerServer, probe};

/// What the client under test is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    Server,
    Client,
}

impl Role {
    /// What the client decides about a peer with this certificate.
    pub(crate) async fn decision(self, env: &Env, peer: &Svid) -> Verdict<Decision> {
        match self {
            Self::Server => Ok(probe(env.harness().x509_port()?, peer).await?.decision),
            Self::Client => {
                let server = PeerServer::start(peer).await?;
                env.harness().control()?.dial(&server.address).await
            }
        }
    }

    /// The client accepts this peer, and knows its SPIFFE ID.
    pub(crate) async fn accepts(self, env: &Env, peer: &Svid) -> Verdict {
        let decision = self.decision(env, peer).await?;
        expect(decision == Decision::Accepted(peer.id.clone()), || format!("{}: {decision:?}", peer.id))
    }

    /// The client rejects this peer.
    pub(crate) async fn rejects(self, env: &Env, peer: &Svid) -> Verdict {
        let decision = self.decision(env, peer).await?;
        expect(matches!(decision, Decision::Rejected(_)), || format!("{}: {decision:?}", peer.id))
    }

    /// The client accepts a valid peer of its own trust domain.
    pub(crate) async fn control(self, env: &Env) -> Verdict {
        control(self.accepts(env, &env.own.issue(&env.own.id("/control"))).await)
    }
}
