//! How the issuer's responses are handled: a credential that verifies is kept, any other request is repeated later.

use std::time::Duration;

use countersign_proto::issuer::v1::{JwtResponse, Refusal, WitResponse, X509Response};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{CredentialRequest, FailedRequest, PendingRequest, RenewalPlanner, after, is_outdated, is_wit_tainted};
use crate::session::credentials::{CredentialError, DEFAULT_RETRY_DELAY, JwtCredential, WitCredential, X509Credential};
use crate::session::entitlements::Entitlements;

/// Tokens cached beside those of files: a workload must not fill the memory with audiences.
const MAX_CACHED_TOKENS: usize = 128;

/// Why a response brought no credential.
#[derive(Debug, thiserror::Error)]
pub(in crate::session) enum ResponseError {
    /// There was no such request, or its stream has ended.
    #[error("the issuer answered request {0}, which is not open")]
    UnknownRequest(u64),
    /// The issuer refused.
    #[error("the issuer refused: {message}")]
    Refused {
        /// A gRPC status code.
        code: i32,
        /// The issuer's message.
        message: String,
    },
    /// The identity is not, or no longer, this session's.
    #[error("the issuer answered for {0:?}, which this session has not asked for")]
    UnexpectedIdentity(String),
    /// It does not verify.
    #[error(transparent)]
    Invalid(#[from] CredentialError),
}

impl RenewalPlanner {
    /// Accepts the response to a request for an X509-SVID.
    ///
    /// # Errors
    /// See [`ResponseError`]: the credential is not used, and is requested again later.
    pub(in crate::session) fn accept_x509(
        &mut self,
        response: X509Response,
        now: Timestamp,
        jitter: f64,
    ) -> Result<(), ResponseError> {
        let Some((PendingRequest::X509 { id: requested, key }, _)) = self.pending.remove(&response.id) else {
            return Err(ResponseError::UnknownRequest(response.id));
        };
        let default = || {
            let default = self.entitlements.as_ref().and_then(Entitlements::default_identity);
            default.map(|identity| identity.id.clone())
        };
        let expected = requested.or_else(default);
        if let Some(refusal) = response.refusal {
            let error = refused(&refusal);
            if let Some(id) = expected {
                self.record_failure(CredentialRequest::X509(id), &error, refusal.retry_after_ms, now);
            }
            return Err(error);
        }
        let identity = self.entitlements.as_ref().and_then(|entitlements| entitlements.identity(expected.as_ref()?));
        let (Some(entitlements), Some(identity)) =
            (&self.entitlements, identity.filter(|one| one.id.to_string() == response.spiffe_id))
        else {
            return Err(ResponseError::UnexpectedIdentity(response.spiffe_id));
        };
        let id = identity.id.clone();
        match X509Credential::verified(&id, response.certificates, key, &entitlements.trust, now, jitter) {
            Ok(mut credential) => {
                credential.renew_not_before =
                    is_outdated(&credential, identity).then(|| after(now, DEFAULT_RETRY_DELAY));
                self.failed.remove(&CredentialRequest::X509(id.clone()));
                self.x509.insert(id, credential);
                Ok(())
            }
            Err(error) => {
                let error = ResponseError::Invalid(error);
                self.record_failure(CredentialRequest::X509(id), &error, 0, now);
                Err(error)
            }
        }
    }

