//! WIT-SVIDs, Workload Proof Tokens, and HTTP messages that are signed in the profile of WIMSE.
//!
//! `wit-svid` is read as tokens are. `wpt`: the header and the claims of a proof, a line each, and then the fields of the request.
//! `http-signature`: `METHOD path[?query] [authority]`, or a status before it for a response; the fields; an empty line; the body. A
//! field whose value is `WIT` holds the known workload's. First byte 0: nothing else is added. Otherwise the known workload signs:
//! the proof, which becomes `Authorization`, or what the first `Signature-Input` covers.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use countersign_core::wimse::signature::{ExpectedResponse, SignatureError, verify_request, verify_response};
use countersign_core::wimse::wpt::{WptError, verify_wpt};
use countersign_core::wimse::{Audience, Body, Field, MemoryReplayCache, Policy, Proven, Request, Response};
use countersign_core::wit::{read_wit_svid, verify_wit_svid, wit_svid_faults};
use serde_json::{Value, json};

use super::tokens::compact;
use crate::known::{DOMAIN, KNOWN, WIT, WIT_KID, is_signed, now, signature, token_by};

/// The longest life of a WIT that is accepted.
const LIFE: Duration = Duration::from_secs(3600);
const ORIGIN: &str = "https://orders.example.org";
/// The nonce of the request that a response answers.
const NONCE: &str = "0123456789abcdef";
/// Another signature with the tag.
const SECOND: &str = "another=();tag=\"wimse-workload-to-workload\"";
/// The field that a proof may bind.
const CONTEXT: &str = "x-context";

/// An accepted WIT is signed by the bundle's key, for nobody in particular, valid now and not for long, of the bundle's trust domain,
/// and confirms a key by an algorithm that is allowed.
pub(crate) fn wit_svid(input: &[u8]) {
    let Some(token) = compact(input) else {
        return;
    };
    let faults = wit_svid_faults(&token, now());
    if let Err(error) = read_wit_svid(&token) {
        assert_eq!(faults.first(), Some(&error), "the first rule is the one that it is refused by");
    }
    let verdict = verify_wit_svid(&token, &KNOWN.wit_bundles, LIFE, now());
    assert!(verdict.is_err() || faults.is_empty(), "{faults:?}");
    let Ok(wit) = verdict else {
        check_error(&format!("{:?}", verdict.unwrap_err()));
        return;
    };
    assert!(is_signed(&token), "accepted without the known key's signature");
    let header: Value = serde_json::from_slice(&part(&token, 0)).unwrap();
    assert_eq!(header, json!({ "alg": "ES256", "kid": WIT_KID, "typ": "wit+jwt" }));
    let claims: Value = serde_json::from_slice(&part(&token, 1)).unwrap();
    assert_eq!(Value::Object(wit.raw), claims);
    assert_eq!((claims["sub"].as_str().unwrap(), wit.id.trust_domain().as_str()), (&*wit.id.to_string(), DOMAIN));
    assert!(claims.get("aud").is_none() && !wit.id.path().is_empty());
    assert!(wit.expires_at > now() && claims["exp"].as_f64().unwrap() < (now().as_second() + 3611) as f64);
    assert_eq!(claims["cnf"]["jwk"]["alg"], wit.confirmation.algorithm());
    assert!(["RS", "ES", "PS"].iter().any(|family| wit.confirmation.algorithm().starts_with(family)));
}

