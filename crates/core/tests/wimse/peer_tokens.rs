//! WITs and Workload Proof Tokens beside an independent implementation, the crates `wimsey-wit` and `wimsey-wpt` 0.9: what it makes
//! is verified here, and what is made here is verified there.
//!
//! Where it deviates:
//! - EdDSA is its preferred algorithm; WIT-SVID, section 2.3 and 3.2, does not list it.
//! - It knows ES256 alone beside that; ES384, ES512, RS and PS are unknown to it.
//! - It verifies WITs without `kid`; WIT-SVID, section 2.1, requires one.
//! - It refuses a WIT whose `iat` is ahead; WIT-SVID, section 3.6: `iat` MUST NOT limit the earliest validity.
//! - It does not read `nbf`; WIT-SVID, section 3.5, makes validators honour it.
//! - It accepts a WIT with `aud`, or of any life.
//! - It accepts a `jti` of any length; wpt, section 2, speaks of 128 bits. Its vectors have 16 characters.
//! - It takes a token that `oth` does not name as unbound; here a token that the verifier uses must be named (wpt, section 2: "the
//!   `tth` and `oth` claims are each mandatory if the respective tokens are included").
//! - `Authorization` and `WWW-Authenticate` are its caller's, and so are replays.

use std::collections::BTreeMap;
use std::time::Duration;

use countersign_core::bundle::{Bundle, BundleSet};
use countersign_core::wimse::wpt::{WptError, WptRequest, make_wpt, verify_wpt};
use countersign_core::wimse::{Audience, MemoryReplayCache, Policy};
use countersign_core::wit::{ConfirmationError, WitSvidError, verify_wit_svid};
use serde_json::{Value, json};
use wimsey_wit::{Confirmation, Jwk, SigningKey, Validation as WitValidation, WitClaims};
use wimsey_wpt::{Validation, WptClaims, other_token_entry, txn_token_thumbprint, wit_thumbprint};

use crate::fixtures::{CART, HOUR, TARGET, World, borrowed, now, request, wit_header, with};

const CONTEXT: &str = "context token";
const TXN: &str = "txn.token.value";

pub(crate) fn seconds() -> u64 {
    u64::try_from(now().as_second()).unwrap()
}

/// An issuer and a workload of the other implementation.
pub(crate) struct Peer {
    pub(crate) issuer: SigningKey,
    pub(crate) key: SigningKey,
}

impl Peer {
    pub(crate) fn new() -> Self {
        Self {
            issuer: SigningKey::from_p256_scalar(&[1; 32]).unwrap(),
            key: SigningKey::from_p256_scalar(&[9; 32]).unwrap(),
        }
    }

    pub(crate) fn claims(&self) -> WitClaims {
        WitClaims {
            iss: Some("https://issuer.example".to_owned()),
            sub: CART.parse().unwrap(),
            iat: Some(seconds()),
            exp: seconds() + 3600,
            jti: Some("a1b2c3".to_owned()),
            cnf: Confirmation { jwk: Jwk::from_verifying_key(&self.key.verifying_key()) },
        }
    }

    pub(crate) fn wit(&self) -> String {
        wimsey_wit::issue(&self.claims(), Some("p1"), &self.issuer).unwrap()
    }

    pub(crate) fn bundles(&self) -> BundleSet {
        bundles(&serde_json::to_value(Jwk::from_verifying_key(&self.issuer.verifying_key())).unwrap(), "p1")
    }
}

/// The bundle of `example.org` with this key alone.
pub(crate) fn bundles(jwk: &Value, kid: &str) -> BundleSet {
    let key = with(with(jwk.clone(), "use", json!("wit-svid")), "kid", json!(kid));
    let document = json!({ "keys": [key] }).to_string();
    BundleSet::new([Bundle::parse(&"example.org".parse().unwrap(), document.as_bytes()).unwrap()]).unwrap()
}

/// A public key of ours, as the other implementation reads it.
pub(crate) fn peer_key(jwk: &Value) -> wimsey_wit::VerifyingKey {
    serde_json::from_value::<Jwk>(with(jwk.clone(), "alg", json!("ES256"))).unwrap().to_verifying_key().unwrap()
}

