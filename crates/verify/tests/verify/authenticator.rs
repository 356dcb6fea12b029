//! Who sent a request, and that no way to authenticate stands in for another: R9, R12.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use countersign_core::{
    bundle::BundleSet,
    key::{KeyType, PrivateKey},
};
use countersign_verify::{
    Authorizer, SpiffeId,
    proof::{
        AuthenticatedRequest, Authenticator, AuthenticatorBuilder, Bundles, Method, Refusal, RefusalReason,
        Remembering, ReplayCacheError, SharedReplayCache,
    },
    tls::FixedBundles,
    wimse::{Audience, MemoryReplayCache, ReplayKey, signature::SignatureError, wpt::WptError},
};
use jiff::Timestamp;

use crate::{
    fixtures::{Domain, TTL, Wit},
    sender::{ORIGIN, Sent},
};

const SERVICE: &str = "orders";

struct World {
    domain: Domain,
    wit: Wit,
    peer: SpiffeId,
}

impl World {
    fn new() -> Self {
        let domain = Domain::new("a.test");
        Self { wit: domain.wit("/caller"), peer: domain.id("/gateway"), domain }
    }

    fn bundles(&self) -> FixedBundles {
        FixedBundles(Arc::new(BundleSet::new([self.domain.bundle()]).unwrap()))
    }

    fn builder(&self) -> AuthenticatorBuilder {
        let audience = Audience::targets_of(ORIGIN).unwrap();
        Authenticator::builder(self.bundles()).audience(audience).callers(Authorizer::anybody())
    }

    /// Accepts every method.
    fn accepting_all(&self) -> Authenticator {
        self.builder().mtls().jwt_svid(SERVICE).wpt().http_signature().build().unwrap()
    }

    fn token(&self) -> String {
        self.domain.token("/caller", SERVICE, TTL)
    }

    /// Of a request that came by the gateway.
    async fn ask(&self, authenticator: &Authenticator, sent: &Sent) -> Result<AuthenticatedRequest, Refusal> {
        ask(authenticator, sent, Some(&self.peer)).await
    }
}

async fn ask(
    authenticator: &Authenticator,
    sent: &Sent,
    peer: Option<&SpiffeId>,
) -> Result<AuthenticatedRequest, Refusal> {
    let fields = sent.fields();
    authenticator.authenticate(&sent.request(&fields), peer, Timestamp::now()).await
}

/// Status and challenge.
fn answer(refused: &Result<AuthenticatedRequest, Refusal>) -> (u16, Option<&'static str>) {
    let answer = refused.as_ref().unwrap_err().answer();
    (answer.status, answer.challenge)
}

fn reason(refused: Result<AuthenticatedRequest, Refusal>) -> RefusalReason {
    refused.unwrap_err().reason().clone()
}

#[tokio::test]
async fn the_mtls_peer_is_the_caller_of_a_request_without_a_proof() {
    let world = World::new();
    let caller = world.ask(&world.accepting_all(), &Sent::get()).await.unwrap().caller;
    assert_eq!((caller.id(), caller.method(), caller.via()), (&world.peer, Method::Mtls, None));
    assert_eq!((caller.expires_at(), caller.bound().len()), (None, 0));
}

#[tokio::test]
async fn a_proof_names_the_caller_and_the_mtls_peer_is_recorded_beside_it() {
    let world = World::new();
    let all = world.accepting_all();
    for (sent, method) in [
        (Sent::get().bearer(&world.token()), Method::JwtSvid),
        (Sent::get().wpt(&world.wit), Method::Wpt),
        (Sent::post(b"seven").signed(&world.wit, false), Method::HttpSignature),
    ] {
        let caller = world.ask(&all, &sent).await.unwrap().caller;
        assert_eq!((caller.id(), caller.method()), (&world.domain.id("/caller"), method));
        assert_eq!(caller.via(), Some(&world.peer));
        assert!(caller.expires_at().is_some_and(|end| end > Timestamp::now()));
        assert_eq!(caller.binds("Workload-Identity-Token"), method != Method::JwtSvid);
    }
    // Without a peer the proof alone is enough.
    let caller = ask(&all, &Sent::get().wpt(&world.wit), None).await.unwrap().caller;
    assert_eq!((caller.method(), caller.via()), (Method::Wpt, None));
}

