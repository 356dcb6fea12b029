//! The authorities of the test's trust domain, as its TrustDomain's status shows them.

#![allow(clippy::indexing_slicing, reason = "a JSON value that is missing is null")]

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::World;

/// The authorities in a TrustDomain's status.
#[derive(Clone, Debug)]
pub struct Authorities(Vec<Value>);

impl Authorities {
    /// Ids of all authorities.
    #[must_use]
    pub fn all(&self) -> BTreeSet<String> {
        self.select(|_| true)
    }

    /// Ids of those in a state, such as `active`.
    #[must_use]
    pub fn ids(&self, state: &str) -> BTreeSet<String> {
        self.select(|one| one["state"] == state)
    }

    /// Id of the one of a kind (`x509`, `jwt`, `wit`) that signs.
    #[must_use]
    pub fn active(&self, kind: &str) -> Option<String> {
        self.select(|one| one["state"] == "active" && one["kind"] == kind).pop_first()
    }

    /// Ids of all of a kind.
    #[must_use]
    pub fn of_kind(&self, kind: &str) -> BTreeSet<String> {
        self.select(|one| one["kind"] == kind)
    }

    fn select(&self, wanted: impl Fn(&Value) -> bool) -> BTreeSet<String> {
        self.0.iter().filter(|one| wanted(one)).map(|one| text(one, "id")).collect()
    }
}

impl World {
    /// The status of the test's TrustDomain.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn trust_domain_status(&self) -> Result<Value> {
        let object = self.cluster.trust_domains().await?.get(&self.trust_domain).await?;
        Ok(object.data["status"].clone())
    }

    /// The authorities of the test's trust domain.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn authorities(&self) -> Result<Authorities> {
        Ok(Authorities(self.trust_domain_status().await?["authorities"].as_array().cloned().unwrap_or_default()))
    }

    /// Status and message of a condition of the TrustDomain that speaks of its spec as it is now.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn trust_domain_condition(&self, type_: &str) -> Result<Option<(String, String)>> {
        let object = self.cluster.trust_domains().await?.get(&self.trust_domain).await?;
        let all = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.into_iter().find(|one| one["type"] == type_);
        let current = found.filter(|one| one["observedGeneration"].as_i64() == object.metadata.generation);
        Ok(current.map(|one| (text(&one, "status"), text(&one, "message"))))
    }
}

/// The `kid` of a token.
///
/// # Errors
/// It is no token, or has none.
pub fn key_id(token: &str) -> Result<String> {
    header(token, "kid")
}

/// The `alg` of a token.
///
/// # Errors
/// It is no token, or has none.
pub fn algorithm(token: &str) -> Result<String> {
    header(token, "alg")
}

fn header(token: &str, member: &str) -> Result<String> {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap_or_default()).context("a token's header")?;
    let header: Value = serde_json::from_slice(&header).context("a token's header")?;
    Ok(header[member].as_str().with_context(|| format!("a token without {member}"))?.to_owned())
}

fn text(one: &Value, member: &str) -> String {
    one[member].as_str().unwrap_or_default().to_owned()
}
