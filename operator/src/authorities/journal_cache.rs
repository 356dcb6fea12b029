//! Which journals there are, which of them may be used, and what follows from them at a time. Pure. A journal that cannot
//! be used never replaces one that was: what was validly loaded signs on until a person has decided.

use countersign_reasons::Reason;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use countersign_contract::{
    metadata::annotation::ADOPT_AUTHORITIES,
    objects::journal::{CONTROL_PLANE_SECRET, TRUST_DOMAIN_PREFIX, trust_domain_secret},
};
pub use countersign_core::journal::AuthorityConfig;
use countersign_core::journal::{
    AuthorityPolicy, AuthoritySlot, Expected, Journal, JournalError, Kind, RotationRequests, State,
};
use jiff::Timestamp;
use zeroize::Zeroizing;

use countersign_issuer::published::{DomainSigners, Published, PublishedBundle};

/// A journal's Secret, as far as it matters.
#[derive(Clone)]
pub struct StoredSecret {
    /// Its version, which fences writes.
    pub resource_version: String,
    /// The uid of the TrustDomain it was made for.
    pub owner: Option<String>,
    /// The journal in its envelope; `None` when the key is missing.
    pub journal: Option<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredSecret")
            .field("resource_version", &self.resource_version)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// Why a TrustDomain's journal is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There was one, and there is none.
    #[error(
        "the journal is missing, and sequence {published} was published: restore Secret {secret} from a backup, or delete and make the TrustDomain again for a new root"
    )]
    Missing {
        /// The Secret's name.
        secret: String,
        /// The highest sequence that was published.
        published: u64,
    },
    /// It was made for another TrustDomain object.
    #[error(
        "Secret {secret} holds the authorities of an earlier TrustDomain of this name (uid {owner}){}. To go on with them: kubectl annotate --overwrite trustdomain {domain} {ADOPT_AUTHORITIES}={owner}. For a new root delete the Secret",
        .adopts.as_ref().map(|other| format!(", and this one's annotation names {other:?} instead")).unwrap_or_default()
    )]
    NotAdopted {
        /// The Secret's name.
        secret: String,
        /// The TrustDomain's name.
        domain: String,
        /// The uid of the TrustDomain it was made for.
        owner: String,
        /// What this TrustDomain names instead; the beginning of it.
        adopts: Option<String>,
    },
    /// It cannot be read.
    #[error("Secret {secret}: {error}")]
    Unusable {
        /// The Secret's name.
        secret: String,
        /// What is wrong.
        error: JournalError,
    },
}

impl Problem {
    /// A CamelCase reason for conditions.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Missing { .. } => Reason::JournalMissing,
            Self::NotAdopted { .. } => Reason::JournalNotAdopted,
            Self::Unusable { error, .. } => error.reason(),
        }
    }
}

/// Reads a TrustDomain's journal, and refuses it unless it is whole, its own, and no older than what is known.
///
/// # Errors
/// Why it must not be used; never a reason to make a new root. `Ok(None)`: there has never been one.
pub fn examine(
    secret: Option<&StoredSecret>,
    facts: &AuthorityConfig,
    cluster: &str,
    known_sequence: Option<u64>,
    now: Timestamp,
) -> Result<Option<Journal>, Problem> {
    let name = trust_domain_secret(&facts.name);
    let known = facts.published_sequence.max(known_sequence);
    let Some(secret) = secret else {
        return known.map_or(Ok(None), |published| Err(Problem::Missing { secret: name, published }));
    };
    let is_foreign = |owner: &&String| **owner != facts.uid && facts.adopts.as_ref() != Some(*owner);
    if let Some(owner) = secret.owner.as_ref().filter(is_foreign) {
        let adopts = facts.adopts.as_ref().map(|other| other.chars().take(64).collect());
        let (domain, owner) = (facts.name.clone(), owner.clone());
        return Err(Problem::NotAdopted { secret: name, domain, owner, adopts });
    }
    let expected = Expected { cluster, trust_domain: Some(&facts.trust_domain), published_sequence: known, now };
    read(secret, &expected).map(Some).map_err(|error| Problem::Unusable { secret: name, error })
}

