//! The journal of a TrustDomain: first authorities, successors in time, removal of what has ended, and what agents acknowledged of them.

use countersign_contract::objects::journal::trust_domain_secret;
use countersign_core::journal::{self, Journal, Kind, Receipts, State};
use jiff::Timestamp;

use super::{Context, ReconcileError, sequence};
use crate::{
    authorities::journal_cache::{AuthorityConfig, Problem, examine},
    inspect::receipts::{AckSummary, DomainReceipts, NewerClaims, is_entitled},
};

/// Makes, advances and stores the journal of a trust domain; the problem, if it cannot be used.
pub(super) async fn keep_journal(
    facts: &AuthorityConfig,
    context: &Context,
    now: Timestamp,
) -> Result<Result<Journal, Problem>, ReconcileError> {
    let name = trust_domain_secret(&facts.name);
    let secret = context.journals.read(&name).await?;
    let known = context.authorities.read(|cache| cache.journal(&facts.name).map(|journal| journal.sequence(now)));
    let adopting = secret.as_ref().is_some_and(|secret| secret.owner.as_ref() != Some(&facts.uid));
    let examined = examine(secret.as_ref(), facts, &context.cluster, known, now);
    let receipts = match &examined {
        Ok(Some(journal)) => receipts(journal, facts, context, now),
        Ok(None) | Err(_) => Receipts::default(),
    };
    let due = decide(examined, adopting, facts, &receipts, now);
    let journal = match due {
        Due::Problem(problem) => return Ok(Err(problem)),
        Due::Nothing(journal) => return Ok(Ok(journal)),
        Due::Create => {
            tracing::info!(trust_domain = %facts.trust_domain, "making the first authorities");
            let trust_domain = Some(&facts.trust_domain);
            Journal::create(&context.cluster, trust_domain, &facts.policy, &*context.maker, now).await?
        }
        Due::Advance(journal, plan) => {
            for step in &plan.steps {
                tracing::info!(trust_domain = %facts.trust_domain, %step, "authorities change");
            }
            journal.apply(&plan, &facts.policy, &*context.maker, now).await?
        }
    };
    context.leadership.ensure()?;
    let stored = context.journals.write(&name, Some(&facts.uid), &journal, secret.as_ref()).await?;
    context.authorities.apply_secret(&name, stored);
    Ok(Ok(journal))
}

/// What is due for a journal.
#[derive(Debug)]
pub(super) enum Due {
    Nothing(Journal),
    Create,
    Advance(Journal, journal::Plan),
    Problem(Problem),
}

pub(super) fn decide(
    examined: Result<Option<Journal>, Problem>,
    adopting: bool,
    facts: &AuthorityConfig,
    receipts: &Receipts,
    now: Timestamp,
) -> Due {
    match examined {
        Err(problem) => Due::Problem(problem),
        Ok(None) => Due::Create,
        Ok(Some(journal)) => {
            let plan = journal::next(&journal, &facts.policy, &facts.requests, receipts, now);
            if plan.is_empty() && !adopting { Due::Nothing(journal) } else { Due::Advance(journal, plan) }
        }
    }
}

/// Asks what agents acknowledged of a trust domain; `None` unless every replica has answered.
fn acknowledged<T>(facts: &AuthorityConfig, context: &Context, ask: impl FnOnce(&DomainReceipts) -> T) -> Option<T> {
    let counted = context.counted.borrow().clone()?;
    counted.receipts.as_ref()?.get(facts.trust_domain.as_str()).map(ask)
}

/// How agents stand to the bundle of a journal.
pub(super) fn summary(
    journal: &Journal,
    facts: &AuthorityConfig,
    context: &Context,
    now: Timestamp,
) -> Option<AckSummary> {
    let entitled = is_entitled(&context.index, now);
    acknowledged(facts, context, |receipts| receipts.summary(journal.sequence(now), entitled))
}

/// The agents that report a newer bundle than this journal has, which was read after they did.
pub(super) fn newer_claims(
    journal: &Journal,
    facts: &AuthorityConfig,
    context: &Context,
    now: Timestamp,
) -> Option<NewerClaims> {
    let (published, entitled) = (sequence::highest_published(journal, now), is_entitled(&context.index, now));
    acknowledged(facts, context, |receipts| receipts.newer_claims(published, entitled))
}

fn receipts(journal: &Journal, facts: &AuthorityConfig, context: &Context, now: Timestamp) -> Receipts {
    let slots = journal.slots(Kind::X509).iter().filter(|slot| slot.state(now) == State::Tainted);
    let tainted = slots.map(|slot| slot.id.clone());
    let summary = summary(journal, facts, context, now);
    summary.map(|summary| summary.receipts(journal.sequence(now), tainted)).unwrap_or_default()
}