#[test]
fn its_wits_are_verified_here() {
    let peer = Peer::new();
    let claims = verify_wit_svid(&peer.wit(), &peer.bundles(), HOUR, now()).unwrap();
    assert_eq!((claims.id.to_string().as_str(), claims.jti.as_deref()), (CART, Some("a1b2c3")));
    assert_eq!(claims.confirmation.jwk(), *serde_json::to_value(peer.claims().cnf.jwk).unwrap().as_object().unwrap());
}

#[test]
fn our_wits_are_verified_there() {
    let world = World::new();
    let issuer = peer_key(&Value::Object(world.authority.verification_key().jwk()));
    let verified = wimsey_wit::verify(&world.wit, &issuer, &WitValidation::at(seconds())).unwrap();
    assert_eq!((verified.claims.sub.to_string().as_str(), verified.kid.as_deref()), (CART, Some("w1")));
}

#[test]
fn its_wits_are_refused_here_where_it_deviates() {
    let peer = Peer::new();
    let verify = |token: &str| verify_wit_svid(token, &peer.bundles(), HOUR, now());
    let without_kid = wimsey_wit::issue(&peer.claims(), None, &peer.issuer).unwrap();
    assert_eq!(verify(&without_kid).unwrap_err(), WitSvidError::NoKeyId);
    let eddsa = SigningKey::from_ed25519_seed(&[7; 32]);
    let signed = wimsey_wit::issue(&peer.claims(), Some("p1"), &eddsa).unwrap();
    assert_eq!(verify(&signed).unwrap_err(), WitSvidError::Algorithm { alg: "\"EdDSA\"".to_owned() });
    let mut claims = peer.claims();
    claims.cnf.jwk = Jwk::from_verifying_key(&eddsa.verifying_key());
    let confirmed = wimsey_wit::issue(&claims, Some("p1"), &peer.issuer).unwrap();
    let expected = ConfirmationError::Algorithm { alg: "\"EdDSA\"".to_owned() };
    assert_eq!(verify(&confirmed).unwrap_err(), WitSvidError::Confirmation(expected));
    // And one of ours that is right, there: `iat` ahead.
    let world = World::new();
    let ahead = world.forge_wit(&wit_header(), &with(world.wit_claims(), "iat", json!(seconds() + 100)));
    assert!(verify_wit_svid(&ahead, &world.bundles, HOUR, now()).is_ok());
    let issuer = peer_key(&Value::Object(world.authority.verification_key().jwk()));
    assert!(wimsey_wit::verify(&ahead, &issuer, &WitValidation::at(seconds())).is_err());
}

fn proof_claims(wit: &str) -> WptClaims {
    WptClaims {
        aud: TARGET.to_owned(),
        exp: seconds() + 30,
        jti: "0123456789abcdef0123456789".to_owned(),
        wth: wit_thumbprint(wit),
        tth: Some(txn_token_thumbprint(TXN)),
        oth: Some(BTreeMap::from([other_token_entry("X-Context", CONTEXT)])),
    }
}

fn verify_here(bundles: &BundleSet, wit: &str, proof: &str) -> Result<(), WptError> {
    let value = format!("WPT {proof}");
    let audiences = [Audience::exactly(TARGET)];
    let policy = Policy { context_fields: &["x-context"], ..Policy::new(bundles, &audiences) };
    let fields = [
        ("authorization", value.as_str()),
        ("workload-identity-token", wit),
        ("txn-token", TXN),
        ("x-context", CONTEXT),
    ];
    verify_wpt(&request(&borrowed(&fields)), &policy, &MemoryReplayCache::new(1, 1), now()).map(|_| ())
}

#[test]
fn its_proofs_are_verified_here() {
    let peer = Peer::new();
    let wit = peer.wit();
    let proof = wimsey_wpt::issue(&proof_claims(&wit), &peer.key).unwrap();
    assert_eq!(verify_here(&peer.bundles(), &wit, &proof), Ok(()));
    let short = WptClaims { jti: "0123456789abcdef".to_owned(), ..proof_claims(&wit) };
    let proof = wimsey_wpt::issue(&short, &peer.key).unwrap();
    assert_eq!(verify_here(&peer.bundles(), &wit, &proof), Err(WptError::TokenId { length: 16 }));
    let unbound = WptClaims { oth: None, ..proof_claims(&wit) };
    let proof = wimsey_wpt::issue(&unbound, &peer.key).unwrap();
    assert_eq!(
        verify_here(&peer.bundles(), &wit, &proof),
        Err(WptError::OtherToken { name: "\"x-context\"".to_owned() })
    );
}

