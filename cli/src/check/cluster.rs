//! The cluster: whether its API server answers, is new enough, projects service account tokens, and agrees with our clock.

use std::time::Duration;

use countersign_reasons::Reason;
use http::Request;
use jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimeParser};
use kube::{Client, client::Body};

use super::category::Category;
use crate::{
    cluster::Cluster,
    finding::Finding,
    output::count,
    reading::{Gap, Reading, Right},
    times::length,
};

/// The oldest version that is supported.
const OLDEST: (u32, u32) = (1, 32);

/// A difference of clocks that does not matter beside what the `Date` header leaves open, which has whole seconds.
const TOLERANCE: Duration = Duration::from_secs(5);

const TOKEN_KEYS: &str = "/openid/v1/jwks";

/// What was read.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) version: Reading<String>,
    /// The API server's clock and ours, of one answer.
    pub(super) clocks: Option<Clocks>,
    /// Whether the API server issues tokens of service accounts for an audience.
    pub(super) issues_tokens: Reading<bool>,
    /// How many keys verify them.
    pub(super) token_keys: Reading<usize>,
}

/// The times between which an API server's answer was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    pub(super) server: Timestamp,
    pub(super) sent: Timestamp,
    pub(super) received: Timestamp,
}

impl Clocks {
    /// By how much our clock is ahead of the API server's; negative: behind. 0 while they may agree.
    fn offset(self) -> SignedDuration {
        // The header leaves out the fraction of a second.
        let latest = self.server + Duration::from_secs(1);
        if self.sent > latest {
            self.sent.duration_since(latest)
        } else if self.received < self.server {
            self.received.duration_since(self.server)
        } else {
            SignedDuration::ZERO
        }
    }
}

impl Seen {
    /// The API server's time if it said so, as statuses and leases are compared with it.
    pub(super) fn now(&self) -> Timestamp {
        self.clocks.map_or_else(Timestamp::now, |clocks| clocks.server)
    }
}

pub(super) async fn observe(cluster: &Cluster) -> Seen {
    let client = &cluster.client;
    let version = client.apiserver_version().await.map(|info| format!("{}.{}", info.major, info.minor));
    let version = Reading::from(version, || Right::new("get", "/version", None));
    if version.found().is_none() {
        // Without an answer the other requests would only wait for theirs.
        return Seen { version, clocks: None, issues_tokens: Reading::Absent, token_keys: Reading::Absent };
    }
    let resources = client.list_core_api_resources("v1").await;
    let issues_tokens = resources.map(|list| list.resources.iter().any(|one| one.name == "serviceaccounts/token"));
    let right = || Right::new("get", TOKEN_KEYS, None);
    Seen {
        version,
        clocks: clocks(client).await,
        issues_tokens: Reading::from(issues_tokens, || Right::new("get", "/api/v1", None)),
        token_keys: match Request::get(TOKEN_KEYS).body(Vec::new()) {
            Ok(request) => Reading::from(client.request(request).await, right).map(|keys: JwkSet| keys.keys.len()),
            Err(error) => Reading::Failed(error.to_string()),
        },
    }
}

#[derive(serde::Deserialize)]
struct JwkSet {
    #[serde(default)]
    keys: Vec<serde::de::IgnoredAny>,
}

async fn clocks(client: &Client) -> Option<Clocks> {
    let request = Request::get("/version").body(Body::empty()).ok()?;
    let sent = Timestamp::now();
    let response = client.send(request).await.ok()?;
    let received = Timestamp::now();
    let date = response.headers().get(http::header::DATE)?.to_str().ok()?;
    Some(Clocks { server: DateTimeParser::new().parse_timestamp(date).ok()?, sent, received })
}

pub(super) fn category(seen: &Seen) -> Category {
    let Some(version) = seen.version.found() else {
        return Category::new("cluster", vec![unreachable(&seen.version)]);
    };
    let checks = vec![
        Finding::ok("API server", "it answers"),
        version_check(version),
        issues_tokens(&seen.issues_tokens),
        token_keys(&seen.token_keys),
        clock(seen.clocks),
    ];
    Category::new("cluster", checks)
}

fn unreachable(version: &Reading<String>) -> Finding {
    let message = match version.gap() {
        Some(Gap::Failed(why)) => format!("it does not answer: {why}"),
        gap => gap.map(|gap| gap.to_string()).unwrap_or_default(),
    };
    Finding::failed("API server", Reason::ApiServerUnreachable, message)
        .with_mends("kubectl cluster-info\ncompare the context of your kubeconfig")
}

fn version_check(version: &str) -> Finding {
    match parsed(version) {
        Some(found) if found < OLDEST => {
            let (major, minor) = OLDEST;
            let message = format!("the cluster runs Kubernetes {version}, and {major}.{minor} is the oldest supported");
            Finding::failed("version", Reason::KubernetesTooOld, message)
                .with_mends(format!("upgrade the cluster to Kubernetes {major}.{minor} or later"))
        }
        Some(_) => Finding::ok("version", format!("Kubernetes {version}")),
        None => Finding::skipped("version", format!("`{version}` is not a version of Kubernetes")),
    }
}

/// Major and minor; providers append a `+` to the latter.
fn parsed(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    let digits = minor.find(|c: char| !c.is_ascii_digit()).map_or(minor, |end| minor.get(..end).unwrap_or_default());
    Some((major.parse().ok()?, digits.parse().ok()?))
}

fn issues_tokens(issues: &Reading<bool>) -> Finding {
    match issues {
        Reading::Found(true) => Finding::ok("tokens", "the API server issues service account tokens for an audience"),
        Reading::Found(false) => {
            let message =
                "the API server has no resource serviceaccounts/token, so that agents get no token to present";
            Finding::failed("tokens", Reason::TokensNotProjected, message)
                .with_mends("start kube-apiserver with --service-account-issuer and --service-account-signing-key-file")
        }
        other => other.gap().map_or_else(|| Finding::skipped("tokens", "not read"), |gap| Finding::gap("tokens", gap)),
    }
}

fn token_keys(keys: &Reading<usize>) -> Finding {
    match keys {
        Reading::Found(0) | Reading::Absent => {
            let message = format!("the API server publishes no keys at {TOKEN_KEYS}: the issuer cannot verify tokens");
            Finding::failed("token keys", Reason::TokenKeysUnavailable, message)
                .with_mends("start kube-apiserver with --service-account-issuer, an https URL")
        }
        Reading::Found(keys) => Finding::ok("token keys", format!("{} to verify tokens with", count(*keys, "key"))),
        other => other.gap().map_or_else(|| Finding::ok("token keys", ""), |gap| Finding::gap("token keys", gap)),
    }
}

fn clock(clocks: Option<Clocks>) -> Finding {
    let Some(clocks) = clocks else {
        return Finding::skipped("clock", "the API server does not say what time it is");
    };
    let offset = clocks.offset();
    if offset.unsigned_abs() <= TOLERANCE {
        return Finding::ok("clock", "the clocks of this machine and of the API server agree");
    }
    let side = if offset.is_negative() { "behind" } else { "ahead of" };
    let message = format!("the clock of this machine is {} {side} the API server's", length(offset.unsigned_abs()));
    Finding::warning("clock", Reason::ClockDiffers, message)
        .with_mends("timedatectl status, on this machine and on the nodes of the control plane")
}

#[cfg(test)]
mod tests;
