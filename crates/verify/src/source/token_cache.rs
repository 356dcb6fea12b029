//! JWT-SVIDs in memory: one for each set of audiences, until half of its life, and no longer than the workload has its identity.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use countersign_core::{bundle::BundleSet, id::SpiffeId, renewal::renew_at};
use countersign_proto::workload::{Jwtsvid, JwtsvidRequest};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{
    SourceError, X509Credentials,
    current::Watched,
    streams::Client,
    token::{JwtSvid, TokenRequestError},
};

/// Sets of audiences for which a token is kept.
const MAX_KEPT: usize = 1024;

/// A token that ends sooner is not handed out from memory: it must reach whoever verifies it.
const SHORTEST_REST: Duration = Duration::from_secs(5);

/// A Workload API that does not answer is away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A failure is the answer to all who ask within this, so that a Workload API that refuses is not asked by everybody in turn.
const FAILURE_KEPT: Duration = Duration::from_secs(1);

/// Where tokens come from.
pub(super) enum Origin {
    WorkloadApi(Client),
    #[cfg(feature = "files")]
    Folder(std::path::PathBuf),
}

/// Says what time it is.
pub(super) type Now<'a> = &'a (dyn Fn() -> Timestamp + Sync);

/// What decides whether a token in memory is still of use.
pub(super) struct Standing<'a> {
    pub(super) x509: &'a Watched<X509Credentials>,
    pub(super) jwt_bundles: &'a Watched<BundleSet>,
    pub(super) hint: Option<&'a str>,
}

/// Tokens by what they are for.
pub(super) struct TokenCache {
    origin: Origin,
    slots: Mutex<BTreeMap<BTreeSet<String>, Arc<Slot>>>,
}

/// One token; whoever asks while it is being fetched waits for that.
type Slot = tokio::sync::Mutex<Content>;

#[derive(Default)]
struct Content {
    kept: Option<Kept>,
    failed: Option<(Timestamp, TokenRequestError)>,
}

#[derive(Clone)]
struct Kept {
    svid: Arc<JwtSvid>,
    renew_at: Timestamp,
}

impl TokenCache {
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin, slots: Mutex::default() }
    }

    pub(super) async fn get(
        &self,
        audiences: &[&str],
        standing: Standing<'_>,
        clock: Now<'_>,
    ) -> Result<Arc<JwtSvid>, TokenRequestError> {
        named(audiences)?;
        if let Err(error @ (SourceError::NoIdentity { .. } | SourceError::Refused { .. } | SourceError::Stopped)) =
            standing.x509.current()
        {
            self.slots.lock().clear();
            return Err(TokenRequestError::Denied { reason: error.to_string() });
        }
        let slot = self.slot(audiences, clock());
        let mut content = slot.lock().await;
        // It may have taken a while to get here.
        let now = clock();
        if content.kept.as_ref().is_some_and(|kept| !standing.allows(&kept.svid)) {
            content.kept = None;
        }
        if let Some(fresh) = content.kept.as_ref().filter(|kept| now < kept.renew_at) {
            return Ok(Arc::clone(&fresh.svid));
        }
        let recent = |(at, _): &&(Timestamp, _)| now < at.saturating_add(FAILURE_KEPT).unwrap_or(*at);
        let fetched = match content.failed.as_ref().filter(recent) {
            Some((_, error)) => Err(error.clone()),
            None => {
                let fetched = self.fetch(audiences, None, now).await.and_then(|svids| chosen(svids, standing.hint));
                content.failed = fetched.as_ref().err().map(|error| (now, error.clone()));
                fetched
            }
        };
        let now = clock();
        match fetched {
            Ok(svid) => {
                let renew_at = renew_at(now, svid.claims().expires_at, rand::random_range(-1.0..=1.0));
                let kept = content.kept.insert(Kept { svid: Arc::new(svid), renew_at });
                Ok(Arc::clone(&kept.svid))
            }
            Err(error @ TokenRequestError::Unavailable { .. }) => {
                // The Workload API is away: what is still valid serves on.
                content.kept.as_ref().filter(|kept| kept.lasts(now)).map(|kept| Arc::clone(&kept.svid)).ok_or(error)
            }
            Err(error) => {
                content.kept = None;
                Err(error)
            }
        }
    }

    pub(super) async fn fetch(
        &self,
        audiences: &[&str],
        id: Option<&SpiffeId>,
        now: Timestamp,
    ) -> Result<Vec<JwtSvid>, TokenRequestError> {
        named(audiences)?;
        let svids = match &self.origin {
            Origin::WorkloadApi(client) => from_workload_api(client.clone(), audiences, id, now).await?,
            #[cfg(feature = "files")]
            Origin::Folder(folder) => super::folder::tokens(folder.clone(), audiences, now).await?,
        };
        match id {
            Some(id) if svids.iter().any(|svid| svid.id() != id) => {
                Err(TokenRequestError::Other { problem: "is of another id than was asked for" })
            }
            _ => Ok(svids),
        }
    }

    /// The place for these audiences; one of its own that is not kept when all places are taken.
    fn slot(&self, audiences: &[&str], now: Timestamp) -> Arc<Slot> {
        let key: BTreeSet<String> = audiences.iter().map(|&audience| audience.to_owned()).collect();
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(&key) {
            return Arc::clone(slot);
        }
        if slots.len() >= MAX_KEPT {
            // A place that is locked is in use.
            let is_in_use = |content: &Content| content.kept.as_ref().is_some_and(|kept| kept.lasts(now));
            slots.retain(|_, slot| slot.try_lock().map_or(true, |content| is_in_use(&content)));
        }
        let slot = Arc::default();
        if slots.len() < MAX_KEPT {
            slots.insert(key, Arc::clone(&slot));
        }
        slot
    }
}

