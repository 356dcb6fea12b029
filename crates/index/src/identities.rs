//! The WorkloadIdentities there are, each with its outcome and the pods it selects; found by namespace, service account
//! and TrustDomain, so that a change touches only what it concerns.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use countersign_core::entitlement::{
    ClaimHistory, ClaimKey, Claimant, Claims, DeclaredIdentity, DomainSpec, FieldError, FieldErrors, IdentitySpec,
    Judged, Labels, Standing, grantable, judge,
};
use countersign_core::id::TrustDomain;
use jiff::Timestamp;

use super::{PodRecord, domains::Domains, pods::Pods};

/// How many of the pods that never refresh are told by name.
const NAMED: usize = 3;

/// How many are told at a time to whom they lose.
const NAMED_AT_ONCE: usize = 500;

/// Namespace and name of a WorkloadIdentity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What became of a WorkloadIdentity and how many pods it is about.
#[derive(Clone, Debug)]
pub struct IdentityView {
    /// The object's uid and generation of which this speaks.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// What is known of the ages of its claims.
    pub history: ClaimHistory,
    /// Its outcome, or the fields that cannot be used.
    pub outcome: Result<Judged, FieldErrors>,
    /// Pods alive and selected.
    pub matched: usize,
    /// Those of them without an agent.
    pub not_injected: usize,
    /// Those of them that have a part of it mounted by `subPath`, where it never refreshes.
    pub never_refresh: usize,
    /// The names of a few that never refresh: the first by uid, so that they stay the same while the pods do.
    pub some_never_refresh: Vec<String>,
}

/// What counts of a pod that is alive and selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    injected: bool,
    refreshes: bool,
}

#[derive(Debug, Default)]
pub(super) struct Identities {
    by_key: HashMap<IdentityKey, Record>,
    namespaces: HashMap<String, InNamespace>,
    by_domain: HashMap<String, BTreeSet<IdentityKey>>,
    /// By the foreign trust domains that they name.
    by_foreign: HashMap<TrustDomain, BTreeSet<IdentityKey>>,
    claims: Claims,
    /// Those who lose to somebody else than they were told, and are to be judged for that.
    unnamed: BTreeSet<IdentityKey>,
}

#[derive(Debug)]
struct Record {
    declared: DeclaredIdentity,
    outcome: Result<Judged, FieldErrors>,
    /// Pods alive and selected.
    matched: HashMap<Arc<str>, Match>,
    not_injected: usize,
    /// Those of `matched` that never refresh, in the order in which a few of them are named.
    never_refresh: BTreeSet<Arc<str>>,
}

#[derive(Debug, Default)]
struct InNamespace {
    names: BTreeSet<IdentityKey>,
    by_account: HashMap<String, ByPrecedence>,
    label_only: ByPrecedence,
}

/// Identities in order of precedence: the oldest first, then by uid.
type ByPrecedence = BTreeMap<(Timestamp, String), IdentityKey>;

/// Who was judged.
#[derive(Debug, Default)]
pub(super) struct JudgedAnew {
    /// Whose status may have to change.
    pub(super) all: BTreeSet<IdentityKey>,
    /// Those of them whose outcome is another than before, and whether they are or were admitted: else they change nothing
    /// for a pod that has an identity.
    pub(super) changed: BTreeMap<IdentityKey, bool>,
}

/// Everything an identity's outcome depends on beside itself.
pub(super) struct Surroundings<'a> {
    pub(super) domains: &'a Domains,
    pub(super) namespaces: &'a BTreeMap<String, Labels>,
}

impl Identities {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &IdentityKey> {
        self.by_key.keys()
    }

    pub(super) fn view(&self, key: &IdentityKey, pods: &Pods) -> Option<IdentityView> {
        let record = self.by_key.get(key)?;
        let some = record.never_refresh.iter().take(NAMED).filter_map(|uid| pods.name(uid));
        Some(IdentityView {
            uid: record.declared.uid.clone(),
            generation: record.declared.generation,
            history: record.declared.history.clone(),
            outcome: record.outcome.clone(),
            matched: record.matched.len(),
            not_injected: record.not_injected,
            never_refresh: record.never_refresh.len(),
            some_never_refresh: some.map(str::to_owned).collect(),
        })
    }