#[tokio::test]
async fn a_failed_proof_never_falls_back_to_the_mtls_peer() {
    let world = World::new();
    let (all, other) = (world.accepting_all(), Domain::new("b.test"));
    let foreign = other.wit("/caller");
    for (sent, expected) in [
        (
            Sent::get().bearer(&world.domain.token("/caller", "others", TTL)),
            (401, Some(r#"Bearer error="invalid_token""#)),
        ),
        (Sent::get().bearer(&other.token("/caller", SERVICE, TTL)), (401, Some(r#"Bearer error="invalid_token""#))),
        (Sent::get().wpt_for(&world.wit, &world.wit.key, "https://others.example/orders/7", &[]), (401, Some("WPT"))),
        (Sent::get().wpt(&foreign), (400, None)),
        (Sent::get().signed(&foreign, false), (400, None)),
        (Sent { path: "/orders/8", ..Sent::get().signed(&world.wit, false) }, (400, None)),
    ] {
        assert_eq!(answer(&world.ask(&all, &sent).await), expected, "{sent:?}");
    }
}

#[tokio::test]
async fn a_proof_of_a_kind_that_is_not_accepted_is_refused_and_not_ignored() {
    let world = World::new();
    let mtls = world.builder().mtls().build().unwrap();
    for (sent, method) in [
        (Sent::get().bearer(&world.token()), Method::JwtSvid),
        (Sent::get().wpt(&world.wit), Method::Wpt),
        (Sent::get().signed(&world.wit, false), Method::HttpSignature),
    ] {
        let refused = world.ask(&mtls, &sent).await;
        assert_eq!(answer(&refused), (403, None));
        assert_eq!(reason(refused), RefusalReason::MethodNotAccepted(method));
    }
    let wpt = world.builder().mtls().wpt().build().unwrap();
    let refused = world.ask(&wpt, &Sent::get().bearer(&world.token())).await;
    assert_eq!(answer(&refused), (401, Some("WPT")));
}

#[tokio::test]
async fn two_proofs_are_refused() {
    let world = World::new();
    let all = world.accepting_all();
    let (signed, wpt) = (Sent::get().signed(&world.wit, false), Sent::get().wpt(&world.wit));
    let bearer = format!("Bearer {}", world.token());
    for sent in [
        signed.clone().with("authorization", wpt.header("authorization")),
        signed.clone().with("authorization", &bearer),
        wpt.clone().with("authorization", &bearer),
        wpt.clone().with("authorization", wpt.header("authorization")),
        Sent::get().bearer(&world.token()).with("workload-identity-token", &world.wit.token),
        signed.clone().with("signature-input", signed.header("signature-input")),
    ] {
        let refused = world.ask(&all, &sent).await;
        assert_eq!(answer(&refused), (400, None), "{refused:?}");
    }
    // Joined by a proxy.
    let joined = format!("{bearer}, {}", wpt.header("authorization"));
    assert_eq!(answer(&world.ask(&all, &Sent::get().with("authorization", &joined)).await).0, 401);
    let wits = format!("{0}, {0}", world.wit.token);
    let refused = world.ask(&all, &wpt.clone().replacing("workload-identity-token", &wits)).await;
    assert_eq!(answer(&refused), (400, None));
    assert_eq!(answer(&world.ask(&all, &wpt.with("workload-identity-token", &world.wit.token)).await), (400, None));
    // Each alone is accepted.
    assert!(world.ask(&all, &signed).await.is_ok());
}

#[tokio::test]
async fn a_wit_is_never_a_bearer_token() {
    let world = World::new();
    let all = world.accepting_all();
    let refused = world.ask(&all, &Sent::get().with("workload-identity-token", &world.wit.token)).await;
    assert_eq!(answer(&refused), (401, Some("WPT, Bearer")));
    assert_eq!(reason(refused), RefusalReason::WitWithoutProof);
    let refused = world.ask(&all, &Sent::get().bearer(&world.wit.token)).await;
    assert!(matches!(reason(refused), RefusalReason::JwtSvid(_)));
    // Nor is a JWT-SVID a WIT.
    let sent = Sent::get().wpt(&world.wit).replacing("workload-identity-token", &world.token());
    assert!(matches!(reason(world.ask(&all, &sent).await), RefusalReason::Wpt(WptError::Wit(_))));
}

#[tokio::test]
async fn without_a_proof_or_a_peer_the_challenges_of_what_is_accepted_are_the_answer() {
    let world = World::new();
    let builder = || world.builder();
    for (authenticator, expected) in [
        (builder().mtls().jwt_svid(SERVICE).wpt().http_signature(), (401, Some("WPT, Bearer"))),
        (builder().wpt(), (401, Some("WPT"))),
        (builder().jwt_svid(SERVICE), (401, Some("Bearer"))),
        (builder().http_signature(), (400, None)),
        (builder().mtls(), (403, None)),
    ] {
        let authenticator = authenticator.build().unwrap();
        assert_eq!(answer(&ask(&authenticator, &Sent::get(), None).await), expected);
    }
    // The peer counts only where it was said to.
    let wpt = builder().wpt().build().unwrap();
    assert_eq!(reason(world.ask(&wpt, &Sent::get()).await), RefusalReason::NoProof);
}

#[tokio::test]
async fn callers_that_may_not_call_get_403_and_use_up_nothing() {
    let world = World::new();
    let replays = Arc::new(MemoryReplayCache::new(10, 10));
    let callers = Authorizer::id("spiffe://a.test/other").unwrap();
    let builder = world.builder().mtls().jwt_svid(SERVICE).wpt().http_signature();
    let authenticator = builder.callers(callers).replay_cache(replays.clone()).build().unwrap();
    for sent in [
        Sent::get(),
        Sent::get().bearer(&world.token()),
        Sent::get().wpt(&world.wit),
        Sent::get().signed(&world.wit, false),
    ] {
        let refused = world.ask(&authenticator, &sent).await.unwrap_err();
        let answer = refused.answer();
        assert_eq!((answer.status, answer.challenge, answer.body()), (403, None, None));
        assert!(refused.to_string().contains("spiffe://a.test/"), "the log says who: {refused}");
    }
    assert!(replays.is_empty());
}

#[tokio::test]
async fn who_may_carry_requests_of_others_can_be_said() {
    let world = World::new();
    let of = |via: &str| world.builder().wpt().via(Authorizer::id(via).unwrap()).build().unwrap();
    assert!(world.ask(&of("spiffe://a.test/gateway"), &Sent::get().wpt(&world.wit)).await.is_ok());
    let refused = world.ask(&of("spiffe://a.test/other"), &Sent::get().wpt(&world.wit)).await;
    assert_eq!(answer(&refused), (403, None));
    // One that sends its own requests carries nobody else's.
    let own = ask(&of("spiffe://a.test/other"), &Sent::get().wpt(&world.wit), Some(&world.domain.id("/caller"))).await;
    assert!(own.is_ok());
}

// R9.
#[tokio::test]
async fn a_proof_is_accepted_once_also_by_clones() {
    let world = World::new();
    let all = world.accepting_all();
    for (sent, replayed) in [
        (Sent::get().wpt(&world.wit), RefusalReason::from(WptError::Replayed)),
        (Sent::get().signed(&world.wit, false), SignatureError::Replayed.into()),
    ] {
        assert!(world.ask(&all, &sent).await.is_ok());
        assert_eq!(reason(world.ask(&all.clone(), &sent).await), replayed);
        assert_eq!(reason(ask(&all, &sent, None).await), replayed);
    }
}

/// Answers what it is told to, and counts.
#[derive(Default)]
struct Shared {
    inner: Option<MemoryReplayCache>,
    asked: AtomicUsize,
}

impl SharedReplayCache for Shared {
    fn remember<'a>(&'a self, key: &'a ReplayKey, until: Timestamp, now: Timestamp) -> Remembering<'a> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            // As one that is asked over the network.
            tokio::task::yield_now().await;
            match &self.inner {
                Some(inner) => SharedReplayCache::remember(inner, key, until, now).await,
                None => Err(ReplayCacheError::Unavailable { reason: "gone".to_owned() }),
            }
        })
    }
}

// R9.
#[tokio::test]
async fn what_one_replica_accepted_the_other_refuses_when_they_share_what_they_remember() {
    let world = World::new();
    let shared = Arc::new(Shared { inner: Some(MemoryReplayCache::new(10, 10)), ..Shared::default() });
    let replica = || world.builder().wpt().http_signature().replay_cache(shared.clone()).build().unwrap();
    let (one, two) = (replica(), replica());
    let sent = Sent::get().wpt(&world.wit);
    let (first, second) = tokio::join!(world.ask(&one, &sent), world.ask(&two, &sent));
    assert_eq!([first.is_ok(), second.is_ok()].iter().filter(|accepted| **accepted).count(), 1);
    assert_eq!(shared.asked.load(Ordering::SeqCst), 2);
    // What fails another check is not remembered.
    let wrong = Sent { path: "/orders/8", ..Sent::get().wpt(&world.wit) };
    assert!(world.ask(&one, &wrong).await.is_err());
    assert_eq!(shared.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn when_a_replay_cache_fails_or_is_full_the_request_is_refused() {
    let world = World::new();
    let full = Arc::new(MemoryReplayCache::new(0, 0));
    for replays in [Arc::new(Shared::default()) as Arc<dyn SharedReplayCache>, full] {
        let authenticator = world.builder().wpt().http_signature().replay_cache(replays).build().unwrap();
        for sent in [Sent::get().wpt(&world.wit), Sent::get().signed(&world.wit, false)] {
            let refused = world.ask(&authenticator, &sent).await;
            assert_eq!(answer(&refused), (503, None));
            assert!(matches!(reason(refused), RefusalReason::ReplayCache(_)));
        }
    }
}

struct Absent;

impl Bundles for Absent {
    fn jwt_bundles(&self) -> Option<Arc<BundleSet>> {
        None
    }

    fn wit_bundles(&self) -> Option<Arc<BundleSet>> {
        None
    }
}

#[tokio::test]
async fn without_bundles_nothing_is_verified_and_the_answer_is_503() {
    let world = World::new();
    let builder = || {
        let audience = Audience::targets_of(ORIGIN).unwrap();
        Authenticator::builder(Absent).audience(audience).callers(Authorizer::anybody())
    };
    let authenticator = builder().mtls().jwt_svid(SERVICE).wpt().http_signature().build().unwrap();
    for sent in [Sent::get().bearer(&world.token()), Sent::get().wpt(&world.wit), Sent::get().signed(&world.wit, false)]
    {
        let refused = world.ask(&authenticator, &sent).await;
        assert_eq!(answer(&refused), (503, None));
        assert!(matches!(reason(refused), RefusalReason::NoBundles(_)));
    }
}

#[tokio::test]
async fn a_key_other_than_that_of_the_wit_proves_nothing() {
    let world = World::new();
    let stolen = Wit { token: world.wit.token.clone(), key: PrivateKey::generate(KeyType::EcP256).unwrap() };
    let other = world.domain.wit("/caller");
    // A WIT of the key that signed, swapped for another one afterwards.
    let sent = Sent::get().wpt(&other).replacing("workload-identity-token", &stolen.token);
    assert!(matches!(reason(world.ask(&world.accepting_all(), &sent).await), RefusalReason::Wpt(_)));
    let sent = Sent::get().signed(&other, false).replacing("workload-identity-token", &stolen.token);
    assert!(matches!(reason(world.ask(&world.accepting_all(), &sent).await), RefusalReason::Signature(_)));
}

#[tokio::test]
async fn tokens_of_context_must_be_bound_where_they_are_used() {
    let world = World::new();
    let authenticator = world.builder().wpt().context_fields(&["x-context"]).build().unwrap();
    let target = Sent::get().target();
    let bound = Sent::get().wpt_for(&world.wit, &world.wit.key, &target, &[("x-context", "t")]).with("X-Context", "t");
    assert!(world.ask(&authenticator, &bound).await.unwrap().caller.binds("x-context"));
    let unbound = Sent::get().wpt(&world.wit).with("x-context", "t");
    assert!(matches!(reason(world.ask(&authenticator, &unbound).await), RefusalReason::Wpt(_)));
    let unknown = Sent::get().wpt_for(&world.wit, &world.wit.key, &target, &[("x-other", "t")]).with("x-other", "t");
    assert!(matches!(reason(world.ask(&authenticator, &unknown).await), RefusalReason::Wpt(_)));
}

#[tokio::test]
async fn what_a_signed_response_needs_is_known_of_a_signed_request() {
    let world = World::new();
    let all = world.accepting_all();
    for sign_response in [true, false] {
        let sent = Sent::get().signed(&world.wit, sign_response);
        let signature = world.ask(&all, &sent).await.unwrap().signature.unwrap();
        assert_eq!(signature.sign_response, sign_response);
        assert!(sent.header("signature-input").contains(&signature.nonce));
    }
    assert_eq!(world.ask(&all, &Sent::get().wpt(&world.wit)).await.unwrap().signature, None);
}

#[tokio::test]
async fn no_reason_holds_a_token() {
    let world = World::new();
    let all = world.accepting_all();
    let other = Domain::new("b.test").wit("/caller");
    for sent in [
        Sent::get().bearer(&world.domain.token("/caller", "others", TTL)),
        Sent::get().wpt(&other),
        Sent::get().signed(&other, false),
        Sent::get().with("authorization", "Basic c2VjcmV0LXRva2Vu"),
    ] {
        let refused = world.ask(&all, &sent).await.unwrap_err();
        let shown = format!("{refused} {refused:?} {all:?}");
        for (_, value) in &sent.headers {
            let secret = value.split_once(' ').map_or(value.as_str(), |(_, token)| token);
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
