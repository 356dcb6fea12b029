//! The status of remote TrustDomains: where the bundle is from, how old it is, what came of the polls, and who uses it.

use countersign_core::federation::{Decision, Flag, Origin, StoredRemote, decide, trusted_until};
use countersign_crds::{
    BundleOrigin, BundleStatus, PollError, RemoteStatus, TrustDomain, TrustDomainStatus,
    condition::{CONSENTS_COMPLETE, SHARED_ANCHOR},
};
use countersign_index::{IdentityKey, SharedIndex};
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource as _;

use super::Context;
use crate::{
    controllers::conditions::{self, Health},
    federation::{Known, anchors_shared_with},
};
use countersign_core::{bundle::Bundle, entitlement::MissingConsent, id::TrustDomain as Name};

/// How many WorkloadIdentities that lack a consent are named.
const NAMED: usize = 3;

/// The WorkloadIdentities that name a trust domain, each with the consent that it lacks.
pub(super) type Users = Vec<(IdentityKey, Option<MissingConsent>)>;

/// The WorkloadIdentities that name a trust domain.
pub(super) fn users(index: &SharedIndex, trust_domain: &Name) -> Users {
    index.read(|index| index.users_of(trust_domain))
}

/// The status at `now`, and when it changes by time alone.
pub(super) fn status(
    object: &TrustDomain,
    known: &Known,
    users: &Users,
    shared: &[String],
    now: Timestamp,
) -> (TrustDomainStatus, Option<Timestamp>) {
    let old = object.status.clone().unwrap_or_default();
    let generation = object.meta().generation;
    let decision = decide(&known.remote(), None, now, 0.0);
    let stored = &decision.stored;
    let used = users.iter().filter(|(_, missing)| missing.is_none()).count();
    let mut conditions = health(&decision, used).conditions(generation, &old.conditions, now);
    let mut add = |type_: &str, (status, reason, message): (&str, Reason, String)| {
        conditions.push(conditions::condition(type_, (status, reason, message), generation, &old.conditions, now));
    };
    for flag in decision.flags.iter().filter(|flag| !flag.ends_trust()) {
        add(flag.reason().name(), ("True", flag.reason(), flag.to_string()));
    }
    if let Some(first) = shared.first() {
        let more = shared.len().saturating_sub(1);
        let more = if more == 0 { String::new() } else { format!(" (and {more} more keys)") };
        add(SHARED_ANCHOR, ("True", Reason::SharedAnchor, format!("{first}{more}")));
    }
    add(CONSENTS_COMPLETE, consents(users));
    let bundle = stored.kept_bundle().map(|bundle| BundleStatus {
        sequence: i64::try_from(stored.sequence().unwrap_or_default()).unwrap_or(i64::MAX),
        refresh_hint: bundle.refresh_hint.into(),
        acknowledged: None,
        unable: None,
    });
    let status = TrustDomainStatus {
        conditions,
        observed_generation: generation,
        trust_domain: Some(known.spec.trust_domain().to_string()),
        bundle,
        remote: Some(remote(&decision, known, now)),
        used_by: Some(count(used)),
        ..TrustDomainStatus::default()
    };
    (status, decision.next_change)
}

fn health(decision: &Decision, used: usize) -> Health {
    let ends = decision.flags.iter().find(|flag| flag.ends_trust());
    let is_unverifiable = decision.flags.contains(&Flag::EndpointNotVerifiable);
    let Some(flag) = ends else {
        let from = match decision.stored.origin() {
            Some(Origin::Polled) => (Reason::Polled, "from its endpoint"),
            Some(Origin::Bootstrap) | None => (Reason::Bootstrapped, "from spec.remote.bootstrap"),
        };
        let users =
            if used == 1 { "WorkloadIdentity has it".to_owned() } else { "WorkloadIdentities have it".to_owned() };
        return Health::ready(from.0, format!("the bundle is {}; {used} {users}", from.1));
    };
    match flag {
        // A poll may bring it.
        Flag::NotBootstrapped | Flag::Stale { .. } if decision.next_poll.is_some() && !is_unverifiable => {
            Health::reconciling(flag.reason(), flag.to_string())
        }
        _ => Health::stalled(flag.reason(), flag.to_string()),
    }
}

fn consents(users: &Users) -> (&'static str, Reason, String) {
    let missing: Vec<_> = users.iter().filter_map(|(key, missing)| Some((key, missing.as_ref()?))).collect();
    let Some((_, first)) = missing.first() else {
        let message = match users.len() {
            0 => "no WorkloadIdentity names it in federatesWith".to_owned(),
            count => format!("every WorkloadIdentity that names it gets its bundle: {count}"),
        };
        return ("True", if users.is_empty() { Reason::NotNamed } else { Reason::Complete }, message);
    };
    let named: Vec<String> =
        missing.iter().take(NAMED).map(|(key, missing)| format!("{}/{}: {missing}", key.namespace, key.name)).collect();
    let more = match missing.len() - named.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    (
        "False",
        first.reason(),
        format!("WorkloadIdentities name it and do not get its bundle: {}{more}", named.join("; ")),
    )
}

fn remote(decision: &Decision, known: &Known, now: Timestamp) -> RemoteStatus {
    let stored: &StoredRemote = &decision.stored;
    let after = countersign_core::federation::Remote {
        stored: countersign_core::federation::Stored::Read(stored),
        ..known.remote()
    };
    RemoteStatus {
        origin: stored.origin().map(|origin| match origin {
            Origin::Bootstrap => BundleOrigin::Bootstrap,
            Origin::Polled => BundleOrigin::Polled,
        }),
        x509_authorities: stored.kept_bundle().map(|bundle| count(bundle.x509_authorities.len())),
        jwt_authorities: stored.kept_bundle().map(|bundle| count(bundle.jwt_authorities.len())),
        changed_at: stored.taken_at().map(whole),
        confirmed_at: stored.confirmed_at().map(whole),
        trusted_until: trusted_until(&after, now).map(whole),
        next_poll: decision.next_poll.map(whole),
        last_error: stored.failure().map(|failure| PollError {
            reason: failure.refusal.reason().name().to_owned(),
            message: failure.refusal.to_string(),
            count: i64::from(failure.count),
            since: whole(failure.since),
        }),
    }
}

/// The keys that this trust domain shares with others, for people.
pub(super) fn shared(trust_domain: &Name, context: &Context) -> Vec<String> {
    let foreign = context.remote_bundles.subscribe().borrow().clone();
    let published = context.authorities.subscribe().borrow().clone();
    let local = published.signers.keys().filter_map(|name| {
        let document = &published.bundles.get(name)?.document;
        Bundle::parse(name, document).ok()
    });
    let local: Vec<Bundle> = local.collect();
    anchors_shared_with(trust_domain, &foreign, &local).iter().map(ToString::to_string).collect()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Whole seconds, as times are stored in a status.
fn whole(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
