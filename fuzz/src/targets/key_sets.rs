//! Bundle documents and JWK sets.

use std::time::Duration;

use countersign_core::bundle::Bundle;
use countersign_core::service_account::{ClusterJwks, Expected, verify_token};
use countersign_core::x509::CaCertificate;
use serde_json::Value;

use crate::known::{AUDIENCE, ISSUER, KID, KNOWN, now, token, trust_domain};
use crate::seeds;

/// An accepted bundle document can be written and read again as the same bundle, and trusts nothing that was not in it.
pub(crate) fn bundle(input: &[u8]) {
    let Ok(bundle) = Bundle::parse(&trust_domain(), input) else {
        return;
    };
    let written = bundle.to_json();
    assert_eq!(Bundle::parse(&trust_domain(), &written).expect("what was written can be read"), bundle);
    let Some(keys) = keys(input) else {
        return;
    };
    let of = |usage: &str| keys.iter().filter(|key| key["use"] == usage).count();
    assert!(bundle.x509_authorities.len() <= of("x509-svid"));
    assert!(bundle.jwt_authorities.len() <= of("jwt-svid"));
    for authority in &bundle.x509_authorities {
        assert_eq!(&CaCertificate::from_der(authority.der()).unwrap(), authority);
    }
    let mut kids: Vec<&str> = bundle.jwt_authorities.iter().map(|key| key.kid()).collect();
    assert!(kids.iter().all(|kid| !kid.is_empty() && keys.iter().any(|key| key["kid"] == **kid)));
    kids.sort_unstable();
    kids.dedup();
    assert_eq!(kids.len(), bundle.jwt_authorities.len(), "two keys of one id");
    assert_eq!(self::keys(&bundle.jwks_json()).unwrap().len(), kids.len());
}

/// A genuine token is accepted by a set only if the set has the key that signed it, for signatures.
pub(crate) fn jwks(input: &[u8]) {
    let Ok(set) = ClusterJwks::parse(input) else {
        return;
    };
    let Some(keys) = keys(input) else {
        return;
    };
    for kid in keys.iter().filter_map(|key| key["kid"].as_str()).filter(|kid| set.contains(kid)) {
        let usable = |key: &&Value| key["kid"] == kid && (key["use"].is_null() || key["use"] == "sig");
        assert!(!kid.is_empty());
        assert!(keys.iter().any(|key| usable(&key)));
    }
    let genuine = token(seeds::HEADER.as_bytes(), seeds::POD_CLAIMS.as_bytes());
    let own = KNOWN.jwt.verification_key().jwk();
    let holds = |key: &&Value| key["kid"] == KID && key["x"] == own["x"] && key["y"] == own["y"];
    let expected = Expected { issuer: ISSUER, audience: AUDIENCE, max_life: Duration::from_secs(2 * 3600) };
    if verify_token(&genuine, &set, expected, now()).is_ok() {
        let key = keys.iter().find(holds).expect("accepted by a key that is not in the set");
        assert!(key["use"].is_null() || key["use"] == "sig");
        assert!(key["alg"].is_null() || key["alg"] == "ES256");
    }
}

/// The members of `keys`, parsed by a simple reference parser. `None` if a member that the parsers skip is JSON only in
/// grammar: half a surrogate pair, or a number out of range.
fn keys(document: &[u8]) -> Option<Vec<Value>> {
    let text = std::str::from_utf8(document).expect("accepted, and not UTF-8");
    let document: Value = serde_json::from_str(text).ok()?;
    Some(document["keys"].as_array().unwrap().clone())
}
