//! A session's decisions, pure: given what the issuer told, what is held and the time, what to ask for next and what to
//! publish. No key is made here and nothing is sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::SpiffeId;
use countersign_core::key::PrivateKey;
use countersign_proto::issuer::v1::{JwtResponse, Refusal, X509Response};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::held::{HeldJwt, HeldX509, PATIENCE, Unusable};
use super::told::{Identity, Told};
use crate::publish::{Credentials, Published, Svid};

/// An answer later than this means that the stream is dead.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Tokens held beyond those of files, so that a workload cannot fill the memory with audiences.
const MAX_CACHED_TOKENS: usize = 128;

/// A credential to ask for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// An X509-SVID.
    X509(SpiffeId),
    /// A JWT-SVID for these audiences.
    Jwt(SpiffeId, Vec<String>),
}

/// What to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be asked for at once.
    pub ask: Vec<Want>,
    /// When to plan again, if nothing happens before.
    pub wake_at: Option<Timestamp>,
    /// An answer is overdue: the stream must be replaced.
    pub stalled: bool,
}

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

/// A request under way.
#[derive(Debug)]
enum Pending {
    /// `id` is none for the default identity, when it is not yet known.
    X509 {
        id: Option<SpiffeId>,
        key: PrivateKey,
    },
    Jwt {
        id: SpiffeId,
        audiences: Vec<String>,
    },
}

#[derive(Debug)]
struct Refused {
    again_at: Timestamp,
    reason: String,
}

/// The state of one session.
#[derive(Debug, Default)]
pub struct Wallet {
    told: Option<Told>,
    x509: BTreeMap<SpiffeId, HeldX509>,
    jwt: BTreeMap<(SpiffeId, Vec<String>), HeldJwt>,
    pending: HashMap<u64, (Pending, Timestamp)>,
    refused: BTreeMap<Want, Refused>,
    /// Every credential was there or refused once: from then on changes are published as they come.
    complete: bool,
    /// Of the way to the issuer, for people; empty while it stands.
    trouble: String,
}

impl Wallet {
    /// Takes the issuer's new State: what is no longer this session's is forgotten.
    pub fn tell(&mut self, told: Told, now: Timestamp) {
        self.x509.retain(|id, _| told.identity(id).is_some());
        self.jwt.retain(|(id, _), _| told.identity(id).is_some());
        let trust_changed = self
            .told
            .as_ref()
            .is_none_or(|before| before.trust != told.trust);
        if trust_changed {
            let bundles = &told.trust;
            self.x509
                .values_mut()
                .for_each(|held| held.distrusted = !held.still_verifies(bundles, now));
            for ((_, audiences), held) in &mut self.jwt {
                if !held.still_verifies(audiences, bundles, now) {
                    held.renew_at = now;
                }
            }
        }
        self.refused.clear();
        self.trouble.clear();
        self.complete &= !told.identities.is_empty();
        self.told = Some(told);
    }

    /// The stream is gone, and with it every request on it.
    pub fn disconnected(&mut self, why: String) {
        self.pending.clear();
        self.refused.clear();
        self.trouble = why;
    }

    /// Notes that an X509-SVID was asked for with `key`; no id means the default identity, as in Hello.
    pub fn asked_x509(
        &mut self,
        request: u64,
        id: Option<SpiffeId>,
        key: PrivateKey,
        now: Timestamp,
    ) {
        self.pending
            .insert(request, (Pending::X509 { id, key }, now));
    }

    /// Notes that a JWT-SVID was asked for.
    pub fn asked_jwt(
        &mut self,
        request: u64,
        id: SpiffeId,
        audiences: Vec<String>,
        now: Timestamp,
    ) {
        self.pending
            .insert(request, (Pending::Jwt { id, audiences }, now));
    }

    /// The open request for that token, if there is one.
    pub fn open_jwt_request(&self, id: &SpiffeId, audiences: &[String]) -> Option<u64> {
        self.pending
            .iter()
            .find_map(|(request, (pending, _))| match pending {
                Pending::Jwt {
                    id: asked,
                    audiences: for_whom,
                } if asked == id && for_whom == audiences => Some(*request),
                _ => None,
            })
    }

    /// Whether the default identity needs a certificate, which Hello can ask for.
    pub fn wants_default(&self, now: Timestamp) -> bool {
        let Some(default) = self.told.as_ref().and_then(|told| told.identities.first()) else {
            return true;
        };
        self.x509_due(default, now).is_some_and(|due| due <= now)
    }

