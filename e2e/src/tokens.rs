//! Service account tokens, as issued by the API server and as forged by an attacker.

use anyhow::{Context as _, Result};
use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::RSA_PKCS1_SHA256,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::{World, secrets::RecordedSecrets};

impl World {
    /// A token of a service account for these audiences, bound to a pod (name and uid) if given.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn service_account_token(
        &self,
        account: &str,
        audiences: &[&str],
        pod: Option<&(String, String)>,
    ) -> Result<String> {
        self.token_of_life(account, audiences, pod, 600).await
    }

    /// As [`Self::service_account_token`], with a lifetime in seconds.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn token_of_life(
        &self,
        account: &str,
        audiences: &[&str],
        pod: Option<&(String, String)>,
        seconds: i64,
    ) -> Result<String> {
        let bound = pod.map(|(name, uid)| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(name.clone()),
            uid: Some(uid.clone()),
        });
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(audiences.iter().map(|&audience| audience.to_owned()).collect()),
                bound_object_ref: bound,
                expiration_seconds: Some(seconds),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let accounts = self.cluster.api::<ServiceAccount>(&self.namespace);
        let made = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .context("request a token")?;
        let token = made.status.and_then(|status| status.token).context("no token")?;
        RecordedSecrets::of(&self.cluster).await?.token(&token)?;
        Ok(token)
    }
}

/// The token with the algorithm `none` and no signature.
///
/// # Errors
/// It is not a token.
pub fn unsigned(token: &str) -> Result<String> {
    let (header, payload) = parts(token)?;
    Ok(format!("{}.{}.", with(&header, "alg", json!("none"))?, encode(&payload)?))
}

/// The token signed by another RSA key, with the `kid` of the real one.
///
/// # Errors
/// It is not a token.
pub fn signed_by_another_key(token: &str) -> Result<String> {
    let (header, payload) = parts(token)?;
    let signed = format!("{}.{}", with(&header, "alg", json!("RS256"))?, encode(&payload)?);
    let key = KeyPair::generate(KeySize::Rsa2048).context("generate an RSA key")?;
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).context("sign")?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The token with one claim changed and its signature kept.
///
/// # Errors
/// It is not a token.
pub fn altered(token: &str, claim: &str, value: Value) -> Result<String> {
    let (header, payload) = parts(token)?;
    let signature = token.rsplit('.').next().context("a token has three parts")?;
    Ok(format!("{}.{}.{signature}", encode(&header)?, with(&payload, claim, value)?))
}

/// A token's claims, unverified.
///
/// # Errors
/// It is not a token.
pub fn claims(token: &str) -> Result<Value> {
    parts(token).map(|(_, payload)| payload)
}

/// Header and payload.
fn parts(token: &str) -> Result<(Value, Value)> {
    let mut parts =
        token.split('.').map(|part| -> Result<Value> { Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?) });
    let header = parts.next().context("a token has three parts")??;
    let payload = parts.next().context("a token has three parts")??;
    Ok((header, payload))
}

fn with(part: &Value, key: &str, value: Value) -> Result<String> {
    let mut part = part.clone();
    part.as_object_mut().context("a token's part is an object")?.insert(key.to_owned(), value);
    encode(&part)
}

fn encode(part: &Value) -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(part)?))
}
