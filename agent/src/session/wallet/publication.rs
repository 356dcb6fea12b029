//! What a session's workload may see of what is held. An SVID that expired, as with the operator long away, is withdrawn
//! from the socket, which answers Unavailable and why; the files stay as they are, for readers that only look at the roots.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Wallet, Want, credentials};
use crate::publish::{Credentials, Published, Svid};
use crate::session::told::Identity;

impl Wallet {
    /// What the workload may see at `now`.
    pub fn published(&mut self, now: Timestamp) -> Published {
        let Some(told) = &self.told else {
            return Published::NotReady(self.waiting("waiting for the issuer's first answer"));
        };
        let Some(default) = told.identities.first() else {
            return Published::NoIdentity(told.reason.as_str().into());
        };
        let outstanding = credentials(told).any(|want| !self.has(&want, now) && !self.refused.contains_key(&want));
        if !self.complete && outstanding {
            return Published::NotReady(self.waiting("waiting for the issuer to sign"));
        }
        let svids: Vec<Svid> = told.identities.iter().filter_map(|identity| self.svid(identity, now)).collect();
        if svids.first().is_none_or(|first| first.id != default.id) {
            return Published::NotReady(self.why_not(default, now));
        }
        let trust = Arc::clone(&told.trust);
        self.complete = true;
        Published::Ready(Arc::new(Credentials { revision: 0, svids, trust }))
    }

    fn svid(&self, identity: &Identity, now: Timestamp) -> Option<Svid> {
        let held = self.x509.get(&identity.id).filter(|held| held.expires_at > now)?;
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
            tokens: identity.exact_audiences.iter().filter_map(token_of).collect(),
        })
    }

    fn waiting(&self, what: &str) -> Arc<str> {
        if self.trouble.is_empty() { what.into() } else { self.trouble.as_str().into() }
    }

    fn why_not(&self, default: &Identity, now: Timestamp) -> Arc<str> {
        if let Some(refused) = self.refused.get(&Want::X509(default.id.clone())) {
            return refused.reason.as_str().into();
        }
        match self.x509.get(&default.id).filter(|held| held.expires_at <= now) {
            Some(held) => {
                let trouble = self.waiting("a new one is on its way");
                format!("the X509-SVID of {} expired at {}: {trouble}", default.id, held.expires_at).into()
            }
            None => self.waiting("waiting for the issuer to sign"),
        }
    }
}