#[test]
fn our_proofs_are_verified_there() {
    let world = World::new();
    let made = WptRequest {
        wit: &world.wit,
        audience: TARGET,
        txn_token: Some(TXN),
        other_tokens: &[("X-Context", CONTEXT)],
        life: Duration::from_secs(30),
        jti: [7; 16],
    };
    let value = make_wpt(&world.key, &made, now()).unwrap();
    let proof = value.strip_prefix("WPT ").unwrap();
    let key = peer_key(&world.wit_claims()["cnf"]["jwk"]);
    let validation = Validation::new(seconds(), TARGET, &world.wit).with_max_lifetime(60);
    let validation = validation.with_txn_token(TXN).with_other_token("x-context", CONTEXT);
    let claims = wimsey_wpt::verify(proof, &key, &validation).unwrap().claims;
    assert_eq!((claims.aud.as_str(), claims.exp), (TARGET, seconds() + 30));
    let other = Validation::new(seconds(), "https://elsewhere.example/", &world.wit);
    assert!(wimsey_wpt::verify(proof, &key, &other).is_err());
}

/// The cases of its vectors (`conformance/wpt/proof-es256.json` of its repository), with an id that is long enough.
#[test]
fn both_refuse_the_same_proofs() {
    let peer = Peer::new();
    let wit = peer.wit();
    let other_wit = {
        let claims = WitClaims { sub: "spiffe://example.org/workload/other".parse().unwrap(), ..peer.claims() };
        wimsey_wit::issue(&claims, Some("p1"), &peer.issuer).unwrap()
    };
    let good = proof_claims(&wit);
    let swapped = |claims: WptClaims| wimsey_wpt::issue(&claims, &peer.key).unwrap();
    let tampered = {
        let (good, other) = (swapped(good.clone()), swapped(WptClaims { jti: "x".repeat(26), ..good.clone() }));
        let (good, other): (Vec<_>, Vec<_>) = (good.split('.').collect(), other.split('.').collect());
        [good[0], other[1], good[2]].join(".")
    };
    let context = |value: &str| Some(BTreeMap::from([other_token_entry("x-context", value)]));
    let unknown = Some(BTreeMap::from([other_token_entry("x-context", CONTEXT), other_token_entry("x-other", "x")]));
    for (case, proof) in [
        ("expired", swapped(WptClaims { exp: seconds(), ..good.clone() })),
        ("audience-mismatch", swapped(WptClaims { aud: "https://other.example.com/path".to_owned(), ..good.clone() })),
        ("wit-binding-mismatch", swapped(WptClaims { wth: wit_thumbprint(&other_wit), ..good.clone() })),
        ("wrong-typ", wit.clone()),
        ("tampered-payload", tampered),
        ("txn-token-mismatch", swapped(WptClaims { tth: Some(txn_token_thumbprint("x")), ..good.clone() })),
        ("txn-token-unbound", swapped(WptClaims { tth: None, ..good.clone() })),
        ("context-token-mismatch", swapped(WptClaims { oth: context("x"), ..good.clone() })),
        ("context-token-absent", swapped(WptClaims { oth: unknown, ..good.clone() })),
        ("another-key", wimsey_wpt::issue(&good, &peer.issuer).unwrap()),
    ] {
        let validation =
            Validation::new(seconds(), TARGET, &wit).with_txn_token(TXN).with_other_token("x-context", CONTEXT);
        assert!(wimsey_wpt::verify(&proof, &peer.key.verifying_key(), &validation).is_err(), "{case}");
        let error = verify_here(&peer.bundles(), &wit, &proof).unwrap_err();
        assert!(!matches!(error, WptError::Wit(_) | WptError::TokenId { .. }), "{case}: {error}");
    }
}
