//! A session's decisions, pure: from its entitlements, its credentials and the time follows what to request next and what
//! to publish. No key is made here and nothing is sent.

mod publication;
mod responses;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use countersign_core::id::SpiffeId;
use countersign_core::key::PrivateKey;
use jiff::Timestamp;

use super::credentials::{JwtCredential, WitCredential, X509Credential};
use super::entitlements::{Entitlements, Identity};

pub(super) use responses::ResponseError;

/// A response later than this means that the stream is dead.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// A clock that goes back by no more than this was corrected, not set back.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// A credential to request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CredentialRequest {
    /// An X509-SVID.
    X509(SpiffeId),
    /// A JWT-SVID for these audiences.
    Jwt(SpiffeId, Vec<String>),
    /// A WIT-SVID.
    Wit(SpiffeId),
}

/// What to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// To be sent at once.
    pub(super) requests: Vec<CredentialRequest>,
    /// When to plan again, if nothing happens before.
    pub(super) wake_at: Option<Timestamp>,
    /// A response is overdue: the stream must be replaced.
    pub(super) stalled: bool,
}

/// A request that was sent and has no response yet.
#[derive(Debug)]
enum PendingRequest {
    /// Without `id` for the default identity, when that is not known yet.
    X509 {
        id: Option<SpiffeId>,
        key: PrivateKey,
    },
    Jwt {
        id: SpiffeId,
        audiences: Vec<String>,
    },
    Wit {
        id: SpiffeId,
        key: PrivateKey,
    },
}

/// A request that failed, and when it is repeated.
#[derive(Debug)]
struct FailedRequest {
    retry_at: Timestamp,
    reason: String,
}

/// The state of one session.
#[derive(Debug, Default)]
pub(super) struct RenewalPlanner {
    entitlements: Option<Entitlements>,
    x509: BTreeMap<SpiffeId, X509Credential>,
    jwt: BTreeMap<(SpiffeId, Vec<String>), JwtCredential>,
    wit: BTreeMap<SpiffeId, WitCredential>,
    /// By request id, with the time at which it was sent.
    pending: HashMap<u64, (PendingRequest, Timestamp)>,
    failed: BTreeMap<CredentialRequest, FailedRequest>,
    /// Every credential was issued or refused once: from then on changes are published as they come.
    complete: bool,
    /// Why there is no stream to the issuer, for people; empty while there is one.
    connection_error: String,
    /// The time of the last check whether the clock was set back.
    last_clock_check: Option<Timestamp>,
}

impl RenewalPlanner {
    /// Applies a new State of the issuer: credentials of identities that are not in it are dropped.
    pub(super) fn set_entitlements(&mut self, mut entitlements: Entitlements, now: Timestamp) {
        self.x509.retain(|id, _| entitlements.identity(id).is_some());
        self.jwt.retain(|(id, _), _| entitlements.identity(id).is_some());
        self.wit.retain(|id, _| entitlements.identity(id).is_some_and(|identity| identity.wit.is_some()));
        let trust_changed = self.entitlements.as_ref().is_none_or(|before| before.trust != entitlements.trust);
        if trust_changed {
            let bundles = &entitlements.trust;
            self.x509.values_mut().for_each(|credential| {
                credential.distrusted = !credential.still_verifies(bundles, now);
            });
            for ((_, audiences), credential) in &mut self.jwt {
                if !credential.still_verifies(audiences, bundles, now) {
                    credential.renew_at = now;
                }
            }
        }
        for (id, credential) in &mut self.wit {
            let verifies = !trust_changed || credential.still_verifies(&entitlements.trust, now);
            if !verifies || is_wit_tainted(id, credential, &entitlements) {
                credential.renew_at = now;
            }
        }
        for credential in self.jwt.values_mut().filter(|credential| is_token_tainted(credential, &entitlements)) {
            credential.renew_at = now;
        }
        if let Some(before) = self.entitlements.as_ref().map(|before| before.renewal) {
            if before < entitlements.renewal {
                self.renew_all(now);
            }
            // An operator of an earlier build sends none, and the one after it the same as before.
            entitlements.renewal = entitlements.renewal.max(before);
        }
        self.failed.clear();
        self.connection_error.clear();
        self.complete &= !entitlements.identities.is_empty();
        self.entitlements = Some(entitlements);
    }

    /// Somebody asked for it. What is requested after this State is new; it is published when it has come, and until then what there
    /// is stays.
    fn renew_all(&mut self, now: Timestamp) {
        let x509 = self.x509.values_mut().map(|credential| &mut credential.renew_at);
        let jwt = self.jwt.values_mut().map(|credential| &mut credential.renew_at);
        let wit = self.wit.values_mut().map(|credential| &mut credential.renew_at);
        x509.chain(jwt).chain(wit).for_each(|renew_at| *renew_at = (*renew_at).min(now));
    }

