//! How authorities are made. The keys may be in a remote service, so making one is asynchronous; signing leaves never waits for
//! such a service.

use std::future::{Future, ready};
use std::pin::Pin;
use std::time::Duration;

use aws_lc_rs::rand;
use jiff::Timestamp;

use super::authority::{Authority, JwtEntry, WitEntry, X509Entry};
use super::{JournalError, Kind};
use crate::id::TrustDomain;
use crate::key::{KeyError, KeyRef, KeyType, PrivateKey};
use crate::x509::X509Authority;

/// An authority to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityRequest {
    /// Of what.
    pub kind: Kind,
    /// For which trust domain; `None`: the control plane.
    pub trust_domain: Option<TrustDomain>,
    /// The kind of its key.
    pub key_type: KeyType,
    /// From when it is trusted.
    pub from: Timestamp,
    /// How long it is trusted. A certificate that ends earlier is refused.
    pub life: Duration,
}

/// An authority that was made for a request.
#[derive(Clone, Debug)]
pub struct MadeAuthority {
    /// Unlike any before; of an authority of tokens the `kid`.
    pub id: String,
    /// What it is.
    pub authority: Authority,
}

/// An authority that is being made.
pub type Making<'a> = Pin<Box<dyn Future<Output = Result<MadeAuthority, JournalError>> + Send + 'a>>;

/// Makes keys, and the certificates that go with them: in memory ([`LocalMaker`]), in a key store, or with an upstream CA.
pub trait AuthorityMaker: Send + Sync {
    /// Makes an authority. If it fails, the journal stays as it is, and the same is asked again later.
    fn make(&self, request: AuthorityRequest) -> Making<'_>;
}

/// Makes keys in memory of the operating system's randomness, to be stored in the journal, and roots that sign themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalMaker;

impl AuthorityMaker for LocalMaker {
    fn make(&self, request: AuthorityRequest) -> Making<'_> {
        let made = random_id()
            .and_then(|id| Ok((id, PrivateKey::generate(request.key_type)?)))
            .map_err(JournalError::from)
            .and_then(|(id, key)| request.with_stored_key(id, key));
        Box::pin(ready(made))
    }
}

impl AuthorityRequest {
    /// The authority of a key that the journal stores; an X.509 authority signs itself.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn with_stored_key(&self, id: String, key: PrivateKey) -> Result<MadeAuthority, JournalError> {
        let authority = match self.kind {
            Kind::X509 => {
                let root = match &self.trust_domain {
                    Some(trust_domain) => X509Authority::self_signed(trust_domain, key.clone(), self.life, self.from),
                    None => X509Authority::self_signed_control_plane(key.clone(), self.life, self.from),
                };
                Authority::X509(X509Entry::root(root?.certificate().clone(), KeyRef::Stored(key))?)
            }
            Kind::Jwt => Authority::Jwt(JwtEntry::new(&id, key.public_key(), KeyRef::Stored(key.clone()))?),
            Kind::Wit => Authority::Wit(WitEntry::new(&id, key.public_key(), KeyRef::Stored(key.clone()))?),
        };
        Ok(MadeAuthority { id, authority })
    }
}

/// 128 random bits, hexadecimal.
fn random_id() -> Result<String, KeyError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| KeyError::Generate)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
