//! Whether a proof was used before.

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;

use crate::wit::ConfirmationKey;

/// Remembers proofs. What is shared between replicas refuses what was used at any of them; what is not leaves a proof one use at
/// each (draft-ietf-wimse-http-signature-08, section 3). A cache that must be awaited is asked afterwards: the implementation that is
/// handed in keeps `key` and `until` and says [`Seen::First`], and the caller accepts nothing before the other one has said so too.
pub trait ReplayCache {
    /// Remembers `key` until `until`, when the proof has expired, unless it is known. It is called once all other checks have
    /// passed, so that nobody else fills it.
    ///
    /// # Errors
    /// When it cannot be remembered. The request is then refused: otherwise a sender that fills the cache could replay.
    fn remember(&self, key: &ReplayKey, until: Timestamp, now: Timestamp) -> Result<Seen, ReplayCacheFull>;
}

/// Whether a proof was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is new.
    First,
    /// It was used before.
    Again,
}

/// There is no room for another proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room to remember another proof of this sender before those that are known expire")]
pub struct ReplayCacheFull;

/// What identifies a proof: the thumbprint of the sender's key, and `jti` or `nonce` with the kind of proof. Never bytes of a token,
/// which has several forms that verify; with the key, so that nobody uses up the ids of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayKey {
    sender: [u8; 32],
    proof: [u8; 32],
}

/// The kinds of proofs.
#[derive(Clone, Copy)]
pub(super) enum ProofKind {
    Wpt,
    Request,
    Response,
}

impl ReplayKey {
    pub(super) fn new(sender: &ConfirmationKey, kind: ProofKind, id: &str) -> Self {
        let kind = match kind {
            ProofKind::Wpt => "wpt",
            ProofKind::Request => "request",
            ProofKind::Response => "response",
        };
        Self { sender: hash(&[sender.thumbprint()]), proof: hash(&[kind, id]) }
    }

    /// The hash of the thumbprint of the sender's key.
    pub fn sender(&self) -> &[u8; 32] {
        &self.sender
    }

    /// The hash of `jti` or `nonce` and the kind of proof.
    pub fn proof(&self) -> &[u8; 32] {
        &self.proof
    }
}

/// The SHA-256 of texts, each after its length.
fn hash(texts: &[&str]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    hash
}
