//! Decisions as tables: entitlements, credentials and the time, and the plan that follows.

use std::time::Duration;

use countersign_core::bundle::Bundle;
use countersign_core::csr::Csr;
use countersign_core::id::{SpiffeId, TrustDomain};
use countersign_core::jwt::{JwtAuthority, JwtRequest};
use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::wit::{WitAuthority, WitRequest};
use countersign_core::x509::{LeafRequest, X509Authority};
use countersign_proto::issuer::v1::{self, JwtResponse, Refusal, State, WitResponse, X509Response};
use jiff::Timestamp;

use super::{CredentialRequest, Plan, RenewalPlanner, ResponseError};
use crate::publish::Published;
use crate::session::entitlements::Entitlements;
use crate::session::known_bundles::KnownBundles;

const NOW: i64 = 1_800_000_000;
const HOUR: u64 = 3600;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

fn id(name: &str) -> SpiffeId {
    format!("spiffe://example.org/{name}").parse().unwrap()
}

/// The issuer's side: authorities that sign what a planner requests.
struct Issuer {
    x509: X509Authority,
    jwt: JwtAuthority,
    wit: WitAuthority,
}

impl Issuer {
    fn new() -> Self {
        let domain: TrustDomain = "example.org".parse().unwrap();
        let lifetime = Duration::from_secs(100 * HOUR);
        Self {
            x509: X509Authority::generate(&domain, KeyType::EcP256, lifetime, at(-60)).unwrap(),
            jwt: JwtAuthority::generate(KeyType::EcP256).unwrap(),
            wit: WitAuthority::generate(KeyType::EcP256).unwrap(),
        }
    }

    fn entitlements(&self, identities: Vec<v1::Identity>) -> Entitlements {
        self.entitlements_renewed(identities, 0)
    }

    fn entitlements_renewed(&self, identities: Vec<v1::Identity>, renewal: u64) -> Entitlements {
        let bundle = Bundle {
            trust_domain: "example.org".parse().unwrap(),
            x509_authorities: vec![self.x509.certificate().clone()],
            jwt_authorities: vec![self.jwt.verification_key().clone()],
            wit_authorities: vec![self.wit.verification_key().clone()],
            sequence: 1,
            refresh_hint: Duration::from_secs(300),
        };
        let document = bundle.to_json();
        let bundles = vec![v1::Bundle {
            trust_domain: "example.org".into(),
            document: document.into(),
            sequence: 1,
            ..v1::Bundle::default()
        }];
        let reason = "nobody selects it".into();
        let state = State { identities, bundles, reason, renewal, ..State::default() };
        Entitlements::parse(state, &KnownBundles::default()).unwrap()
    }

    /// Records a request for `name` on `planner` and has it accept the response.
    fn issue(&self, planner: &mut RenewalPlanner, name: &str, now: Timestamp) -> Result<(), ResponseError> {
        self.issue_with_dns_names(planner, name, &[], now)
    }

    fn issue_with_dns_names(
        &self,
        planner: &mut RenewalPlanner,
        name: &str,
        dns_names: &[&str],
        now: Timestamp,
    ) -> Result<(), ResponseError> {
        let dns_names: Vec<_> = dns_names.iter().map(|&name| name.to_owned()).collect();
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let csr = Csr::verify(&Csr::create(&key).unwrap()).unwrap();
        planner.record_x509_request(1, Some(id(name)), key, now);
        let (spki, ttl) = (csr.public_key_spki(), Duration::from_secs(HOUR));
        let leaf = LeafRequest { spki, id: &id(name), dns_names: &dns_names, ttl };
        let certificates = self.x509.issue(&leaf, now).unwrap().chain;
        let response = X509Response { id: 1, spiffe_id: id(name).to_string(), certificates, refusal: None };
        planner.accept_x509(response, now, 0.0)
    }

    fn issue_token(&self, planner: &mut RenewalPlanner, name: &str, audience: &str, now: Timestamp) {
        let (id, audiences) = (id(name), vec![audience.to_owned()]);
        planner.record_jwt_request(2, id.clone(), audiences.clone(), now);
        let request = JwtRequest { id: &id, audiences: &audiences, ttl: Duration::from_secs(300), issuer: None };
        let token = self.jwt.issue(&request, now).unwrap().token.to_string();
        let response = JwtResponse { id: 2, spiffe_id: id.to_string(), token, refusal: None };
        planner.accept_jwt(response, now, 0.0).unwrap();
    }