    /// The names of the pods that are alive, selected and have an agent, and whose uids are such, in order.
    pub(super) fn with_agent<'a>(
        &self,
        key: &IdentityKey,
        pods: &'a Pods,
        is_such: impl Fn(&str) -> bool,
    ) -> Vec<&'a str> {
        let matched = self.by_key.get(key).into_iter().flat_map(|record| &record.matched);
        let such = matched.filter(|(uid, one)| one.injected && is_such(uid));
        let mut names: Vec<_> = such.filter_map(|(uid, _)| pods.name(uid)).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn of_namespace(&self, namespace: &str) -> Vec<IdentityKey> {
        self.namespaces.get(namespace).map(|all| all.names.iter().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn of_domain(&self, domain: &str) -> Vec<IdentityKey> {
        self.by_domain.get(domain).map(|all| all.iter().cloned().collect()).unwrap_or_default()
    }

    /// Those that name a foreign trust domain.
    pub(super) fn of_foreign(&self, trust_domain: &TrustDomain) -> impl Iterator<Item = &IdentityKey> {
        self.by_foreign.get(trust_domain).into_iter().flatten()
    }

    /// An identity as it was given.
    pub(super) fn declared(&self, key: &IdentityKey) -> Option<&DeclaredIdentity> {
        self.by_key.get(key).map(|record| &record.declared)
    }

    /// What became of an identity.
    pub(super) fn judged(&self, key: &IdentityKey) -> Option<&Judged> {
        self.by_key.get(key)?.outcome.as_ref().ok()
    }

    /// Those that could select a pod of this account, in order of precedence.
    pub(super) fn candidates<'a>(
        &'a self,
        namespace: &str,
        account: &str,
    ) -> impl Iterator<Item = &'a IdentityKey> + use<'a> {
        let namespace = self.namespaces.get(namespace);
        let mut by_account = namespace.and_then(|all| all.by_account.get(account)).into_iter().flatten().peekable();
        let mut label_only = namespace.map(|all| &all.label_only).into_iter().flatten().peekable();
        std::iter::from_fn(move || {
            let first = match (by_account.peek(), label_only.peek()) {
                (Some((one, _)), Some((other, _))) if other < one => label_only.next(),
                (Some(_), _) => by_account.next(),
                (None, _) => label_only.next(),
            };
            first.map(|(_, key)| key)
        })
    }

    pub(super) fn judged_candidates<'a>(
        &'a self,
        namespace: &str,
        account: &str,
    ) -> impl Iterator<Item = &'a Judged> + use<'a> {
        self.candidates(namespace, account).filter_map(|key| self.by_key.get(key)?.outcome.as_ref().ok())
    }

    pub(super) fn judged_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Judged> + use<'a> {
        let names = self.namespaces.get(namespace).map(|all| &all.names).into_iter().flatten();
        names.filter_map(|key| self.by_key.get(key)?.outcome.as_ref().ok())
    }

    /// The first of a namespace that cannot be read.
    pub(super) fn invalid_in(&self, namespace: &str) -> Option<(&IdentityKey, &FieldErrors)> {
        let names = &self.namespaces.get(namespace)?.names;
        names.iter().find_map(|key| Some((key, self.by_key.get(key)?.outcome.as_ref().err()?)))
    }

    /// The accounts it selects; `None` when it selects by labels alone, empty when it cannot be read.
    pub(super) fn accounts(&self, key: &IdentityKey) -> Option<Vec<String>> {
        let spec = self.spec(key);
        match spec {
            Some(spec) if spec.selector.is_label_only() => None,
            Some(spec) => Some(spec.selector.service_accounts.clone()),
            None => Some(Vec::new()),
        }
    }

    /// What counts of a pod; `None` unless it is alive and the identity selects it.
    pub(super) fn matches(&self, key: &IdentityKey, pod: &PodRecord) -> Option<Match> {
        let selector = &self.spec(key)?.selector;
        let selected = !pod.ended && key.namespace == pod.facts.namespace && selector.selects_pod(&pod.facts);
        // Of a container that does not get this identity it is another's part that is mounted.
        let refreshes = || !pod.never_refreshes.iter().any(|container| selector.selects_session(container));
        selected.then(|| Match { injected: pod.injected, refreshes: refreshes() })
    }

    fn spec(&self, key: &IdentityKey) -> Option<&Arc<IdentitySpec>> {
        self.by_key.get(key)?.outcome.as_ref().ok().map(Judged::identity)
    }

    /// Puts an object in place; where the answer is `true`, [`Self::judge`] must follow.
    pub(super) fn insert(&mut self, key: &IdentityKey, declared: DeclaredIdentity) -> bool {
        if let Some(old) = self.by_key.get_mut(key) {
            let known = &old.declared;
            let same = known.spec == declared.spec && known.domain == declared.domain && known.uid == declared.uid;
            if same {
                let history = std::mem::replace(&mut old.declared, declared).history;
                return history != old.declared.history;
            }
        }
        let old = self.by_key.remove(key);
        if let Some(old) = &old {
            self.unlink(key, old);
        }
        self.by_domain.entry(declared.domain.clone()).or_default().insert(key.clone());
        let namespace = self.namespaces.entry(key.namespace.clone()).or_default();
        namespace.names.insert(key.clone());
        if let Ok(spec) = &declared.spec {
            let precedence = (spec.created, spec.uid.clone());
            if spec.selector.is_label_only() {
                namespace.label_only.insert(precedence.clone(), key.clone());
            }
            for account in &spec.selector.service_accounts {
                namespace.by_account.entry(account.clone()).or_default().insert(precedence.clone(), key.clone());
            }
            for foreign in &spec.federates_with {
                self.by_foreign.entry(foreign.clone()).or_default().insert(key.clone());
            }
        }
        let record = match old {
            // What was counted of its pods stays until it is judged, and then changes with the outcome.
            Some(old) => Record { declared, ..old },
            None => Record {
                declared,
                outcome: Err(unjudged()),
                matched: HashMap::new(),
                not_injected: 0,
                never_refresh: BTreeSet::new(),
            },
        };
        self.by_key.insert(key.clone(), record);
        true
    }

    /// Takes an object out; the answer is whose outcome may change by that.
    pub(super) fn remove(&mut self, key: &IdentityKey) -> Vec<IdentityKey> {
        let Some(record) = self.by_key.remove(key) else { return Vec::new() };
        self.unlink(key, &record);
        keys_of(&self.claims.remove(&record.declared.uid))
    }

    /// Whether some lose to somebody else than they were told.
    pub(super) fn has_renamed(&self) -> bool {
        self.claims.has_renamed() || !self.unnamed.is_empty()
    }

    /// Judges some of those anew who lose to somebody else than they were told; the flag says whether there are more.
    pub(super) fn name_holders(&mut self, around: &Surroundings<'_>) -> (JudgedAnew, bool) {
        if self.unnamed.is_empty() {
            self.unnamed = keys_of(&self.claims.take_renamed()).into_iter().collect();
        }
        let some = std::iter::from_fn(|| self.unnamed.pop_first()).take(NAMED_AT_ONCE).collect();
        (self.judge_against_claims(some, HashMap::new(), around), !self.unnamed.is_empty())
    }

    /// What the leader is to record of the ages of the claims at `now`; `None`: still nothing.
    pub(super) fn record_claims(
        &mut self,
        key: &IdentityKey,
        around: &Surroundings<'_>,
        now: Timestamp,
    ) -> Option<BTreeMap<ClaimKey, Timestamp>> {
        let record = self.by_key.get(key)?;
        let Ok(judged) = &record.outcome else { return Some(BTreeMap::new()) };
        let standing = match judged.standing() {
            // Nothing is known of a namespace whose watch event is yet to come: its labels may match.
            Standing::NotGranted if !around.namespaces.contains_key(&key.namespace) => Standing::Unknown,
            standing => standing,
        };
        self.claims.record(judged.identity(), &record.declared.history, standing, now)
    }

    fn unlink(&mut self, key: &IdentityKey, record: &Record) {
        remove_from(&mut self.by_domain, &record.declared.domain, key);
        for foreign in record.declared.spec.iter().flat_map(|spec| &spec.federates_with) {
            remove_from(&mut self.by_foreign, foreign, key);
        }
        let Some(namespace) = self.namespaces.get_mut(&key.namespace) else { return };
        namespace.names.remove(key);
        if let Ok(spec) = &record.declared.spec {
            let precedence = (spec.created, spec.uid.clone());
            namespace.label_only.remove(&precedence);
            for account in &spec.selector.service_accounts {
                let Some(identities) = namespace.by_account.get_mut(account) else { continue };
                identities.remove(&precedence);
                if identities.is_empty() {
                    namespace.by_account.remove(account);
                }
            }
        }
        if namespace.names.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
    }

    /// Judges identities anew and, with them, whoever wins or loses something by that.
    pub(super) fn judge(
        &mut self,
        keys: impl IntoIterator<Item = IdentityKey>,
        around: &Surroundings<'_>,
    ) -> JudgedAnew {
        let mut specs = HashMap::new();
        let mut all = BTreeSet::new();
        for key in keys {
            let Some(record) = self.by_key.get(&key) else { continue };
            let old = record.outcome.as_ref().ok().map(|judged| judged.identity().clone());
            let spec = resolved(&record.declared, around.domains, old.as_ref());
            let granted = spec.as_ref().ok().filter(|spec| {
                let domain = around.domains.accepted(&record.declared.domain);
                grantable(spec, domain, labels(around, &key)).is_ok()
            });
            if let Some(old) = old.filter(|old| granted.is_none_or(|spec| spec.uid != old.uid)) {
                all.extend(keys_of(&self.claims.remove(&old.uid)));
            }
            if let Some(spec) = granted {
                all.extend(keys_of(&self.claims.insert(spec, &record.declared.history)));
            }
            all.insert(key.clone());
            specs.insert(key, spec);
        }
        self.judge_against_claims(all, specs, around)
    }

    /// Judges `all` by the claims as they are entered; `specs` are those that differ from what was judged last.
    fn judge_against_claims(
        &mut self,
        all: BTreeSet<IdentityKey>,
        mut specs: HashMap<IdentityKey, Result<Arc<IdentitySpec>, FieldErrors>>,
        around: &Surroundings<'_>,
    ) -> JudgedAnew {
        let is_admitted =
            |outcome: &Result<Judged, FieldErrors>| outcome.as_ref().is_ok_and(|one| one.outcome().is_ok());
        let mut changed = BTreeMap::new();
        for key in &all {
            let spec = specs.remove(key).or_else(|| self.spec(key).cloned().map(Ok));
            let Some(spec) = spec else { continue };
            let domain = self.domain_of(key, around);
            let find = |foreign: &TrustDomain| around.domains.holder(foreign);
            let outcome = spec.map(|spec| judge(spec, domain, labels(around, key), &self.claims, &find));
            if let Some(record) = self.by_key.get_mut(key).filter(|record| record.outcome != outcome) {
                changed.insert(key.clone(), is_admitted(&record.outcome) || is_admitted(&outcome));
                record.outcome = outcome;
            }
        }
        JudgedAnew { all, changed }
    }

    fn domain_of(&self, key: &IdentityKey, around: &Surroundings<'_>) -> Option<Arc<DomainSpec>> {
        around.domains.accepted(&self.by_key.get(key)?.declared.domain)
    }

    /// Records whether an identity selects a living pod; the answer is whether a count changed.
    pub(super) fn set_matched(&mut self, key: &IdentityKey, uid: &Arc<str>, matched: Option<Match>) -> bool {
        let Some(record) = self.by_key.get_mut(key) else { return false };
        let before = match matched {
            Some(pod) => record.matched.insert(uid.clone(), pod),
            None => record.matched.remove(uid),
        };
        let not_injected = |pod: Option<Match>| usize::from(pod.is_some_and(|pod| !pod.injected));
        record.not_injected -= not_injected(before);
        record.not_injected += not_injected(matched);
        if matched.is_some_and(|pod| !pod.refreshes) {
            record.never_refresh.insert(uid.clone());
        } else {
            record.never_refresh.remove(uid);
        }
        before != matched
    }

    pub(super) fn matched(&self, key: &IdentityKey) -> HashSet<Arc<str>> {
        self.by_key.get(key).map(|record| record.matched.keys().cloned().collect()).unwrap_or_default()
    }
}

