//! What a slot holds: what is trusted, what signs, and where its key is kept.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Kind;
use super::slot::Slot;
use crate::jwt::{JwtAuthority, JwtIssueError, JwtVerificationKey};
use crate::key::{KeyRef, SubjectPublicKeyInfo};
use crate::wit::{WitAuthority, WitIssueError, WitVerificationKey};
use crate::x509::{CaCertificate, IssueError, X509Authority};

/// An authority of one kind.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Authority {
    /// Of X509-SVIDs, or of the control plane's server certificates.
    X509(X509Entry),
    /// Of JWT-SVIDs.
    Jwt(JwtEntry),
    /// Of WIT-SVIDs.
    Wit(WitEntry),
}

/// A slot of a journal.
pub type AuthoritySlot = Slot<Authority>;

/// An X.509 authority. What signs and what is trusted are different things: a root is its own trust anchor, and one that
/// another authority signed sends its issuing chain along with every leaf.
#[derive(Clone, Debug)]
pub struct X509Entry {
    key: KeyRef,
    certificate: CaCertificate,
    issuing_chain: Vec<CaCertificate>,
    trust_anchors: Vec<CaCertificate>,
    signer: Option<Arc<X509Authority>>,
}

/// A JWT authority.
#[derive(Clone, Debug)]
pub struct JwtEntry {
    key: KeyRef,
    public_key: SubjectPublicKeyInfo,
    verification_key: JwtVerificationKey,
    signer: Option<Arc<JwtAuthority>>,
}

/// A WIT authority.
#[derive(Clone, Debug)]
pub struct WitEntry {
    key: KeyRef,
    public_key: SubjectPublicKeyInfo,
    verification_key: WitVerificationKey,
    signer: Option<Arc<WitAuthority>>,
}

/// An authority that signs now.
#[derive(Debug)]
pub struct Active<'a, A> {
    slot: &'a AuthoritySlot,
    signer: &'a Arc<A>,
}

impl X509Entry {
    /// A root: it is its own trust anchor.
    ///
    /// # Errors
    /// [`IssueError::KeyMismatch`] when the key is not the certificate's.
    pub fn root(certificate: CaCertificate, key: KeyRef) -> Result<Self, IssueError> {
        let trust_anchors = vec![certificate.clone()];
        Self::new(certificate, Vec::new(), trust_anchors, key)
    }

    /// An authority that another one signed. `issuing_chain` goes along with every leaf: the authority's own certificate
    /// first, then those above it up to the one below the trust anchor. `trust_anchors` go into the bundle.
    ///
    /// # Errors
    /// [`IssueError::KeyMismatch`] when the key is not that of the first certificate; [`IssueError::IssuingChain`] when there
    /// is none, or no trust anchor.
    pub fn intermediate(
        issuing_chain: Vec<CaCertificate>,
        trust_anchors: Vec<CaCertificate>,
        key: KeyRef,
    ) -> Result<Self, IssueError> {
        let (Some(certificate), false) = (issuing_chain.first().cloned(), trust_anchors.is_empty()) else {
            return Err(IssueError::IssuingChain);
        };
        Self::new(certificate, issuing_chain, trust_anchors, key)
    }

