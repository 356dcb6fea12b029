//! What a client adds to a request.

use std::sync::Arc;

use countersign_core::wimse;
use http::Uri;
#[cfg(feature = "workload-api")]
use http::{HeaderValue, header::AUTHORIZATION, uri::Scheme};
#[cfg(feature = "workload-api")]
use zeroize::Zeroizing;

use super::{
    ProofLayerError,
    message::{self, Head},
};
use crate::prover::{Prover, RequestProof, RequestToProve};
#[cfg(feature = "workload-api")]
use crate::{Source, prover::ProveError};

/// For whom the proofs of a client are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProofAudience {
    /// The target URI of each request: scheme, host, port if there is one, and path. A proof for one path is then refused at another,
    /// by servers that accept targets of their origin.
    Target,
    /// This value, as the server is configured to be addressed by.
    Exactly(String),
}

impl<T: Into<String>> From<T> for ProofAudience {
    fn from(value: T) -> Self {
        Self::Exactly(value.into())
    }
}

/// How a client proves who it is.
#[derive(Clone)]
pub(super) enum Proving {
    Possession {
        prover: Arc<dyn Prover>,
        proof: RequestProof,
        audience: ProofAudience,
        context_fields: Vec<String>,
    },
    #[cfg(feature = "workload-api")]
    JwtSvid {
        source: Source,
        audience: String,
    },
}

impl Proving {
    /// Whether the body is part of what is proven.
    pub(super) fn covers_body(&self) -> bool {
        matches!(self, Self::Possession { proof: RequestProof::HttpSignature, .. })
    }

    /// Adds the proof to the request. Returns the nonce of a signature.
    pub(super) async fn add(
        &self,
        head: &mut Head,
        body: wimse::Body<'_>,
        sign_response: bool,
    ) -> Result<Option<String>, ProofLayerError> {
        match self {
            Self::Possession { prover, proof, audience, context_fields } => {
                if *proof == RequestProof::HttpSignature && message::is_grpc(&head.headers) {
                    return Err(ProofLayerError::Grpc);
                }
                let made = {
                    let Head { method, uri, headers } = &*head;
                    let target;
                    let audience = match audience {
                        ProofAudience::Exactly(value) => value,
                        ProofAudience::Target => {
                            target = target_of(uri).ok_or(ProofLayerError::NoTarget)?;
                            &target
                        }
                    };
                    let fields = message::fields(headers);
                    let request = message::request(method, uri, headers, &fields, body);
                    let ask = RequestToProve { proof: *proof, audience, request, sign_response, context_fields };
                    prover.prove_request(&ask).await?
                };
                message::add(&made, &mut head.headers).map_err(|_| ProofLayerError::Field)?;
                Ok(made.nonce)
            }
            #[cfg(feature = "workload-api")]
            Self::JwtSvid { source, audience } => {
                if sign_response {
                    let reason = "only an HTTP signature can ask for a signed response".to_owned();
                    return Err(ProveError::Refused { reason }.into());
                }
                if let Some(scheme) = head.uri.scheme().filter(|scheme| **scheme != Scheme::HTTPS) {
                    return Err(ProofLayerError::NotHttps { scheme: scheme.to_string() });
                }
                let failed =
                    |error: crate::source::TokenRequestError| ProofLayerError::Token { reason: error.to_string() };
                let svid = source.jwt_svid(&[audience]).await.map_err(failed)?;
                let value = Zeroizing::new(format!("Bearer {}", svid.token()));
                let mut value = HeaderValue::from_str(&value).map_err(|_| ProofLayerError::Field)?;
                value.set_sensitive(true);
                if head.headers.contains_key(AUTHORIZATION) {
                    return Err(ProveError::HasAuthorization.into());
                }
                head.headers.insert(AUTHORIZATION, value);
                Ok(None)
            }
        }
    }
}

/// The target URI, without query and fragment. `None` where scheme or host are missing, or there is user information.
fn target_of(uri: &Uri) -> Option<String> {
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
    let path = if uri.path().is_empty() { "/" } else { uri.path() };
    (!authority.contains('@')).then(|| format!("{scheme}://{}{path}", authority.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_the_uri_without_its_query() {
        let target = |uri: &str| target_of(&uri.parse().unwrap());
        assert_eq!(target("https://Orders.example:8443/a/b?c=d").unwrap(), "https://orders.example:8443/a/b");
        assert_eq!(target("http://orders.example").unwrap(), "http://orders.example/");
        assert_eq!(target("https://user@orders.example/"), None);
        assert_eq!(target("/a/b"), None);
    }
}
