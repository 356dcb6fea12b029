//! Where a private key is kept.

use std::sync::Arc;

use super::{PrivateKey, Signer};

/// A private key by reference. `Debug` shows no key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeyRef {
    /// It is stored beside what refers to it. Wiped when the last clone goes.
    Stored(PrivateKey),
    /// It is in a key store that this release does not know. What refers to it is trusted and carried along; it signs where
    /// that store is known.
    Elsewhere {
        /// The store's name.
        store: String,
        /// Which key, in the store's own terms. Not secret.
        reference: String,
    },
}

impl KeyRef {
    /// What signs with the key here, if anything does. It signs at once, in memory.
    pub fn signer(&self) -> Option<Arc<dyn Signer>> {
        match self {
            Self::Stored(key) => Some(Arc::new(key.clone())),
            Self::Elsewhere { .. } => None,
        }
    }
}