/// An accepted proof is signed by the WIT's key, for us, near its end, and its hashes are those of the request's tokens. It is accepted
/// once.
pub(crate) fn wpt(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    let mut lines = text.split('\n');
    let (header, claims) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut fields = read_fields(lines);
    if *kind != 0 {
        fields.push((
            "authorization".to_owned(),
            format!("WPT {}", token_by(&KNOWN.workload, header.as_bytes(), claims.as_bytes())),
        ));
    }
    let borrowed = borrow(&fields);
    let request =
        Request { method: "GET", path: "/", query: None, authority: None, fields: &borrowed, body: Body::Empty };
    let audiences = [Audience::targets_of(ORIGIN).unwrap()];
    let replays = MemoryReplayCache::new(2, 2);
    let policy = Policy { context_fields: &[CONTEXT], ..Policy::new(&KNOWN.wit_bundles, &audiences) };
    let verdict = verify_wpt(&request, &policy, &replays, now());
    let Ok(proven) = verdict else {
        let error = verdict.unwrap_err();
        assert!(replays.is_empty(), "refused, and remembered: {error}");
        check_error(&format!("{error:?}"));
        return;
    };
    let wit = value(&fields, "workload-identity-token");
    let proof = value(&fields, "authorization").rsplit(' ').next().unwrap();
    assert_eq!(wit, WIT);
    let (input, made) = proof.rsplit_once('.').unwrap();
    assert!(KNOWN.is_by_workload(input.as_bytes(), &URL_SAFE_NO_PAD.decode(made).unwrap()));
    // What is skipped may be JSON only in grammar.
    let Ok(claims) = serde_json::from_slice::<Value>(&part(proof, 1)) else {
        return;
    };
    let exp = claims["exp"].as_f64().unwrap();
    assert!(exp >= (now().as_second() + 1) as f64 && exp < (now().as_second() + 71) as f64);
    assert!(claims["jti"].as_str().unwrap().len() >= 20 && claims.get("ath").is_none_or(Value::is_null));
    assert!(proven.audience.as_deref().is_some_and(|audience| audience.trim_end_matches('/') == ORIGIN));
    assert_eq!(claims["wth"], hash(WIT));
    check_bound(&fields, &claims, &proven);
    assert_eq!(verify_wpt(&request, &policy, &replays, now()), Err(WptError::Replayed));
}

/// Every token of a field that the verifier uses is bound by its hash.
fn check_bound(fields: &[(String, String)], claims: &Value, proven: &Proven) {
    for (name, claimed) in [("txn-token", &claims["tth"]), (CONTEXT, &claims["oth"][CONTEXT])] {
        let is_there = fields.iter().any(|(field, _)| field.eq_ignore_ascii_case(name));
        assert_eq!(proven.bound.iter().any(|bound| bound == name), is_there);
        assert_eq!(claimed.as_str().map(str::to_owned), is_there.then(|| hash(value(fields, name))));
    }
}

/// Of an accepted message nothing that is bound can be changed: with another method, path, query, status, body or WIT it is refused.
/// It is accepted once.
pub(crate) fn http_signature(input: &[u8]) {
    let Some(mut sent) = Sent::read(input) else {
        return;
    };
    if input.first() != Some(&0) {
        sent.sign();
    }
    let replays = MemoryReplayCache::new(2, 2);
    let verdict = sent.verify(&replays);
    match &verdict {
        Ok(Some(proven)) => assert_eq!(proven.wit.id.to_string(), "spiffe://example.org/cart"),
        Ok(None) => unreachable!("a signature is required"),
        Err(error) => {
            assert!(replays.is_empty(), "refused, and remembered: {error}");
            check_error(&format!("{error:?}"));
            return;
        }
    }
    assert_eq!(sent.verify(&replays), Err(SignatureError::Replayed));
    let is_connect = sent.method == "CONNECT";
    let changed = |change: fn(&mut Sent)| {
        let mut changed = sent.clone();
        change(&mut changed);
        changed.verify(&MemoryReplayCache::new(2, 2))
    };
    let mut changes: Vec<fn(&mut Sent)> = vec![
        |sent| sent.method.push('X'),
        |sent| sent.body.push(b'x'),
        |sent| sent.fields.push(("signature-input".to_owned(), SECOND.to_owned())),
        |sent| sent.fields.push(("workload-identity-token".to_owned(), WIT.to_owned())),
        |sent| sent.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("workload-identity-token")),
        |sent| sent.fields.push(("txn-token".to_owned(), "another".to_owned())),
    ];
    if sent.status.is_some() {
        // A field of a response that nobody covers.
        changes.pop();
        changes.push(|sent| sent.status = sent.status.map(|status| status ^ 1));
    }
    if is_connect {
        changes.push(|sent| sent.authority = Some("elsewhere.example:1".to_owned()));
    } else {
        changes.push(|sent| sent.path.push_str("/x"));
        changes.push(|sent| sent.query = Some(format!("{}x", sent.query.as_deref().unwrap_or_default())));
    }
    for (at, change) in changes.into_iter().enumerate() {
        assert!(changed(change).is_err(), "accepted after change {at}");
    }
}

