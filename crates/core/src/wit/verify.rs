//! Verification of a WIT-SVID against bundles (WIT-SVID, sections 2 to 4; WIMSE Workload Credentials, draft 02, sections 3 to 5).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{ConfirmationError, ConfirmationKey, TYPE};
use crate::bundle::BundleSet;
use crate::id::{IdError, SpiffeId, TrustDomain};
use crate::jws::{self, Algorithm, Compact, CompactError, JwkMembers, MAX_TOKEN_LENGTH, NumericDate, quoted};

/// How far a clock may be behind the issuer's before `nbf` is held against a token, and by how much a life may seem longer.
const LEEWAY: SignedDuration = SignedDuration::from_secs(10);

/// What a verified WIT-SVID says. Alone it authenticates nobody: whoever presents it proves to hold the key.
#[derive(Clone, Debug, PartialEq)]
pub struct WitClaims {
    /// `sub`.
    pub id: SpiffeId,
    /// `cnf.jwk`.
    pub confirmation: ConfirmationKey,
    /// `exp`.
    pub expires_at: Timestamp,
    /// `jti`.
    pub jti: Option<String>,
    /// `kid`, of the header.
    pub key_id: String,
    /// Every claim as it was signed, the registered ones among them.
    pub raw: Map<String, Value>,
}

/// Why a text is not a WIT-SVID that we trust. Never holds the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitSvidError {
    /// Longer than 16 KiB.
    #[error("WIT of {length} bytes is longer than {MAX_TOKEN_LENGTH}")]
    TooLong {
        /// Of the token, in bytes.
        length: usize,
    },
    /// Not three parts in base64url.
    #[error("WIT is not in JWS compact form: three parts in base64url without padding, joined by '.'")]
    NotCompact,
    /// The header cannot be read or holds more than it may.
    #[error("WIT's header is not a JSON object of alg, kid and typ alone")]
    Header,
    /// `alg` is not acceptable: `none`, `EdDSA` and `HS256` among others.
    #[error("WIT's alg {alg} is not one of RS, PS or ES with 256, 384 or 512")]
    Algorithm {
        /// Quoted and shortened.
        alg: String,
    },
    /// `typ` is missing or something else.
    #[error("WIT's typ {typ} is not wit+jwt")]
    Type {
        /// Quoted and shortened.
        typ: String,
    },
    /// `kid` is missing.
    #[error("WIT names no key: kid is missing")]
    NoKeyId,
    /// The claims cannot be read, one is there twice, or a required one is missing.
    #[error("WIT's claims are not a JSON object with sub, exp and cnf, each once and of its type")]
    Claims,
    /// `aud` is there: a WIT is for nobody in particular, and a token for somebody could pass as a bearer token.
    #[error("WIT has an aud, which a WIT-SVID has not")]
    Audience,
    /// `sub` is not a SPIFFE ID.
    #[error("WIT's sub: {0}")]
    Id(#[from] IdError),
    /// `sub` is the id of a trust domain.
    #[error("WIT's sub has no path; a workload's id has one")]
    IdWithoutPath,
    /// No bundle of the trust domain of `sub`.
    #[error("trust domain {0} is not trusted: there is no bundle of it")]
    UntrustedDomain(TrustDomain),
    /// No key of that id in the bundle.
    #[error("bundle of {trust_domain} has no WIT key {kid}; it may be newer than the bundle")]
    UnknownKey {
        /// Of `sub`.
        trust_domain: TrustDomain,
        /// Quoted and shortened.
        kid: String,
    },
    /// Not signed by the key that it names, or by an algorithm that does not fit that key.
    #[error("WIT's signature is not by the key that it names")]
    Signature,
    /// `exp` has passed.
    #[error("WIT expired at {0}")]
    Expired(Timestamp),
    /// It lives longer than it may.
    #[error("WIT expires at {expires_at}, later than {} s after it was issued", max_life.as_secs())]
    TooLongLived {
        /// `exp`.
        expires_at: Timestamp,
        /// The longest life that is accepted.
        max_life: Duration,
    },
    /// `nbf` is to come.
    #[error("WIT is not valid before {0}")]
    NotYetValid(Timestamp),
    /// `cnf` confirms no key that could sign a proof.
    #[error("WIT's {0}")]
    Confirmation(#[from] ConfirmationError),
}

/// Registered claims; one that is there twice is refused, as it has two readings.
#[derive(Deserialize)]
struct Registered {
    sub: String,
    exp: NumericDate,
    cnf: Confirmation,
    nbf: Option<NumericDate>,
    iat: Option<NumericDate>,
    jti: Option<String>,
    /// Only read: what is there is of its type (RFC 7519, section 4.1). Keys are never found through it (WIMSE Workload
    /// Credentials, section 3).
    #[serde(rename = "iss")]
    _iss: Option<String>,
}

/// RFC 7800, section 3.2.
#[derive(Deserialize)]
struct Confirmation {
    jwk: JwkMembers,
}

/// A token taken apart; nothing of it is trusted yet.
struct Read<'a> {
    compact: Compact<'a>,
    algorithm: Algorithm,
    claims: Registered,
    raw: Map<String, Value>,
    id: SpiffeId,
    key_id: String,
}

