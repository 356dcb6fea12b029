//! Replayed proofs, and the cache in memory (wpt, section 3.1; httpsig, section 3).

use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::wimse::wpt::{WptError, verify_wpt};
use countersign_core::wimse::{
    Answer, Audience, MemoryReplayCache, Policy, ReplayCache, ReplayCacheFull, ReplayKey, Request, Seen,
};
use jiff::Timestamp;
use serde_json::json;

use crate::fixtures::{CART, World, at, borrowed, hash, issue, now, request, with};

#[test]
fn a_proof_is_accepted_once_at_the_same_place() {
    let world = World::new();
    let claims = world.proof_claims();
    assert!(world.verify_claims(&claims).is_ok());
    assert_eq!(world.verify_claims(&claims).unwrap_err(), WptError::Replayed);
    // The same id in other bytes: signatures by ECDSA differ each time.
    assert_eq!(
        world.verify_claims(&with(claims, "exp", json!(now().as_second() + 31))).unwrap_err(),
        WptError::Replayed
    );
}

#[test]
fn a_proof_for_one_target_is_refused_at_another_target_and_at_another_path() {
    let world = World::new();
    let value = world.forge(&world.proof_claims());
    let fields = borrowed(&[("authorization", &value), ("workload-identity-token", &world.wit)]);
    let other = [Audience::targets_of("https://stock.example.org").unwrap()];
    let replays = MemoryReplayCache::new(10, 10);
    let policy = Policy::new(&world.bundles, &other);
    let error = verify_wpt(&request(&fields), &policy, &replays, now()).unwrap_err();
    assert!(matches!(error, WptError::Audience { .. }));
    let elsewhere = Request { path: "/admin", ..request(&fields) };
    let error = verify_wpt(&elsewhere, &world.policy(), &replays, now()).unwrap_err();
    assert!(matches!(error, WptError::Audience { .. }));
    assert!(replays.is_empty());
}

#[test]
fn a_proof_with_a_swapped_wit_or_transaction_token_is_refused() {
    let world = World::new();
    let claims = with(world.proof_claims(), "tth", json!(hash("a.b.c")));
    let value = world.forge(&claims);
    let verify = |wit: &str, txn: &str| {
        world.verify_fields(&[("authorization", &value), ("workload-identity-token", wit), ("txn-token", txn)])
    };
    let other = issue(&world.authority, CART, &world.key);
    assert_eq!(verify(&other, "a.b.c").unwrap_err(), WptError::WitHash);
    assert_eq!(verify(&world.wit, "d.e.f").unwrap_err(), WptError::TxnTokenHash);
    assert!(verify(&world.wit, "a.b.c").is_ok());
}

#[test]
fn what_was_refused_for_another_reason_is_not_remembered() {
    let world = World::new();
    let claims = world.proof_claims();
    for (name, value) in [("aud", json!("x")), ("wth", json!("x")), ("tth", json!("x")), ("oth", json!({"a": "x"}))] {
        assert!(world.verify_claims(&with(claims.clone(), name, value)).is_err());
    }
    assert!(world.replays.is_empty());
    assert!(world.verify_claims(&claims).is_ok());
    assert_eq!(world.replays.len(), 1);
}

#[test]
fn a_sender_cannot_use_up_the_ids_of_another() {
    let world = World::new();
    let claims = world.proof_claims();
    let mallory = PrivateKey::generate(KeyType::EcP256).unwrap();
    let wit = issue(&world.authority, "spiffe://example.org/mallory", &mallory);
    let stolen = with(claims.clone(), "wth", json!(hash(&wit)));
    let value = format!("WPT {}", crate::fixtures::token(&crate::fixtures::proof_header(), &stolen, &mallory));
    assert!(world.verify_fields(&[("authorization", &value), ("workload-identity-token", &wit)]).is_ok());
    assert!(world.verify_claims(&claims).is_ok());
}

#[test]
fn a_full_cache_refuses_what_is_new_until_something_expires() {
    let world = World::new();
    let replays = MemoryReplayCache::new(2, 2);
    let verify = |id: &str, time: Timestamp| {
        let claims = with(world.proof_claims(), "exp", json!(time.as_second() + 30));
        let value = world.forge(&with(claims, "jti", json!(format!("{id:_>30}"))));
        let fields = borrowed(&[("authorization", &value), ("workload-identity-token", &world.wit)]);
        verify_wpt(&request(&fields), &world.policy(), &replays, time)
    };
    assert!(verify("1", at(0)).is_ok() && verify("2", at(10)).is_ok());
    let error = verify("3", at(20)).unwrap_err();
    assert_eq!((error.answer(), error), (Answer::UNAVAILABLE, WptError::ReplayCacheFull(ReplayCacheFull)));
    assert_eq!(verify("1", at(20)).unwrap_err(), WptError::Replayed, "what is known is still refused as such");
    assert!(verify("4", at(40)).is_ok(), "the first has expired ten seconds ago");
    assert_eq!(replays.len(), 2);
}

/// Hands on what it is asked.
struct Recorder<'a>(&'a MemoryReplayCache, std::cell::RefCell<Vec<(ReplayKey, Timestamp)>>);

impl ReplayCache for Recorder<'_> {
    fn remember(&self, key: &ReplayKey, until: Timestamp, now: Timestamp) -> Result<Seen, ReplayCacheFull> {
        self.1.borrow_mut().push((*key, until));
        self.0.remember(key, until, now)
    }
}

#[test]
fn a_proof_is_remembered_until_ten_seconds_after_it_expires() {
    let world = World::new();
    let recorder = Recorder(&world.replays, Vec::new().into());
    let value = world.forge(&world.proof_claims());
    let fields = borrowed(&[("authorization", &value), ("workload-identity-token", &world.wit)]);
    assert!(verify_wpt(&request(&fields), &world.policy(), &recorder, now()).is_ok());
    let (key, until) = recorder.1.borrow()[0];
    assert_eq!(until, at(30));
    // A request that was verified just before the end may ask after it, and clocks are set back a little.
    for time in [29, 39, 35] {
        assert_eq!(world.replays.remember(&key, until, at(time)), Ok(Seen::Again));
    }
    assert_eq!(world.replays.remember(&key, until, at(40)), Ok(Seen::First));
}

#[test]
fn who_fills_its_share_is_refused_alone() {
    let world = World::new();
    let replays = MemoryReplayCache::new(10, 2);
    let mallory = PrivateKey::generate(KeyType::EcP256).unwrap();
    let wit = issue(&world.authority, "spiffe://example.org/mallory", &mallory);
    let verify = |key: &PrivateKey, wit: &str, id: &str| {
        let claims = with(world.proof_claims(), "wth", json!(hash(wit)));
        let claims = with(claims, "jti", json!(format!("{id:_>30}")));
        let value = format!("WPT {}", crate::fixtures::token(&crate::fixtures::proof_header(), &claims, key));
        let fields = borrowed(&[("authorization", &value), ("workload-identity-token", wit)]);
        verify_wpt(&request(&fields), &world.policy(), &replays, now())
    };
    assert!(verify(&mallory, &wit, "1").is_ok() && verify(&mallory, &wit, "2").is_ok());
    assert_eq!(verify(&mallory, &wit, "3").unwrap_err(), WptError::ReplayCacheFull(ReplayCacheFull));
    assert!(verify(&world.key, &world.wit, "1").is_ok());
}