/// Reads the control plane's journal.
///
/// # Errors
/// When it cannot be used.
pub fn examine_control_plane(
    secret: &StoredSecret,
    cluster: &str,
    known_sequence: Option<u64>,
    now: Timestamp,
) -> Result<Journal, JournalError> {
    read(secret, &Expected { cluster, trust_domain: None, published_sequence: known_sequence, now })
}

fn read(secret: &StoredSecret, expected: &Expected<'_>) -> Result<Journal, JournalError> {
    let missing = || JournalError::Damaged { what: "the Secret has no key \"journal\"".to_owned() };
    Journal::from_bytes(secret.journal.as_ref().ok_or_else(missing)?, expected)
}

/// All journals this replica knows.
#[derive(Debug)]
pub struct JournalCache {
    cluster: String,
    secrets: HashMap<String, StoredSecret>,
    facts: HashMap<String, AuthorityConfig>,
    loaded: HashMap<String, Loaded>,
    problems: HashMap<String, Problem>,
    control_plane: Option<Loaded>,
    /// Whether all Secrets were listed once: until then one that is not known need not be missing.
    complete: bool,
}

#[derive(Debug)]
struct Loaded {
    resource_version: String,
    journal: Journal,
}

impl JournalCache {
    /// Nothing known yet.
    #[must_use]
    pub fn new(cluster: String) -> Self {
        Self {
            cluster,
            secrets: HashMap::new(),
            facts: HashMap::new(),
            loaded: HashMap::new(),
            problems: HashMap::new(),
            control_plane: None,
            complete: false,
        }
    }

    /// The uid of the namespace kube-system.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The names of all Secrets known.
    #[must_use]
    pub fn secret_versions(&self) -> HashMap<String, String> {
        self.secrets.iter().map(|(name, secret)| (name.clone(), secret.resource_version.clone())).collect()
    }

    /// What is wrong with a TrustDomain's journal.
    #[must_use]
    pub fn problem(&self, domain: &str) -> Option<&Problem> {
        self.problems.get(domain)
    }

    /// A TrustDomain's journal as last validly loaded.
    #[must_use]
    pub fn journal(&self, domain: &str) -> Option<&Journal> {
        self.loaded.get(domain).map(|loaded| &loaded.journal)
    }

    /// The control plane's journal as last validly loaded.
    #[must_use]
    pub fn control_plane(&self) -> Option<&Journal> {
        self.control_plane.as_ref().map(|loaded| &loaded.journal)
    }

    /// The answer names the TrustDomains of which something changed; so in the functions below.
    pub fn apply_secret(&mut self, name: &str, secret: StoredSecret, now: Timestamp) -> Vec<String> {
        if self.secrets.get(name).is_some_and(|known| known.resource_version == secret.resource_version) {
            return Vec::new();
        }
        self.secrets.insert(name.to_owned(), secret);
        self.secret_changed(name, now)
    }

    /// The Secret is gone.
    pub fn remove_secret(&mut self, name: &str, now: Timestamp) -> Vec<String> {
        self.secrets.remove(name);
        self.secret_changed(name, now)
    }

    /// All Secrets were listed: what is not known is missing.
    pub fn complete(&mut self, now: Timestamp) -> Vec<String> {
        if std::mem::replace(&mut self.complete, true) {
            return Vec::new();
        }
        let names: Vec<String> = self.facts.keys().cloned().collect();
        names.iter().for_each(|name| self.load(name, now));
        names
    }

