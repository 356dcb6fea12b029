//! The status of a TrustDomain of which this cluster is the authority, and how any status is written.

use countersign_contract::objects::OPERATOR;
use countersign_core::journal::{Journal, State, Times, X509Entry};
use countersign_crds::{AuthorityState, AuthorityStatus, BundleStatus, TrustDomain, TrustDomainStatus};
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{Context, ReconcileError, acknowledgements, requests};
use crate::{
    authorities::journal_cache::{AuthorityConfig, Problem},
    controllers::conditions::Health,
    inspect::receipts::AckSummary,
};

/// What the status speaks of.
#[derive(Debug)]
pub(super) enum Assessment {
    Signing { journal: Journal, facts: AuthorityConfig, acks: Option<AckSummary> },
    Problem { problem: Problem, facts: AuthorityConfig },
    Invalid(String),
    Duplicate { of: String, trust_domain: String },
    Nothing,
}

/// The status, but for the conditions that other modules add.
pub(super) fn status(domain: &TrustDomain, assessment: &Assessment, now: Timestamp) -> TrustDomainStatus {
    let old = domain.status.clone().unwrap_or_default();
    let health = match assessment {
        Assessment::Signing { .. } => {
            Health::ready(Reason::Signing, "the authorities sign and the bundle is published")
        }
        Assessment::Problem { problem, .. } => Health::stalled(
            problem.reason(),
            format!("{problem}; no new root is made, and replicas that had loaded the journal before sign on with it"),
        ),
        Assessment::Invalid(error) => Health::stalled(Reason::Invalid, error.clone()),
        Assessment::Duplicate { of, trust_domain } => Health::stalled(
            Reason::Duplicate,
            format!("TrustDomain {of}, which is older, holds trust domain {trust_domain}: delete one of the two"),
        ),
        Assessment::Nothing => {
            Health::stalled(Reason::NoAuthority, "spec.authority is missing: this cluster signs nothing here")
        }
    };
    let generation = domain.meta().generation;
    let conditions = health.conditions(generation, &old.conditions, now);
    let status = TrustDomainStatus { conditions, observed_generation: generation, ..old };
    match assessment {
        Assessment::Signing { journal, facts, acks } => TrustDomainStatus {
            trust_domain: Some(facts.trust_domain.to_string()),
            bundle: Some(BundleStatus {
                sequence: i64::try_from(journal.sequence(now)).unwrap_or(i64::MAX),
                refresh_hint: facts.policy.refresh_hint.into(),
                acknowledged: acks.as_ref().map(acknowledgements::of_expected),
                unable: acks.as_ref().map(|acks| i64::try_from(acks.unable).unwrap_or(i64::MAX)),
            }),
            removed: requests::removed(&status, journal, facts, now),
            authorities: authorities(journal, acks.as_ref(), now),
            next_switch: next_switch(journal, now),
            ..status
        },
        // What was published stays: by it an older journal is distinguished from the newest.
        Assessment::Problem { facts, .. } => {
            TrustDomainStatus { trust_domain: Some(facts.trust_domain.to_string()), ..status }
        }
        Assessment::Invalid(_) | Assessment::Duplicate { .. } | Assessment::Nothing => status,
    }
}

/// Writes a status that differs from what the object has.
pub(super) async fn write_status(
    domain: &TrustDomain,
    status: TrustDomainStatus,
    context: &Context,
) -> Result<(), ReconcileError> {
    if domain.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let name = domain.name_any();
    let patch = json!({
        "apiVersion": TrustDomain::api_version(&()),
        "kind": TrustDomain::kind(&()),
        // Fenced: one that leads no longer must not overwrite what the next leader wrote.
        "metadata": { "name": name, "uid": domain.uid(), "resourceVersion": domain.resource_version() },
        "status": status,
    });
    context.leadership.ensure()?;
    let api: Api<TrustDomain> = Api::all(context.client.clone());
    match api.patch_status(&name, &PatchParams::apply(OPERATOR).force(), &Patch::Apply(patch)).await {
        Ok(_) => Ok(()),
        // Deleted meanwhile: its watch event tells.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Err(ReconcileError::Changed { name }),
        Err(source) => Err(ReconcileError::Status { name, source: Box::new(source) }),
    }
}

fn authorities(journal: &Journal, acks: Option<&AckSummary>, now: Timestamp) -> Vec<AuthorityStatus> {
    let slots =
        requests::KINDS.into_iter().flat_map(|(kind, shown)| journal.slots(kind).iter().map(move |slot| (shown, slot)));
    let mut all: Vec<_> = slots
        .filter_map(|(kind, slot)| {
            let Times { activate_at, retire_at, remove_at, .. } = slot.times;
            let awaited = slot.state(now) == State::Prepared;
            Some(AuthorityStatus {
                kind,
                id: slot.id.clone(),
                state: authority_state(slot.state(now))?,
                activate_at: Time(activate_at),
                retire_at: Time(retire_at),
                remove_at: Time(remove_at),
                not_after: slot.authority.x509().map(|authority| Time(authority.certificate().not_after())),
                subject_key_id: slot.authority.x509().map(X509Entry::subject_key_id_hex),
                acknowledged: acks.filter(|_| awaited).map(acknowledgements::of_expected),
            })
        })
        .collect();
    all.sort_by_key(|one| (one.kind, one.activate_at.0));
    all
}

/// When the next authority takes over from one that signs.
fn next_switch(journal: &Journal, now: Timestamp) -> Option<Time> {
    let slots = requests::KINDS.into_iter().flat_map(|(kind, _)| journal.slots(kind));
    let signing = slots.filter(|slot| slot.state(now) == State::Active);
    signing.map(|slot| slot.times.retire_at).min().map(Time)
}

fn authority_state(state: State) -> Option<AuthorityState> {
    match state {
        State::Prepared => Some(AuthorityState::Prepared),
        State::Active => Some(AuthorityState::Active),
        State::Retiring => Some(AuthorityState::Retiring),
        State::Tainted => Some(AuthorityState::Tainted),
        State::Gone => None,
    }
}