    fn new(
        certificate: CaCertificate,
        issuing_chain: Vec<CaCertificate>,
        trust_anchors: Vec<CaCertificate>,
        key: KeyRef,
    ) -> Result<Self, IssueError> {
        let signer = key
            .signer()
            .map(|signer| X509Authority::from_parts(certificate.clone(), &issuing_chain, signer))
            .transpose()?
            .map(Arc::new);
        Ok(Self { key, certificate, issuing_chain, trust_anchors, signer })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    /// The subject key id of its certificate, in lower-case hexadecimal.
    pub fn subject_key_id_hex(&self) -> String {
        self.certificate.subject_key_id().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What goes along with every leaf. Empty for a root.
    pub fn issuing_chain(&self) -> &[CaCertificate] {
        &self.issuing_chain
    }

    /// What relying parties trust.
    pub fn trust_anchors(&self) -> &[CaCertificate] {
        &self.trust_anchors
    }

    /// Where its key is kept.
    pub fn key(&self) -> &KeyRef {
        &self.key
    }

    /// What signs; `None` where its key cannot be used here.
    pub fn signer(&self) -> Option<&Arc<X509Authority>> {
        self.signer.as_ref()
    }

    /// When the first certificate of those that it takes to verify a leaf ends.
    pub fn not_after(&self) -> Timestamp {
        let chain = self.issuing_chain.iter().map(CaCertificate::not_after);
        let anchors = self.trust_anchors.iter().map(CaCertificate::not_after).max();
        chain.chain(anchors).fold(self.certificate.not_after(), Timestamp::min)
    }

    /// Whether it is a root, with the key beside it: all that the first stored format can hold.
    pub(super) fn is_stored_root(&self) -> bool {
        let is_root = self.issuing_chain.is_empty() && self.trust_anchors == [self.certificate.clone()];
        is_root && matches!(self.key, KeyRef::Stored(_))
    }
}

impl JwtEntry {
    /// The authority known to verifiers as `kid`.
    ///
    /// # Errors
    /// When `kid` is empty, or the key is of a kind that verifies no tokens.
    pub fn new(kid: &str, public_key: &SubjectPublicKeyInfo, key: KeyRef) -> Result<Self, JwtIssueError> {
        let signer = key.signer().map(|signer| JwtAuthority::new(kid, signer)).transpose()?.map(Arc::new);
        let verification_key = JwtVerificationKey::new(kid, public_key)?;
        if signer.as_ref().is_some_and(|signer| *signer.verification_key() != verification_key) {
            return Err(JwtIssueError::KeyMismatch);
        }
        Ok(Self { key, public_key: public_key.clone(), verification_key, signer })
    }

    /// What verifies its tokens.
    pub fn verification_key(&self) -> &JwtVerificationKey {
        &self.verification_key
    }

    /// Where its key is kept.
    pub fn key(&self) -> &KeyRef {
        &self.key
    }

    /// What signs; `None` where its key cannot be used here.
    pub fn signer(&self) -> Option<&Arc<JwtAuthority>> {
        self.signer.as_ref()
    }

    pub(super) fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.public_key
    }
}

impl WitEntry {
    /// The authority known to verifiers as `kid`.
    ///
    /// # Errors
    /// When `kid` is empty, or the key is of a kind that verifies no tokens.
    pub fn new(kid: &str, public_key: &SubjectPublicKeyInfo, key: KeyRef) -> Result<Self, WitIssueError> {
        let signer = key.signer().map(|signer| WitAuthority::new(kid, signer)).transpose()?.map(Arc::new);
        let verification_key = WitVerificationKey::new(kid, public_key)?;
        if signer.as_ref().is_some_and(|signer| *signer.verification_key() != verification_key) {
            return Err(WitIssueError::KeyMismatch);
        }
        Ok(Self { key, public_key: public_key.clone(), verification_key, signer })
    }

    /// What verifies its tokens.
    pub fn verification_key(&self) -> &WitVerificationKey {
        &self.verification_key
    }

    /// Where its key is kept.
    pub fn key(&self) -> &KeyRef {
        &self.key
    }

    /// What signs; `None` where its key cannot be used here.
    pub fn signer(&self) -> Option<&Arc<WitAuthority>> {
        self.signer.as_ref()
    }

    pub(super) fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.public_key
    }
}

impl Authority {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::X509(_) => Kind::X509,
            Self::Jwt(_) => Kind::Jwt,
            Self::Wit(_) => Kind::Wit,
        }
    }

    /// Where its key is kept.
    pub const fn key(&self) -> &KeyRef {
        match self {
            Self::X509(entry) => &entry.key,
            Self::Jwt(entry) => &entry.key,
            Self::Wit(entry) => &entry.key,
        }
    }

    /// The X.509 authority, if it is one.
    pub const fn x509(&self) -> Option<&X509Entry> {
        match self {
            Self::X509(entry) => Some(entry),
            Self::Jwt(_) | Self::Wit(_) => None,
        }
    }

    /// The JWT authority, if it is one.
    pub const fn jwt(&self) -> Option<&JwtEntry> {
        match self {
            Self::Jwt(entry) => Some(entry),
            Self::X509(_) | Self::Wit(_) => None,
        }
    }

    /// The WIT authority, if it is one.
    pub const fn wit(&self) -> Option<&WitEntry> {
        match self {
            Self::Wit(entry) => Some(entry),
            Self::X509(_) | Self::Jwt(_) => None,
        }
    }
}

impl AuthoritySlot {
    /// Whether a person who writes `name` means this slot: its id, or the subject key id of its certificate, hexadecimal, in
    /// any case and with or without colons.
    pub fn is_named(&self, name: &str) -> bool {
        if name == self.id {
            return true;
        }
        self.authority.x509().is_some_and(|entry| names_key_id(name, &entry.subject_key_id_hex()))
    }
}

/// Whether `name`, as a person writes it, is the key id `hex`: in any case, with or without colons.
pub fn names_key_id(name: &str, hex: &str) -> bool {
    name.chars().filter(|each| *each != ':').collect::<String>().eq_ignore_ascii_case(hex)
}

impl<'a, A> Active<'a, A> {
    pub(super) fn new(slot: &'a AuthoritySlot, signer: Option<&'a Arc<A>>) -> Option<Self> {
        signer.map(|signer| Self { slot, signer })
    }

    /// What signs. Let nothing it signs live longer than [`Self::time_left`].
    pub fn signer(&self) -> &'a Arc<A> {
        self.signer
    }

    /// Its slot.
    pub fn slot(&self) -> &'a AuthoritySlot {
        self.slot
    }

    /// When it leaves the bundle.
    pub fn ends_at(&self) -> Timestamp {
        self.slot.times.remove_at
    }

    /// How long what is signed at `now` may live at most: to the slot's end.
    pub fn time_left(&self, now: Timestamp) -> Duration {
        self.slot.time_left(now)
    }
}
