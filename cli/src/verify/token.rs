//! A JWT-SVID or a WIT-SVID. Pure.

use std::time::Duration;

use countersign_core::{
    jwt::{JwtSvidError, jwt_svid_faults, verify_jwt_svid},
    token::UnverifiedToken,
    wit::{self, WitSvidError, verify_wit_svid, wit_svid_faults},
};
use countersign_reasons::Reason;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Asked,
    chain::no_bundle,
    report::{Subject, Token},
};
use crate::{
    finding::Finding,
    output::printable,
    times::{moment, span},
};

/// A WIT-SVID lives at most a day, as the API has it.
const LONGEST_WIT: Duration = Duration::from_secs(24 * 3600);

pub(super) fn examine(text: &str, asked: &Asked) -> (Subject, Vec<Finding>) {
    let read = match UnverifiedToken::parse(text) {
        Ok(read) => read,
        Err(error) => {
            let message = format!("it begins as a token, and {error}");
            let finding = Finding::failed("input", Reason::InputUnrecognized, message)
                .with_mend("copy the whole token: three parts, without line breaks");
            return (Subject::Nothing, vec![finding]);
        }
    };
    let is_wit = read.header.get("typ").and_then(Value::as_str) == Some(wit::TYPE);
    let mut findings = if is_wit { wit(text, &read, asked) } else { jwt(text, &read, asked) };
    findings.push(audience(&read, is_wit, asked));
    (Subject::Token(Token::new(read, is_wit)), findings)
}

fn jwt(text: &str, read: &UnverifiedToken, asked: &Asked) -> Vec<Finding> {
    let is_of_time = |fault: &JwtSvidError| matches!(fault, JwtSvidError::Expired(_) | JwtSvidError::NotYetValid(_));
    let faults = jwt_svid_faults(text, asked.now);
    let form = faults.iter().filter(|fault| !is_of_time(fault)).map(ToString::to_string).collect();
    let trust = || {
        // The audience is looked at apart: any that the token names lets the rest be verified.
        let own = audiences(read).into_iter().next().unwrap_or_default();
        match verify_jwt_svid(text, &own, &asked.anchors.set, asked.now) {
            Ok(_) | Err(JwtSvidError::Expired(_) | JwtSvidError::NotYetValid(_) | JwtSvidError::Audience { .. }) => {
                Ok(())
            }
            Err(JwtSvidError::UntrustedDomain(domain)) => Err(no_bundle(&domain, asked)),
            Err(
                error @ (JwtSvidError::UnknownKey { .. }
                | JwtSvidError::NoKeyFits { .. }
                | JwtSvidError::TooManyKeysFit { .. }),
            ) => Err(unknown_key(&error.to_string())),
            Err(JwtSvidError::Signature) => Err(not_signed(&JwtSvidError::Signature.to_string())),
            Err(error) => Err(broken("trust", &error.to_string())),
        }
    };
    judge(read, "a JWT-SVID", form, trust, asked)
}

fn wit(text: &str, read: &UnverifiedToken, asked: &Asked) -> Vec<Finding> {
    let is_of_time = |fault: &WitSvidError| matches!(fault, WitSvidError::Expired(_) | WitSvidError::NotYetValid(_));
    let faults = wit_svid_faults(text, asked.now);
    let form = faults.iter().filter(|fault| !is_of_time(fault)).map(ToString::to_string).collect();
    let trust = || match verify_wit_svid(text, &asked.anchors.set, LONGEST_WIT, asked.now) {
        Ok(_) | Err(WitSvidError::Expired(_) | WitSvidError::NotYetValid(_)) => Ok(()),
        Err(WitSvidError::UntrustedDomain(domain)) => Err(no_bundle(&domain, asked)),
        Err(error @ WitSvidError::UnknownKey { .. }) => Err(unknown_key(&error.to_string())),
        Err(WitSvidError::Signature) => Err(not_signed(&WitSvidError::Signature.to_string())),
        Err(error) => Err(broken("trust", &error.to_string())),
    };
    judge(read, "a WIT-SVID", form, trust, asked)
}

