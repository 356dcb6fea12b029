//! What a signature binds, and replays (httpsig, sections 3 and 5.1; RFC 9530).

use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::wimse::signature::{SignatureError, content_digest, content_digest_of_hash, verify_request};
use countersign_core::wimse::{Answer, Audience, Body, MemoryReplayCache, Policy, ReplayCacheFull, Request};

use crate::fixtures::{CART, World, issue, now};
use crate::signed::{PARAMS, Sent, borrow, plain};

const BODY: &[u8] = br#"{"amount":100}"#;

/// A signed `POST` with a body.
fn post(world: &World, digest: &str) -> Sent {
    let mut cover = plain(world);
    cover[0].1 = "POST".to_owned();
    cover.push(("content-digest".to_owned(), digest.to_owned()));
    let sent = Sent { method: "POST", body: BODY.to_vec(), ..Sent::get(world) };
    sent.with("Content-Digest", digest).signed("wimse", &borrow(&cover), PARAMS, &world.key)
}

#[test]
fn another_method_path_query_or_field_is_refused() {
    let world = World::new();
    let digest = content_digest(BODY);
    let good = post(&world, &digest);
    assert!(good.verify(&world).is_ok());
    let refused = |sent: Sent| sent.verify(&world).unwrap_err();
    assert_eq!(refused(Sent { method: "PUT", ..good.clone() }), SignatureError::Signature);
    assert_eq!(refused(Sent { path: "/admin".to_owned(), ..good.clone() }), SignatureError::Signature);
    assert_eq!(refused(Sent { path: "/orders/%37".to_owned(), ..good.clone() }), SignatureError::Signature);
    assert_eq!(refused(Sent { query: Some("all=1"), ..good.clone() }), SignatureError::Signature);
    let mut other = good.clone();
    other.fields[1].1 = content_digest(b"other");
    assert_eq!(refused(other), SignatureError::Signature);
    let added = good.clone().with("content-digest", "sha-512=:AA==:");
    assert_eq!(refused(added), SignatureError::Signature);
    assert!(good.with("x-added-on-the-way", "1").verify(&world).is_ok(), "other fields are not covered");
}

// RFC 9421, section 2.2.7: the value of `@query` is the same of an absent query and of an empty one.
#[test]
fn an_absent_query_and_an_empty_one_are_signed_alike() {
    let world = World::new();
    let absent = Sent::get(&world).plainly_signed(&world);
    let empty = Sent { query: Some(""), ..absent.clone() };
    assert!(absent.verify(&world).is_ok() && empty.verify(&world).is_ok());
    let mut cover = plain(&world);
    for value in ["", "?a"] {
        cover[2].1 = value.to_owned();
        let sent = Sent::get(&world).signed("wimse", &borrow(&cover), PARAMS, &world.key);
        assert_eq!(sent.verify(&world).unwrap_err(), SignatureError::Signature);
    }
}

