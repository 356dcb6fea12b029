//! JWT-SVIDs, with headers and claims as they should be or otherwise, most of them signed.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign_core::{
    bundle::{Bundle, BundleSet},
    jwt::verify_jwt_svid,
};
use jiff::Timestamp;
use rand::{Rng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::{Case, ids, mutation, oracle::Oracle};

const AUDIENCE: &str = "service";

pub(crate) struct Maker {
    key: EcdsaKeyPair,
    stranger: EcdsaKeyPair,
    jwks: Value,
}

impl Maker {
    pub(crate) fn new() -> Self {
        let generate = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let key = generate();
        let point = key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwks = json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "use": "jwt-svid", "kid": "known", "x": number(x), "y": number(y) },
        ] });
        Self { key, stranger: generate(), jwks }
    }

    pub(crate) fn case(&self, random: &mut StdRng, oracle: &mut Oracle) -> Case {
        let now = Timestamp::now();
        let (header, claims) = (header(random), claims(random, now.as_second()));
        // Now and then by a key that nobody knows.
        let key = if mutation::once_in(random, 8) { &self.stranger } else { &self.key };
        let mut token = sign(key, &header, &claims);
        if mutation::once_in(random, 10) {
            token = mutation::text(random, &token);
        }
        let trust_domain = "example.org".parse().unwrap();
        let bundle = Bundle::from_jwk_set(&trust_domain, self.jwks.to_string().as_bytes()).unwrap();
        let ours = verify_jwt_svid(&token, AUDIENCE, &BundleSet::new([bundle]).unwrap(), now);
        let mut ask = |token: &str| {
            let jwks = &self.jwks;
            oracle.ask(&json!({ "token": token, "audience": AUDIENCE, "jwks": jwks, "trustDomain": "example.org" }))
        };
        let theirs = ask(&token);
        // The same with a kid and an iat of now, signed by the same key.
        let theirs_otherwise = match (&ours, &theirs) {
            (Ok(_), Err(_)) => {
                let (header, claims) =
                    (completed(&header, "kid", json!("known")), completed(&claims, "iat", json!(now.as_second())));
                ask(&sign(key, &header, &claims)).ok()
            }
            _ => None,
        };
        Case {
            ours: ours.map(|claims| claims.id.to_string()).map_err(|error| error.to_string()),
            theirs,
            theirs_otherwise,
            shown: format!("token: header {header} claims {claims} as {token}"),
        }
    }
}

fn sign(key: &EcdsaKeyPair, header: &str, claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let input = format!("{}.{}", part(header), part(claims));
    let signature = key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The object with this member, whatever it had; as it is where it is no object.
fn completed(json: &str, name: &str, value: Value) -> String {
    let Ok(Value::Object(mut object)) = serde_json::from_str(json) else { return json.to_owned() };
    object.insert(name.to_owned(), value);
    Value::Object(object).to_string()
}

/// JSON of an object with these members in this order; a member may be there twice.
fn object(members: &[(&str, Value)]) -> String {
    let members: Vec<String> = members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", members.join(","))
}

fn header(random: &mut StdRng) -> String {
    let mut members = vec![("alg", json!("ES256")), ("kid", json!("known")), ("typ", json!("JWT"))];
    for _ in 0..random.random_range(0..=1) {
        match random.random_range(0..6) {
            0 => {
                members[0].1 =
                    json!(mutation::one_of(random, &["none", "HS256", "ES384", "RS256", "EdDSA", "es256", ""]));
            }
            1 => members[1].1 = mutation::one_of(random, &[json!("other"), json!(""), json!(7), Value::Null]).clone(),
            2 => {
                members[2].1 = mutation::one_of(
                    random,
                    &[json!("JOSE"), json!("jwt"), json!("at+jwt"), json!("wit+jwt"), json!(""), json!(1), Value::Null],
                )
                .clone();
            }
            3 => drop(members.remove(random.random_range(0..members.len()))),
            4 => members.push((
                *mutation::one_of(random, &["crit", "jku", "x5u", "cty", "b64", "alg", "kid", "extra", "Alg"]),
                mutation::one_of(random, &[json!(["exp"]), json!("https://example.org"), json!(false), json!("ES256")])
                    .clone(),
            )),
            _ => {
                let text = object(&members);
                return mutation::text(random, &text);
            }
        }
    }
    object(&members)
}

fn claims(random: &mut StdRng, now: i64) -> String {
    let mut members = vec![
        ("sub", json!("spiffe://example.org/ns/shop/sa/cart")),
        ("aud", json!([AUDIENCE])),
        ("exp", json!(now + 300)),
        ("iat", json!(now)),
    ];
    for _ in 0..random.random_range(0..=1) {
        match random.random_range(0..8) {
            0 => members[0].1 = json!(ids::text(random)),
            1 => {
                members[1].1 = mutation::one_of(
                    random,
                    &[
                        json!(AUDIENCE),
                        json!(["other", AUDIENCE]),
                        json!(["other"]),
                        json!([]),
                        json!(""),
                        json!([1]),
                        json!(1),
                        json!("Service"),
                        Value::Null,
                        json!([[AUDIENCE]]),
                    ],
                )
                .clone();
            }
            2 => {
                members[2].1 = mutation::one_of(
                    random,
                    &[
                        json!(now - 300),
                        json!(now + 1_000_000),
                        json!(0),
                        json!(-1),
                        json!(1e300),
                        json!("soon"),
                        json!(now as f64 + 300.5),
                        json!(i64::MAX),
                        Value::Null,
                        json!((now + 300).to_string()),
                    ],
                )
                .clone();
            }
            3 => {
                members[3].1 =
                    mutation::one_of(random, &[json!(now + 3600), json!("now"), Value::Null, json!(-1)]).clone();
            }
            4 => members.push((
                "nbf",
                mutation::one_of(
                    random,
                    &[json!(now - 60), json!(now + 300), json!("now"), Value::Null, json!(now as f64 - 0.5)],
                )
                .clone(),
            )),
            5 => drop(members.remove(random.random_range(0..members.len()))),
            6 => members.push((
                *mutation::one_of(random, &["sub", "aud", "exp", "extra", "Sub", "iss", "jti"]),
                mutation::one_of(random, &[json!("x"), json!({"a": [1, {"b": null}]}), json!(now + 300)]).clone(),
            )),
            _ => {
                let text = object(&members);
                return mutation::text(random, &text);
            }
        }
    }
    object(&members)
}