fn judge(
    read: &UnverifiedToken,
    kind: &str,
    form: Vec<String>,
    trust: impl FnOnce() -> Result<(), Finding>,
    asked: &Asked,
) -> Vec<Finding> {
    let is_well_formed = form.is_empty();
    let mut findings: Vec<Finding> = form.iter().map(|fault| broken("form", fault)).collect();
    if is_well_formed {
        findings.push(Finding::ok("form", format!("it keeps the rules of {kind}")));
    }
    findings.extend(validity(read, asked.now));
    findings.push(match (is_well_formed, asked.anchors.are_given) {
        (false, _) => Finding::skipped("trust", format!("not looked at: what is not {kind} is trusted by nobody")),
        (true, false) => Finding::skipped("trust", "no bundle was given: add --bundle FILE, or --cluster"),
        (true, true) => trust().map_or_else(
            |finding| finding,
            |()| {
                let key =
                    text(read.header.get("kid")).map_or_else(String::new, |kid| format!(", key {}", printable(&kid)));
                Finding::ok("trust", format!("signed by an authority of its trust domain{key}"))
            },
        ),
    });
    findings
}

fn validity(read: &UnverifiedToken, now: Timestamp) -> Option<Finding> {
    // Without an expiry it breaks a rule of its form.
    let until = time(read, "exp")?;
    let from = time(read, "nbf").filter(|from| *from > now);
    if until <= now {
        let message = format!("it expired at {}, {} ago", moment(until), span(now.duration_since(until)));
        return Some(
            Finding::failed("validity", Reason::SVIDExpired, message)
                .with_mend("ask the Workload API for a new one, and never keep a token longer than until its exp"),
        );
    }
    if let Some(from) = from {
        let message = format!("it is not valid before {}, in {}", moment(from), span(from.duration_since(now)));
        return Some(
            Finding::failed("validity", Reason::SVIDNotYetValid, message)
                .with_mend("compare the clocks of this machine and of the issuer"),
        );
    }
    Some(Finding::ok("validity", format!("valid for {} more", span(until.duration_since(now)))))
}

fn audience(read: &UnverifiedToken, is_wit: bool, asked: &Asked) -> Finding {
    let named = audiences(read);
    match &asked.audience {
        _ if is_wit => {
            Finding::skipped("audience", "a WIT-SVID has none: it is worth nothing without the key that it names")
        }
        None => Finding::skipped("audience", "not looked at: add --audience with the name of the service that gets it"),
        Some(wanted) if named.contains(wanted) => Finding::ok("audience", format!("it is for {wanted}")),
        Some(wanted) => {
            let message = format!("it is not for {wanted}, but for {}", printable(&named.join(", ")));
            Finding::failed("audience", Reason::AudienceDiffers, message)
                .with_mend(format!("ask for a token with the audience {wanted}"))
        }
    }
}

fn broken(about: &str, message: &str) -> Finding {
    Finding::failed(about, Reason::SVIDRuleBroken, printable(message))
}

fn unknown_key(message: &str) -> Finding {
    Finding::failed("trust", Reason::SigningKeyUnknown, printable(message))
        .with_mend("get a newer bundle; if the authority was revoked, the token is worthless")
}

fn not_signed(message: &str) -> Finding {
    Finding::failed("trust", Reason::NotSignedByAuthority, message)
        .with_mend("it was changed after it was signed, or somebody else signed it: do not accept it")
}

/// A claim that is a time.
pub(super) fn time(read: &UnverifiedToken, claim: &str) -> Option<Timestamp> {
    let value = read.claims.get(claim)?;
    let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds.floor() as i64))?;
    Timestamp::from_second(seconds).ok()
}

/// `aud`: one text or a list of them.
pub(super) fn audiences(read: &UnverifiedToken) -> Vec<String> {
    match read.claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

pub(super) fn text(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).map(str::to_owned)
}
