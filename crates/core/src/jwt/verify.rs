//! Verification of a JWT-SVID against bundles (JWT-SVID, section 5).

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::bundle::BundleSet;
use crate::id::{IdError, SpiffeId, TrustDomain};
use crate::jws::{self, Algorithm, Compact, CompactError, MAX_TOKEN_LENGTH, NumericDate, quoted};

/// How far a clock may be behind the issuer's before `nbf` is held against a token.
const NOT_BEFORE_LEEWAY: Duration = Duration::from_secs(10);

/// How many keys are tried for a token that names none: each is a signature to verify, for whoever sends a token.
const KEYS_TRIED: usize = 32;

/// What a verified JWT-SVID says.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtClaims {
    /// `sub`.
    pub id: SpiffeId,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `exp`.
    pub expires_at: Timestamp,
    /// `kid`, of the header.
    pub key_id: Option<String>,
    /// Every claim as it was signed, the registered ones among them.
    pub raw: Map<String, Value>,
}

/// Why a text is not a JWT-SVID that we trust. Never holds the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtSvidError {
    /// Longer than 16 KiB.
    #[error("token of {length} bytes is longer than {MAX_TOKEN_LENGTH}")]
    TooLong {
        /// Of the token, in bytes.
        length: usize,
    },
    /// Not three parts in base64url.
    #[error("token is not in JWS compact form: three parts in base64url without padding, joined by '.'")]
    NotCompact,
    /// The header cannot be read or holds more than it may.
    #[error("token's header is not a JSON object of alg, kid and typ alone")]
    Header,
    /// `alg` is not acceptable: `none` and `HS256` among others.
    #[error("token's alg {alg} is not one of RS, PS or ES with 256, 384 or 512")]
    Algorithm {
        /// Quoted and shortened.
        alg: String,
    },
    /// `typ` is something else.
    #[error("token's typ {typ} is neither JWT nor JOSE")]
    Type {
        /// Quoted and shortened.
        typ: String,
    },
    /// The claims cannot be read, one is there twice, or a required one is missing.
    #[error("token's claims are not a JSON object with sub, aud and exp, each once and of its type")]
    Claims,
    /// `sub` is not a SPIFFE ID.
    #[error("token's sub: {0}")]
    Id(#[from] IdError),
    /// No bundle of the trust domain of `sub`.
    #[error("trust domain {0} is not trusted: there is no bundle of it")]
    UntrustedDomain(TrustDomain),
    /// No key of that id in the bundle.
    #[error("bundle of {trust_domain} has no JWT key {kid}; it may be newer than the bundle")]
    UnknownKey {
        /// Of `sub`.
        trust_domain: TrustDomain,
        /// Quoted and shortened.
        kid: String,
    },
    /// The token names no key, and none of the bundle fits its algorithm.
    #[error("token names no key, and the bundle of {trust_domain} has no JWT key for its alg {alg}")]
    NoKeyFits {
        /// Of `sub`.
        trust_domain: TrustDomain,
        /// Quoted and shortened.
        alg: String,
    },
    /// The token names no key, and more keys fit than are tried.
    #[error(
        "token names no key, and {found} JWT keys of the bundle of {trust_domain} fit its alg, of which at most {KEYS_TRIED} are \
         tried: have it issued with a kid"
    )]
    TooManyKeysFit {
        /// Of `sub`.
        trust_domain: TrustDomain,
        /// How many fit.
        found: usize,
    },
    /// Not signed by the key that it names, or by an algorithm that does not fit that key; of a token that names none: by no
    /// key of the bundle.
    #[error("token's signature is not by the key that it names, or, where it names none, by no key of the bundle")]
    Signature,
    /// `exp` has passed.
    #[error("token expired at {0}")]
    Expired(Timestamp),
    /// `nbf` is to come.
    #[error("token is not valid before {0}")]
    NotYetValid(Timestamp),
    /// `aud` does not name us.
    #[error("token is not for the audience {expected:?}")]
    Audience {
        /// Ours.
        expected: String,
    },
}

/// Registered claims; one that is there twice is refused, as it has two readings.
#[derive(Deserialize)]
struct Registered {
    sub: String,
    #[serde(deserialize_with = "jws::audiences")]
    aud: Vec<String>,
    exp: NumericDate,
    nbf: Option<NumericDate>,
    /// These are only read: what is there is of its type (RFC 7519, section 4.1).
    #[serde(rename = "iat")]
    _iat: Option<NumericDate>,
    #[serde(rename = "iss")]
    _iss: Option<String>,
    #[serde(rename = "jti")]
    _jti: Option<String>,
}

