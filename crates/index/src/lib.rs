//! What is known of the cluster, and what follows from it for each session. Pure and synchronous: the watches apply
//! objects, `core` judges, and what a session's pod is entitled to is published on that session's channel. One change
//! touches what it concerns, never all pods.

mod domains;
mod identities;
mod pods;
mod sessions;
mod shared;

use countersign_reasons::Reason;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use countersign_contract::{
    objects::{ENDPOINT, ENDPOINT_NAMESPACE},
    pod,
};
use countersign_core::entitlement::{
    ClaimKey, DeclaredDomain, DeclaredIdentity, DomainKind, DomainSpec, Entitled, Judged, Labels, MAX_IDENTITIES,
    MissingConsent, NoIdentity, PodFacts, endpoint_identity, first_identities_for, left_out, nearest_reason,
};
use countersign_core::id::TrustDomain;
use countersign_core::journal::AuthorityConfig;
use jiff::Timestamp;
use tokio::sync::watch;

use domains::Domains;
pub use domains::{DomainVerdict, Remote, Remotes};
use identities::{Identities, JudgedAnew, Match, Surroundings};
pub use identities::{IdentityKey, IdentityView};
use pods::Pods;
pub use pods::{DELETION_GRACE, PodRecord};
use sessions::Sessions;
pub use shared::{SharedIndex, Subscription};

/// What a session's pod is entitled to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entitlement {
    /// The pod does not exist or has ended.
    Gone,
    /// Its identities, the default first; never empty.
    Entitled(Vec<Entitled>),
    /// It has none.
    None(Absence),
}

/// Why a pod has no identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    /// Why, as a program reads it.
    pub reason: Reason,
    /// What is missing and what to do.
    pub message: String,
    /// The WorkloadIdentity that comes nearest, `namespace/name`, if one selects the pod's service account.
    pub identity: Option<String>,
}

/// Everything the watches told.
#[derive(Debug, Default)]
pub struct Index {
    pods: Pods,
    namespaces: BTreeMap<String, Labels>,
    domains: Domains,
    identities: Identities,
    sessions: Sessions,
    dirty: Dirty,
    /// Whether [`Self::accepted_authorities`] may be new.
    authorities_changed: bool,
    evaluated: u64,
}

/// Objects whose status may have to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// TrustDomains by name.
    pub domains: BTreeSet<String>,
    /// WorkloadIdentities.
    pub identities: BTreeSet<IdentityKey>,
}

impl Index {
    /// How many pods there are.
    #[must_use]
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// How many namespaces there are.
    #[must_use]
    pub fn namespace_count(&self) -> usize {
        self.namespaces.len()
    }

    /// How many TrustDomains there are.
    #[must_use]
    pub fn domain_count(&self) -> usize {
        self.domains.len()
    }

    /// How many WorkloadIdentities there are.
    #[must_use]
    pub fn identity_count(&self) -> usize {
        self.identities.len()
    }

    /// How many sessions are watched.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// How many times an identity was matched with a pod because the identity changed.
    #[must_use]
    pub fn evaluated(&self) -> u64 {
        self.evaluated
    }

    /// Whether a pod exists and has not ended.
    #[must_use]
    pub fn alive(&self, uid: &str, now: Timestamp) -> bool {
        self.pods.alive(uid, now)
    }

    /// Whether a pod is known and has ended, so that it never comes back.
    #[must_use]
    pub fn ended(&self, uid: &str, now: Timestamp) -> bool {
        self.pods.has_ended(uid, now)
    }

    /// When the next pod ends by its deletion.
    #[must_use]
    pub fn next_deletion(&self) -> Option<Timestamp> {
        self.pods.next_deletion()
    }

