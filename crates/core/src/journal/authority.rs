//! What a slot holds: a signer, and the key behind it so that the journal can be written again. And where new keys come
//! from.

use std::sync::Arc;

use aws_lc_rs::rand;

use super::slot::Slot;
use crate::jwt::JwtAuthority;
use crate::key::{KeyError, KeyType, PrivateKey};
use crate::x509::X509Authority;

/// An authority whose key the journal holds. The key is wiped when the last clone goes, and never shows in `Debug`.
#[derive(Debug)]
pub struct Stored<A> {
    pub(super) signer: Arc<A>,
    pub(super) key: PrivateKey,
}

// Derived, it would ask that the signer be `Clone`.
impl<A> Clone for Stored<A> {
    fn clone(&self) -> Self {
        Self { signer: Arc::clone(&self.signer), key: self.key.clone() }
    }
}

/// A slot of an X.509 authority.
pub type X509Slot = Slot<Stored<X509Authority>>;

/// A slot of a JWT authority.
pub type JwtSlot = Slot<Stored<JwtAuthority>>;

impl<A> Slot<Stored<A>> {
    /// What signs. Let nothing it signs live longer than [`Slot::time_left`].
    pub fn signer(&self) -> &Arc<A> {
        &self.authority.signer
    }
}

/// Where new authorities take what is random.
pub trait KeySource {
    /// A new private key.
    ///
    /// # Errors
    /// When none can be made.
    fn key(&mut self, key_type: KeyType) -> Result<PrivateKey, KeyError>;

    /// A new id, hexadecimal, unlike any before.
    ///
    /// # Errors
    /// When there is no randomness.
    fn id(&mut self) -> Result<String, KeyError>;
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomKeys;

impl KeySource for RandomKeys {
    fn key(&mut self, key_type: KeyType) -> Result<PrivateKey, KeyError> {
        PrivateKey::generate(key_type)
    }

    fn id(&mut self) -> Result<String, KeyError> {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).map_err(|_| KeyError::Generate)?;
        Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
    }
}
