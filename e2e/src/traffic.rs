//! Traffic that must not be disturbed: a server and a client over mTLS, where each call is a full handshake accepted by
//! both sides.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    World,
    fixture::{AUDIENCE, PodSpec},
    pods::is_event,
    replicas::address,
    wait::{DEFAULT_TIMEOUT, until},
};

/// The pods and their accounts.
const SERVER: &str = "server";
const CLIENT: &str = "client";

/// The sums of the traffic so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Handshakes that both sides accepted, with the expected id of the peer.
    pub handshakes: u64,
    /// Failed calls.
    pub failed: u64,
    /// Distinct leaf certificates of the client.
    pub serials: u64,
    /// Distinct leaf certificates of the server.
    pub peer_serials: u64,
    /// Tokens that the server validated; part of the handshakes.
    pub validations: u64,
    /// Distinct keys that signed those tokens.
    pub key_ids: u64,
}

impl Sums {
    /// The difference to earlier sums.
    #[must_use]
    pub fn since(self, then: Self) -> Self {
        Self {
            handshakes: self.handshakes - then.handshakes,
            failed: self.failed - then.failed,
            serials: self.serials - then.serials,
            peer_serials: self.peer_serials - then.peer_serials,
            validations: self.validations - then.validations,
            key_ids: self.key_ids - then.key_ids,
        }
    }

    /// As counts of a test, together with `more`.
    #[must_use]
    pub fn counts(self, more: &Value) -> Value {
        let mut counts = json!({
            "handshakes": self.handshakes,
            "failed": self.failed,
            "renewals_of_caller": self.serials,
            "renewals_of_server": self.peer_serials,
        });
        if let (Some(counts), Some(more)) = (counts.as_object_mut(), more.as_object()) {
            if self.validations > 0 {
                counts.insert("validations".to_owned(), self.validations.into());
                counts.insert("new_token_keys".to_owned(), self.key_ids.into());
            }
            counts.extend(more.clone());
        }
        counts
    }
}

impl World {
    /// Starts traffic between two pods, one call every `every` (such as `50ms`), and waits until it flows. The TrustDomain
    /// must exist.
    ///
    /// # Errors
    /// It does not flow in time.
    pub async fn traffic(&self, every: &str) -> Result<()> {
        self.start_traffic(every, &[]).await
    }

    /// As [`Self::traffic`]; with each call the client also sends a token, which the server validates.
    ///
    /// # Errors
    /// It does not flow in time.
    pub async fn traffic_with_tokens(&self, every: &str) -> Result<()> {
        self.start_traffic(every, &["--audience", AUDIENCE]).await
    }

    async fn start_traffic(&self, every: &str, tokens: &[&str]) -> Result<()> {
        let jwt = format!("jwt: {{audiences: [{AUDIENCE}]}}");
        for account in [SERVER, CLIENT] {
            self.cluster.apply(&self.identity_yaml(account, if tokens.is_empty() { "" } else { &jwt })).await?;
        }
        let (server, client) = (self.id(SERVER), self.id(CLIENT));
        let serve = [&["serve", "--listen", "0.0.0.0:8443", "--allow", &client], tokens].concat();
        self.cluster.apply(&PodSpec::demo(SERVER, &serve).pod(&self.namespace)).await?;
        let target = format!("{}:8443", address(&self.ready(SERVER).await?)?);
        let call = [&["call", "--target", &target, "--expect", &server, "--every", every], tokens].concat();
        self.cluster.apply(&PodSpec::demo(CLIENT, &call).pod(&self.namespace)).await?;
        self.ready(CLIENT).await?;
        self.traffic_continues(1).await.map(drop)
    }

    /// Waits for `more` further calls, and returns the sums. No call may have failed.
    ///
    /// # Errors
    /// A call failed, or they were not made in time.
    pub async fn traffic_continues(&self, more: u64) -> Result<Sums> {
        self.traffic_since(Sums::default(), more, DEFAULT_TIMEOUT).await
    }

    /// As [`Self::traffic_continues`], counted from `then`.
    ///
    /// # Errors
    /// A call failed, or they were not made in time.
    pub async fn traffic_since(&self, then: Sums, more: u64, deadline: Duration) -> Result<Sums> {
        let what = format!("{more} more handshakes are done");
        let sums = until(&what, deadline, async || {
            Ok(self.sums().await?.filter(|sums| sums.failed > 0 || sums.handshakes >= then.handshakes + more))
        })
        .await?;
        ensure!(sums.failed == 0, "calls failed: {sums:?}");
        Ok(sums)
    }

    /// Waits until both sides have new leaf certificates since `then`, and returns the sums. No call may have failed.
    ///
    /// # Errors
    /// A call failed, or a side was not renewed in time.
    pub async fn both_renewed(&self, then: Sums, deadline: Duration) -> Result<Sums> {
        until("both sides are renewed", deadline, async || {
            let now = self.traffic_since(then, 1, DEFAULT_TIMEOUT).await?;
            Ok((now.serials > then.serials && now.peer_serials > then.peer_serials).then_some(now))
        })
        .await
    }

    /// The sums last printed by the client.
    async fn sums(&self) -> Result<Option<Sums>> {
        let said = self.app_output(CLIENT).await?;
        let failures = said.iter().filter(|line| is_event(line, "failed")).count() as u64;
        let last = said.iter().rev().find(|line| is_event(line, "summary"));
        Ok(last.map(|line| {
            let number = |key: &str| line.get(key).and_then(Value::as_u64).unwrap_or_default();
            let length = |key: &str| line.get(key).and_then(Value::as_array).map_or(0, Vec::len) as u64;
            Sums {
                handshakes: number("handshakes"),
                failed: number("failed").max(failures),
                serials: length("serials"),
                peer_serials: length("peer_serials"),
                validations: number("validations"),
                key_ids: length("key_ids"),
            }
        }))
    }
}
