//! What is said of good and bad certificates, tokens and bundles.

use std::time::Duration;

use countersign_core::{
    bundle::{Bundle, BundleSet},
    id::SpiffeId,
    jwt::{JwtAuthority, JwtRequest},
    key::{KeyType, PrivateKey},
    wit::{WitAuthority, WitRequest},
    x509::{LeafRequest, X509Authority},
};
use jiff::{SignedDuration, Timestamp};

use super::{Asked, anchors::Anchors, report, report::Report};
use crate::output::{Mark, Page, Report as _};

const HOUR: Duration = Duration::from_secs(3600);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap() + SignedDuration::from_secs(seconds)
}

fn id() -> SpiffeId {
    "spiffe://shop.example/ns/shop/sa/orders".parse().unwrap()
}

/// A trust domain of its own.
struct World {
    x509: X509Authority,
    jwt: JwtAuthority,
    wit: WitAuthority,
}

impl World {
    fn new() -> Self {
        let name = id().trust_domain().clone();
        Self {
            x509: X509Authority::generate(&name, KeyType::EcP256, HOUR * 24, at(0)).unwrap(),
            jwt: JwtAuthority::generate(KeyType::EcP256).unwrap(),
            wit: WitAuthority::generate(KeyType::EcP256).unwrap(),
        }
    }

    fn bundle(&self) -> Bundle {
        Bundle {
            trust_domain: id().trust_domain().clone(),
            x509_authorities: vec![self.x509.certificate().clone()],
            jwt_authorities: vec![self.jwt.verification_key().clone()],
            wit_authorities: vec![self.wit.verification_key().clone()],
            sequence: 3,
            refresh_hint: Duration::from_secs(300),
        }
    }

    fn leaf(&self) -> Vec<u8> {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let dns_names = ["orders.shop.svc".to_owned()];
        let request = LeafRequest { spki: key.public_key(), id: &id(), dns_names: &dns_names, ttl: HOUR };
        self.x509.issue(&request, at(0)).unwrap().chain.remove(0)
    }

    fn token(&self) -> String {
        let audiences = ["billing".to_owned()];
        let request = JwtRequest { id: &id(), audiences: &audiences, ttl: HOUR, issuer: None };
        self.jwt.issue(&request, at(0)).unwrap().token.to_string()
    }

    fn wit(&self) -> String {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let request = WitRequest { id: &id(), confirmation: key.public_key(), ttl: HOUR };
        self.wit.issue(&request, at(0)).unwrap().token.to_string()
    }
}

fn asked(bundles: impl IntoIterator<Item = Bundle>) -> Asked {
    let set = BundleSet::new(bundles).unwrap();
    let anchors = Anchors { are_given: !set.is_empty(), set, problems: Vec::new() };
    Asked { anchors, trust_domain: None, audience: None, now: at(60) }
}

fn reasons(report: &Report) -> Vec<&'static str> {
    report
        .findings
        .iter()
        .filter(|one| one.mark >= Mark::Warning)
        .filter_map(|one| Some(one.known_reason()?.name()))
        .collect()
}

fn mark(report: &Report, about: &str) -> Mark {
    report.findings.iter().find(|one| one.about == about).unwrap().mark
}

fn text(report: &Report) -> String {
    let mut page = Page::new(None);
    report.write(&mut page);
    page.into_text()
}

