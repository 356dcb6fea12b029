//! A replay cache in Redis, which replicas share.

use std::{fmt::Write as _, time::Duration};

use countersign_core::wimse::{ReplayKey, Seen};
use jiff::{SignedDuration, Timestamp};
use redis::{
    Client, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::timeout;

use super::{Remembering, ReplayCacheError, SharedReplayCache};

/// Each key begins with it, unless the cache says otherwise.
const PREFIX: &str = "countersign:proof:";

/// A cache that does not answer within this is away; the request is refused.
const TIMEOUT: Duration = Duration::from_secs(1);

/// For how long after its end a proof is remembered: the clock of another replica may be behind.
const MARGIN: SignedDuration = SignedDuration::from_secs(30);

/// Remembers proofs in Redis (or what speaks its protocol), so that what one replica accepted, the others refuse, and each after a
/// restart. One round trip for each proof: `SET key 1 NX PX milliseconds`. Times are relative, so the clock of Redis does not matter.
///
/// When Redis does not answer within a second, requests are refused. It must not forget: run it with `maxmemory-policy noeviction`. A
/// replica of Redis that takes over knows only what was replicated to it: until 100 s later, a proof from before may be accepted once
/// more.
///
/// Keys hold hashes alone. Writers to Redis can have requests refused, and those who delete from it can replay: protect it as
/// what it is, and reach it over TLS, for which an application enables a feature of the crate `redis`.
#[derive(Clone)]
pub struct RedisReplayCache {
    connection: ConnectionManager,
    prefix: String,
}

impl RedisReplayCache {
    /// Connects to a Redis such as `redis://127.0.0.1:6379`, and again whenever that connection ends.
    ///
    /// # Errors
    /// When `url` is none, or cannot be connected to now.
    pub async fn connect(url: &str) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_number_of_retries(1);
        Ok(Self::new(ConnectionManager::new_with_config(Client::open(url)?, config).await?))
    }

    /// By a connection that the caller made.
    #[must_use]
    pub fn new(connection: ConnectionManager) -> Self {
        Self { connection, prefix: PREFIX.to_owned() }
    }

    /// Each key begins with `prefix`, instead of `countersign:proof:`. Services that share audiences must share it; others need not.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    async fn set(&self, key: &ReplayKey, until: Timestamp, now: Timestamp) -> Result<Seen, ReplayCacheError> {
        let life = until.duration_since(now).max(SignedDuration::ZERO).saturating_add(MARGIN);
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("SET");
        command.arg(self.key(key)).arg(1).arg("NX").arg("PX").arg(i64::try_from(life.as_millis()).unwrap_or(i64::MAX));
        let answer = timeout(TIMEOUT, command.query_async::<Option<String>>(&mut connection)).await;
        match answer {
            Ok(Ok(Some(_))) => Ok(Seen::First),
            Ok(Ok(None)) => Ok(Seen::Again),
            Ok(Err(error)) => Err(ReplayCacheError::Unavailable { reason: error.to_string() }),
            Err(_) => {
                let reason = format!("no answer within {} s", TIMEOUT.as_secs());
                Err(ReplayCacheError::Unavailable { reason })
            }
        }
    }

    fn key(&self, key: &ReplayKey) -> String {
        let mut text = self.prefix.clone();
        for byte in key.sender().iter().chain(key.proof()) {
            // Writing to a text does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

impl SharedReplayCache for RedisReplayCache {
    fn remember<'a>(&'a self, key: &'a ReplayKey, until: Timestamp, now: Timestamp) -> Remembering<'a> {
        Box::pin(self.set(key, until, now))
    }
}