/// Verifies a token for `audience` at `now`. The trust domain of `sub` alone selects the bundle. Of a token without `kid`, which
/// is optional (JWT-SVID, section 2.2), every key of the bundle that fits its algorithm is tried.
///
/// # Errors
/// With the first rule of JWT-SVID that the token breaks.
pub fn verify_jwt_svid(
    token: &str,
    audience: &str,
    bundles: &BundleSet,
    now: Timestamp,
) -> Result<JwtClaims, JwtSvidError> {
    let Read { compact, algorithm, claims, id } = read(token)?;
    let trust_domain = id.trust_domain();
    let bundle = bundles.get(trust_domain).ok_or_else(|| JwtSvidError::UntrustedDomain(trust_domain.clone()))?;
    let unknown = |kid| JwtSvidError::UnknownKey { trust_domain: trust_domain.clone(), kid: quoted(kid) };
    let keys: Vec<_> = match compact.header.kid.as_deref() {
        Some(kid) => vec![bundle.jwt_authorities.iter().find(|key| key.kid() == kid).ok_or_else(|| unknown(kid))?],
        None => bundle.jwt_authorities.iter().filter(|key| key.verifier().fits(algorithm)).collect(),
    };
    match keys.len() {
        0 => {
            let alg = quoted(&compact.header.alg);
            return Err(JwtSvidError::NoKeyFits { trust_domain: trust_domain.clone(), alg });
        }
        1..=KEYS_TRIED => {}
        found => return Err(JwtSvidError::TooManyKeysFit { trust_domain: trust_domain.clone(), found }),
    }
    if !keys.iter().any(|key| compact.verify(key.verifier(), algorithm).is_ok()) {
        return Err(JwtSvidError::Signature);
    }

    claims.check_times(now)?;
    if !claims.aud.iter().any(|named| named == audience) {
        return Err(JwtSvidError::Audience { expected: audience.to_owned() });
    }
    Read { compact, algorithm, claims, id }.into_claims()
}

/// Reads a token without verifying it: for a workload that got it from its own Workload API and asks when it ends.
///
/// # Errors
/// With the first rule of JWT-SVID that the token breaks by its form.
pub fn read_jwt_svid(token: &str) -> Result<JwtClaims, JwtSvidError> {
    read(token)?.into_claims()
}

/// Every rule that a token breaks at `now` by its form and its times. None: only its signature and its audience are left to verify.
pub fn jwt_svid_faults(token: &str, now: Timestamp) -> Vec<JwtSvidError> {
    let compact = match Compact::parse(token) {
        Ok(compact) => compact,
        Err(error) => return vec![error.into()],
    };
    let header = [algorithm(&compact).err(), check_type(&compact).err()];
    let claims = match read_claims(&compact) {
        Ok(claims) => [claims.id().err(), claims.check_times(now).err()],
        Err(error) => [Some(error), None],
    };
    header.into_iter().chain(claims).flatten().collect()
}

/// A token taken apart; nothing of it is trusted yet.
struct Read<'a> {
    compact: Compact<'a>,
    algorithm: Algorithm,
    claims: Registered,
    id: SpiffeId,
}

impl Read<'_> {
    fn into_claims(self) -> Result<JwtClaims, JwtSvidError> {
        let Self { compact, claims, id, .. } = self;
        let raw = serde_json::from_slice(&compact.payload).map_err(|_| JwtSvidError::Claims)?;
        Ok(JwtClaims { id, audiences: claims.aud, expires_at: claims.exp.0, key_id: compact.header.kid, raw })
    }
}

/// What JWT-SVID, sections 2 and 3, asks of the form.
fn read(token: &str) -> Result<Read<'_>, JwtSvidError> {
    let compact = Compact::parse(token)?;
    let algorithm = algorithm(&compact)?;
    check_type(&compact)?;
    let claims = read_claims(&compact)?;
    let id = claims.id()?;
    Ok(Read { compact, algorithm, claims, id })
}

fn algorithm(compact: &Compact<'_>) -> Result<Algorithm, JwtSvidError> {
    Algorithm::from_name(&compact.header.alg)
        .ok_or_else(|| JwtSvidError::Algorithm { alg: quoted(&compact.header.alg) })
}

fn check_type(compact: &Compact<'_>) -> Result<(), JwtSvidError> {
    match compact.header.typ.as_deref() {
        None | Some("JWT" | "JOSE") => Ok(()),
        Some(typ) => Err(JwtSvidError::Type { typ: quoted(typ) }),
    }
}

fn read_claims(compact: &Compact<'_>) -> Result<Registered, JwtSvidError> {
    jws::read_object(&compact.payload).ok_or(JwtSvidError::Claims)
}

impl Registered {
    fn id(&self) -> Result<SpiffeId, JwtSvidError> {
        Ok(self.sub.parse()?)
    }

    fn check_times(&self, now: Timestamp) -> Result<(), JwtSvidError> {
        if self.exp.0 <= now {
            return Err(JwtSvidError::Expired(self.exp.0));
        }
        let latest = now.saturating_add(NOT_BEFORE_LEEWAY).unwrap_or(Timestamp::MAX);
        match self.nbf {
            Some(NumericDate(not_before)) if not_before > latest => Err(JwtSvidError::NotYetValid(not_before)),
            _ => Ok(()),
        }
    }
}

impl From<CompactError> for JwtSvidError {
    fn from(error: CompactError) -> Self {
        match error {
            CompactError::TooLong { length } => Self::TooLong { length },
            CompactError::NotCompact => Self::NotCompact,
            CompactError::Header => Self::Header,
        }
    }
}
