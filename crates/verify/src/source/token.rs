//! JWT-SVIDs of this workload, kept in memory for as long as they are fresh (SPIFFE Workload API, section 6.2.1).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use countersign_core::{
    bundle::BundleSet,
    id::SpiffeId,
    jwt::{JwtClaims, JwtSvidError, read_jwt_svid},
    renewal::renew_at,
};
use countersign_proto::workload::JwtsvidRequest;
use jiff::Timestamp;
use parking_lot::Mutex;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::{current::Watched, streams::Client};

/// Sets of audiences for which a token is kept.
const MAX_KEPT: usize = 1024;

/// A token that ends sooner is not handed out from memory: it must reach whoever verifies it.
const SHORTEST_REST: Duration = Duration::from_secs(5);

/// A JWT-SVID of this workload. Whoever holds it can use it: it is not shown by `Debug`, and wiped when it is dropped.
pub struct JwtSvid {
    token: Zeroizing<String>,
    claims: JwtClaims,
    hint: String,
}

/// Why there is no JWT-SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRequestError {
    /// No audience, or an empty one: a token without is for everybody.
    #[error("no audience was named: say who the JWT-SVID is for")]
    NoAudience,
    /// The Workload API says that this workload may not have it.
    #[error("the Workload API refuses the JWT-SVID: {reason}")]
    Denied {
        /// As the Workload API says.
        reason: String,
    },
    /// The Workload API says that it is asked wrongly.
    #[error("the Workload API refuses to be asked for the JWT-SVID: {reason}")]
    Refused {
        /// As the Workload API says.
        reason: String,
    },
    /// The Workload API is away, or has none now.
    #[error("no JWT-SVID can be had now: {reason}")]
    Unavailable {
        /// As the Workload API says, or why it cannot be reached.
        reason: String,
    },
    /// What came is not a JWT-SVID.
    #[error("the Workload API sent what is not a JWT-SVID: {0}")]
    Malformed(#[from] JwtSvidError),
    /// None of what came has the hint that was asked for.
    #[error("no JWT-SVID of this workload has the hint {hint:?}")]
    NoSuchHint {
        /// The hint.
        hint: String,
    },
}

/// Where tokens come from.
pub(super) enum Origin {
    WorkloadApi(Client),
    #[cfg(feature = "files")]
    Folder(std::path::PathBuf),
}

/// Tokens by what they are for.
pub(super) struct TokenCache {
    origin: Origin,
    slots: Mutex<BTreeMap<BTreeSet<String>, Arc<Slot>>>,
}

/// One token; whoever asks while it is being fetched waits for that.
type Slot = tokio::sync::Mutex<Option<Kept>>;

#[derive(Clone)]
struct Kept {
    svid: Arc<JwtSvid>,
    renew_at: Timestamp,
}

impl JwtSvid {
    /// JWS compact serialization.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.claims.id
    }

    /// Its claims, as its issuer wrote them: they were not verified here.
    #[must_use]
    pub fn claims(&self) -> &JwtClaims {
        &self.claims
    }

    /// What its owner says its id is for; may be empty.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }

    pub(super) fn read(token: String, hint: String) -> Result<Self, JwtSvidError> {
        let token = Zeroizing::new(token);
        Ok(Self { claims: read_jwt_svid(&token)?, token, hint })
    }
}

impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JwtClaims { id, audiences, expires_at, .. } = &self.claims;
        write!(f, "JwtSvid({id}, for {audiences:?}, until {expires_at})")
    }
}

impl TokenCache {
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin, slots: Mutex::default() }
    }

    pub(super) async fn get(
        &self,
        audiences: &[&str],
        hint: Option<&str>,
        bundles: &Watched<BundleSet>,
        now: Timestamp,
    ) -> Result<Arc<JwtSvid>, TokenRequestError> {
        let slot = self.slot(audiences, now);
        let mut kept = slot.lock().await;
        if let Some(fresh) = kept.as_ref().filter(|kept| now < kept.renew_at && kept.is_trusted(bundles)) {
            return Ok(Arc::clone(&fresh.svid));
        }
        let fetched = self.fetch(audiences, None).await.and_then(|svids| chosen(svids, hint));
        match (fetched, &*kept) {
            (Ok(svid), _) => {
                let svid = Arc::new(svid);
                let renew_at = renew_at(now, svid.claims.expires_at, rand::random_range(-1.0..=1.0));
                *kept = Some(Kept { svid: Arc::clone(&svid), renew_at });
                Ok(svid)
            }
            // The Workload API is away: what is still valid serves on.
            (Err(TokenRequestError::Unavailable { .. }), Some(old)) if old.lasts(now) && old.is_trusted(bundles) => {
                Ok(Arc::clone(&old.svid))
            }
            (Err(error), _) => {
                *kept = None;
                Err(error)
            }
        }
    }

    pub(super) async fn fetch(
        &self,
        audiences: &[&str],
        id: Option<&SpiffeId>,
    ) -> Result<Vec<JwtSvid>, TokenRequestError> {
        if audiences.is_empty() || audiences.iter().any(|audience| audience.is_empty()) {
            return Err(TokenRequestError::NoAudience);
        }
        match &self.origin {
            Origin::WorkloadApi(client) => {
                let request = JwtsvidRequest {
                    audience: audiences.iter().map(|&audience| audience.to_owned()).collect(),
                    spiffe_id: id.map(ToString::to_string).unwrap_or_default(),
                };
                let response = client.clone().fetch_jwtsvid(request).await?.into_inner();
                let read = |svid: countersign_proto::workload::Jwtsvid| JwtSvid::read(svid.svid, svid.hint);
                Ok(response.svids.into_iter().map(read).collect::<Result<_, _>>()?)
            }
            #[cfg(feature = "files")]
            Origin::Folder(folder) => super::folder::tokens(folder, audiences, id),
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
            slots.retain(|_, slot| {
                slot.try_lock().map_or(true, |kept| kept.as_ref().is_some_and(|kept| kept.lasts(now)))
            });
        }
        let slot = Arc::default();
        if slots.len() < MAX_KEPT {
            slots.insert(key, Arc::clone(&slot));
        }
        slot
    }
}