    /// Whether the clock was set back since the last check. What was delayed by that clock would be delayed for too long:
    /// delayed renewals become due, and the stream must be replaced.
    pub(super) fn clock_was_set_back(&mut self, now: Timestamp) -> bool {
        let set_back = self.last_clock_check.replace(now).is_some_and(|before| after(now, CLOCK_TOLERANCE) < before);
        if set_back {
            self.x509.values_mut().for_each(|credential| credential.renew_not_before = None);
        }
        set_back
    }

    /// The stream ended, and with it every request on it.
    pub(super) fn disconnected(&mut self, reason: String) {
        self.pending.clear();
        self.failed.clear();
        self.connection_error = reason;
    }

    /// Records that an X509-SVID was requested with `key`; without `id` for the default identity, as in Hello.
    pub(super) fn record_x509_request(
        &mut self,
        request_id: u64,
        id: Option<SpiffeId>,
        key: PrivateKey,
        now: Timestamp,
    ) {
        self.pending.insert(request_id, (PendingRequest::X509 { id, key }, now));
    }

    /// Records that a JWT-SVID was requested.
    pub(super) fn record_jwt_request(&mut self, request_id: u64, id: SpiffeId, audiences: Vec<String>, now: Timestamp) {
        self.pending.insert(request_id, (PendingRequest::Jwt { id, audiences }, now));
    }

    /// Records that a WIT-SVID was requested with `key`.
    pub(super) fn record_wit_request(&mut self, request_id: u64, id: SpiffeId, key: PrivateKey, now: Timestamp) {
        self.pending.insert(request_id, (PendingRequest::Wit { id, key }, now));
    }

    /// The id of the pending request for that token, if there is one.
    pub(super) fn pending_jwt_request(&self, id: &SpiffeId, audiences: &[String]) -> Option<u64> {
        self.pending.iter().find_map(|(request_id, (pending, _))| match pending {
            PendingRequest::Jwt { id: pending_id, audiences: pending_audiences }
                if pending_id == id && pending_audiences == audiences =>
            {
                Some(*request_id)
            }
            _ => None,
        })
    }

    /// Whether the default identity needs a certificate, which Hello can request.
    pub(super) fn is_default_due(&self, now: Timestamp) -> bool {
        let Some(default) = self.entitlements.as_ref().and_then(Entitlements::default_identity) else {
            return true;
        };
        self.x509_due(default, now).is_some_and(|due| due <= now)
    }

    /// What to request now, and when to plan again.
    pub(super) fn plan(&self, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let mut wake = |at: Timestamp| plan.wake_at = Some(plan.wake_at.map_or(at, |earlier| earlier.min(at)));
        for (_, sent_at) in self.pending.values() {
            let overdue_at = after(*sent_at, RESPONSE_TIMEOUT);
            plan.stalled |= overdue_at <= now;
            wake(overdue_at);
        }
        let ends = self.x509.values().map(|credential| credential.expires_at);
        let ends = ends.chain(self.wit.values().map(|credential| credential.expires_at));
        ends.filter(|end| *end > now).for_each(&mut wake);
        for (request, due) in self.upcoming_requests(now) {
            let due = self.failed.get(&request).map_or(due, |failed| due.max(failed.retry_at));
            if due > now {
                wake(due);
            } else {
                plan.requests.push(request);
            }
        }
        plan
    }

    /// A cached token that has not expired. The flag says whether it is in the first half of its lifetime.
    pub(super) fn token(&self, id: &SpiffeId, audiences: &[String], now: Timestamp) -> Option<(&JwtCredential, bool)> {
        let credential = self.jwt.get(&(id.clone(), audiences.to_vec()))?;
        (credential.expires_at > now).then_some((credential, credential.renew_at > now))
    }

    /// Whether the workload has anything that a tainted authority signed: an X509-SVID, a WIT-SVID, or a token in a file.
    pub(super) fn has_tainted(&self) -> bool {
        let Some(entitlements) = &self.entitlements else { return false };
        let x509 = self.x509.iter().any(|(id, credential)| {
            let identity = entitlements.identity(id);
            identity.is_some_and(|identity| is_signed_by(credential, &identity.tainted_authorities))
        });
        let wit = self.wit.iter().any(|(id, credential)| is_wit_tainted(id, credential, entitlements));
        let mut tokens = self.jwt.iter().filter(|(_, credential)| is_token_tainted(credential, entitlements));
        x509 || wit || tokens.any(|((id, audiences), _)| self.is_for_file(id, audiences))
    }

    /// Every credential the session should have, with the time from which it is to be requested; without pending ones.
    fn upcoming_requests(&self, now: Timestamp) -> impl Iterator<Item = (CredentialRequest, Timestamp)> {
        self.entitlements.iter().flat_map(required_credentials).filter_map(move |request| {
            let due = match &request {
                CredentialRequest::X509(id) => self.x509_due(self.entitlements.as_ref()?.identity(id)?, now)?,
                CredentialRequest::Jwt(id, audiences) => self.jwt_due(id, audiences, now)?,
                CredentialRequest::Wit(id) => self.wit_due(self.entitlements.as_ref()?.identity(id)?, now)?,
            };
            Some((request, due))
        })
    }