    /// What a TrustDomain says.
    pub fn configure(&mut self, facts: AuthorityConfig, now: Timestamp) -> Vec<String> {
        let name = facts.name.clone();
        let known = self.facts.get(&name);
        if known == Some(&facts) {
            return Vec::new();
        }
        // Another object, or another trust domain: nothing of the old one holds for it.
        if known.is_some_and(|known| known.uid != facts.uid || known.trust_domain != facts.trust_domain) {
            self.loaded.remove(&name);
        }
        self.facts.insert(name.clone(), facts);
        self.load(&name, now);
        vec![name]
    }

    /// The TrustDomains that are configured, by name.
    pub fn configured(&self) -> impl Iterator<Item = &AuthorityConfig> {
        self.facts.values()
    }

    /// A TrustDomain no longer holds its trust domain here.
    pub fn forget(&mut self, domain: &str) -> Vec<String> {
        let known = self.facts.remove(domain);
        self.loaded.remove(domain);
        self.problems.remove(domain);
        known.map(|known| known.name).into_iter().collect()
    }

    fn secret_changed(&mut self, name: &str, now: Timestamp) -> Vec<String> {
        if name == CONTROL_PLANE_SECRET {
            self.load_control_plane(now);
            return Vec::new();
        }
        let Some(domain) = name.strip_prefix(TRUST_DOMAIN_PREFIX) else { return Vec::new() };
        self.load(domain, now);
        vec![domain.to_owned()]
    }

    fn load(&mut self, domain: &str, now: Timestamp) {
        let Some(facts) = self.facts.get(domain) else { return };
        let secret = self.secrets.get(&trust_domain_secret(domain));
        if secret.is_none() && !self.complete {
            return;
        }
        let loaded = self.loaded.get(domain);
        if let (Some(loaded), Some(secret)) = (loaded, secret)
            && loaded.resource_version == secret.resource_version
        {
            self.problems.remove(domain);
            return;
        }
        let known = loaded.map(|loaded| loaded.journal.sequence(now));
        match (examine(secret, facts, &self.cluster, known, now), secret) {
            (Ok(Some(journal)), Some(secret)) => {
                let resource_version = secret.resource_version.clone();
                self.loaded.insert(domain.to_owned(), Loaded { resource_version, journal });
                self.problems.remove(domain);
            }
            (Ok(_), _) => {
                self.problems.remove(domain);
            }
            (Err(problem), _) => {
                tracing::error!(
                    trust_domain = %facts.trust_domain,
                    %problem,
                    signing = self.loaded.contains_key(domain),
                    "the authorities' journal is not used; what was loaded before signs on"
                );
                self.problems.insert(domain.to_owned(), problem);
            }
        }
    }

    fn load_control_plane(&mut self, now: Timestamp) {
        let Some(secret) = self.secrets.get(CONTROL_PLANE_SECRET) else {
            if self.control_plane.is_some() {
                tracing::error!("the control plane's journal is gone; what was loaded before is used on");
            }
            return;
        };
        let known = self.control_plane.as_ref().map(|loaded| loaded.journal.sequence(now));
        match examine_control_plane(secret, &self.cluster, known, now) {
            Ok(journal) => {
                let resource_version = secret.resource_version.clone();
                self.control_plane = Some(Loaded { resource_version, journal });
            }
            Err(error) => tracing::error!(%error, "the control plane's journal is not used"),
        }
    }

    /// What signs and what is trusted at `now`.
    #[must_use]
    pub fn published(&self, now: Timestamp) -> Published {
        let loaded = self.loaded.iter().filter_map(|(name, loaded)| Some((&loaded.journal, self.facts.get(name)?)));
        let loaded: Vec<_> = loaded.collect();
        let signers =
            loaded.iter().map(|(journal, facts)| (facts.trust_domain.clone(), Arc::new(signers(journal, facts, now))));
        let bundles = loaded
            .iter()
            .filter_map(|(journal, facts)| Some((facts.trust_domain.clone(), Arc::new(bundle(journal, facts, now)?))));
        let control_plane = self.control_plane();
        Published {
            signers: signers.collect(),
            bundles: bundles.collect(),
            control_plane: control_plane.and_then(|journal| Some(journal.active_x509(now)?.signer().clone())),
            control_plane_roots: control_plane
                .map(|journal| journal.roots(now).iter().map(|root| root.der().to_vec()).collect())
                .unwrap_or_default(),
        }
    }

