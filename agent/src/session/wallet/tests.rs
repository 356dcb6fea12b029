//! Decisions as tables: what is told, what is held, what time it is, and what follows.

use std::time::Duration;

use countersign_core::bundle::Bundle;
use countersign_core::csr::Csr;
use countersign_core::id::{SpiffeId, TrustDomain};
use countersign_core::jwt::{JwtAuthority, JwtRequest};
use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::x509::{LeafRequest, X509Authority};
use countersign_proto::issuer::v1::{self, JwtResponse, Refusal, State, X509Response};
use jiff::Timestamp;

use super::{NotAccepted, Plan, Wallet, Want};
use crate::publish::Published;
use crate::session::told::Told;

const NOW: i64 = 1_800_000_000;
const HOUR: u64 = 3600;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

fn id(name: &str) -> SpiffeId {
    format!("spiffe://example.org/{name}").parse().unwrap()
}

/// The issuer's side: authorities that sign what a wallet asks for.
struct Issuer {
    x509: X509Authority,
    jwt: JwtAuthority,
}

impl Issuer {
    fn new() -> Self {
        let domain: TrustDomain = "example.org".parse().unwrap();
        let life = Duration::from_secs(100 * HOUR);
        Self {
            x509: X509Authority::generate(&domain, KeyType::EcP256, life, at(-60)).unwrap(),
            jwt: JwtAuthority::generate(KeyType::EcP256).unwrap(),
        }
    }

    fn tells(&self, identities: Vec<v1::Identity>) -> Told {
        let bundle = Bundle {
            trust_domain: "example.org".parse().unwrap(),
            x509_authorities: vec![self.x509.certificate().clone()],
            jwt_authorities: vec![self.jwt.verification_key().clone()],
            sequence: 1,
            refresh_hint: Duration::from_secs(300),
        };
        let document = bundle.to_json();
        let bundles = vec![v1::Bundle { trust_domain: "example.org".into(), document }];
        let reason = "nobody selects it".into();
        Told::parse(State { identities, bundles, reason, ..State::default() }).unwrap()
    }

    /// Asks for `name` on `wallet` and answers.
    fn signs(&self, wallet: &mut Wallet, name: &str, now: Timestamp) -> Result<(), NotAccepted> {
        self.signs_for(wallet, name, &[], now)
    }

    fn signs_for(
        &self,
        wallet: &mut Wallet,
        name: &str,
        dns_names: &[&str],
        now: Timestamp,
    ) -> Result<(), NotAccepted> {
        let dns_names: Vec<_> = dns_names.iter().map(|&name| name.to_owned()).collect();
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let csr = Csr::verify(&Csr::create(&key).unwrap()).unwrap();
        wallet.asked_x509(1, Some(id(name)), key, now);
        let (spki, ttl) = (csr.public_key_spki(), Duration::from_secs(HOUR));
        let leaf = LeafRequest { spki, id: &id(name), dns_names: &dns_names, ttl };
        let certificates = self.x509.issue(&leaf, now).unwrap().chain;
        let answer = X509Response { id: 1, spiffe_id: id(name).to_string(), certificates, refusal: None };
        wallet.accept_x509(answer, now, 0.0)
    }

    fn signs_token(&self, wallet: &mut Wallet, name: &str, audience: &str, now: Timestamp) {
        let (id, audiences) = (id(name), vec![audience.to_owned()]);
        wallet.asked_jwt(2, id.clone(), audiences.clone(), now);
        let request = JwtRequest { id: &id, audiences: &audiences, ttl: Duration::from_secs(300), issuer: None };
        let token = self.jwt.issue(&request, now).unwrap().token.to_string();
        let answer = JwtResponse { id: 2, spiffe_id: id.to_string(), token, refusal: None };
        wallet.accept_jwt(answer, now, 0.0).unwrap();
    }
}

fn identity(name: &str) -> v1::Identity {
    v1::Identity { spiffe_id: id(name).to_string(), ..v1::Identity::default() }
}

fn x509(name: &str) -> Want {
    Want::X509(id(name))
}

fn reason(published: Published) -> String {
    match published {
        Published::NotReady(reason) | Published::NoIdentity(reason) => reason.to_string(),
        Published::Ready(_) => panic!("published"),
    }
}