    /// What is to be asked for, and when to look again.
    pub fn plan(&self, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let mut wake =
            |at: Timestamp| plan.wake_at = Some(plan.wake_at.map_or(at, |earlier| earlier.min(at)));
        for (_, asked_at) in self.pending.values() {
            let overdue_at = after(*asked_at, ANSWER_TIMEOUT);
            plan.stalled |= overdue_at <= now;
            wake(overdue_at);
        }
        self.x509
            .values()
            .map(|held| held.expires_at)
            .filter(|expiry| *expiry > now)
            .for_each(&mut wake);
        for (want, due) in self.wants(now) {
            let due = self
                .refused
                .get(&want)
                .map_or(due, |refused| due.max(refused.again_at));
            if due > now {
                wake(due);
            } else {
                plan.ask.push(want);
            }
        }
        plan
    }

    /// Takes the issuer's answer to a request for an X509-SVID.
    ///
    /// # Errors
    /// See [`NotAccepted`]: the credential is not used, and is asked for again later.
    pub fn accept_x509(
        &mut self,
        answer: X509Response,
        now: Timestamp,
        jitter: f64,
    ) -> Result<(), NotAccepted> {
        let Some((Pending::X509 { id: asked, key }, _)) = self.pending.remove(&answer.id) else {
            return Err(NotAccepted::Unasked(answer.id));
        };
        let default = || {
            self.told
                .as_ref()
                .and_then(|told| told.identities.first())
                .map(|identity| identity.id.clone())
        };
        let expected = asked.or_else(default);
        if let Some(refusal) = answer.refusal {
            let error = refused(&refusal);
            if let Some(id) = expected {
                self.refuse(Want::X509(id), &error, refusal.retry_after_ms, now);
            }
            return Err(error);
        }
        let identity = self
            .told
            .as_ref()
            .and_then(|told| told.identity(expected.as_ref()?));
        let (Some(told), Some(identity)) = (
            &self.told,
            identity.filter(|one| one.id.to_string() == answer.spiffe_id),
        ) else {
            return Err(NotAccepted::OtherIdentity(answer.spiffe_id));
        };
        let id = identity.id.clone();
        match HeldX509::verified(&id, answer.certificates, key, &told.trust, now, jitter) {
            Ok(mut held) => {
                held.patient_until = identity
                    .tainted
                    .contains(&held.authority_key_id)
                    .then(|| after(now, PATIENCE));
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
    pub fn accept_jwt(
        &mut self,
        answer: JwtResponse,
        now: Timestamp,
        jitter: f64,
    ) -> Result<HeldJwt, NotAccepted> {
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
        let Some(told) = self
            .told
            .as_ref()
            .filter(|told| told.identity(&id).is_some())
        else {
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

    /// A held token that is alive. The flag says whether it is in the first half of its life.
    pub fn token(
        &self,
        id: &SpiffeId,
        audiences: &[String],
        now: Timestamp,
    ) -> Option<(&HeldJwt, bool)> {
        let held = self.jwt.get(&(id.clone(), audiences.to_vec()))?;
        (held.expires_at > now).then_some((held, held.renew_at > now))
    }

    /// What the workload may see at `now`.
    pub fn published(&mut self, now: Timestamp) -> Published {
        let Some(told) = &self.told else {
            return Published::NotReady(self.waiting("waiting for the issuer's first answer"));
        };
        let Some(default) = told.identities.first() else {
            return Published::NoIdentity(told.reason.as_str().into());
        };
        let outstanding = credentials(told)
            .any(|want| !self.has(&want, now) && !self.refused.contains_key(&want));
        if !self.complete && outstanding {
            return Published::NotReady(self.waiting("waiting for the issuer to sign"));
        }
        let svids: Vec<Svid> = told
            .identities
            .iter()
            .filter_map(|identity| self.svid(identity, now))
            .collect();
        if svids.first().is_none_or(|first| first.id != default.id) {
            return Published::NotReady(self.why_not(default, now));
        }
        let trust = Arc::clone(&told.trust);
        self.complete = true;
        Published::Ready(Arc::new(Credentials {
            revision: 0,
            svids,
            trust,
        }))
    }

    /// Everything the session should hold, each with the time from which it is to be asked for; what is under way is not
    /// among it.
    fn wants(&self, now: Timestamp) -> impl Iterator<Item = (Want, Timestamp)> {
        self.told
            .iter()
            .flat_map(credentials)
            .filter_map(move |want| {
                let due = match &want {
                    Want::X509(id) => self.x509_due(self.told.as_ref()?.identity(id)?, now)?,
                    Want::Jwt(id, audiences) => self.jwt_due(id, audiences, now)?,
                };
                Some((want, due))
            })
    }

    /// When a certificate of `identity` is to be asked for; none while that is under way.
    fn x509_due(&self, identity: &Identity, now: Timestamp) -> Option<Timestamp> {
        if self.is_pending(identity) {
            return None;
        }
        let Some(held) = self.x509.get(&identity.id) else {
            return Some(now);
        };
        let at_once = held.distrusted || identity.tainted.contains(&held.authority_key_id);
        let due = if at_once { now } else { held.renew_at };
        Some(
            held.patient_until
                .map_or(due, |patient_until| due.max(patient_until)),
        )
    }

    fn jwt_due(&self, id: &SpiffeId, audiences: &[String], now: Timestamp) -> Option<Timestamp> {
        if self.open_jwt_request(id, audiences).is_some() {
            return None;
        }
        Some(
            self.jwt
                .get(&(id.clone(), audiences.to_vec()))
                .map_or(now, |held| held.renew_at),
        )
    }

    fn is_pending(&self, identity: &Identity) -> bool {
        let default = self.told.as_ref().and_then(|told| told.identities.first());
        let is_default = default.is_some_and(|default| default.id == identity.id);
        self.pending.values().any(|(pending, _)| match pending {
            Pending::X509 { id: Some(id), .. } => *id == identity.id,
            Pending::X509 { id: None, .. } => is_default,
            Pending::Jwt { .. } => false,
        })
    }

    fn has(&self, want: &Want, now: Timestamp) -> bool {
        match want {
            Want::X509(id) => self.x509.get(id).is_some_and(|held| held.expires_at > now),
            Want::Jwt(id, audiences) => self.token(id, audiences, now).is_some(),
        }
    }

    fn svid(&self, identity: &Identity, now: Timestamp) -> Option<Svid> {
        let held = self
            .x509
            .get(&identity.id)
            .filter(|held| held.expires_at > now)?;
        let token_of = |audience: &String| {
            let (held, _) = self.token(&identity.id, std::slice::from_ref(audience), now)?;
            Some((audience.clone(), held.token.clone()))
        };
        Some(Svid {
            id: identity.id.clone(),
            hint: identity.hint.clone(),
            chain: held.chain.clone(),
            key: held.key.clone(),
            expires_at: held.expires_at,
            federates_with: identity.federates_with.clone(),
            tokens: identity
                .exact_audiences
                .iter()
                .filter_map(token_of)
                .collect(),
        })
    }

    /// What workloads ask for beyond that is neither renewed nor remembered when refused.
    fn is_for_file(&self, id: &SpiffeId, audiences: &[String]) -> bool {
        let identity = self.told.as_ref().and_then(|told| told.identity(id));
        matches!(audiences, [one] if identity.is_some_and(|identity| identity.exact_audiences.contains(one)))
    }

    fn waiting(&self, what: &str) -> Arc<str> {
        if self.trouble.is_empty() {
            what.into()
        } else {
            self.trouble.as_str().into()
        }
    }

    fn why_not(&self, default: &Identity, now: Timestamp) -> Arc<str> {
        if let Some(refused) = self.refused.get(&Want::X509(default.id.clone())) {
            return refused.reason.as_str().into();
        }
        match self
            .x509
            .get(&default.id)
            .filter(|held| held.expires_at <= now)
        {
            Some(held) => {
                let trouble = self.waiting("a new one is on its way");
                format!(
                    "the X509-SVID of {} expired at {}: {trouble}",
                    default.id, held.expires_at
                )
                .into()
            }
            None => self.waiting("waiting for the issuer to sign"),
        }
    }

    fn refuse(&mut self, want: Want, error: &NotAccepted, retry_after_ms: u32, now: Timestamp) {
        let patience = if retry_after_ms == 0 {
            PATIENCE
        } else {
            Duration::from_millis(retry_after_ms.into())
        };
        self.refused.insert(
            want,
            Refused {
                again_at: after(now, patience),
                reason: error.to_string(),
            },
        );
    }

    /// Forgets dead tokens, then those nearest their end that are not for files.
    fn make_room(&mut self, now: Timestamp) {
        self.jwt.retain(|_, held| held.expires_at > now);
        while self.jwt.len() >= MAX_CACHED_TOKENS {
            let spare = self
                .jwt
                .iter()
                .filter(|((id, audiences), _)| !self.is_for_file(id, audiences));
            let Some(next_to_die) = spare
                .min_by_key(|(_, held)| held.expires_at)
                .map(|(key, _)| key.clone())
            else {
                return;
            };
            self.jwt.remove(&next_to_die);
        }
    }
}

/// Everything that a session told so should hold.
fn credentials(told: &Told) -> impl Iterator<Item = Want> {
    told.identities.iter().flat_map(|identity| {
        let token = |audience: &String| Want::Jwt(identity.id.clone(), vec![audience.clone()]);
        std::iter::once(Want::X509(identity.id.clone()))
            .chain(identity.exact_audiences.iter().map(token))
    })
}

fn refused(refusal: &Refusal) -> NotAccepted {
    NotAccepted::Refused {
        code: refusal.code,
        message: refusal.message.clone(),
    }
}

fn after(time: Timestamp, span: Duration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
#[path = "wallet_tests.rs"]
mod tests;
