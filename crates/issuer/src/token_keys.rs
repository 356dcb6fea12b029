//! The keys which sign this cluster's service account tokens, fetched from the API server and kept in memory, so that a
//! token is verified without a call. An unknown key id fetches them again, at most every ten seconds; they are fetched every
//! five minutes in any case, and those that are too old (see [`crate::freshness`]) verify nothing.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use countersign_core::service_account::{ClusterJwks, Expected, PodToken, TokenError, verify_token};
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::{sync::Mutex, time::Instant};

use countersign_runtime::readiness::ReadinessCheck;

use crate::{
    freshness::{Freshness, MAX_VIEW_AGE, StaleView, View},
    metrics::IssuerMetrics,
};

/// The shortest time between two fetches that an unknown key id may cause.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// How often the keys are fetched without cause, so that a withdrawn one is forgotten.
const REFRESH: Duration = Duration::from_secs(300);

/// How long the API server may take to answer with them.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Where the keys come from.
pub trait KeySource: Send + Sync {
    /// The tokens' issuer (`iss`) and the JWK set, as the API server serves them.
    fn fetch(&self) -> BoxFuture<'_, Result<PublishedKeys, FetchError>>;
}

/// What the API server publishes of its token issuer.
#[derive(Clone, Debug)]
pub struct PublishedKeys {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The JWK set, JSON.
    pub jwks: Vec<u8>,
}

/// Why the keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The API server did not answer as it should.
    #[error(
        "{path} cannot be read from the API server: {source}; the operator needs the ClusterRole system:service-account-issuer-discovery"
    )]
    Unreadable {
        /// What was asked for.
        path: &'static str,
        /// What the client said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It did not answer.
    #[error("the API server did not answer within {}s", ANSWER_TIME.as_secs())]
    NoAnswer,
    /// The document is not what it should be.
    #[error("{path} is malformed: {reason}")]
    Malformed {
        /// What was asked for.
        path: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a token was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not a token of this cluster for us.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The keys are not known yet.
    #[error("the cluster's token keys are not known yet; ask again")]
    NoKeys,
    /// The keys were fetched too long ago: one may have been withdrawn since.
    #[error(transparent)]
    Stale(StaleView),
}

/// The keys, shared by all sessions.
pub struct TokenKeys {
    source: Box<dyn KeySource>,
    audience: String,
    max_life: Duration,
    current: ArcSwapOption<Known>,
    last_fetch: Mutex<Option<Instant>>,
    freshness: Freshness,
    known: ReadinessCheck,
    metrics: Arc<IssuerMetrics>,
}

struct Known {
    issuer: String,
    keys: ClusterJwks,
}

impl TokenKeys {
    /// No keys yet; `audience` is the one every token must be for, and none may live longer than `max_life`.
    #[must_use]
    pub fn new(
        source: Box<dyn KeySource>,
        audience: String,
        max_life: Duration,
        freshness: Freshness,
        known: ReadinessCheck,
        metrics: Arc<IssuerMetrics>,
    ) -> Self {
        let (current, last_fetch) = (ArcSwapOption::empty(), Mutex::new(None));
        Self { source, audience, max_life, current, last_fetch, freshness, known, metrics }
    }

    /// Verifies a token; the API server is asked only when the key is unknown or the keys are too old.
    ///
    /// # Errors
    /// When the token does not verify or no keys are known.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<PodToken, VerifyError> {
        match self.verify_locally(token, now) {
            Err(VerifyError::NoKeys | VerifyError::Stale(_) | VerifyError::Token(TokenError::UnknownKey { .. })) => {
                self.fetch(MIN_INTERVAL).await;
                self.verify_locally(token, now)
            }
            verdict => verdict,
        }
    }

    fn verify_locally(&self, token: &str, now: Timestamp) -> Result<PodToken, VerifyError> {
        let known = self.current.load();
        let known = known.as_ref().ok_or(VerifyError::NoKeys)?;
        let age = self.freshness.age(View::TokenKeys);
        if age > MAX_VIEW_AGE {
            return Err(VerifyError::Stale(StaleView { view: View::TokenKeys, age }));
        }
        let expected = Expected { issuer: &known.issuer, audience: &self.audience, max_life: self.max_life };
        Ok(verify_token(token, &known.keys, expected, now)?)
    }

    /// Keeps the keys fresh for as long as the process lives.
    pub async fn keep_fresh(&self) {
        loop {
            self.fetch(MIN_INTERVAL).await;
            // Sooner again where it failed. By a look at the age: the machine may have been suspended.
            loop {
                tokio::time::sleep(MIN_INTERVAL).await;
                if self.freshness.age(View::TokenKeys) >= REFRESH {
                    break;
                }
            }
        }
    }

    /// Fetches unless that was done less than `min_interval` ago. Callers wait for one fetch together.
    async fn fetch(&self, min_interval: Duration) {
        let mut last = self.last_fetch.lock().await;
        if last.is_some_and(|at| at.elapsed() < min_interval) {
            return;
        }
        *last = Some(Instant::now());
        let begin = self.freshness.now();
        self.metrics.token_key_fetches.inc();
        let fetched = tokio::time::timeout(ANSWER_TIME, self.source.fetch()).await;
        match fetched.unwrap_or(Err(FetchError::NoAnswer)).and_then(Known::parse) {
            Ok(known) => {
                self.current.store(Some(Arc::new(known)));
                self.freshness.confirm(View::TokenKeys, begin);
                self.known.pass();
            }
            Err(error) => tracing::warn!(%error, "the cluster's token keys could not be fetched"),
        }
    }
}

impl Known {
    fn parse(published: PublishedKeys) -> Result<Self, FetchError> {
        let keys = ClusterJwks::parse(&published.jwks)
            .map_err(|error| FetchError::Malformed { path: JWKS, reason: error.to_string() })?;
        Ok(Self { issuer: published.issuer, keys })
    }
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKeys").field("audience", &self.audience).finish_non_exhaustive()
    }
}

/// Where the API server serves its JWK set.
pub const JWKS: &str = "/openid/v1/jwks";
