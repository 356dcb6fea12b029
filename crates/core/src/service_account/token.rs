//! Verification of one token.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::ClusterJwks;
use crate::jws::{self, Algorithm, Compact, CompactError, MAX_TOKEN_LENGTH, NumericDate, quoted};

/// How far a clock may be behind the API server's before `nbf` and `iat` are held against a token.
/// For `exp` there is none.
const NOT_BEFORE_LEEWAY: Duration = Duration::from_secs(10);

/// Who a verified token says its bearer is: one pod, running as one service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodToken {
    /// Of the pod and its service account.
    pub namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's uid.
    pub pod_uid: String,
    /// The service account's name.
    pub service_account: String,
    /// The service account's uid.
    pub service_account_uid: String,
    /// The node the pod is bound to. A pod stays on its node, so this is where it runs.
    pub node: Node,
    /// `exp`.
    pub expires_at: Timestamp,
    /// The token's own id, where it has one.
    pub jti: Option<String>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Option<String>,
}

/// Why a token is refused. Never holds the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than 16 KiB.
    #[error("service account token of {length} bytes is longer than {MAX_TOKEN_LENGTH}")]
    TooLong {
        /// Of the token, in bytes.
        length: usize,
    },
    /// Not a JWS in compact form.
    #[error("service account token is not a JWS in compact form, or its header holds more than alg, kid and typ")]
    Malformed,
    /// `alg` is not acceptable: `none` and `HS256` among others.
    #[error("service account token's alg {alg} is not RS256, ES256 or ES384")]
    Algorithm {
        /// Quoted and shortened.
        alg: String,
    },
    /// `kid` is missing.
    #[error("service account token's header has no kid")]
    NoKeyId,
    /// The cluster's keys, as last fetched, have none of this id: fetch them again.
    #[error("service account token's key {kid} is not among the cluster's keys; they may have been rotated")]
    UnknownKey {
        /// Quoted and shortened.
        kid: String,
    },
    /// Not signed by the key it names.
    #[error("service account token's signature is not by the cluster's key that it names")]
    Signature,
    /// The claims cannot be read, one is there twice, or a required one is missing.
    #[error("service account token's claims are not those of a Kubernetes service account token")]
    Claims,
    /// Of another issuer.
    #[error("service account token is not of the issuer {expected:?}; it is of another cluster")]
    Issuer {
        /// The cluster's.
        expected: String,
    },
    /// Not for us, or not for us alone.
    #[error("service account token has {count} audiences; it must have exactly one, {expected:?}")]
    Audience {
        /// Ours.
        expected: String,
        /// How many it has.
        count: usize,
    },
    /// `exp` has passed.
    #[error(
        "service account token expired at {at}, and here it is {now}; read the projected file again, which the kubelet renews, and \
         if that is no help compare the clocks"
    )]
    Expired {
        /// Its `exp`.
        at: Timestamp,
        /// The time by which it was judged.
        now: Timestamp,
    },
    /// `nbf` or `iat` is to come.
    #[error("service account token is not valid before {0}; check the clocks")]
    NotYetValid(Timestamp),
    /// `iat` is missing, so its life cannot be judged.
    #[error("service account token has no iat; use the token projected into the pod")]
    NoIssuedAt,
    /// It lives longer than is accepted.
    #[error(
        "service account token lives {life:?}, longer than the {most:?} that the operator accepts (--max-token-life); use the \
         token projected into the pod"
    )]
    LivesTooLong {
        /// From `iat` to `exp`.
        life: Duration,
        /// The longest life that is accepted.
        most: Duration,
    },
    /// It names no node: it was made before the pod was scheduled, so nobody on a node could have asked for it.
    #[error(
        "service account token names no node; it was requested before its pod was scheduled: use the token projected into the pod"
    )]
    NoNode,
    /// Bound to no pod.
    #[error("service account token is not bound to a pod; use the token projected into the pod")]
    NotBoundToPod,
    /// `sub` is not the account named beside the pod.
    #[error("service account token's sub is not the account in its kubernetes.io claim")]
    Subject,
}

/// Registered claims; one that is there twice is refused, as it has two readings.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    #[serde(deserialize_with = "jws::audiences")]
    aud: Vec<String>,
    exp: NumericDate,
    nbf: Option<NumericDate>,
    iat: Option<NumericDate>,
    jti: Option<String>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    pod: Option<Object>,
    serviceaccount: Object,
    node: Option<Node>,
}