fn ids(published: Published) -> Vec<SpiffeId> {
    match published {
        Published::Ready(credentials) => credentials.svids.iter().map(|svid| svid.id.clone()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn asks_for_what_is_missing_and_renews_at_half_life() {
    let issuer = Issuer::new();
    let mut wallet = Wallet::default();
    assert!(wallet.wants_default(at(0)), "Hello asks for the default identity before it is known");
    assert_eq!(wallet.plan(at(0)), Plan::default());
    wallet.tell(issuer.tells(vec![identity("a"), identity("b")]), at(0));
    assert_eq!(wallet.plan(at(0)).ask, [x509("a"), x509("b")]);
    issuer.signs(&mut wallet, "a", at(0)).unwrap();
    issuer.signs(&mut wallet, "b", at(0)).unwrap();
    for (second, ask) in [(0, vec![]), (1799, vec![]), (1800, vec![x509("a"), x509("b")])] {
        assert_eq!(wallet.plan(at(second)).ask, ask, "{second}");
        assert_eq!(wallet.wants_default(at(second)), second >= 1800);
    }
    assert_eq!(wallet.plan(at(0)).wake_at, Some(at(1800)));
}

#[test]
fn what_is_under_way_is_not_asked_for_again_and_an_overdue_answer_ends_the_stream() {
    let issuer = Issuer::new();
    let mut wallet = Wallet::default();
    wallet.asked_x509(1, None, PrivateKey::generate(KeyType::EcP256).unwrap(), at(0));
    wallet.tell(issuer.tells(vec![identity("a")]), at(0));
    assert_eq!(wallet.plan(at(9)), Plan { ask: vec![], wake_at: Some(at(10)), stalled: false });
    assert!(wallet.plan(at(10)).stalled);
    wallet.disconnected("gone".into());
    assert_eq!(wallet.plan(at(10)).ask, [x509("a")]);
}

#[test]
fn publishes_only_when_all_is_there_or_refused() {
    let issuer = Issuer::new();
    let mut with_token = identity("a");
    with_token.jwt_audiences = vec!["exact".into(), "prefix*".into()];
    let mut wallet = Wallet::default();
    assert_eq!(reason(wallet.published(at(0))), "waiting for the issuer's first answer");
    wallet.tell(issuer.tells(vec![with_token, identity("b")]), at(0));
    issuer.signs(&mut wallet, "a", at(0)).unwrap();
    assert_eq!(reason(wallet.published(at(0))), "waiting for the issuer to sign");
    issuer.signs_token(&mut wallet, "a", "exact", at(0));
    assert_eq!(reason(wallet.published(at(0))), "waiting for the issuer to sign");
    wallet.asked_x509(3, Some(id("b")), PrivateKey::generate(KeyType::EcP256).unwrap(), at(0));
    let refusal = Some(Refusal { code: 7, message: "no".into(), retry_after_ms: 60_000 });
    let refused = X509Response { id: 3, refusal, ..X509Response::default() };
    assert!(matches!(wallet.accept_x509(refused, at(0), 0.0), Err(NotAccepted::Refused { code: 7, .. })));
    assert_eq!(ids(wallet.published(at(0))), [id("a")]);
    for (second, ask) in [(59, vec![]), (60, vec![x509("b")])] {
        assert_eq!(wallet.plan(at(second)).ask, ask);
    }
}

#[test]
fn tokens_for_files_are_renewed_and_those_of_calls_are_not() {
    let issuer = Issuer::new();
    let mut told = identity("a");
    told.jwt_audiences = vec!["exact".into()];
    let mut wallet = Wallet::default();
    wallet.tell(issuer.tells(vec![told]), at(0));
    issuer.signs(&mut wallet, "a", at(0)).unwrap();
    issuer.signs_token(&mut wallet, "a", "exact", at(0));
    issuer.signs_token(&mut wallet, "a", "call", at(0));
    assert_eq!(wallet.plan(at(150)).ask, [Want::Jwt(id("a"), vec!["exact".into()])]);
    let young = |second| wallet.token(&id("a"), &["call".to_owned()], at(second)).map(|(_, young)| young);
    assert_eq!((young(149), young(150), young(300)), (Some(true), Some(false), None));
}

#[test]
fn a_workload_cannot_fill_the_memory_with_audiences() {
    let issuer = Issuer::new();
    let mut told = identity("a");
    told.jwt_audiences = vec!["exact".into()];
    let mut wallet = Wallet::default();
    wallet.tell(issuer.tells(vec![told]), at(0));
    issuer.signs_token(&mut wallet, "a", "exact", at(0));
    for n in 0..200 {
        issuer.signs_token(&mut wallet, "a", &format!("call {n}"), at(n / 10));
    }
    assert!(wallet.jwt.len() <= 128);
    assert!(wallet.token(&id("a"), &["exact".to_owned()], at(20)).is_some());
    wallet.asked_jwt(9, id("a"), vec!["refused".into()], at(0));
    let refusal = Some(Refusal { code: 7, ..Refusal::default() });
    assert!(wallet.accept_jwt(JwtResponse { id: 9, refusal, ..JwtResponse::default() }, at(0), 0.0).is_err());
    assert!(wallet.refused.is_empty());
}

#[test]
fn an_expired_default_is_not_published_and_says_what_is_the_matter() {
    let issuer = Issuer::new();
    let mut wallet = Wallet::default();
    wallet.tell(issuer.tells(vec![identity("a"), identity("b")]), at(0));
    issuer.signs(&mut wallet, "a", at(0)).unwrap();
    issuer.signs(&mut wallet, "b", at(1000)).unwrap();
    assert_eq!(ids(wallet.published(at(1000))), [id("a"), id("b")]);
    wallet.disconnected("the issuer is away".into());
    assert_eq!(ids(wallet.published(at(3599))), [id("a"), id("b")], "with the issuer away it goes on");
    let reason = reason(wallet.published(at(3601)));
    assert!(reason.contains("expired at") && reason.contains("the issuer is away"), "{reason}");
}

#[test]
fn an_entitlement_that_ends_takes_its_credentials_along() {
    let issuer = Issuer::new();
    let mut wallet = Wallet::default();
    wallet.tell(issuer.tells(vec![identity("a"), identity("b")]), at(0));
    issuer.signs(&mut wallet, "a", at(0)).unwrap();
    issuer.signs(&mut wallet, "b", at(0)).unwrap();
    wallet.tell(issuer.tells(vec![identity("b")]), at(1));
    assert_eq!(ids(wallet.published(at(1))), [id("b")]);
    wallet.tell(issuer.tells(Vec::new()), at(2));
    assert_eq!(reason(wallet.published(at(2))), "nobody selects it");
    wallet.tell(issuer.tells(vec![identity("b")]), at(3));
    assert_eq!(wallet.plan(at(3)).ask, [x509("b")]);
}

#[test]
fn a_tainted_authority_renews_at_once_then_patiently() {
    let issuer = Issuer::new();
    let mut wallet = Wallet::default();
    wallet.tell(issuer.tells(vec![identity("a")]), at(0));
    issuer.signs(&mut wallet, "a", at(0)).unwrap();
    let mut tainted = identity("a");
    tainted.tainted_authorities = vec![issuer.x509.certificate().subject_key_id().to_vec()];
    wallet.tell(issuer.tells(vec![tainted]), at(1));
    assert_eq!(wallet.plan(at(1)).ask, [x509("a")]);
    issuer.signs(&mut wallet, "a", at(1)).unwrap();
    for (second, ask) in [(1, vec![]), (30, vec![]), (31, vec![x509("a")])] {
        assert_eq!(wallet.plan(at(second)).ask, ask, "{second}");
    }
}

// A name that another namespace holds must leave the certificate at once, and one that is won must come.
#[test]
fn other_dns_names_renew_at_once_then_patiently_and_an_issuer_that_tells_none_changes_nothing() {
    let issuer = Issuer::new();
    let named = |names: &[&str]| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        v1::Identity { dns_names: Some(v1::DnsNames { names }), ..identity("a") }
    };
    let mut wallet = Wallet::default();
    wallet.tell(issuer.tells(vec![named(&["b.svc", "a.svc"])]), at(0));
    issuer.signs_for(&mut wallet, "a", &["a.svc", "b.svc"], at(0)).unwrap();
    assert_eq!(wallet.plan(at(1)).ask, []);
    wallet.tell(issuer.tells(vec![identity("a")]), at(1));
    assert_eq!(wallet.plan(at(1)).ask, []);
    wallet.tell(issuer.tells(vec![named(&["a.svc"])]), at(2));
    assert_eq!(wallet.plan(at(2)).ask, [x509("a")]);
    assert_eq!(ids(wallet.published(at(2))), [id("a")], "what is held serves until the other is there");
    // A replica that has not heard of it yet.
    issuer.signs_for(&mut wallet, "a", &["a.svc", "b.svc"], at(2)).unwrap();
    for (second, ask) in [(2, vec![]), (31, vec![]), (32, vec![x509("a")])] {
        assert_eq!(wallet.plan(at(second)).ask, ask, "{second}");
    }
    issuer.signs_for(&mut wallet, "a", &["a.svc"], at(32)).unwrap();
    assert_eq!(wallet.plan(at(33)).ask, []);
}

#[test]
fn a_bundle_without_the_authority_renews_at_once() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let mut wallet = Wallet::default();
    wallet.tell(old.tells(vec![identity("a")]), at(0));
    old.signs(&mut wallet, "a", at(0)).unwrap();
    wallet.tell(new.tells(vec![identity("a")]), at(1));
    assert_eq!(wallet.plan(at(1)).ask, [x509("a")]);
    new.signs(&mut wallet, "a", at(1)).unwrap();
    assert_eq!(wallet.plan(at(1)).ask, []);
}

#[test]
fn answers_that_nobody_waits_for_change_nothing() {
    let issuer = Issuer::new();
    let mut wallet = Wallet::default();
    wallet.tell(issuer.tells(vec![identity("a")]), at(0));
    let unasked = X509Response { id: 7, spiffe_id: id("a").to_string(), ..X509Response::default() };
    assert!(matches!(wallet.accept_x509(unasked, at(0), 0.0), Err(NotAccepted::Unasked(7))));
    wallet.asked_x509(8, Some(id("a")), PrivateKey::generate(KeyType::EcP256).unwrap(), at(0));
    let other = X509Response { id: 8, spiffe_id: id("b").to_string(), ..X509Response::default() };
    assert!(matches!(wallet.accept_x509(other, at(0), 0.0), Err(NotAccepted::OtherIdentity(_))));
    assert_eq!(wallet.plan(at(0)).ask, [x509("a")]);
}

#[test]
fn a_clock_that_was_set_back_is_noticed_once_and_corrections_of_it_are_not() {
    let mut wallet = Wallet::default();
    for (now, set_back) in [(3_600, false), (3_596, false), (3_700, false), (100, true), (101, false), (3_700, false)] {
        assert_eq!(wallet.was_set_back(at(now)), set_back, "{now}");
    }
}

// What was refused by a clock that was ahead would be asked for again only when the right one had caught up.
#[test]
fn what_was_put_off_by_a_clock_that_was_ahead_is_asked_for_once_it_is_right() {
    let (issuer, mut wallet) = (Issuer::new(), Wallet::default());
    wallet.tell(issuer.tells(vec![identity("a")]), at(0));
    issuer.signs(&mut wallet, "a", at(0)).unwrap();
    let ahead = 2 * 3_600;
    wallet.was_set_back(at(ahead));
    assert_eq!(wallet.plan(at(ahead)).ask, [x509("a")]);
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    wallet.asked_x509(9, Some(id("a")), key, at(ahead));
    let refusal = Refusal { code: 14, message: "not now".into(), retry_after_ms: 0 };
    let answer = X509Response { id: 9, refusal: Some(refusal), ..X509Response::default() };
    wallet.accept_x509(answer, at(ahead), 0.0).unwrap_err();

    let renewal = 1_801;
    assert!(wallet.plan(at(renewal)).ask.is_empty(), "put off");
    assert!(wallet.was_set_back(at(renewal)));
    wallet.disconnected("the clock was set back".into());
    assert_eq!(wallet.plan(at(renewal)).ask, [x509("a")]);
}
