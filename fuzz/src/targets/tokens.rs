//! Service account tokens and JWT-SVIDs. First byte 0: a token in compact form; otherwise a header and claims, separated by
//! a line feed, which the known key signs.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::jwt::{jwt_svid_faults, read_jwt_svid, verify_jwt_svid};
use countersign_core::service_account::{Expected, verify_token};
use countersign_core::token::UnverifiedToken;
use serde_json::{Value, json};

use crate::known::{AUDIENCE, DOMAIN, ISSUER, KID, KNOWN, is_signed, now, token};

/// The longest token accepted.
const LONGEST: usize = 16 * 1024;

const EXPECTED: Expected<'static> =
    Expected { issuer: ISSUER, audience: AUDIENCE, max_life: Duration::from_secs(2 * 3600) };

/// An accepted token is signed by the cluster's key, has only our audience, is valid now, and has the returned claims.
pub(crate) fn service_account_token(input: &[u8]) {
    let Some(token) = compact(input) else {
        return;
    };
    let verdict = verify_token(&token, &KNOWN.jwks, EXPECTED, now());
    let Ok(pod) = verdict else {
        let error = format!("{:?}", verdict.unwrap_err());
        assert!(error.len() < 512, "an error holds what was sent: {error}");
        return;
    };
    let Some((header, claims)) = accepted(&token) else {
        return;
    };
    assert!(matches!(header.get("typ"), None | Some(Value::Null)) || header["typ"] == "JWT");
    assert_eq!(claims["iss"], ISSUER);
    assert!(claims["aud"] == AUDIENCE || claims["aud"] == json!([AUDIENCE]), "{claims}");
    let kubernetes = &claims["kubernetes.io"];
    assert_eq!(kubernetes["namespace"], *pod.namespace);
    assert_eq!(kubernetes["pod"]["name"], *pod.pod_name);
    assert_eq!(kubernetes["pod"]["uid"], *pod.pod_uid);
    assert_eq!(kubernetes["serviceaccount"]["name"], *pod.service_account);
    assert_eq!(kubernetes["serviceaccount"]["uid"], *pod.service_account_uid);
    assert_eq!(claims["sub"], format!("system:serviceaccount:{}:{}", pod.namespace, pod.service_account));
    assert!(![pod.namespace, pod.pod_name, pod.pod_uid, pod.service_account].contains(&String::new()));
    assert!(pod.expires_at > now());
    assert_eq!(kubernetes["node"]["name"], *pod.node.name);
    let issued_at = claims["iat"].as_f64().unwrap();
    assert!(claims["exp"].as_f64().unwrap() - issued_at <= EXPECTED.max_life.as_secs_f64() + 0.001, "{claims}");
}

/// An accepted token is signed by the bundle's key, has our audience, is valid now, and its id belongs to the bundle's
/// trust domain.
pub(crate) fn jwt_svid(input: &[u8]) {
    let Some(token) = compact(input) else {
        return;
    };
    let faults = jwt_svid_faults(&token, now());
    if let Err(error) = read_jwt_svid(&token) {
        assert_eq!(faults.first(), Some(&error), "the first rule is the one that it is refused by");
    }
    let unverified = UnverifiedToken::parse(&token);
    let verdict = verify_jwt_svid(&token, AUDIENCE, &KNOWN.bundles, now());
    let Ok(svid) = verdict else {
        let error = format!("{:?}", verdict.unwrap_err());
        assert!(error.len() < 512, "an error holds what was sent: {error}");
        return;
    };
    let (_, claims) = accepted(&token).expect("every claim is returned, and so was read");
    assert!(faults.is_empty() && unverified.is_ok_and(|read| Value::Object(read.claims) == claims), "{faults:?}");
    assert_eq!(claims["sub"], svid.id.to_string());
    assert_eq!(svid.id.trust_domain().as_str(), DOMAIN);
    assert!(svid.audiences.iter().any(|audience| audience == AUDIENCE));
    assert!(claims["aud"] == json!(svid.audiences) || json!([claims["aud"]]) == json!(svid.audiences));
    assert_eq!(Value::Object(svid.raw), claims);
    assert!(svid.expires_at > now());
}

pub(super) fn compact(input: &[u8]) -> Option<String> {
    let (kind, rest) = input.split_first()?;
    if *kind == 0 {
        return String::from_utf8(rest.to_vec()).ok();
    }
    let at = rest.iter().position(|byte| *byte == b'\n')?;
    (rest.len() <= LONGEST).then(|| token(&rest[..at], &rest[at + 1..]))
}

/// Checks that hold for every accepted token; returns its header and claims, parsed by a simple reference parser. `None` if
/// a skipped claim is JSON only in grammar: half a surrogate pair, or a number out of range.
fn accepted(token: &str) -> Option<(Value, Value)> {
    assert!(token.len() <= LONGEST);
    assert!(is_signed(token), "accepted without the known key's signature");
    let part = |at: usize| URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&part(0)).unwrap();
    let claims = String::from_utf8(part(1)).expect("accepted, and not UTF-8");
    let claims: Value = serde_json::from_str(&claims).ok()?;
    assert_eq!((&header["alg"], &header["kid"]), (&json!("ES256"), &json!(KID)));
    assert!(claims["exp"].as_f64().unwrap() > now().as_second() as f64);
    assert!(claims.get("nbf").and_then(Value::as_f64).is_none_or(|time| time < (now().as_second() + 11) as f64));
    Some((header, claims))
}