    /// The response to a request for a WIT-SVID of `name`, which is recorded on `planner`.
    fn wit(&self, planner: &mut RenewalPlanner, name: &str, now: Timestamp) -> WitResponse {
        let (id, key) = (id(name), PrivateKey::generate(KeyType::EcP256).unwrap());
        let request = WitRequest { id: &id, confirmation: key.public_key(), ttl: Duration::from_secs(600) };
        let token = self.wit.issue(&request, now).unwrap().token.to_string();
        planner.record_wit_request(3, id.clone(), key, now);
        WitResponse { id: 3, spiffe_id: id.to_string(), token, refusal: None }
    }

    fn issue_wit(&self, planner: &mut RenewalPlanner, name: &str, now: Timestamp) -> Result<(), ResponseError> {
        let response = self.wit(planner, name, now);
        planner.accept_wit(response, now, 0.0)
    }
}

fn with_wit(name: &str) -> v1::Identity {
    v1::Identity { wit_ttl: 600, ..identity(name) }
}

/// Whether the identities that are published have a WIT-SVID; `None` of one that is not to have any.
fn wits(published: Published) -> Vec<Option<bool>> {
    match published {
        Published::Ready(credentials) => {
            let has_wit = |svid: &crate::publish::Svid| svid.wit.as_ref().map(|state| state.current.is_some());
            credentials.svids.iter().map(has_wit).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn identity(name: &str) -> v1::Identity {
    v1::Identity { spiffe_id: id(name).to_string(), ..v1::Identity::default() }
}

fn x509(name: &str) -> CredentialRequest {
    CredentialRequest::X509(id(name))
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
    let mut planner = RenewalPlanner::default();
    assert!(planner.is_default_due(at(0)), "Hello asks for the default identity before it is known");
    assert_eq!(planner.plan(at(0)), Plan::default());
    planner.set_entitlements(issuer.entitlements(vec![identity("a"), identity("b")]), at(0));
    assert_eq!(planner.plan(at(0)).requests, [x509("a"), x509("b")]);
    issuer.issue(&mut planner, "a", at(0)).unwrap();
    issuer.issue(&mut planner, "b", at(0)).unwrap();
    for (second, requests) in [(0, vec![]), (1799, vec![]), (1800, vec![x509("a"), x509("b")])] {
        assert_eq!(planner.plan(at(second)).requests, requests, "{second}");
        assert_eq!(planner.is_default_due(at(second)), second >= 1800);
    }
    assert_eq!(planner.plan(at(0)).wake_at, Some(at(1800)));
}

#[test]
fn what_is_under_way_is_not_asked_for_again_and_an_overdue_answer_ends_the_stream() {
    let issuer = Issuer::new();
    let mut planner = RenewalPlanner::default();
    planner.record_x509_request(1, None, PrivateKey::generate(KeyType::EcP256).unwrap(), at(0));
    planner.set_entitlements(issuer.entitlements(vec![identity("a")]), at(0));
    assert_eq!(planner.plan(at(9)), Plan { requests: vec![], wake_at: Some(at(10)), stalled: false });
    assert!(planner.plan(at(10)).stalled);
    planner.disconnected("gone".into());
    assert_eq!(planner.plan(at(10)).requests, [x509("a")]);
}

#[test]
fn publishes_only_when_all_is_there_or_refused() {
    let issuer = Issuer::new();
    let mut with_token = identity("a");
    with_token.jwt_audiences = vec!["exact".into(), "prefix*".into()];
    let mut planner = RenewalPlanner::default();
    assert_eq!(reason(planner.published(at(0))), "waiting for the issuer's first answer");
    planner.set_entitlements(issuer.entitlements(vec![with_token, identity("b")]), at(0));
    issuer.issue(&mut planner, "a", at(0)).unwrap();
    assert_eq!(reason(planner.published(at(0))), "waiting for the issuer to sign");
    issuer.issue_token(&mut planner, "a", "exact", at(0));
    assert_eq!(reason(planner.published(at(0))), "waiting for the issuer to sign");
    planner.record_x509_request(3, Some(id("b")), PrivateKey::generate(KeyType::EcP256).unwrap(), at(0));
    let refusal = Some(Refusal { code: 7, message: "no".into(), retry_after_ms: 60_000 });
    let refused = X509Response { id: 3, refusal, ..X509Response::default() };
    assert!(matches!(planner.accept_x509(refused, at(0), 0.0), Err(ResponseError::Refused { code: 7, .. })));
    assert_eq!(ids(planner.published(at(0))), [id("a")]);
    for (second, requests) in [(59, vec![]), (60, vec![x509("b")])] {
        assert_eq!(planner.plan(at(second)).requests, requests);
    }
}

#[test]
fn tokens_for_files_are_renewed_and_those_of_calls_are_not() {
    let issuer = Issuer::new();
    let mut with_audience = identity("a");
    with_audience.jwt_audiences = vec!["exact".into()];
    let mut planner = RenewalPlanner::default();
    planner.set_entitlements(issuer.entitlements(vec![with_audience]), at(0));
    issuer.issue(&mut planner, "a", at(0)).unwrap();
    issuer.issue_token(&mut planner, "a", "exact", at(0));
    issuer.issue_token(&mut planner, "a", "call", at(0));
    assert_eq!(planner.plan(at(150)).requests, [CredentialRequest::Jwt(id("a"), vec!["exact".into()])]);
    let young = |second| planner.token(&id("a"), &["call".to_owned()], at(second)).map(|(_, young)| young);
    assert_eq!((young(149), young(150), young(300)), (Some(true), Some(false), None));
}

#[test]
fn a_workload_cannot_fill_the_memory_with_audiences() {
    let issuer = Issuer::new();
    let mut with_audience = identity("a");
    with_audience.jwt_audiences = vec!["exact".into()];
    let mut planner = RenewalPlanner::default();
    planner.set_entitlements(issuer.entitlements(vec![with_audience]), at(0));
    issuer.issue_token(&mut planner, "a", "exact", at(0));
    for n in 0..200 {
        issuer.issue_token(&mut planner, "a", &format!("call {n}"), at(n / 10));
    }
    assert!(planner.jwt.len() <= 128);
    assert!(planner.token(&id("a"), &["exact".to_owned()], at(20)).is_some());
    planner.record_jwt_request(9, id("a"), vec!["refused".into()], at(0));
    let refusal = Some(Refusal { code: 7, ..Refusal::default() });
    assert!(planner.accept_jwt(JwtResponse { id: 9, refusal, ..JwtResponse::default() }, at(0), 0.0).is_err());
    assert!(planner.failed.is_empty());
}

#[test]
fn an_expired_default_is_not_published_and_says_what_is_the_matter() {
    let issuer = Issuer::new();
    let mut planner = RenewalPlanner::default();
    planner.set_entitlements(issuer.entitlements(vec![identity("a"), identity("b")]), at(0));
    issuer.issue(&mut planner, "a", at(0)).unwrap();
    issuer.issue(&mut planner, "b", at(1000)).unwrap();
    assert_eq!(ids(planner.published(at(1000))), [id("a"), id("b")]);
    planner.disconnected("the issuer is away".into());
    assert_eq!(ids(planner.published(at(3599))), [id("a"), id("b")], "with the issuer away it goes on");
    let reason = reason(planner.published(at(3601)));
    assert!(reason.contains("expired at") && reason.contains("the issuer is away"), "{reason}");
}

#[test]
fn an_entitlement_that_ends_takes_its_credentials_along() {
    let issuer = Issuer::new();
    let mut planner = RenewalPlanner::default();
    planner.set_entitlements(issuer.entitlements(vec![identity("a"), identity("b")]), at(0));
    issuer.issue(&mut planner, "a", at(0)).unwrap();
    issuer.issue(&mut planner, "b", at(0)).unwrap();
    planner.set_entitlements(issuer.entitlements(vec![identity("b")]), at(1));
    assert_eq!(ids(planner.published(at(1))), [id("b")]);
    planner.set_entitlements(issuer.entitlements(Vec::new()), at(2));
    assert_eq!(reason(planner.published(at(2))), "nobody selects it");
    planner.set_entitlements(issuer.entitlements(vec![identity("b")]), at(3));
    assert_eq!(planner.plan(at(3)).requests, [x509("b")]);
}

#[test]
fn a_tainted_authority_renews_at_once_then_patiently() {
    let issuer = Issuer::new();
    let mut planner = RenewalPlanner::default();
    planner.set_entitlements(issuer.entitlements(vec![identity("a")]), at(0));
    issuer.issue(&mut planner, "a", at(0)).unwrap();
    let mut tainted = identity("a");
    tainted.tainted_authorities = vec![issuer.x509.certificate().subject_key_id().to_vec()];
    assert!(!planner.has_tainted());
    planner.set_entitlements(issuer.entitlements(vec![tainted]), at(1));
    assert_eq!(planner.plan(at(1)).requests, [x509("a")]);
    assert!(planner.has_tainted(), "the State is not in effect yet");
    issuer.issue(&mut planner, "a", at(1)).unwrap();
    for (second, requests) in [(1, vec![]), (30, vec![]), (31, vec![x509("a")])] {
        assert_eq!(planner.plan(at(second)).requests, requests, "{second}");
    }
}

/// Everything is requested once, whatever the value is and whichever operator sends it; what there is stays published meanwhile.
#[test]
fn a_renewal_that_somebody_asks_for_replaces_every_credential_once() {
    let issuer = Issuer::new();
    let mut all = with_wit("a");
    all.jwt_audiences = vec!["exact".into()];
    let mut planner = RenewalPlanner::default();
    planner.set_entitlements(issuer.entitlements_renewed(vec![all.clone()], 7), at(0));
    issuer.issue(&mut planner, "a", at(0)).unwrap();
    issuer.issue_wit(&mut planner, "a", at(0)).unwrap();
    issuer.issue_token(&mut planner, "a", "exact", at(0));
    issuer.issue_token(&mut planner, "a", "call", at(0));
    for same in [7, 6, 0, 7] {
        planner.set_entitlements(issuer.entitlements_renewed(vec![all.clone()], same), at(1));
        assert_eq!(planner.plan(at(1)).requests, [], "{same}");
    }
    planner.set_entitlements(issuer.entitlements_renewed(vec![all.clone()], u64::MAX), at(1));
    let exact = CredentialRequest::Jwt(id("a"), vec!["exact".into()]);
    assert_eq!(planner.plan(at(1)).requests, [x509("a"), CredentialRequest::Wit(id("a")), exact]);
    assert_eq!(ids(planner.published(at(1))), [id("a")]);
    let (_, young) = planner.token(&id("a"), &["call".to_owned()], at(1)).unwrap();
    assert!(!young, "the next call gets another one");
    issuer.issue(&mut planner, "a", at(1)).unwrap();
    issuer.issue_wit(&mut planner, "a", at(1)).unwrap();
    issuer.issue_token(&mut planner, "a", "exact", at(1));
    planner.set_entitlements(issuer.entitlements_renewed(vec![all], u64::MAX), at(2));
    assert_eq!(planner.plan(at(2)).requests, []);
}

// A token that was handed out cannot be recalled, but the file's is replaced at once.
#[test]
fn tokens_of_a_tainted_key_are_renewed_at_once() {
    let issuer = Issuer::new();
    let mut with_audience = identity("a");
    with_audience.jwt_audiences = vec!["exact".into()];
    let mut planner = RenewalPlanner::default();
    planner.set_entitlements(issuer.entitlements(vec![with_audience.clone()]), at(0));
    issuer.issue(&mut planner, "a", at(0)).unwrap();
    issuer.issue_token(&mut planner, "a", "exact", at(0));
    issuer.issue_token(&mut planner, "a", "call", at(0));
    assert_eq!(planner.plan(at(1)).requests, []);
    with_audience.tainted_key_ids = vec![issuer.jwt.kid().to_owned()];
    planner.set_entitlements(issuer.entitlements(vec![with_audience]), at(1));
    assert_eq!(planner.plan(at(1)).requests, [CredentialRequest::Jwt(id("a"), vec!["exact".into()])]);
    assert!(planner.has_tainted(), "the State is not in effect yet");
    let (_, young) = planner.token(&id("a"), &["call".to_owned()], at(1)).unwrap();
    assert!(!young, "the next call gets another one");
    let other = Issuer { jwt: JwtAuthority::generate(KeyType::EcP256).unwrap(), x509: issuer.x509, wit: issuer.wit };
    let mut renewed = identity("a");
    renewed.jwt_audiences = vec!["exact".into()];
    renewed.tainted_key_ids = vec![issuer.jwt.kid().to_owned()];
    planner.set_entitlements(other.entitlements(vec![renewed]), at(2));
    other.issue_token(&mut planner, "a", "exact", at(2));
    assert!(!planner.has_tainted());
}

// A DNS name lost to another namespace must leave the certificate at once; one that is gained must be added.
#[test]
fn other_dns_names_renew_at_once_then_patiently_and_an_issuer_that_sends_none_changes_nothing() {
    let issuer = Issuer::new();
    let named = |names: &[&str]| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        v1::Identity { dns_names: Some(v1::DnsNames { names }), ..identity("a") }
    };
    let mut planner = RenewalPlanner::default();
    planner.set_entitlements(issuer.entitlements(vec![named(&["b.svc", "a.svc"])]), at(0));
    issuer.issue_with_dns_names(&mut planner, "a", &["a.svc", "b.svc"], at(0)).unwrap();
    assert_eq!(planner.plan(at(1)).requests, []);
    planner.set_entitlements(issuer.entitlements(vec![identity("a")]), at(1));
    assert_eq!(planner.plan(at(1)).requests, []);
    planner.set_entitlements(issuer.entitlements(vec![named(&["a.svc"])]), at(2));
    assert_eq!(planner.plan(at(2)).requests, [x509("a")]);
    assert_eq!(ids(planner.published(at(2))), [id("a")], "the old certificate serves until the new one is there");
    // A replica that has not seen the change yet.
    issuer.issue_with_dns_names(&mut planner, "a", &["a.svc", "b.svc"], at(2)).unwrap();
    for (second, requests) in [(2, vec![]), (31, vec![]), (32, vec![x509("a")])] {
        assert_eq!(planner.plan(at(second)).requests, requests, "{second}");
    }
    issuer.issue_with_dns_names(&mut planner, "a", &["a.svc"], at(32)).unwrap();
    assert_eq!(planner.plan(at(33)).requests, []);
}

#[test]
fn a_bundle_without_the_authority_renews_at_once() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let mut planner = RenewalPlanner::default();
    planner.set_entitlements(old.entitlements(vec![identity("a")]), at(0));
    old.issue(&mut planner, "a", at(0)).unwrap();
    planner.set_entitlements(new.entitlements(vec![identity("a")]), at(1));
    assert_eq!(planner.plan(at(1)).requests, [x509("a")]);
    new.issue(&mut planner, "a", at(1)).unwrap();
    assert_eq!(planner.plan(at(1)).requests, []);
}

#[test]
fn answers_that_nobody_waits_for_change_nothing() {
    let issuer = Issuer::new();
    let mut planner = RenewalPlanner::default();
    planner.set_entitlements(issuer.entitlements(vec![identity("a")]), at(0));
    let unasked = X509Response { id: 7, spiffe_id: id("a").to_string(), ..X509Response::default() };
    assert!(matches!(planner.accept_x509(unasked, at(0), 0.0), Err(ResponseError::UnknownRequest(7))));
    planner.record_x509_request(8, Some(id("a")), PrivateKey::generate(KeyType::EcP256).unwrap(), at(0));
    let other = X509Response { id: 8, spiffe_id: id("b").to_string(), ..X509Response::default() };
    assert!(matches!(planner.accept_x509(other, at(0), 0.0), Err(ResponseError::UnexpectedIdentity(_))));
    assert_eq!(planner.plan(at(0)).requests, [x509("a")]);
}

#[test]
fn a_clock_that_was_set_back_is_noticed_once_and_corrections_of_it_are_not() {
    let mut planner = RenewalPlanner::default();
    for (now, set_back) in [(3_600, false), (3_596, false), (3_700, false), (100, true), (101, false), (3_700, false)] {
        assert_eq!(planner.clock_was_set_back(at(now)), set_back, "{now}");
    }
}

// A request refused under a clock that was ahead would be repeated only when the corrected clock had caught up.
#[test]
fn what_was_put_off_by_a_clock_that_was_ahead_is_asked_for_once_it_is_right() {
    let (issuer, mut planner) = (Issuer::new(), RenewalPlanner::default());
    planner.set_entitlements(issuer.entitlements(vec![identity("a")]), at(0));
    issuer.issue(&mut planner, "a", at(0)).unwrap();
    let ahead = 2 * 3_600;
    planner.clock_was_set_back(at(ahead));
    assert_eq!(planner.plan(at(ahead)).requests, [x509("a")]);
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    planner.record_x509_request(9, Some(id("a")), key, at(ahead));
    let refusal = Refusal { code: 14, message: "not now".into(), retry_after_ms: 0 };
    let response = X509Response { id: 9, refusal: Some(refusal), ..X509Response::default() };
    planner.accept_x509(response, at(ahead), 0.0).unwrap_err();

    let renewal = 1_801;
    assert!(planner.plan(at(renewal)).requests.is_empty(), "delayed");
    assert!(planner.clock_was_set_back(at(renewal)));
    planner.disconnected("the clock was set back".into());
    assert_eq!(planner.plan(at(renewal)).requests, [x509("a")]);
}

#[test]
fn a_wit_svid_is_renewed_at_half_life_and_withdrawn_at_its_end() {
    let issuer = Issuer::new();
    let mut planner = RenewalPlanner::default();
    planner.set_entitlements(issuer.entitlements(vec![with_wit("a")]), at(0));
    let wit = CredentialRequest::Wit(id("a"));
    assert_eq!(planner.plan(at(0)).requests, [x509("a"), wit.clone()]);
    issuer.issue(&mut planner, "a", at(0)).unwrap();
    issuer.issue_wit(&mut planner, "a", at(0)).unwrap();
    assert_eq!(wits(planner.published(at(0))), [Some(true)]);
    assert_eq!(planner.plan(at(0)).wake_at, Some(at(300)));
    assert_eq!(planner.plan(at(300)).requests, [wit]);
    planner.record_wit_request(4, id("a"), PrivateKey::generate(KeyType::EcP256).unwrap(), at(599));
    assert_eq!(planner.plan(at(599)).wake_at, Some(at(600)), "it wakes at the end, also while a request is pending");
    assert_eq!(wits(planner.published(at(600))), [Some(false)], "the rest of the identity stays");
}

#[test]
fn a_wit_svid_of_a_tainted_authority_is_renewed_at_once_and_nothing_is_acknowledged_before() {
    let issuer = Issuer::new();
    let mut planner = RenewalPlanner::default();
    planner.set_entitlements(issuer.entitlements(vec![with_wit("a")]), at(0));
    issuer.issue(&mut planner, "a", at(0)).unwrap();
    let late = issuer.wit(&mut planner, "a", at(0));
    let tainted = vec![issuer.wit.kid().to_owned()];
    let identity = v1::Identity { tainted_key_ids: tainted, ..with_wit("a") };
    planner.set_entitlements(issuer.entitlements(vec![identity]), at(1));
    assert!(!planner.has_tainted());
    // It was signed before the authority was tainted, and arrives afterwards.
    planner.accept_wit(late, at(2), 0.0).unwrap();
    assert!(planner.has_tainted());
    assert_eq!(planner.plan(at(2)).requests, [], "not again and again, if the issuer does not know better");
    assert_eq!(planner.plan(at(32)).requests, [CredentialRequest::Wit(id("a"))]);
    planner.set_entitlements(issuer.entitlements(vec![with_wit("a")]), at(33));
    issuer.issue_wit(&mut planner, "a", at(33)).unwrap();
    let tainted = vec![issuer.wit.kid().to_owned()];
    let identity = v1::Identity { tainted_key_ids: tainted, ..with_wit("a") };
    planner.set_entitlements(issuer.entitlements(vec![identity]), at(34));
    assert_eq!(planner.plan(at(34)).requests, [CredentialRequest::Wit(id("a"))], "what it has is renewed at once");
    assert_eq!(wits(planner.published(at(2))), [Some(true)], "it is trusted until its authority leaves the bundle");
}

#[test]
fn a_wit_svid_that_arrives_after_its_terms_have_ended_is_not_used() {
    let issuer = Issuer::new();
    let mut planner = RenewalPlanner::default();
    planner.set_entitlements(issuer.entitlements(vec![with_wit("a")]), at(0));
    issuer.issue(&mut planner, "a", at(0)).unwrap();
    let late = issuer.wit(&mut planner, "a", at(0));
    planner.set_entitlements(issuer.entitlements(vec![identity("a")]), at(1));
    assert!(matches!(planner.accept_wit(late, at(2), 0.0), Err(ResponseError::UnexpectedIdentity(_))));
    assert_eq!(wits(planner.published(at(2))), [None]);
    planner.set_entitlements(issuer.entitlements(vec![with_wit("a")]), at(3));
    assert_eq!(wits(planner.published(at(3))), [Some(false)], "what came late was not kept");
}