// Httpsig, section 3: "the sender MUST include (and the receiver MUST verify) a Content-Digest".
#[test]
fn a_body_is_the_one_whose_hash_was_signed() {
    let world = World::new();
    let good = post(&world, &content_digest(BODY));
    let with_body = |body: &[u8]| Sent { body: body.to_vec(), ..good.clone() }.verify(&world);
    assert_eq!(with_body(br#"{"amount":999}"#).unwrap_err(), SignatureError::DigestMismatch);
    assert_eq!(with_body(&[BODY, b" "].concat()).unwrap_err(), SignatureError::DigestMismatch, "longer than it says");
    assert_eq!(with_body(&BODY[1..]).unwrap_err(), SignatureError::DigestMismatch);
    assert_eq!(with_body(b"").unwrap_err(), SignatureError::DigestMismatch);
}

#[test]
fn a_body_without_digest_is_refused() {
    let world = World::new();
    let mut sent = Sent::get(&world).plainly_signed(&world);
    assert!(sent.verify(&world).is_ok());
    sent.body = b"added on the way".to_vec();
    assert_eq!(sent.verify(&world).unwrap_err(), SignatureError::NoDigest);
    let hashed = sent.request(|request| {
        let request = Request { body: Body::Sha256([0; 32]), ..*request };
        verify_request(&request, &world.policy(), &MemoryReplayCache::new(1, 1), now())
    });
    assert_eq!(hashed.unwrap_err(), SignatureError::NoDigest);
}

// RFC 9530, section 2.
#[test]
fn a_digest_is_by_sha_256_whatever_is_beside_it() {
    let world = World::new();
    let good = content_digest(BODY);
    let beside = format!("sha-512=:AAAA:, {good}");
    assert!(post(&world, &beside).verify(&world).is_ok());
    let no_bytes = good.replace(':', "\"");
    for digest in ["sha-512=:AAAA:", "sha-256=AAAA", "sha-256", "SHA-256=:AAAA:", "", &no_bytes, &good[..20]] {
        assert_eq!(post(&world, digest).verify(&world).unwrap_err(), SignatureError::Digest, "{digest}");
    }
    for digest in ["sha-256=::", "sha-256=:AAAA:"] {
        assert_eq!(post(&world, digest).verify(&world).unwrap_err(), SignatureError::DigestMismatch, "{digest}");
    }
    // RFC 9530, appendix A: an example.
    let body = b"{\"hello\": \"world\"}\n";
    assert_eq!(content_digest(body), "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:");
}

#[test]
fn a_body_may_be_hashed_while_it_arrives() {
    let world = World::new();
    let hash: [u8; 32] = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, BODY).as_ref().try_into().unwrap();
    assert_eq!(content_digest_of_hash(hash), content_digest(BODY));
    post(&world, &content_digest(BODY)).request(|request| {
        let verify = |body| {
            let request = Request { body, ..*request };
            verify_request(&request, &world.policy(), &MemoryReplayCache::new(1, 1), now()).map(|_| ())
        };
        assert_eq!(verify(Body::Sha256(hash)), Ok(()));
        assert_eq!(verify(Body::Sha256([1; 32])), Err(SignatureError::DigestMismatch));
    });
}

// Httpsig, section 3: by the key of the WIT.
#[test]
fn a_key_that_is_not_of_cnf_is_refused() {
    let world = World::new();
    let other = PrivateKey::generate(KeyType::EcP256).unwrap();
    let cover = plain(&world);
    let sent = Sent::get(&world).signed("wimse", &borrow(&cover), PARAMS, &other);
    assert_eq!(sent.verify(&world).unwrap_err(), SignatureError::Signature);
}

#[test]
fn a_swapped_wit_or_transaction_token_is_refused() {
    let world = World::new();
    let mut sent = Sent::get(&world).plainly_signed(&world);
    sent.fields[0].1 = issue(&world.authority, CART, &world.key);
    assert_eq!(sent.verify(&world).unwrap_err(), SignatureError::Signature);
    let mut cover = plain(&world);
    cover.push(("txn-token".to_owned(), "a.b.c".to_owned()));
    let mut sent = Sent::get(&world).with("Txn-Token", "a.b.c").signed("wimse", &borrow(&cover), PARAMS, &world.key);
    assert!(sent.verify(&world).is_ok());
    sent.fields[1].1 = "d.e.f".to_owned();
    assert_eq!(sent.verify(&world).unwrap_err(), SignatureError::Signature);
}

// Httpsig, section 3: a nonce that was seen is refused.
#[test]
fn a_request_is_accepted_once() {
    let world = World::new();
    let replays = MemoryReplayCache::new(10, 10);
    let sent = Sent::get(&world).plainly_signed(&world);
    assert!(sent.verify_by(&world, &replays).is_ok());
    assert_eq!(sent.verify_by(&world, &replays).unwrap_err(), SignatureError::Replayed);
    // The same nonce in another signature.
    let again = Sent::get(&world).plainly_signed(&world);
    assert_ne!(again.fields, sent.fields);
    assert_eq!(again.verify_by(&world, &replays).unwrap_err(), SignatureError::Replayed);
}

#[test]
fn a_request_at_another_target_or_path_is_refused_and_not_remembered() {
    let world = World::new();
    let replays = MemoryReplayCache::new(10, 10);
    let sent = Sent::get(&world).plainly_signed(&world);
    let other = [Audience::targets_of("https://stock.example.org").unwrap()];
    let elsewhere =
        sent.request(|request| verify_request(request, &Policy::new(&world.bundles, &other), &replays, now()));
    assert!(matches!(elsewhere, Err(SignatureError::Audience { .. })));
    let at_path = Sent { path: "/admin".to_owned(), ..sent.clone() };
    assert_eq!(at_path.verify_by(&world, &replays).unwrap_err(), SignatureError::Signature);
    assert!(replays.is_empty());
    assert!(sent.verify_by(&world, &replays).is_ok());
}

#[test]
fn what_cannot_be_remembered_is_refused() {
    let world = World::new();
    let sent = Sent::get(&world).plainly_signed(&world);
    let error = sent.verify_by(&world, &MemoryReplayCache::new(0, 1)).unwrap_err();
    assert_eq!((error.answer(), error), (Answer::UNAVAILABLE, SignatureError::ReplayCacheFull(ReplayCacheFull)));
}

// Httpsig, section 3.6: one answer, whichever check failed.
#[test]
fn every_failure_is_the_same_400() {
    let world = World::new();
    let good = Sent::get(&world).plainly_signed(&world);
    let mut wit = good.clone();
    wit.fields[0].1 = World::new().wit;
    let mut body = good.clone();
    body.body = BODY.to_vec();
    for sent in [wit, body, Sent::get(&world), Sent { path: "/admin".to_owned(), ..good }] {
        assert_eq!(sent.verify(&world).unwrap_err().answer(), Answer::SIGNATURE);
    }
    assert_eq!(SignatureError::Replayed.answer(), Answer::SIGNATURE);
    assert_eq!((Answer::SIGNATURE.status, Answer::SIGNATURE.challenge), (400, None));
}
