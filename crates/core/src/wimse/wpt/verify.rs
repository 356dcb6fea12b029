//! Verification of a Workload Proof Token (draft-ietf-wimse-wpt-02, section 2).

use jiff::Timestamp;

use super::claims::ReadClaims;
use super::{SCHEME, TYPE, WptError, token_hash};
use crate::jws::{self, Compact, quoted};
use crate::wimse::credential::verify_wit;
use crate::wimse::message::{lines, single};
use crate::wimse::replay::ProofKind;
use crate::wimse::{
    AUTHORIZATION_FIELD, Policy, Proven, ReplayCache, ReplayKey, Request, Seen, TXN_TOKEN_FIELD, WIT_FIELD, later,
};

/// The field of draft 01.
const OLD_FIELD: &str = "workload-proof-token";
/// The fewest characters of `jti`: a printable one of ASCII holds less than 6.6 bits, and 128 are needed.
const SHORTEST_JTI: usize = 20;

/// Verifies who sent `request`: its WIT, and the Workload Proof Token in `Authorization`, which is remembered in `replays` once
/// everything else is verified. Method, query and body may have been changed on the way.
///
/// # Errors
/// With the first rule that the request breaks.
pub fn verify_wpt(
    request: &Request<'_>,
    policy: &Policy<'_>,
    replays: &(impl ReplayCache + ?Sized),
    now: Timestamp,
) -> Result<Proven, WptError> {
    let token = proof(request)?;
    let (wit, wit_text) = verify_wit(request.fields, policy, now)?;

    let compact = Compact::parse(token)?;
    match compact.header.typ.as_deref() {
        Some(TYPE) => {}
        other => return Err(WptError::Type { typ: quoted(other.unwrap_or_default()) }),
    }
    let expected = wit.confirmation.algorithm();
    if compact.header.alg != expected {
        return Err(WptError::Algorithm { alg: quoted(&compact.header.alg), expected });
    }
    wit.confirmation.verify_token(&compact).map_err(|_| WptError::Signature)?;
    let claims: ReadClaims<'_> = jws::read_object(&compact.payload).ok_or(WptError::Claims)?;

    if claims.ath.is_some() {
        return Err(WptError::OldClaim);
    }
    let [audience] = claims.aud.as_slice() else {
        return Err(WptError::Audience { aud: format!("of {} values", claims.aud.len()) });
    };
    if !policy.is_addressed(audience, request.path) {
        return Err(WptError::Audience { aud: quoted(audience) });
    }
    check_times(&claims, policy, now)?;
    if claims.wth != token_hash(wit_text.as_bytes()) {
        return Err(WptError::WitHash);
    }
    let bound = check_bound(request, &claims, policy)?;
    if claims.jti.len() < SHORTEST_JTI {
        return Err(WptError::TokenId { length: claims.jti.len() });
    }

    let key = ReplayKey::new(&wit.confirmation, ProofKind::Wpt, &claims.jti);
    match replays.remember(&key, claims.exp.0, now)? {
        Seen::First => {}
        Seen::Again => return Err(WptError::Replayed),
    }
    Ok(Proven { wit, audience: Some(audience.clone()), expires_at: claims.exp.0, bound })
}

/// The credentials of the only `Authorization`: `"WPT" 1*SP token68`, the scheme in any case.
fn proof<'a>(request: &Request<'a>) -> Result<&'a str, WptError> {
    if lines(request.fields, OLD_FIELD).next().is_some() {
        return Err(WptError::OldField);
    }
    let field = single(request.fields, AUTHORIZATION_FIELD)
        .map_err(|_| WptError::RepeatedAuthorization)?
        .ok_or(WptError::NoAuthorization)?;
    let text = std::str::from_utf8(field).map_err(|_| WptError::Scheme)?;
    let (scheme, token) = text.split_once(' ').ok_or(WptError::Scheme)?;
    let token = token.trim_start_matches(' ');
    // Several lines may have been joined by commas on the way (RFC 9110, section 5.3).
    let is_one = !token.is_empty() && !token.contains([',', ' ', '\t']);
    if scheme.eq_ignore_ascii_case(SCHEME) && is_one { Ok(token) } else { Err(WptError::Scheme) }
}

fn check_times(claims: &ReadClaims<'_>, policy: &Policy<'_>, now: Timestamp) -> Result<(), WptError> {
    let expires_at = claims.exp.0;
    if expires_at <= now {
        return Err(WptError::Expired(expires_at));
    }
    let latest_start = later(now, policy.skew);
    if expires_at > later(latest_start, policy.max_proof_life) {
        return Err(WptError::TooLongLived(expires_at));
    }
    match claims.nbf {
        Some(not_before) if not_before.0 > latest_start => Err(WptError::NotYetValid(not_before.0)),
        _ => Ok(()),
    }
}

/// The names of the fields that the proof binds.
fn check_bound(request: &Request<'_>, claims: &ReadClaims<'_>, policy: &Policy<'_>) -> Result<Vec<String>, WptError> {
    let mut bound = vec![WIT_FIELD.to_owned()];
    let txn_token = single(request.fields, TXN_TOKEN_FIELD).map_err(|_| WptError::RepeatedTxnToken)?;
    if claims.tth != txn_token.map(token_hash) {
        return Err(WptError::TxnTokenHash);
    }
    bound.extend(txn_token.map(|_| TXN_TOKEN_FIELD.to_owned()));

    let failed = |name: &str| WptError::OtherToken { name: quoted(name) };
    if let Some(unknown) = claims.oth.0.keys().find(|name| !policy.context_fields.contains(&name.as_str())) {
        return Err(failed(unknown));
    }
    for name in policy.context_fields {
        let field = single(request.fields, name).map_err(|_| failed(name))?;
        if claims.oth.0.get(*name) != field.map(token_hash).as_ref() {
            return Err(failed(name));
        }
        bound.extend(field.map(|_| (*name).to_owned()));
    }
    Ok(bound)
}