/// Verifies a WIT-SVID at `now`. The trust domain of `sub` alone selects the bundle, of which the WIT authorities alone are tried;
/// `iat` does not limit the earliest validity. Whoever presented it must still prove to hold [`WitClaims::confirmation`].
///
/// # Errors
/// With the first rule that the token breaks, or when it lives for longer than `max_life`: from `iat`, where it has one, and from
/// now.
pub fn verify_wit_svid(
    token: &str,
    bundles: &BundleSet,
    max_life: Duration,
    now: Timestamp,
) -> Result<WitClaims, WitSvidError> {
    let read = read(token)?;
    let trust_domain = read.id.trust_domain();
    let bundle = bundles.get(trust_domain).ok_or_else(|| WitSvidError::UntrustedDomain(trust_domain.clone()))?;
    let key = bundle
        .wit_authorities
        .iter()
        .find(|key| key.kid() == read.key_id)
        .ok_or_else(|| WitSvidError::UnknownKey { trust_domain: trust_domain.clone(), kid: quoted(&read.key_id) })?;
    read.compact.verify(key.verifier(), read.algorithm).map_err(|_| WitSvidError::Signature)?;

    read.claims.check_expiry(now)?;
    let expires_at = read.claims.exp.0;
    let max = SignedDuration::try_from(max_life).unwrap_or(SignedDuration::MAX);
    let is_longer = |from: Timestamp, max: SignedDuration| expires_at.duration_since(from) > max;
    if is_longer(now, max.saturating_add(LEEWAY)) || read.claims.iat.is_some_and(|iat| is_longer(iat.0, max)) {
        return Err(WitSvidError::TooLongLived { expires_at, max_life });
    }
    read.claims.check_begin(now)?;
    read.into_claims()
}

/// Reads a WIT-SVID without verifying it: for a workload that got it from its own Workload API.
///
/// # Errors
/// With the first rule that the token breaks by its form.
pub fn read_wit_svid(token: &str) -> Result<WitClaims, WitSvidError> {
    read(token)?.into_claims()
}

/// Every rule that a WIT-SVID breaks at `now` by its form and its times. None: only its signature is left to verify, and that its life
/// is not longer than is accepted.
pub fn wit_svid_faults(token: &str, now: Timestamp) -> Vec<WitSvidError> {
    let compact = match Compact::parse(token) {
        Ok(compact) => compact,
        Err(error) => return vec![error.into()],
    };
    let header = [algorithm(&compact).err(), check_type(&compact).err(), key_id(&compact).err()];
    let claims = match read_claims(&compact) {
        Ok((claims, raw)) => {
            let time = claims.check_expiry(now).and_then(|()| claims.check_begin(now));
            [check_no_audience(&raw).err(), claims.id().err(), claims.confirmation(&raw).err(), time.err()]
        }
        Err(error) => [Some(error), None, None, None],
    };
    header.into_iter().chain(claims).flatten().collect()
}