    /// Whether an X.509 authority of a TrustDomain signs at `now`, as its journal says.
    #[must_use]
    pub fn is_signing(&self, domain: &str, now: Timestamp) -> bool {
        self.journal(domain).is_some_and(|journal| journal.active_x509(now).is_some())
    }

    /// The next moment at which time alone changes what is published.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let of_domains = self
            .loaded
            .iter()
            .filter_map(|(name, loaded)| Some((&loaded.journal, self.facts.get(name)?)))
            .filter_map(|(journal, facts)| journal.next_change(&facts.policy, &facts.requests, now));
        let of_control_plane =
            self.control_plane().and_then(|journal| journal.next_change(&control_plane_policy(), &NO_REQUESTS, now));
        of_domains.chain(of_control_plane).min()
    }
}

fn signers(journal: &Journal, facts: &AuthorityConfig, now: Timestamp) -> DomainSigners {
    let tainted = |kind| journal.slots(kind).iter().filter(|slot| slot.state(now) == State::Tainted);
    let (active_x509, active_jwt) = (journal.active_x509(now), journal.active_jwt(now));
    let distrusted = |slot: &AuthoritySlot| facts.requests.distrust(slot);
    let tainted_x509 = tainted(Kind::X509).filter_map(|slot| slot.authority.x509());
    DomainSigners {
        // What was tainted or revoked a moment ago signs nothing, even where the leader has not written so yet: after a restore
        // of an old journal it would sign again until then.
        x509: active_x509.filter(|active| !distrusted(active.slot())).map(|active| active.signer().clone()),
        jwt: active_jwt
            .filter(|active| !distrusted(active.slot()))
            .map(|active| (active.signer().clone(), active.ends_at())),
        wit: journal
            .active_wit(now)
            .filter(|active| !distrusted(active.slot()))
            .map(|active| (active.signer().clone(), active.ends_at())),
        jwt_issuer: facts.jwt_issuer.clone(),
        tainted: tainted_x509.map(|authority| authority.certificate().subject_key_id().to_vec()).collect(),
        tainted_key_ids: tainted(Kind::Jwt).chain(tainted(Kind::Wit)).map(|slot| slot.id.clone()).collect(),
    }
}

fn bundle(journal: &Journal, facts: &AuthorityConfig, now: Timestamp) -> Option<PublishedBundle> {
    let bundle = journal.bundle(facts.policy.refresh_hint, now)?;
    Some(PublishedBundle { document: bundle.to_json().into(), sequence: bundle.sequence })
}

/// Nobody asks for anything about the control plane's roots.
pub const NO_REQUESTS: RotationRequests =
    RotationRequests { after: None, tainted: BTreeSet::new(), revoked: BTreeSet::new() };

/// How the control plane's root is made: it lives a year, so that the roots in a pod's spec outlive the pod's wait for the
/// next on its stream; its successor is known from the first day.
#[must_use]
pub fn control_plane_policy() -> AuthorityPolicy {
    use std::time::Duration;
    const DAY: u64 = 24 * 3600;
    AuthorityPolicy {
        ca_life: Duration::from_secs(365 * DAY),
        longest_svid_life: Duration::from_secs(DAY),
        refresh_hint: Duration::from_secs(DAY),
        // Nobody acknowledges it.
        max_delay: Duration::ZERO,
        taint_max_delay: Duration::ZERO,
        x509_key_type: countersign_core::key::KeyType::EcP256,
        jwt_key_type: countersign_core::key::KeyType::EcP256,
        wit_key_type: None,
    }
}

#[cfg(test)]
mod tests;
