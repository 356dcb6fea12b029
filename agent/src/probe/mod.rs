//! `countersign-agent probe`: one handshake with the identity in the pod's files. `kubectl countersign probe` runs it in ephemeral
//! containers of two pods, one of which listens and the other calls. Each prints one line of JSON about itself and its peer.

mod credentials;
mod handshake;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use countersign_contract::files::{CREDENTIALS, IDENTITY};
use countersign_core::id::SpiffeId;
use serde::Serialize;

pub use credentials::{Credentials, CredentialsError};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Which side.
    pub role: Role,
    /// How long to wait for the other one.
    pub timeout: Duration,
    /// The credentials.
    pub folder: PathBuf,
}

/// Which side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Waits for one caller.
    Serve(SocketAddr),
    /// Calls.
    Dial(SocketAddr),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `serve` or `dial`.
    pub role: &'static str,
    /// The id of this pod, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own: Option<SpiffeId>,
    /// The peer's, once it is authenticated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<SpiffeId>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The peer is who the report says.
    Authenticated,
    /// This side refused the peer.
    RefusedPeer,
    /// The peer refused this side. It does not say why: its own report does.
    RefusedByPeer,
    /// There was no connection.
    Unreachable,
    /// The pod has no identity.
    NoIdentity,
    /// Anything else.
    Failed,
}

impl Probe {
    /// With the credentials of the whole pod.
    #[must_use]
    pub fn new(role: Role, timeout: Duration) -> Self {
        Self { role, timeout, folder: PathBuf::from(IDENTITY).join(CREDENTIALS) }
    }

    /// Makes the handshake.
    pub async fn run(&self) -> Report {
        let role = match self.role {
            Role::Serve(_) => "serve",
            Role::Dial(_) => "dial",
        };
        let credentials = match Credentials::read(&self.folder, jiff::Timestamp::now()) {
            Ok(credentials) => credentials,
            Err(error) => {
                let (outcome, message) = (Outcome::NoIdentity, Some(error.to_string()));
                return Report { role, own: None, peer: None, outcome, message };
            }
        };
        let made = match self.role {
            Role::Serve(address) => handshake::serve(&credentials, address, self.timeout).await,
            Role::Dial(address) => handshake::dial(&credentials, address, self.timeout).await,
        };
        let own = Some(credentials.id().clone());
        match made {
            Ok(peer) => Report { role, own, peer: Some(peer), outcome: Outcome::Authenticated, message: None },
            Err((outcome, message)) => Report { role, own, peer: None, outcome, message: Some(message) },
        }
    }
}

#[cfg(test)]
mod tests;