fn keys_of(claimants: &[Arc<Claimant>]) -> Vec<IdentityKey> {
    let key = |one: &Arc<Claimant>| IdentityKey { namespace: one.namespace.clone(), name: one.name.clone() };
    claimants.iter().map(key).collect()
}

fn unjudged() -> FieldErrors {
    FieldError { field: "spec".to_owned(), reason: "not judged yet".to_owned() }.into()
}

/// The labels of its namespace; `None` while that is not known.
fn labels<'a>(around: &'a Surroundings<'_>, key: &IdentityKey) -> Option<&'a Labels> {
    around.namespaces.get(&key.namespace)
}

/// The identity in its trust domain; the same `Arc` as before when nothing changed, so that comparing is cheap.
fn resolved(
    declared: &DeclaredIdentity,
    domains: &Domains,
    old: Option<&Arc<IdentitySpec>>,
) -> Result<Arc<IdentitySpec>, FieldErrors> {
    let named = &declared.domain;
    let trust_domain = match domains.accepted(named) {
        Some(domain) => domain.trust_domain.clone(),
        // Without the object its name is the best guess at the trust domain; the judge refuses it in any case.
        None => named.parse().map_err(|_| FieldError {
            field: "spec.trustDomain".to_owned(),
            reason: format!(
                "there is no TrustDomain {named}: create it, or make a WorkloadIdentity that names another"
            ),
        })?,
    };
    let spec = declared.spec.as_ref().map_err(Clone::clone)?.within(trust_domain);
    Ok(old.filter(|old| ***old == spec).cloned().unwrap_or_else(|| Arc::new(spec)))
}

fn remove_from<K, Q>(map: &mut HashMap<K, BTreeSet<IdentityKey>>, at: &Q, key: &IdentityKey)
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    if let Some(keys) = map.get_mut(at) {
        keys.remove(key);
        if keys.is_empty() {
            map.remove(at);
        }
    }
}