impl Standing<'_> {
    /// Whether the workload still has the identity, under the hint, and the bundle of its trust domain still has the key that signed
    /// the token, as far as that can be known: after a revocation nobody would accept it.
    fn allows(&self, svid: &JwtSvid) -> bool {
        if let Ok(x509) = self.x509.current() {
            let has = |own: &super::X509Svid| own.id() == svid.id() && self.hint.is_none_or(|hint| own.hint() == hint);
            if !x509.svids().iter().any(|own| has(own)) {
                return false;
            }
        }
        let (Ok(bundles), Some(key_id)) = (self.jwt_bundles.current(), &svid.claims().key_id) else { return true };
        let bundle = bundles.get(svid.id().trust_domain());
        bundle.is_some_and(|bundle| bundle.jwt_authorities.iter().any(|key| key.kid() == key_id))
    }
}

impl Kept {
    fn lasts(&self, now: Timestamp) -> bool {
        now.checked_add(SHORTEST_REST).is_ok_and(|then| then < self.svid.claims().expires_at)
    }
}

fn named(audiences: &[&str]) -> Result<(), TokenRequestError> {
    if audiences.is_empty() || audiences.iter().any(|audience| audience.is_empty()) {
        return Err(TokenRequestError::NoAudience);
    }
    Ok(())
}

async fn from_workload_api(
    mut client: Client,
    audiences: &[&str],
    id: Option<&SpiffeId>,
    now: Timestamp,
) -> Result<Vec<JwtSvid>, TokenRequestError> {
    let request = JwtsvidRequest {
        audience: audiences.iter().map(|&audience| audience.to_owned()).collect(),
        spiffe_id: id.map(ToString::to_string).unwrap_or_default(),
    };
    let response = timeout(ANSWER_TIMEOUT, client.fetch_jwtsvid(request)).await.map_err(|_| {
        let reason = format!("the Workload API did not answer within {} s", ANSWER_TIMEOUT.as_secs());
        TokenRequestError::Unavailable { reason }
    })??;
    // All of them are wiped, also those behind one that cannot be read.
    let wiped = |Jwtsvid { spiffe_id, svid, hint }| (spiffe_id, Zeroizing::new(svid), hint);
    let received: Vec<_> = response.into_inner().svids.into_iter().map(wiped).collect();
    let read = |(spiffe_id, token, hint): (String, Zeroizing<String>, String)| {
        let svid = JwtSvid::read(token, hint, audiences, now)?;
        if svid.id().to_string() == spiffe_id {
            Ok(svid)
        } else {
            Err(TokenRequestError::Other { problem: "is of another id than the response says" })
        }
    };
    received.into_iter().map(read).collect()
}