    /// A pod by uid; it has ended if it has by the time as last told.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<PodRecord> {
        self.pods.record(uid)
    }

    /// What became of a TrustDomain; `None` when there is none of that name.
    #[must_use]
    pub fn domain(&self, name: &str) -> Option<DomainVerdict> {
        self.domains.verdict(name)
    }

    /// The accepted TrustDomains.
    #[must_use]
    pub fn accepted_domains(&self) -> Vec<Arc<DomainSpec>> {
        self.domains.names().filter_map(|name| self.domains.accepted(name)).collect()
    }

    /// The remote trust domains.
    #[must_use]
    pub fn accepted_remotes(&self) -> Remotes {
        self.domains.accepted_remotes()
    }

    /// The WorkloadIdentities that name a foreign trust domain: of each, what is missing, if anything is.
    #[must_use]
    pub fn users_of(&self, trust_domain: &TrustDomain) -> Vec<(IdentityKey, Option<MissingConsent>)> {
        let consent = |key: &IdentityKey| {
            let mut foreign = self.identities.judged(key)?.foreign().iter();
            let one = foreign.find(|one| one.trust_domain == *trust_domain)?;
            Some((key.clone(), one.consent.as_ref().err().cloned()))
        };
        self.identities.of_foreign(trust_domain).filter_map(consent).collect()
    }

    /// The authorities that this cluster has, by the names of their TrustDomains.
    #[must_use]
    pub fn accepted_authorities(&self) -> BTreeMap<String, AuthorityConfig> {
        self.domains.accepted_authorities()
    }

    /// What became of a WorkloadIdentity; `None` when there is none of that name.
    #[must_use]
    pub fn identity(&self, key: &IdentityKey) -> Option<IdentityView> {
        self.identities.view(key, &self.pods)
    }

    /// The names of an identity's pods that are alive and have an agent, and whose uids are not `connected`: at most `most`, the first.
    #[must_use]
    pub fn unconnected(&self, key: &IdentityKey, connected: impl Fn(&str) -> bool, most: usize) -> Vec<String> {
        let names = self.identities.unconnected(key, &self.pods, connected, most);
        names.into_iter().map(str::to_owned).collect()
    }

    /// What a session (empty: the pod's own, else a container's) is entitled to.
    #[must_use]
    pub fn entitlement(&self, uid: &str, session: &str) -> Entitlement {
        let Some(pod) = self.pods.record(uid).filter(|pod| !pod.ended) else { return Entitlement::Gone };
        let facts = &pod.facts;
        if is_endpoint(facts) && session.is_empty() {
            return self.endpoint_entitlement(facts);
        }
        let (namespace, account) = (facts.namespace.as_str(), facts.service_account.as_str());
        let found = first_identities_for(facts, session, self.identities.judged_candidates(namespace, account));
        // Why there is none depends on all identities of the namespace; the common case does not look at them.
        match found.unwrap_or_else(|| Err(nearest_reason(facts, session, self.identities.judged_in(namespace)))) {
            Ok(entitled) => Entitlement::Entitled(entitled),
            Err(why) => Entitlement::None(self.absence(namespace, &why)),
        }
    }

    /// What publishes bundles has one identity in each trust domain of this cluster, the oldest first, and needs no
    /// WorkloadIdentity for it.
    fn endpoint_entitlement(&self, pod: &PodFacts) -> Entitlement {
        let mut domains = self.accepted_domains();
        domains.retain(|domain| domain.kind == DomainKind::Local);
        domains.sort_by(|one, other| (one.created, &one.uid).cmp(&(other.created, &other.uid)));
        let entitled: Vec<_> =
            domains.iter().take(MAX_IDENTITIES).filter_map(|domain| endpoint_identity(domain, pod).ok()).collect();
        if entitled.is_empty() {
            let message =
                "this cluster is the authority of no trust domain, so nothing is published: create a TrustDomain";
            return Entitlement::None(Absence {
                reason: Reason::NoLocalTrustDomain,
                message: message.to_owned(),
                identity: None,
            });
        }
        Entitlement::Entitled(entitled)
    }

    /// Publishes to the sessions of what publishes bundles.
    fn publish_endpoints(&mut self) {
        let pods: Vec<_> = self.pods.of(ENDPOINT_NAMESPACE, Some(ENDPOINT)).cloned().collect();
        pods.iter().for_each(|uid| self.publish(uid));
    }

    /// The WorkloadIdentities, `namespace/name`, that select a session and have no effect for it, since it has
    /// [`MAX_IDENTITIES`] others.
    ///
    /// [`MAX_IDENTITIES`]: countersign_core::entitlement::MAX_IDENTITIES
    #[must_use]
    pub fn left_out(&self, uid: &str, session: &str) -> Vec<String> {
        let Some(pod) = self.pods.record(uid).filter(|pod| !pod.ended) else { return Vec::new() };
        let (namespace, account) = (pod.facts.namespace.as_str(), pod.facts.service_account.as_str());
        left_out(&pod.facts, session, self.identities.judged_candidates(namespace, account))
    }

    fn absence(&self, namespace: &str, why: &NoIdentity) -> Absence {
        let mut message = why.to_string();
        if let Some((key, error)) = self.identities.invalid_in(namespace) {
            message.push_str(&format!("; WorkloadIdentity {}/{} cannot be read: {error}", key.namespace, key.name));
        }
        Absence { reason: why.reason(), message, identity: why.identity().map(str::to_owned) }
    }

    /// Whether a session name is the pod's own or one of its containers', the agent's excepted: that serves others, and has no
    /// identity of its own to ask for.
    #[must_use]
    pub fn has_session(&self, uid: &str, session: &str) -> bool {
        session.is_empty()
            || session != pod::AGENT && self.pods.containers(uid).iter().any(|container| container == session)
    }

    /// All pods are about to be listed.
    pub fn begin_pods(&mut self) {
        self.pods.begin_list();
    }

    /// All pods were listed: those of which nothing was told since [`Self::begin_pods`] are gone.
    pub fn end_pods(&mut self) {
        for uid in self.pods.unlisted() {
            self.remove_pod(&uid);
        }
    }

    /// A pod came or changed.
    pub fn apply_pod(&mut self, pod: PodRecord) {
        self.put_pod(pod, None);
    }

    /// A pod was read live; it counts until `until` unless the watch confirms it before.
    pub fn apply_live_pod(&mut self, pod: PodRecord, until: Timestamp, now: Timestamp) {
        for uid in self.pods.unconfirmed(now) {
            self.remove_pod(&uid);
        }
        // What the watch told is newer or equal, or will be corrected by it.
        if !self.pods.contains(&pod.facts.uid) {
            self.put_pod(pod, Some(until));
        }
    }

    fn put_pod(&mut self, pod: PodRecord, provisional_until: Option<Timestamp>) {
        if provisional_until.is_none() && self.pods.confirm(&pod) {
            return;
        }
        let (uid, replaced) = self.pods.insert(pod, provisional_until);
        if let Some(replaced) = replaced {
            self.remove_pod(&replaced);
        }
        self.match_pod(&uid);
        self.publish(&uid);
    }

    /// Tells the time. Pods whose deletion is over by then have ended, though nothing else tells of it: a finalizer or a node
    /// that is gone keeps such a pod for as long as it likes.
    pub fn tell_time(&mut self, now: Timestamp) {
        for uid in self.pods.tell_time(now) {
            self.match_pod(&uid);
            self.publish(&uid);
        }
    }

    /// A pod is gone.
    pub fn remove_pod(&mut self, uid: &str) {
        let Some((uid, record)) = self.pods.remove(uid) else { return };
        let facts = &record.facts;
        let keys: Vec<_> = self.identities.candidates(&facts.namespace, &facts.service_account).cloned().collect();
        for key in keys {
            self.set_matched(&key, &uid, None);
        }
        self.publish(&uid);
    }

    fn match_pod(&mut self, uid: &Arc<str>) {
        let Some(pod) = self.pods.record(uid) else { return };
        let facts = &pod.facts;
        let matches: Vec<_> = self
            .identities
            .candidates(&facts.namespace, &facts.service_account)
            .map(|key| (key.clone(), self.identities.matches(key, &pod)))
            .collect();
        for (key, state) in matches {
            self.set_matched(&key, uid, state);
        }
    }

    fn set_matched(&mut self, key: &IdentityKey, uid: &Arc<str>, state: Option<Match>) {
        if self.identities.set_matched(key, uid, state) {
            self.dirty.identities.insert(key.clone());
        }
    }

    /// A namespace came or its labels changed.
    pub fn apply_namespace(&mut self, name: &str, labels: Labels) {
        if self.namespaces.get(name) == Some(&labels) {
            return;
        }
        self.namespaces.insert(name.to_owned(), labels);
        self.judge(self.identities.of_namespace(name));
    }

    /// A namespace is gone; its objects' own watches tell of them.
    pub fn remove_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.judge(self.identities.of_namespace(name));
        }
    }

    /// Namespaces that are not among `present` are gone.
    pub fn retain_namespaces(&mut self, present: &HashSet<&str>) {
        let gone: Vec<_> = self.namespaces.keys().filter(|name| !present.contains(name.as_str())).cloned().collect();
        gone.iter().for_each(|name| self.remove_namespace(name));
    }

    /// A TrustDomain came or changed.
    pub fn apply_domain(&mut self, declared: DeclaredDomain) {
        let DeclaredDomain { name, spec, authority, remote } = declared;
        self.dirty.domains.insert(name.clone());
        if self.domains.set_authority(&name, authority) {
            self.authorities_changed = true;
            // Whether an issuer is unique depends on all of them.
            self.dirty.domains.extend(self.domains.names().cloned());
        }
        self.authorities_changed |= self.domains.set_remote(&name, remote);
        if matches!((self.domains.stored(&name), &spec), (Some(Ok(old)), Ok(new)) if **old == *new) {
            return;
        }
        let before = self.domains.trust_domain(&name);
        let touched = self.domains.insert(&name, spec);
        let after = self.domains.trust_domain(&name);
        self.domains_changed(touched, before.into_iter().chain(after));
    }

    /// A TrustDomain is gone.
    pub fn remove_domain(&mut self, name: &str) {
        self.authorities_changed |= self.domains.set_authority(name, None);
        self.authorities_changed |= self.domains.set_remote(name, None);
        let before = self.domains.trust_domain(name);
        let touched = self.domains.remove(name);
        self.domains_changed(touched, before);
    }

    /// TrustDomains that are not among `present` are gone.
    pub fn retain_domains(&mut self, present: &HashSet<&str>) {
        let gone: Vec<_> = self.domains.names().filter(|name| !present.contains(name.as_str())).cloned().collect();
        gone.iter().for_each(|name| self.remove_domain(name));
    }

    fn domains_changed(&mut self, names: Vec<String>, trust_domains: impl IntoIterator<Item = TrustDomain>) {
        let mut concerned: BTreeSet<_> = names.iter().flat_map(|name| self.identities.of_domain(name)).collect();
        for trust_domain in trust_domains {
            concerned.extend(self.identities.of_foreign(&trust_domain).cloned());
        }
        // Which object holds a trust domain may have changed.
        self.authorities_changed |= !names.is_empty();
        self.dirty.domains.extend(names);
        self.judge(concerned.into_iter().collect());
        self.publish_endpoints();
    }

    /// A WorkloadIdentity came or changed.
    pub fn apply_identity(&mut self, declared: DeclaredIdentity) {
        let key = IdentityKey { namespace: declared.namespace.clone(), name: declared.name.clone() };
        self.dirty.identities.insert(key.clone());
        if !self.identities.insert(&key, declared) {
            return;
        }
        let affected = self.judge_only([key.clone()]);
        self.publish_all(affected, [key.namespace.as_str()]);
    }

    /// A WorkloadIdentity is gone.
    pub fn remove_identity(&mut self, key: &IdentityKey) {
        let mut affected: HashSet<Arc<str>> = self.matched_pods(key);
        let rivals = self.identities.remove(key);
        affected.extend(self.judge_only(rivals));
        self.publish_all(affected, [key.namespace.as_str()]);
    }

    /// What would become of a WorkloadIdentity if it were stored now. It leaves nothing behind.
    pub fn preview_identity(&mut self, declared: DeclaredIdentity) -> Option<IdentityView> {
        let key = IdentityKey { namespace: declared.namespace.clone(), name: declared.name.clone() };
        let stored = self.identities.declared(&key).cloned();
        self.apply_identity(declared);
        let view = self.identity(&key);
        match stored {
            Some(stored) => self.apply_identity(stored),
            None => self.remove_identity(&key),
        }
        view
    }

    /// The objects whose status may have to change since the last call; for those who write none, so that the list does not grow.
    pub fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    /// The WorkloadIdentities of a TrustDomain that are admitted now.
    #[must_use]
    pub fn admitted_by(&self, domain: &str) -> BTreeSet<IdentityKey> {
        let admitted = |key: &IdentityKey| self.identities.judged(key).is_some_and(Judged::is_admitted);
        self.identities.of_domain(domain).into_iter().filter(admitted).collect()
    }

    /// WorkloadIdentities that are not among `present` are gone.
    pub fn retain_identities(&mut self, present: &HashSet<IdentityKey>) {
        let gone: Vec<_> = self.identities.keys().filter(|key| !present.contains(*key)).cloned().collect();
        gone.iter().for_each(|key| self.remove_identity(key));
    }

    /// What the leader is to record of the ages of an identity's claims at `now`; `None`: still nothing.
    pub fn record_claims(&mut self, key: &IdentityKey, now: Timestamp) -> Option<BTreeMap<ClaimKey, Timestamp>> {
        let around = Surroundings { domains: &self.domains, namespaces: &self.namespaces };
        self.identities.record_claims(key, &around, now)
    }

    /// Whether identities lose to others than they were told; see [`Self::name_holders`].
    #[must_use]
    pub fn has_renamed_holders(&self) -> bool {
        self.identities.has_renamed()
    }

    /// Judges some of those anew who lose what they claim as before, but to somebody else; the answer is whether there are
    /// more. Very many may share one claim, and a change of its holder concerns all of them; so this is done now and then,
    /// for many changes at a time.
    pub fn name_holders(&mut self) -> bool {
        let around = Surroundings { domains: &self.domains, namespaces: &self.namespaces };
        let (judged, more) = self.identities.name_holders(&around);
        let affected = self.affected(judged);
        self.publish_all(affected, []);
        more
    }

    fn matched_pods(&self, key: &IdentityKey) -> HashSet<Arc<str>> {
        self.identities.matched(key)
    }

    fn judge(&mut self, keys: Vec<IdentityKey>) {
        let namespaces: BTreeSet<String> = keys.iter().map(|key| key.namespace.clone()).collect();
        let affected = self.judge_only(keys);
        self.publish_all(affected, namespaces.iter().map(String::as_str));
    }

    /// Judges; the answer is every pod whose identities may have changed by it.
    fn judge_only(&mut self, keys: impl IntoIterator<Item = IdentityKey>) -> HashSet<Arc<str>> {
        let around = Surroundings { domains: &self.domains, namespaces: &self.namespaces };
        let judged = self.identities.judge(keys, &around);
        self.affected(judged)
    }

    /// Counts anew which pods the changed identities select; the answer is those that one selects or selected which is or was
    /// admitted, and those of them that wait. What a change costs is in proportion to the pods of the changed identities, whatever else there is.
    fn affected(&mut self, judged: JudgedAnew) -> HashSet<Arc<str>> {
        let mut affected = HashSet::new();
        for (key, is_effective) in &judged.changed {
            let before = self.matched_pods(key);
            let mut concerned = before.clone();
            match self.identities.accounts(key) {
                None => concerned.extend(self.pods.of(&key.namespace, None).cloned()),
                Some(accounts) => {
                    for account in &accounts {
                        concerned.extend(self.pods.of(&key.namespace, Some(account)).cloned());
                    }
                }
            }
            for uid in concerned {
                self.evaluated += 1;
                let matched = self.pods.record(&uid).and_then(|pod| self.identities.matches(key, &pod));
                let selects = matched.is_some() || before.contains(&uid);
                self.set_matched(key, &uid, matched);
                // Why a waiting pod has none may name an identity that is not admitted either.
                if selects && (*is_effective || self.sessions.waits(&key.namespace, &uid)) {
                    affected.insert(uid);
                }
            }
        }
        let foreign = judged.all.iter().filter_map(|key| self.identities.judged(key));
        let foreign = foreign.flat_map(|one| &one.identity().federates_with);
        self.dirty.domains.extend(foreign.filter_map(|name| self.domains.holder(name)).map(|one| one.name.clone()));
        self.dirty.identities.extend(judged.all);
        affected
    }

    /// Publishes to the sessions of these pods, and to those of `namespaces` that wait for an identity.
    fn publish_all<'a>(&mut self, pods: HashSet<Arc<str>>, namespaces: impl IntoIterator<Item = &'a str>) {
        let waiting: Vec<_> =
            namespaces.into_iter().flat_map(|namespace| self.sessions.waiting(namespace)).cloned().collect();
        for uid in pods.iter().chain(&waiting) {
            self.publish(uid);
        }
    }

    fn publish(&mut self, uid: &str) {
        if !self.sessions.has(uid) {
            return;
        }
        let mut waits = false;
        for session in self.sessions.names(uid) {
            let entitlement = self.entitlement(uid, &session);
            waits |= matches!(entitlement, Entitlement::None(_));
            self.sessions.publish(uid, &session, entitlement);
        }
        if let Some(namespace) = self.pods.namespace(uid) {
            self.sessions.set_waiting(uid, namespace, waits);
        }
    }

    fn subscribe(&mut self, uid: &str, session: &str) -> watch::Receiver<Arc<Entitlement>> {
        let entitlement = self.entitlement(uid, session);
        let waits = matches!(entitlement, Entitlement::None(_));
        let receiver = self.sessions.subscribe(&Arc::from(uid), session, entitlement);
        if let Some(namespace) = self.pods.namespace(uid).filter(|_| waits) {
            self.sessions.set_waiting(uid, namespace, true);
        }
        receiver
    }
}

/// Whether a pod is one that publishes bundles. Nobody else has rights in its namespace.
fn is_endpoint(pod: &PodFacts) -> bool {
    pod.namespace == ENDPOINT_NAMESPACE && pod.service_account == ENDPOINT
}

#[cfg(test)]
mod claims_tests;
#[cfg(test)]
mod tests;
