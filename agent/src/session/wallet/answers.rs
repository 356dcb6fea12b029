//! What becomes of the issuer's answers: a credential that verifies is held, any other is asked for again later.

use std::time::Duration;

use countersign_proto::issuer::v1::{JwtResponse, Refusal, X509Response};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{Pending, Refused, Wallet, Want, after, is_outdated};
use crate::session::held::{HeldJwt, HeldX509, PATIENCE, Unusable};

/// Tokens held beyond those of files, so that a workload cannot fill the memory with audiences.
const MAX_CACHED_TOKENS: usize = 128;

/// Why an answer brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum NotAccepted {
    /// Nobody asked, or the stream that asked is gone.
    #[error("the issuer answered request {0}, which is not open")]
    Unasked(u64),
    /// The issuer refused.
    #[error("the issuer refused: {message}")]
    Refused {
        /// A gRPC status code.
        code: i32,
        /// The issuer's words.
        message: String,
    },
    /// The identity is not, or no longer, this session's.
    #[error("the issuer answered for {0:?}, which this session has not asked for")]
    OtherIdentity(String),
    /// It does not verify.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

impl Wallet {
    /// Takes the issuer's answer to a request for an X509-SVID.
    ///
    /// # Errors
    /// See [`NotAccepted`]: the credential is not used, and is asked for again later.
    pub fn accept_x509(&mut self, answer: X509Response, now: Timestamp, jitter: f64) -> Result<(), NotAccepted> {
        let Some((Pending::X509 { id: asked, key }, _)) = self.pending.remove(&answer.id) else {
            return Err(NotAccepted::Unasked(answer.id));
        };
        let default =
            || self.told.as_ref().and_then(|told| told.identities.first()).map(|identity| identity.id.clone());
        let expected = asked.or_else(default);
        if let Some(refusal) = answer.refusal {
            let error = refused(&refusal);
            if let Some(id) = expected {
                self.refuse(Want::X509(id), &error, refusal.retry_after_ms, now);
            }
            return Err(error);
        }
        let identity = self.told.as_ref().and_then(|told| told.identity(expected.as_ref()?));
        let (Some(told), Some(identity)) = (&self.told, identity.filter(|one| one.id.to_string() == answer.spiffe_id))
        else {
            return Err(NotAccepted::OtherIdentity(answer.spiffe_id));
        };
        let id = identity.id.clone();
        match HeldX509::verified(&id, answer.certificates, key, &told.trust, now, jitter) {
            Ok(mut held) => {
                held.patient_until = is_outdated(&held, identity).then(|| after(now, PATIENCE));
                self.refused.remove(&Want::X509(id.clone()));
                self.x509.insert(id, held);
                Ok(())
            }
            Err(error) => {
                let error = NotAccepted::Unusable(error);
                self.refuse(Want::X509(id), &error, 0, now);
                Err(error)
            }
        }
    }

    /// Takes the issuer's answer to a request for a JWT-SVID.
    ///
    /// # Errors
    /// See [`NotAccepted`].
    pub fn accept_jwt(&mut self, answer: JwtResponse, now: Timestamp, jitter: f64) -> Result<HeldJwt, NotAccepted> {
        let Some((Pending::Jwt { id, audiences }, _)) = self.pending.remove(&answer.id) else {
            return Err(NotAccepted::Unasked(answer.id));
        };
        let token = Zeroizing::new(answer.token);
        let want = Want::Jwt(id.clone(), audiences.clone());
        if let Some(refusal) = answer.refusal {
            let error = refused(&refusal);
            if self.is_for_file(&id, &audiences) {
                self.refuse(want, &error, refusal.retry_after_ms, now);
            }
            return Err(error);
        }
        let Some(told) = self.told.as_ref().filter(|told| told.identity(&id).is_some()) else {
            return Err(NotAccepted::OtherIdentity(answer.spiffe_id));
        };
        match HeldJwt::verified(&id, &audiences, token, &told.trust, now, jitter) {
            Ok(held) => {
                self.refused.remove(&want);
                self.make_room(now);
                self.jwt.insert((id, audiences), held.clone());
                Ok(held)
            }
            Err(error) => {
                let error = NotAccepted::Unusable(error);
                if self.is_for_file(&id, &audiences) {
                    self.refuse(want, &error, 0, now);
                }
                Err(error)
            }
        }
    }

    fn refuse(&mut self, want: Want, error: &NotAccepted, retry_after_ms: u32, now: Timestamp) {
        let patience = if retry_after_ms == 0 { PATIENCE } else { Duration::from_millis(retry_after_ms.into()) };
        self.refused.insert(want, Refused { again_at: after(now, patience), reason: error.to_string() });
    }

    /// Forgets dead tokens, then those nearest their end that are not for files.
    fn make_room(&mut self, now: Timestamp) {
        self.jwt.retain(|_, held| held.expires_at > now);
        while self.jwt.len() >= MAX_CACHED_TOKENS {
            let spare = self.jwt.iter().filter(|((id, audiences), _)| !self.is_for_file(id, audiences));
            let Some(next_to_die) = spare.min_by_key(|(_, held)| held.expires_at).map(|(key, _)| key.clone()) else {
                return;
            };
            self.jwt.remove(&next_to_die);
        }
    }
}

fn refused(refusal: &Refusal) -> NotAccepted {
    NotAccepted::Refused { code: refusal.code, message: refusal.message.clone() }
}