    /// Accepts the response to a request for a JWT-SVID.
    ///
    /// # Errors
    /// See [`ResponseError`].
    pub(in crate::session) fn accept_jwt(
        &mut self,
        response: JwtResponse,
        now: Timestamp,
        jitter: f64,
    ) -> Result<JwtCredential, ResponseError> {
        let Some((PendingRequest::Jwt { id, audiences }, _)) = self.pending.remove(&response.id) else {
            return Err(ResponseError::UnknownRequest(response.id));
        };
        let token = Zeroizing::new(response.token);
        let request = CredentialRequest::Jwt(id.clone(), audiences.clone());
        if let Some(refusal) = response.refusal {
            let error = refused(&refusal);
            if self.is_for_file(&id, &audiences) {
                self.record_failure(request, &error, refusal.retry_after_ms, now);
            }
            return Err(error);
        }
        let entitlements = self.entitlements.as_ref().filter(|entitlements| entitlements.identity(&id).is_some());
        let Some(entitlements) = entitlements else {
            return Err(ResponseError::UnexpectedIdentity(response.spiffe_id));
        };
        match JwtCredential::verified(&id, &audiences, token, &entitlements.trust, now, jitter) {
            Ok(credential) => {
                self.failed.remove(&request);
                self.evict_tokens(now);
                self.jwt.insert((id, audiences), credential.clone());
                Ok(credential)
            }
            Err(error) => {
                let error = ResponseError::Invalid(error);
                if self.is_for_file(&id, &audiences) {
                    self.record_failure(request, &error, 0, now);
                }
                Err(error)
            }
        }
    }

    /// Accepts the response to a request for a WIT-SVID.
    ///
    /// # Errors
    /// See [`ResponseError`].
    pub(in crate::session) fn accept_wit(
        &mut self,
        response: WitResponse,
        now: Timestamp,
        jitter: f64,
    ) -> Result<(), ResponseError> {
        let Some((PendingRequest::Wit { id, key }, _)) = self.pending.remove(&response.id) else {
            return Err(ResponseError::UnknownRequest(response.id));
        };
        let token = Zeroizing::new(response.token);
        let request = CredentialRequest::Wit(id.clone());
        if let Some(refusal) = response.refusal {
            let error = refused(&refusal);
            self.record_failure(request, &error, refusal.retry_after_ms, now);
            return Err(error);
        }
        // What was withdrawn meanwhile is not used.
        let has_terms = |entitlements: &&Entitlements| entitlements.identity(&id).is_some_and(|own| own.wit.is_some());
        let Some(entitlements) = self.entitlements.as_ref().filter(has_terms) else {
            return Err(ResponseError::UnexpectedIdentity(response.spiffe_id));
        };
        match WitCredential::verified(&id, token, key, &entitlements.trust, now, jitter) {
            Ok(mut credential) => {
                if is_wit_tainted(&id, &credential, entitlements) {
                    credential.renew_at = credential.renew_at.min(after(now, DEFAULT_RETRY_DELAY));
                }
                self.failed.remove(&request);
                self.wit.insert(id, credential);
                Ok(())
            }
            Err(error) => {
                let error = ResponseError::Invalid(error);
                self.record_failure(request, &error, 0, now);
                Err(error)
            }
        }
    }

    fn record_failure(
        &mut self,
        request: CredentialRequest,
        error: &ResponseError,
        retry_after_ms: u32,
        now: Timestamp,
    ) {
        let delay =
            if retry_after_ms == 0 { DEFAULT_RETRY_DELAY } else { Duration::from_millis(retry_after_ms.into()) };
        self.failed.insert(request, FailedRequest { retry_at: after(now, delay), reason: error.to_string() });
    }

    /// Makes room for one more token: drops expired ones, then those that expire first and are not for files.
    fn evict_tokens(&mut self, now: Timestamp) {
        self.jwt.retain(|_, credential| credential.expires_at > now);
        while self.jwt.len() >= MAX_CACHED_TOKENS {
            let evictable = self.jwt.iter().filter(|((id, audiences), _)| !self.is_for_file(id, audiences));
            let first_to_expire = evictable.min_by_key(|(_, credential)| credential.expires_at);
            let Some(first_to_expire) = first_to_expire.map(|(key, _)| key.clone()) else {
                return;
            };
            self.jwt.remove(&first_to_expire);
        }
    }
}

fn refused(refusal: &Refusal) -> ResponseError {
    ResponseError::Refused { code: refusal.code, message: refusal.message.clone() }
}