#[derive(Deserialize)]
struct Object {
    name: String,
    uid: String,
}

/// What a token must be to be accepted, besides genuine and in time.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The cluster's token issuer (`iss`).
    pub issuer: &'a str,
    /// The one audience.
    pub audience: &'a str,
    /// The longest life, from `iat` to `exp`. Whoever may request tokens chooses their life; the API server has no limit of
    /// its own unless it is told one.
    pub max_life: Duration,
}

/// Verifies a token at `now`.
///
/// # Errors
/// With the first rule that it breaks; [`TokenError::UnknownKey`] asks for a newer key set.
pub fn verify_token(
    token: &str,
    jwks: &ClusterJwks,
    expected: Expected<'_>,
    now: Timestamp,
) -> Result<PodToken, TokenError> {
    let compact = Compact::parse(token)?;
    let algorithm = match Algorithm::from_name(&compact.header.alg) {
        Some(algorithm @ (Algorithm::Rs256 | Algorithm::Es256 | Algorithm::Es384)) => algorithm,
        _ => {
            return Err(TokenError::Algorithm { alg: quoted(&compact.header.alg) });
        }
    };
    if !matches!(compact.header.typ.as_deref(), None | Some("JWT")) {
        return Err(TokenError::Malformed);
    }
    let kid = compact.header.kid.as_deref().filter(|kid| !kid.is_empty()).ok_or(TokenError::NoKeyId)?;
    let key = jwks.get(kid).ok_or_else(|| TokenError::UnknownKey { kid: quoted(kid) })?;
    compact.verify(key, algorithm).map_err(|_| TokenError::Signature)?;
    let claims: Claims = jws::read_object(&compact.payload).ok_or(TokenError::Claims)?;
    check(&claims, expected, now)?;
    pod(claims)
}

fn check(claims: &Claims, expected: Expected<'_>, now: Timestamp) -> Result<(), TokenError> {
    let Expected { issuer, audience, max_life } = expected;
    if claims.iss != issuer {
        return Err(TokenError::Issuer { expected: issuer.to_owned() });
    }
    // A token that is also for someone else could have been handed on by them.
    if claims.aud.len() != 1 || claims.aud.first().is_none_or(|named| named != audience) {
        return Err(TokenError::Audience { expected: audience.to_owned(), count: claims.aud.len() });
    }
    if claims.exp.0 <= now {
        return Err(TokenError::Expired { at: claims.exp.0, now });
    }
    let latest = now.saturating_add(NOT_BEFORE_LEEWAY).unwrap_or(Timestamp::MAX);
    if let Some(NumericDate(time)) =
        [claims.nbf, claims.iat].into_iter().flatten().find(|NumericDate(time)| *time > latest)
    {
        return Err(TokenError::NotYetValid(time));
    }
    let issued_at = claims.iat.ok_or(TokenError::NoIssuedAt)?.0;
    // Past `exp` and future `iat` are refused above: this is not negative.
    let life = Duration::try_from(claims.exp.0.duration_since(issued_at)).unwrap_or(Duration::ZERO);
    if life > max_life {
        return Err(TokenError::LivesTooLong { life, most: max_life });
    }
    Ok(())
}

fn pod(claims: Claims) -> Result<PodToken, TokenError> {
    let kubernetes = claims.kubernetes.ok_or(TokenError::NotBoundToPod)?;
    let pod = kubernetes.pod.ok_or(TokenError::NotBoundToPod)?;
    let account = kubernetes.serviceaccount;
    let named = claims.sub.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    if named != Some((kubernetes.namespace.as_str(), account.name.as_str())) {
        return Err(TokenError::Subject);
    }
    let texts = [&kubernetes.namespace, &pod.name, &pod.uid, &account.name, &account.uid];
    if texts.iter().any(|text| text.is_empty()) {
        return Err(TokenError::Claims);
    }
    let node = kubernetes.node.filter(|node| !node.name.is_empty()).ok_or(TokenError::NoNode)?;
    Ok(PodToken {
        namespace: kubernetes.namespace,
        pod_name: pod.name,
        pod_uid: pod.uid,
        service_account: account.name,
        service_account_uid: account.uid,
        node,
        expires_at: claims.exp.0,
        jti: claims.jti,
    })
}

impl From<CompactError> for TokenError {
    fn from(error: CompactError) -> Self {
        match error {
            CompactError::TooLong { length } => Self::TooLong { length },
            CompactError::NotCompact | CompactError::Header => Self::Malformed,
        }
    }
}