impl Read<'_> {
    fn into_claims(self) -> Result<WitClaims, WitSvidError> {
        let Self { claims, raw, id, key_id, .. } = self;
        let confirmation = claims.confirmation(&raw)?;
        Ok(WitClaims { id, confirmation, expires_at: claims.exp.0, jti: claims.jti, key_id, raw })
    }
}

/// What the specifications ask of the form, but for `cnf`.
fn read(token: &str) -> Result<Read<'_>, WitSvidError> {
    let compact = Compact::parse(token)?;
    let algorithm = algorithm(&compact)?;
    check_type(&compact)?;
    let key_id = key_id(&compact)?;
    let (claims, raw) = read_claims(&compact)?;
    check_no_audience(&raw)?;
    let id = claims.id()?;
    Ok(Read { compact, algorithm, claims, raw, id, key_id })
}

fn algorithm(compact: &Compact<'_>) -> Result<Algorithm, WitSvidError> {
    Algorithm::from_name(&compact.header.alg)
        .ok_or_else(|| WitSvidError::Algorithm { alg: quoted(&compact.header.alg) })
}

fn check_type(compact: &Compact<'_>) -> Result<(), WitSvidError> {
    match compact.header.typ.as_deref() {
        Some(TYPE) => Ok(()),
        other => Err(WitSvidError::Type { typ: quoted(other.unwrap_or_default()) }),
    }
}

fn key_id(compact: &Compact<'_>) -> Result<String, WitSvidError> {
    compact.header.kid.clone().ok_or(WitSvidError::NoKeyId)
}

fn read_claims(compact: &Compact<'_>) -> Result<(Registered, Map<String, Value>), WitSvidError> {
    let claims = jws::read_object(&compact.payload).ok_or(WitSvidError::Claims)?;
    let raw = jws::read_object(&compact.payload).ok_or(WitSvidError::Claims)?;
    Ok((claims, raw))
}

fn check_no_audience(raw: &Map<String, Value>) -> Result<(), WitSvidError> {
    if raw.contains_key("aud") { Err(WitSvidError::Audience) } else { Ok(()) }
}

impl Registered {
    fn id(&self) -> Result<SpiffeId, WitSvidError> {
        let id: SpiffeId = self.sub.parse()?;
        if id.path().is_empty() { Err(WitSvidError::IdWithoutPath) } else { Ok(id) }
    }

    fn check_expiry(&self, now: Timestamp) -> Result<(), WitSvidError> {
        let expires_at = self.exp.0;
        if expires_at <= now { Err(WitSvidError::Expired(expires_at)) } else { Ok(()) }
    }

    fn check_begin(&self, now: Timestamp) -> Result<(), WitSvidError> {
        let latest = now.saturating_add(LEEWAY).unwrap_or(Timestamp::MAX);
        match self.nbf {
            Some(NumericDate(not_before)) if not_before > latest => Err(WitSvidError::NotYetValid(not_before)),
            _ => Ok(()),
        }
    }

    fn confirmation(&self, raw: &Map<String, Value>) -> Result<ConfirmationKey, WitSvidError> {
        // Read as members, each of which is there once; as an object, which a struct could be read from other than.
        let jwk = raw.get("cnf").and_then(Value::as_object).and_then(|cnf| cnf.get("jwk")).and_then(Value::as_object);
        if jwk.ok_or(ConfirmationError::Malformed)?.contains_key("d") {
            return Err(ConfirmationError::Private.into());
        }
        Ok(ConfirmationKey::new(&self.cnf.jwk)?)
    }
}

impl From<CompactError> for WitSvidError {
    fn from(error: CompactError) -> Self {
        match error {
            CompactError::TooLong { length } => Self::TooLong { length },
            CompactError::NotCompact => Self::NotCompact,
            CompactError::Header => Self::Header,
        }
    }
}
