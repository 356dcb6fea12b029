//! Making a Workload Proof Token (draft-ietf-wimse-wpt-02, section 2).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use super::claims::Claims;
use super::{SCHEME, TYPE, token_hash};
use crate::jws::{MAX_TOKEN_LENGTH, SignError, encode, sign_compact};
use crate::key::{KeyError, Signer};
use crate::wit::{WitSvidError, read_wit_svid};

/// What a proof is to say.
#[derive(Clone, Copy)]
pub struct WptRequest<'a> {
    /// The WIT that goes with it, as it is sent.
    pub wit: &'a str,
    /// The target URI of the request, without query and fragment, or what else the recipient is addressed by.
    pub audience: &'a str,
    /// The transaction token of the request, as it is sent.
    pub txn_token: Option<&'a str>,
    /// Other tokens of the request that convey context: names of fields and values as they are sent, each name once.
    pub other_tokens: &'a [(&'a str, &'a str)],
    /// From now; whole seconds.
    pub life: Duration,
    /// Random, and used for this proof alone.
    pub jti: [u8; 16],
}

/// Why no proof was made. Never holds a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakeWptError {
    /// The WIT cannot be read.
    #[error(transparent)]
    Wit(#[from] WitSvidError),
    /// The WIT has expired, and with it the right to use its key (draft-ietf-wimse-workload-creds-02, section 9.4).
    #[error("WIT expired at {0}; get a new one from the Workload API")]
    Expired(Timestamp),
    /// The key is not the one of the WIT.
    #[error("the key is not the one of the WIT's cnf, or signs by another algorithm")]
    KeyMismatch,
    /// The audience is empty, or has a query or a fragment.
    #[error("the audience is empty, or has a query or fragment, which a proof does not bind")]
    Audience,
    /// Two other tokens are in fields of one name.
    #[error("two tokens are in fields of one name, which a proof cannot bind")]
    RepeatedField,
    /// Less than a second, or beyond time.
    #[error("lifetime is shorter than a second or ends after the year 9999")]
    Lifetime,
    /// Longer than what verifiers look at.
    #[error("proof would be longer than {MAX_TOKEN_LENGTH} bytes")]
    TooLong,
    /// The key did not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
}

/// The value of `Authorization` that proves possession of `key`, the private half of the WIT's `cnf`: the scheme and the token. Keep
/// it from logs: anybody who has it and the WIT can send another request in its time (draft-ietf-wimse-wpt-02, section 3.1).
///
/// # Errors
/// When the WIT, the key, the audience or the lifetime is not acceptable, or signing fails.
pub fn make_wpt(key: &dyn Signer, request: &WptRequest<'_>, now: Timestamp) -> Result<Zeroizing<String>, MakeWptError> {
    let wit = read_wit_svid(request.wit)?;
    if wit.expires_at <= now {
        return Err(MakeWptError::Expired(wit.expires_at));
    }
    if !wit.confirmation.is_of(key) {
        return Err(MakeWptError::KeyMismatch);
    }
    if request.audience.is_empty() || request.audience.contains(['?', '#']) {
        return Err(MakeWptError::Audience);
    }
    let life = i64::try_from(request.life.as_secs()).ok().filter(|life| *life > 0).ok_or(MakeWptError::Lifetime)?;
    let exp = now.as_second().checked_add(life).ok_or(MakeWptError::Lifetime)?;
    Timestamp::from_second(exp).map_err(|_| MakeWptError::Lifetime)?;
    let mut claims = Claims {
        aud: request.audience,
        exp,
        jti: &URL_SAFE_NO_PAD.encode(request.jti),
        wth: token_hash(request.wit.as_bytes()),
        tth: request.txn_token.map(|token| token_hash(token.as_bytes())),
        oth: Default::default(),
    };
    for (name, value) in request.other_tokens {
        let hash = token_hash(value.trim_matches(' ').as_bytes());
        if claims.oth.insert(name.to_ascii_lowercase(), hash).is_some() {
            return Err(MakeWptError::RepeatedField);
        }
    }
    let header = encode(&Header { alg: wit.confirmation.algorithm(), typ: TYPE });
    let token = sign_compact(key, &header, &claims).map_err(|error| match error {
        SignError::TooLong => MakeWptError::TooLong,
        SignError::Key(error) => error.into(),
    })?;
    let mut value = Zeroizing::new(String::with_capacity(SCHEME.len() + 1 + token.len()));
    value.push_str(SCHEME);
    value.push(' ');
    value.push_str(&token);
    Ok(value)
}