/// The token with this hint, otherwise the first: the default.
fn chosen(svids: Vec<JwtSvid>, hint: Option<&str>) -> Result<JwtSvid, TokenRequestError> {
    let mut svids = svids.into_iter();
    match hint {
        None => svids
            .next()
            .ok_or_else(|| TokenRequestError::Unavailable { reason: "the Workload API sent no JWT-SVID".to_owned() }),
        Some(hint) => svids
            .find(|svid| svid.hint() == hint)
            .ok_or_else(|| TokenRequestError::NoSuchHint { hint: hint.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::{
        jwt::{JwtAuthority, JwtRequest},
        key::KeyType,
    };

    use super::*;
    use crate::source::{current, streams};

    const LIFE: i64 = 60;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    fn kept(audience: &str, renew_at: Timestamp) -> Kept {
        let (id, audiences) = ("spiffe://a.test/workload".parse().unwrap(), [audience.to_owned()]);
        let request = JwtRequest { id: &id, audiences: &audiences, ttl: Duration::from_secs(60), issuer: None };
        let issued = JwtAuthority::generate(KeyType::EcP256).unwrap().issue(&request, at(0)).unwrap();
        let svid = JwtSvid::read(issued.token, String::new(), &[audience], at(0)).unwrap();
        Kept { svid: Arc::new(svid), renew_at }
    }

    /// A cache whose Workload API is away, with a token that lives for a minute and is due for renewal after half of that.
    async fn cache() -> TokenCache {
        let nowhere = "unix:///nonexistent/workload.sock".parse().unwrap();
        let cache = TokenCache::new(Origin::WorkloadApi(streams::client(nowhere)));
        cache.slot(&["one"], at(0)).lock().await.kept = Some(kept("one", at(LIFE / 2)));
        cache
    }

    async fn get(cache: &TokenCache, x509: &Watched<X509Credentials>, now: i64) -> Result<(), TokenRequestError> {
        let (_jwt, jwt_bundles) = current::channel();
        let standing = Standing { x509, jwt_bundles: &jwt_bundles, hint: None };
        cache.get(&["one"], standing, &|| at(now)).await.map(drop)
    }

    // R26.
    #[tokio::test]
    async fn while_the_workload_api_is_away_a_token_serves_until_shortly_before_its_end() {
        let (_publisher, x509) = current::channel();
        for (now, serves) in [(1, true), (LIFE / 2 + 1, true), (LIFE - 6, true), (LIFE - 5, false), (LIFE, false)] {
            let served = get(&cache().await, &x509, now).await;
            assert_eq!(served.is_ok(), serves, "after {now} s: {served:?}");
            assert!(serves || matches!(served, Err(TokenRequestError::Unavailable { .. })));
        }
    }

    #[tokio::test]
    async fn a_token_in_memory_ends_with_the_identity() {
        let (publisher, x509) = current::channel();
        let cache = cache().await;
        assert_eq!(get(&cache, &x509, 1).await, Ok(()));
        publisher.withdraw(SourceError::NoIdentity { reason: "withdrawn".into() });
        assert!(matches!(get(&cache, &x509, 2).await, Err(TokenRequestError::Denied { .. })));
        // It is not there again when the identity is.
        publisher.withdraw(SourceError::Waiting { last: None });
        assert!(matches!(get(&cache, &x509, 3).await, Err(TokenRequestError::Unavailable { .. })));
    }

    #[tokio::test]
    async fn a_source_that_is_no_longer_kept_up_to_date_has_no_tokens() {
        let (publisher, x509) = current::channel();
        drop(publisher);
        assert!(matches!(get(&cache().await, &x509, 1).await, Err(TokenRequestError::Denied { .. })));
    }

    #[tokio::test]
    async fn beyond_its_bound_the_cache_drops_what_has_ended_and_then_keeps_nothing_more() {
        let nowhere = "unix:///nonexistent/workload.sock".parse().unwrap();
        let cache = TokenCache::new(Origin::WorkloadApi(streams::client(nowhere)));
        let live = kept("x", at(LIFE / 2));
        for number in 0..MAX_KEPT {
            cache.slot(&[&number.to_string()], at(0)).lock().await.kept = Some(live.clone());
        }
        let count = || cache.slots.lock().len();
        cache.slot(&["more"], at(1));
        assert_eq!((count(), cache.slots.lock().contains_key(&BTreeSet::from(["more".to_owned()]))), (MAX_KEPT, false));
        cache.slot(&["later"], at(LIFE));
        assert_eq!(count(), 1);
    }
}
