//! Public keys as JSON Web Keys (RFC 7517; RFC 7518, sections 6.2 and 6.3).

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;

use crate::key::SubjectPublicKeyInfo;

/// The members of a JWK that matter here; what else it holds is ignored (RFC 7517, section 4).
#[derive(Deserialize)]
pub(crate) struct JwkMembers {
    pub(crate) kty: Option<String>,
    pub(crate) kid: Option<String>,
    pub(crate) alg: Option<String>,
    pub(crate) x5c: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

/// A public key that can be written as a JWK. Numbers are big-endian; those of RSA have no leading
/// zero.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PublicJwk {
    Ec { curve: Curve, x: Vec<u8>, y: Vec<u8> },
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

/// A `kty` or `crv` that is in use here, with parameters that are not a key.
#[derive(Debug)]
pub(crate) struct MalformedJwk;

impl PublicJwk {
    /// `None` when the kind of key is unknown here, and so to be ignored.
    pub(crate) fn from_members(jwk: &JwkMembers) -> Result<Option<Self>, MalformedJwk> {
        match jwk.kty.as_deref() {
            Some("EC") => {
                let curve = match jwk.crv.as_deref().ok_or(MalformedJwk)? {
                    "P-256" => Curve::P256,
                    "P-384" => Curve::P384,
                    "P-521" => Curve::P521,
                    _ => return Ok(None),
                };
                let (x, y) = (decode(jwk.x.as_deref())?, decode(jwk.y.as_deref())?);
                let full = x.len() == curve.coordinate() && y.len() == curve.coordinate();
                if full { Ok(Some(Self::Ec { curve, x, y })) } else { Err(MalformedJwk) }
            }
            Some("RSA") => {
                let n = magnitude(&decode(jwk.n.as_deref())?).to_vec();
                let e = magnitude(&decode(jwk.e.as_deref())?).to_vec();
                if n.is_empty() || e.is_empty() { Err(MalformedJwk) } else { Ok(Some(Self::Rsa { n, e })) }
            }
            _ => Ok(None),
        }
    }

    /// `None` when the kind of key has no form here.
    pub(crate) fn from_certificate(spki: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let bits = spki.subject_public_key.data.as_ref();
        if spki.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
            let (_, key) = RSAPublicKey::from_der(bits).ok()?;
            return Some(Self::Rsa { n: magnitude(key.modulus).to_vec(), e: magnitude(key.exponent).to_vec() });
        }
        if spki.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return None;
        }
        let oid = spki.algorithm.parameters.as_ref()?.as_oid().ok()?;
        let curve = [(OID_EC_P256, Curve::P256), (OID_NIST_EC_P384, Curve::P384), (OID_NIST_EC_P521, Curve::P521)]
            .into_iter()
            .find_map(|(known, curve)| (known == oid).then_some(curve))?;
        let [0x04, coordinates @ ..] = bits else {
            return None;
        };
        let (x, y) = coordinates.split_at_checked(curve.coordinate())?;
        (y.len() == curve.coordinate()).then(|| Self::Ec { curve, x: x.to_vec(), y: y.to_vec() })
    }

    /// `None` never, for a key of a kind in use; the type says what the parser cannot.
    pub(crate) fn from_spki(spki: &SubjectPublicKeyInfo) -> Option<Self> {
        let (_, parsed) = x509_parser::x509::SubjectPublicKeyInfo::from_der(spki.der()).ok()?;
        Self::from_certificate(&parsed)
    }

    /// Whether it is on the curve P-256: its algorithm is ES256.
    pub(crate) fn is_p256(&self) -> bool {
        matches!(self, Self::Ec { curve: Curve::P256, .. })
    }

    /// The members `kty`, and `crv`, `x`, `y` or `n`, `e`.
    pub(crate) fn members(&self) -> Map<String, Value> {
        let text = |bytes: &[u8]| Value::String(URL_SAFE_NO_PAD.encode(bytes));
        let members: Vec<(&str, Value)> = match self {
            Self::Ec { curve, x, y } => {
                vec![("kty", "EC".into()), ("crv", curve.name().into()), ("x", text(x)), ("y", text(y))]
            }
            Self::Rsa { n, e } => vec![("kty", "RSA".into()), ("n", text(n)), ("e", text(e))],
        };
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The thumbprint by SHA-256, base64url (RFC 7638, section 3): the same for the same key, whatever holds it.
    pub(crate) fn thumbprint(&self) -> String {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let required = match self {
            Self::Ec { curve, x, y } => {
                format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, curve.name(), text(x), text(y))
            }
            Self::Rsa { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, text(e), text(n)),
        };
        text(digest::digest(&digest::SHA256, required.as_bytes()).as_ref())
    }
}

impl Curve {
    /// The width of a coordinate in octets.
    pub(crate) fn coordinate(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }
}

fn decode(text: Option<&str>) -> Result<Vec<u8>, MalformedJwk> {
    URL_SAFE_NO_PAD.decode(text.ok_or(MalformedJwk)?).map_err(|_| MalformedJwk)
}

fn magnitude(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{JwkMembers, PublicJwk};

    /// RFC 7638, section 3.1.
    #[test]
    fn the_thumbprint_is_that_of_the_standards_example() {
        let key = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#;
        let members: JwkMembers = serde_json::from_str(key).unwrap();
        let key = PublicJwk::from_members(&members).unwrap().unwrap();
        assert_eq!(key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }
}
