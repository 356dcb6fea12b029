//! Kubernetes service account tokens and the cluster's key set.

mod claims;
mod signature;

use std::time::Duration;

use countersign_core::jwt::JwtVerificationKey;
use countersign_core::key::{KeyKind, KeyType, PrivateKey};
use countersign_core::service_account::{ClusterJwks, Expected, PodToken, TokenError, verify_token};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::fixtures::{ec_key, now, rsa_key, token};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const AUDIENCE: &str = "countersign.dev/6f4f0c1e-6d4c-4d0c-9d52-0a4f6f2f7c11";

const MAX_LIFE: Duration = Duration::from_secs(2 * 3600);

struct Cluster {
    key: PrivateKey,
    jwks: ClusterJwks,
}

impl Cluster {
    fn new() -> Self {
        Self::of(KeyType::EcP256)
    }

    fn of(key_type: KeyType) -> Self {
        let key = PrivateKey::generate(key_type).unwrap();
        let jwks = json!({"keys": [as_jwk(&key, "k8s")]}).to_string();
        Self { key, jwks: ClusterJwks::parse(jwks.as_bytes()).unwrap() }
    }

    fn signing_key(&self) -> EncodingKey {
        match self.key.public_key().kind() {
            KeyKind::Rsa { .. } => rsa_key(&self.key),
            _ => ec_key(&self.key),
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        token(header, claims, &self.signing_key(), Algorithm::ES256)
    }

    fn verify(&self, claims: &Value) -> Result<PodToken, TokenError> {
        self.verify_token(&self.token(&header(), claims))
    }

    fn verify_token(&self, token: &str) -> Result<PodToken, TokenError> {
        let expected = Expected { issuer: ISSUER, audience: AUDIENCE, max_life: MAX_LIFE };
        verify_token(token, &self.jwks, expected, now())
    }
}

fn jwk(key_type: KeyType, kid: &str) -> Value {
    as_jwk(&PrivateKey::generate(key_type).unwrap(), kid)
}

fn as_jwk(key: &PrivateKey, kid: &str) -> Value {
    let mut jwk = JwtVerificationKey::new(kid, key.public_key()).unwrap().jwk();
    jwk.insert("use".to_owned(), json!("sig"));
    Value::Object(jwk)
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "k8s"})
}

fn claims() -> Value {
    let seconds = now().as_second();
    json!({
        "aud": [AUDIENCE], "exp": seconds + 3600, "iat": seconds, "iss": ISSUER, "jti": "token-id",
        "kubernetes.io": {
            "namespace": "shop",
            "node": {"name": "node-1", "uid": "node-uid"},
            "pod": {"name": "cart-x2x4q", "uid": "pod-uid"},
            "serviceaccount": {"name": "cart", "uid": "account-uid"},
            "warnafter": seconds + 3607,
        },
        "nbf": seconds, "sub": "system:serviceaccount:shop:cart",
    })
}

fn refused_with(pointer: &str, value: Value) -> TokenError {
    let mut claims = claims();
    *claims.pointer_mut(pointer).unwrap() = value;
    Cluster::new().verify(&claims).unwrap_err()
}

fn refused_without(pointer: &str) -> TokenError {
    let mut claims = claims();
    remove(&mut claims, pointer);
    Cluster::new().verify(&claims).unwrap_err()
}

fn remove(claims: &mut Value, pointer: &str) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    claims.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
}
