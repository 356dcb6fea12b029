//! Which of the credentials the workload may see. An SVID that expired, for instance because the operator has been away for
//! long, is withdrawn from the socket, which answers Unavailable with the reason; the files stay, for readers that only need
//! the roots.

use std::sync::Arc;

use jiff::Timestamp;

use super::{CredentialRequest, RenewalPlanner, required_credentials};
use crate::publish::{Credentials, Published, Svid, Wit, WitState};
use crate::session::entitlements::Identity;

impl RenewalPlanner {
    /// What the workload may see at `now`.
    pub(in crate::session) fn published(&mut self, now: Timestamp) -> Published {
        let Some(entitlements) = &self.entitlements else {
            return Published::NotReady(self.waiting_reason("waiting for the issuer's first answer"));
        };
        let Some(default) = entitlements.default_identity() else {
            return Published::NoIdentity(entitlements.reason.as_str().into());
        };
        let is_outstanding =
            |request: &CredentialRequest| !self.has_valid(request, now) && !self.failed.contains_key(request);
        let outstanding = required_credentials(entitlements).any(|request| is_outstanding(&request));
        if !self.complete && outstanding {
            return Published::NotReady(self.waiting_reason("waiting for the issuer to sign"));
        }
        let svids: Vec<Svid> = entitlements.identities.iter().filter_map(|identity| self.svid(identity, now)).collect();
        if svids.first().is_none_or(|first| first.id != default.id) {
            return Published::NotReady(self.not_ready_reason(default, now));
        }
        let (trust, terms) = (Arc::clone(&entitlements.trust), Arc::clone(&entitlements.terms));
        self.complete = true;
        Published::Ready(Arc::new(Credentials { revision: 0, wit_revision: 0, svids, trust, terms }))
    }

    fn svid(&self, identity: &Identity, now: Timestamp) -> Option<Svid> {
        let credential = self.x509.get(&identity.id).filter(|credential| credential.expires_at > now)?;
        let token_of = |audience: &String| {
            let (credential, _) = self.token(&identity.id, std::slice::from_ref(audience), now)?;
            Some((audience.clone(), credential.token.clone()))
        };
        Some(Svid {
            id: identity.id.clone(),
            hint: identity.hint.clone(),
            chain: credential.chain.clone(),
            key: credential.key.clone(),
            expires_at: credential.expires_at,
            federates_with: identity.federates_with.clone(),
            tokens: identity.exact_audiences.iter().filter_map(token_of).collect(),
            wit: identity.wit.map(|terms| WitState {
                export_key: terms.export_key,
                current: self.wit.get(&identity.id).filter(|wit| wit.expires_at > now).map(|wit| Wit {
                    token: wit.token.clone(),
                    key: wit.key.clone(),
                    expires_at: wit.expires_at,
                }),
            }),
        })
    }

    /// The reason why there is no stream, or else `waiting_for`.
    fn waiting_reason(&self, waiting_for: &str) -> Arc<str> {
        if self.connection_error.is_empty() { waiting_for.into() } else { self.connection_error.as_str().into() }
    }

    fn not_ready_reason(&self, default: &Identity, now: Timestamp) -> Arc<str> {
        if let Some(failed) = self.failed.get(&CredentialRequest::X509(default.id.clone())) {
            return failed.reason.as_str().into();
        }
        match self.x509.get(&default.id).filter(|credential| credential.expires_at <= now) {
            Some(credential) => {
                let reason = self.waiting_reason("a new one is on its way");
                format!("the X509-SVID of {} expired at {}: {reason}", default.id, credential.expires_at).into()
            }
            None => self.waiting_reason("waiting for the issuer to sign"),
        }
    }
}