#[test]
fn a_certificate_says_who_it_is_and_is_trusted_by_the_bundle_of_its_trust_domain() {
    let world = World::new();
    let without = report("a", &world.leaf(), &asked([]));
    assert!(without.acceptable && mark(&without, "trust") == Mark::Skipped, "{without:?}");
    let with = report("a", &world.leaf(), &asked([world.bundle()]));
    assert!(with.acceptable && mark(&with, "trust") == Mark::Ok, "{with:?}");
    let text = text(&with);
    for said in ["spiffe://shop.example/ns/shop/sa/orders", "orders.shop.svc", "ECDSA P-256", "59m"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn a_certificate_that_another_authority_signed_names_both_keys() {
    let (one, other) = (World::new(), World::new());
    let report = report("a", &one.leaf(), &asked([other.bundle()]));
    assert_eq!(reasons(&report), ["NotSignedByAuthority"]);
    let text = text(&report);
    for authority in [&one.x509, &other.x509] {
        let hex: String = authority.certificate().subject_key_id().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(text.contains(&hex), "{text}");
    }
}

#[test]
fn an_expired_certificate_is_told_from_one_that_nobody_trusts() {
    let world = World::new();
    let late = |bundle: Bundle| Asked { now: at(7200), ..asked([bundle]) };
    let expired = report("a", &world.leaf(), &late(world.bundle()));
    assert_eq!((reasons(&expired), mark(&expired, "trust")), (vec!["SVIDExpired"], Mark::Ok), "{expired:?}");
    let both = report("a", &world.leaf(), &late(World::new().bundle()));
    assert_eq!(reasons(&both), ["SVIDExpired", "NotSignedByAuthority"]);
    assert!(!both.acceptable);
}

#[test]
fn without_a_bundle_of_its_trust_domain_the_bundles_that_were_given_are_named() {
    let mut bundle = World::new().bundle();
    bundle.trust_domain = "bank.example".parse().unwrap();
    for input in [World::new().leaf(), World::new().token().into_bytes(), World::new().wit().into_bytes()] {
        let report = report("a", &input, &asked([bundle.clone()]));
        assert_eq!(reasons(&report), ["NoBundleGiven"]);
        assert!(text(&report).contains("bank.example"));
    }
}

#[test]
fn an_authority_in_place_of_a_leaf_is_a_bundle() {
    let world = World::new();
    let authority = world.x509.certificate().pem();
    let report = report("a", authority.as_bytes(), &asked([world.bundle()]));
    assert!(report.acceptable && mark(&report, "trust") == Mark::Ok, "{report:?}");
    let stranger = super::report("a", authority.as_bytes(), &asked([World::new().bundle()]));
    assert_eq!(reasons(&stranger), ["NotAmongAuthorities"]);
}

#[test]
fn a_chain_that_begins_with_its_authority_breaks_a_rule() {
    let world = World::new();
    let leaf = pem::encode(&pem::Pem::new("CERTIFICATE", world.leaf()));
    let chain = format!("{}{leaf}", world.x509.certificate().pem());
    let report = report("a", chain.as_bytes(), &asked([world.bundle()]));
    assert!(!report.acceptable && text(&report).contains("leaf comes first"), "{report:?}");
    assert_eq!(mark(&report, "trust"), Mark::Skipped);
    assert!(reasons(&report).len() > 1, "every rule that is broken is named: {report:?}");
}

#[test]
fn tokens_are_verified_by_the_keys_of_their_kind() {
    let world = World::new();
    for token in [world.token(), world.wit()] {
        let good = report("a", token.as_bytes(), &asked([world.bundle()]));
        assert!(good.acceptable && mark(&good, "trust") == Mark::Ok, "{good:?}");
        let other = report("a", token.as_bytes(), &asked([World::new().bundle()]));
        assert_eq!(reasons(&other), ["SigningKeyUnknown"]);
        let late = report("a", token.as_bytes(), &Asked { now: at(7200), ..asked([world.bundle()]) });
        assert_eq!((reasons(&late), mark(&late, "trust")), (vec!["SVIDExpired"], Mark::Ok), "{late:?}");
    }
}

#[test]
fn a_token_that_was_changed_is_not_trusted_and_its_signature_is_not_shown() {
    let world = World::new();
    let token = world.token();
    let (rest, signature) = token.rsplit_once('.').unwrap();
    let changed = format!("{rest}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    let report = report("a", changed.as_bytes(), &asked([world.bundle()]));
    assert_eq!(reasons(&report), ["NotSignedByAuthority"]);
    let json = serde_json::to_string(&report).unwrap();
    assert!(!json.contains(&signature[1..]) && !text(&report).contains(&signature[1..]));
}

#[test]
fn a_token_for_another_audience_is_not_acceptable() {
    let world = World::new();
    let asked = |audience: &str| Asked { audience: Some(audience.to_owned()), ..asked([world.bundle()]) };
    assert!(report("a", world.token().as_bytes(), &asked("billing")).acceptable);
    let other = report("a", world.token().as_bytes(), &asked("payroll"));
    assert_eq!((reasons(&other), mark(&other, "trust")), (vec!["AudienceDiffers"], Mark::Ok));
}

#[test]
fn every_rule_that_a_token_breaks_is_named() {
    // {"alg":"none","kid":"k"} {"sub":"joe","aud":"a","exp":1}
    let token = "eyJhbGciOiJub25lIiwia2lkIjoiayJ9.eyJzdWIiOiJqb2UiLCJhdWQiOiJhIiwiZXhwIjoxfQ.c2ln";
    let report = report("a", token.as_bytes(), &asked([]));
    assert_eq!(reasons(&report), ["SVIDRuleBroken", "SVIDRuleBroken", "SVIDExpired"], "{report:?}");
}

#[test]
fn a_bundle_document_says_what_it_holds() {
    let world = World::new();
    let document = world.bundle().to_json();
    let report = report("a", &document, &asked([]));
    assert!(report.acceptable, "{report:?}");
    let text = text(&report);
    for said in ["shop.example", "sequence", "x509 authority", "jwt authority", "wit authority"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn a_bundle_with_a_private_key_or_a_damaged_key_is_not_acceptable() {
    let mut document: serde_json::Value = serde_json::from_slice(&World::new().bundle().to_json()).unwrap();
    document["keys"][1]["d"] = "c2VjcmV0".into();
    let private = report("a", document.to_string().as_bytes(), &asked([]));
    assert!(reasons(&private).contains(&"PrivateKeyFound") && !private.acceptable, "{private:?}");
    assert!(!serde_json::to_string(&private).unwrap().contains("c2VjcmV0"));

    document["keys"][1]["x"] = 7.into();
    let damaged = report("a", document.to_string().as_bytes(), &asked([]));
    assert!(reasons(&damaged).contains(&"BundleRuleBroken"), "{damaged:?}");
    assert!(text(&damaged).contains("key 1 "), "{damaged:?}");
}

#[test]
fn a_private_key_beside_a_certificate_is_a_warning_and_is_not_shown() {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let leaf = pem::encode(&pem::Pem::new("CERTIFICATE", World::new().leaf()));
    let pem = key.pkcs8_pem();
    let both = report("a", format!("{leaf}{}", *pem).as_bytes(), &asked([]));
    assert_eq!((both.acceptable, reasons(&both)), (true, vec!["PrivateKeyFound"]));
    let secret = pem.lines().nth(1).unwrap();
    assert!(!text(&both).contains(secret) && !serde_json::to_string(&both).unwrap().contains(secret));
    assert!(!report("a", pem.as_bytes(), &asked([])).acceptable);
    assert!(!report("a", key.pkcs8_der(), &asked([])).acceptable);
}

#[test]
fn what_is_not_recognized_is_not_acceptable() {
    for input in [&b""[..], b"hello", &[0x30, 0x82], &[0x30, 0], b"eyJ.x"] {
        let report = report("a", input, &asked([]));
        assert_eq!(reasons(&report), ["InputUnrecognized"], "{input:?}: {report:?}");
    }
}
