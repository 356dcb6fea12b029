//! The layer of clients for reqwest, whose requests are its own.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    ProofLayer, ProofLayerError,
    message::{self, Head},
    proof::{Config, Proven},
};

/// A request of reqwest that is proven, by which its response is verified.
#[must_use = "its response is verified by it"]
pub struct SentRequest {
    config: Arc<Config>,
    proven: Proven,
}

impl ProofLayer {
    /// Adds the proof to a request of reqwest that is about to be sent, as the layer does. For a client that follows no redirects: a
    /// request that is sent again would have the same proof.
    ///
    /// # Errors
    /// When no proof can be made; of a signature also when the body is a stream, or longer than the limit.
    pub async fn prove(&self, request: &mut reqwest::Request) -> Result<SentRequest, ProofLayerError> {
        let config = self.config();
        let uri = request.url().as_str().parse().map_err(|_| ProofLayerError::NoTarget)?;
        let mut head = Head { method: request.method().clone(), uri, headers: request.headers().clone() };
        let body = match request.body() {
            Some(body) if config.proving.covers_body() => {
                let bytes = body.as_bytes().ok_or_else(|| not_signed("its body is a stream".to_owned()))?;
                if bytes.len() > config.body_limit {
                    return Err(not_signed(format!("its body is longer than {} bytes", config.body_limit)));
                }
                Bytes::copy_from_slice(bytes)
            }
            _ => Bytes::new(),
        };
        let nonce = config.proving.add(&mut head, message::body(&body), config.expected.is_some()).await?;
        *request.headers_mut() = head.headers.clone();
        Ok(SentRequest { config: Arc::clone(config), proven: Proven { head, nonce } })
    }
}

impl SentRequest {
    /// The response, if it is signed as it must be; any response, where the layer expects none to be signed.
    ///
    /// # Errors
    /// When it is not signed by a server that is expected, for this request.
    pub async fn verify(&self, response: reqwest::Response) -> Result<reqwest::Response, ProofLayerError> {
        let Some(expected) = &self.config.expected else { return Ok(response) };
        let response = http::Response::<reqwest::Body>::from(response);
        let verified = expected.verify(&self.proven, response, self.config.body_limit).await?;
        Ok(verified.map(reqwest::Body::wrap).into())
    }
}

fn not_signed(reason: String) -> ProofLayerError {
    ProofLayerError::Body { reason }
}