#[derive(Clone)]
struct Sent {
    /// Of a response.
    status: Option<u16>,
    method: String,
    path: String,
    query: Option<String>,
    authority: Option<String>,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Sent {
    fn read(input: &[u8]) -> Option<Self> {
        let rest = input.get(1..)?;
        let end = rest.windows(2).position(|window| window == b"\n\n");
        let (head, body) = match end {
            Some(end) => (&rest[..end], rest[end + 2..].to_vec()),
            None => (rest, Vec::new()),
        };
        let mut lines = std::str::from_utf8(head).ok()?.split('\n');
        let mut words = lines.next()?.split(' ').peekable();
        let status = words.peek().and_then(|word| word.parse().ok());
        if status.is_some() {
            words.next();
        }
        let (method, target) = (words.next()?.to_owned(), words.next()?);
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (target.to_owned(), None),
        };
        let authority = words.next().map(str::to_owned);
        Some(Self { status, method, path, query, authority, fields: read_fields(lines), body })
    }

    /// Signs what the first `Signature-Input` covers, by a simple reference implementation of RFC 9421, section 2.5.
    fn sign(&mut self) {
        let input = self.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("signature-input"));
        let Some((label, list)) = input.and_then(|(_, value)| value.split_once('=')) else {
            return;
        };
        let Some((names, _)) = list.strip_prefix('(').and_then(|list| list.split_once(')')) else {
            return;
        };
        let mut base = String::new();
        for id in names.split(' ').filter(|id| !id.is_empty()) {
            let name = id.trim_end_matches(";req").trim_matches('"');
            let joined = || {
                let lines = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
                lines.map(|(_, value)| value.trim_matches([' ', '\t'])).collect::<Vec<_>>().join(", ")
            };
            let value = match name {
                "@method" => self.method.clone(),
                "@path" if self.path.is_empty() => "/".to_owned(),
                "@path" => self.path.clone(),
                "@query" => format!("?{}", self.query.as_deref().unwrap_or_default()),
                "@authority" => self.authority.as_deref().unwrap_or_default().to_ascii_lowercase(),
                "@status" => format!("{:03}", self.status.unwrap_or_default()),
                _ => joined(),
            };
            base.push_str(&format!("{id}: {value}\n"));
        }
        base.push_str(&format!("\"@signature-params\": {list}"));
        let made = STANDARD.encode(signature(&KNOWN.workload, base.as_bytes()));
        let made = ("signature".to_owned(), format!("{label}=:{made}:"));
        self.fields.push(made);
    }

    fn verify(&self, replays: &MemoryReplayCache) -> Result<Option<Proven>, SignatureError> {
        let fields = borrow(&self.fields);
        let body = Body::Bytes(&self.body);
        let request = Request {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            authority: self.authority.as_deref(),
            fields: &fields,
            body,
        };
        let audiences = [Audience::exactly("orders")];
        let policy = Policy::new(&KNOWN.wit_bundles, &audiences);
        let Some(status) = self.status else {
            return verify_request(&request, &policy, replays, now()).map(|proven| Some(proven.sender));
        };
        let expected = ExpectedResponse { request_nonce: NONCE, signature_required: true };
        let (request, response) = (Request { fields: &[], ..request }, Response { status, fields: &fields, body });
        verify_response(&request, &response, expected, &policy, replays, now())
    }
}

fn read_fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let fields = lines.filter_map(|line| line.split_once(": "));
    fields.map(|(name, value)| (name.to_owned(), if value == "WIT" { WIT } else { value }.to_owned())).collect()
}

fn borrow(fields: &[(String, String)]) -> Vec<Field<'_>> {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

fn value<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).unwrap().1.trim_matches([' ', '\t'])
}

fn part(token: &str, at: usize) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap()
}

fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

fn check_error(error: &str) {
    assert!(error.len() < 512, "an error holds what was sent: {error}");
}