impl Kept {
    fn lasts(&self, now: Timestamp) -> bool {
        now.checked_add(SHORTEST_REST).is_ok_and(|then| then < self.svid.claims.expires_at)
    }

    /// Whether the bundle of its trust domain still has the key that signed it, as far as that can be known: after a revocation
    /// nobody would accept it.
    fn is_trusted(&self, bundles: &Watched<BundleSet>) -> bool {
        let (Ok(bundles), Some(key_id)) = (bundles.current(), &self.svid.claims.key_id) else { return true };
        let bundle = bundles.get(self.svid.claims.id.trust_domain());
        bundle.is_none_or(|bundle| bundle.jwt_authorities.iter().any(|key| key.kid() == key_id))
    }
}

/// The token with this hint, otherwise the first: the default.
fn chosen(svids: Vec<JwtSvid>, hint: Option<&str>) -> Result<JwtSvid, TokenRequestError> {
    let mut svids = svids.into_iter();
    match hint {
        None => svids
            .next()
            .ok_or_else(|| TokenRequestError::Unavailable { reason: "the Workload API sent no JWT-SVID".to_owned() }),
        Some(hint) => {
            svids.find(|svid| svid.hint == hint).ok_or_else(|| TokenRequestError::NoSuchHint { hint: hint.to_owned() })
        }
    }
}

impl From<Status> for TokenRequestError {
    fn from(status: Status) -> Self {
        let reason = status.message().to_owned();
        match status.code() {
            Code::PermissionDenied => Self::Denied { reason },
            Code::InvalidArgument => Self::Refused { reason },
            code => Self::Unavailable { reason: format!("{code:?}: {reason}") },
        }
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

    /// A cache whose Workload API is away, with a token that lives for a minute and is due for renewal after half of that.
    async fn cache() -> (TokenCache, Watched<BundleSet>) {
        let nowhere = "unix:///nonexistent/workload.sock".parse().unwrap();
        let cache = TokenCache::new(Origin::WorkloadApi(streams::client(nowhere)));
        let (id, audiences) = ("spiffe://a.test/workload".parse().unwrap(), ["one".to_owned()]);
        let request = JwtRequest { id: &id, audiences: &audiences, ttl: Duration::from_secs(60), issuer: None };
        let token = JwtAuthority::generate(KeyType::EcP256).unwrap().issue(&request, at(0)).unwrap().token.to_string();
        let svid = Arc::new(JwtSvid::read(token, String::new()).unwrap());
        *cache.slot(&["one"], at(0)).lock().await = Some(Kept { svid, renew_at: at(LIFE / 2) });
        (cache, current::channel().1)
    }

    // R26.
    #[tokio::test]
    async fn while_the_workload_api_is_away_a_token_serves_until_shortly_before_its_end() {
        for (now, serves) in [(1, true), (LIFE / 2 + 1, true), (LIFE - 6, true), (LIFE - 5, false), (LIFE, false)] {
            let (cache, bundles) = cache().await;
            let served = cache.get(&["one"], None, &bundles, at(now)).await;
            assert_eq!(served.is_ok(), serves, "after {now} s: {served:?}");
            assert!(serves || matches!(served, Err(TokenRequestError::Unavailable { .. })));
        }
    }

    #[tokio::test]
    async fn beyond_its_bound_the_cache_drops_what_has_ended_and_then_keeps_nothing_more() {
        let (cache, _) = cache().await;
        for number in 0..MAX_KEPT + 10 {
            cache.slot(&[&number.to_string()], at(0));
        }
        let kept = |cache: &TokenCache| cache.slots.lock().len();
        // Those without a token went first.
        assert!(kept(&cache) <= MAX_KEPT, "{}", kept(&cache));
        assert!(cache.slot(&["one"], at(0)).lock().await.is_some());
    }
}
