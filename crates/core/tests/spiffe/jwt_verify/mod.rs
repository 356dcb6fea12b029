//! JWT-SVIDs as a relying party verifies them (JWT-SVID, sections 2, 3 and 5).

mod claims;
mod header;
mod no_key_id;
mod signature;

use countersign_core::bundle::BundleSet;
use countersign_core::jwt::{JwtAuthority, JwtClaims, JwtSvidError, verify_jwt_svid};
use countersign_core::key::{KeyType, PrivateKey};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::fixtures::{bundle, ec_key, now, token, trusting};

const CART: &str = "spiffe://example.org/ns/shop/sa/cart";

struct Domain {
    key: PrivateKey,
    bundles: BundleSet,
}

impl Domain {
    fn new() -> Self {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let authority = JwtAuthority::new("k1", key.clone()).unwrap();
        Self { key, bundles: trusting([bundle("example.org", &[], &[&authority])]) }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        token(header, claims, &ec_key(&self.key), Algorithm::ES256)
    }

    fn verify(&self, header: &Value, claims: &Value) -> Result<JwtClaims, JwtSvidError> {
        self.verify_token(&self.token(header, claims))
    }

    fn verify_token(&self, token: &str) -> Result<JwtClaims, JwtSvidError> {
        verify_jwt_svid(token, "orders", &self.bundles, now())
    }

    fn bundle_key(&self) -> Value {
        Value::Object(self.bundles.iter().next().unwrap().jwt_authorities[0].jwk())
    }
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "k1", "typ": "JWT"})
}

fn claims() -> Value {
    json!({"sub": CART, "aud": ["orders"], "exp": now().as_second() + 300})
}

fn refused_with(name: &str, value: Value) -> JwtSvidError {
    let mut claims = claims();
    claims[name] = value;
    Domain::new().verify(&header(), &claims).unwrap_err()
}

fn refused_without(name: &str) -> JwtSvidError {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    Domain::new().verify(&header(), &claims).unwrap_err()
}
