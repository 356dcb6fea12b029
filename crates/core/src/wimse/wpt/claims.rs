//! The claims of a proof.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::jws::{self, NumericDate};

/// As they are read. What is not known here is ignored (draft-ietf-wimse-wpt-02, section 2.3).
#[derive(Deserialize)]
pub(super) struct ReadClaims<'a> {
    #[serde(deserialize_with = "jws::audiences")]
    pub(super) aud: Vec<String>,
    pub(super) exp: NumericDate,
    /// Not of the draft, but of every JWT that has it (RFC 7519, section 4.1.5).
    pub(super) nbf: Option<NumericDate>,
    pub(super) jti: String,
    pub(super) wth: String,
    pub(super) tth: Option<String>,
    #[serde(default)]
    pub(super) oth: OtherTokens,
    /// Of draft 01.
    #[serde(borrow)]
    pub(super) ath: Option<&'a RawValue>,
}

/// As they are made, in this order.
#[derive(Serialize)]
pub(super) struct Claims<'a> {
    pub(super) aud: &'a str,
    pub(super) exp: i64,
    pub(super) jti: &'a str,
    pub(super) wth: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tth: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) oth: BTreeMap<String, String>,
}

/// `oth`: hashes by the names of fields, each once.
#[derive(Default)]
pub(super) struct OtherTokens(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for OtherTokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = OtherTokens;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of hashes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OtherTokens, A::Error> {
                let mut read = BTreeMap::new();
                while let Some((name, hash)) = map.next_entry()? {
                    if read.insert(name, hash).is_some() {
                        return Err(A::Error::custom("a field is there twice"));
                    }
                }
                Ok(OtherTokens(read))
            }
        }
        deserializer.deserialize_map(Once)
    }
}