    /// When a certificate of `identity` is to be requested; `None` while one is pending.
    fn x509_due(&self, identity: &Identity, now: Timestamp) -> Option<Timestamp> {
        if self.is_x509_pending(identity) {
            return None;
        }
        let Some(credential) = self.x509.get(&identity.id) else {
            return Some(now);
        };
        let at_once = credential.distrusted || is_outdated(credential, identity);
        let due = if at_once { now } else { credential.renew_at };
        Some(credential.renew_not_before.map_or(due, |renew_not_before| due.max(renew_not_before)))
    }

    fn jwt_due(&self, id: &SpiffeId, audiences: &[String], now: Timestamp) -> Option<Timestamp> {
        if self.pending_jwt_request(id, audiences).is_some() {
            return None;
        }
        Some(self.jwt.get(&(id.clone(), audiences.to_vec())).map_or(now, |credential| credential.renew_at))
    }

    /// When a WIT-SVID of `identity` is to be requested; `None` while one is pending.
    fn wit_due(&self, identity: &Identity, now: Timestamp) -> Option<Timestamp> {
        let is_pending = |(pending, _): &(PendingRequest, Timestamp)| matches!(pending, PendingRequest::Wit { id, .. } if *id == identity.id);
        if self.pending.values().any(is_pending) {
            return None;
        }
        Some(self.wit.get(&identity.id).map_or(now, |credential| credential.renew_at))
    }

    fn is_x509_pending(&self, identity: &Identity) -> bool {
        let default = self.entitlements.as_ref().and_then(Entitlements::default_identity);
        let is_default = default.is_some_and(|default| default.id == identity.id);
        self.pending.values().any(|(pending, _)| match pending {
            PendingRequest::X509 { id: Some(id), .. } => *id == identity.id,
            PendingRequest::X509 { id: None, .. } => is_default,
            PendingRequest::Jwt { .. } | PendingRequest::Wit { .. } => false,
        })
    }

    fn has_valid(&self, request: &CredentialRequest, now: Timestamp) -> bool {
        match request {
            CredentialRequest::X509(id) => self.x509.get(id).is_some_and(|credential| credential.expires_at > now),
            CredentialRequest::Jwt(id, audiences) => self.token(id, audiences, now).is_some(),
            CredentialRequest::Wit(id) => self.wit.get(id).is_some_and(|credential| credential.expires_at > now),
        }
    }

    /// Whether the token is one of those written to files. Others, which workloads request, are not renewed, and their refusal
    /// is not recorded.
    fn is_for_file(&self, id: &SpiffeId, audiences: &[String]) -> bool {
        let identity = self.entitlements.as_ref().and_then(|entitlements| entitlements.identity(id));
        matches!(audiences, [one] if identity.is_some_and(|identity| identity.exact_audiences.contains(one)))
    }
}

/// Whether a certificate issued now would differ: its authority is tainted, or the DNS names changed.
fn is_outdated(credential: &X509Credential, identity: &Identity) -> bool {
    is_signed_by(credential, &identity.tainted_authorities)
        || identity.dns_names.as_ref().is_some_and(|names| *names != credential.dns_names)
}

/// Whether one of these authorities signed a certificate of the chain.
fn is_signed_by(credential: &X509Credential, authorities: &[Vec<u8>]) -> bool {
    credential.authority_key_ids.iter().any(|signer| authorities.contains(signer))
}

/// Whether the authority that signed it is tainted.
fn is_wit_tainted(id: &SpiffeId, credential: &WitCredential, entitlements: &Entitlements) -> bool {
    entitlements.identity(id).is_some_and(|identity| identity.tainted_key_ids.contains(&credential.key_id))
}

/// Whether a tainted authority signed the token.
fn is_token_tainted(credential: &JwtCredential, entitlements: &Entitlements) -> bool {
    let tainted = entitlements.identity(&credential.id).map(|identity| &identity.tainted_key_ids);
    tainted.zip(credential.key_id.as_ref()).is_some_and(|(tainted, key_id)| tainted.contains(key_id))
}

/// Every credential that a session with these entitlements should have.
fn required_credentials(entitlements: &Entitlements) -> impl Iterator<Item = CredentialRequest> {
    entitlements.identities.iter().flat_map(|identity| {
        let token = |audience: &String| CredentialRequest::Jwt(identity.id.clone(), vec![audience.clone()]);
        let wit = identity.wit.map(|_| CredentialRequest::Wit(identity.id.clone()));
        let x509 = std::iter::once(CredentialRequest::X509(identity.id.clone()));
        x509.chain(wit).chain(identity.exact_audiences.iter().map(token))
    })
}

fn after(time: Timestamp, span: Duration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
