//! What is due for a journal, and what the status says of it.

use countersign_core::journal::{Journal, JournalError, KeySource, RandomKeys};
use countersign_core::key::{KeyError, PrivateKey};
use countersign_crds::TrustDomain;
use jiff::Timestamp;
use serde_json::json;

use super::{Due, Problem, Standing, decide, facts, status};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn domain() -> TrustDomain {
    serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": {"name": "example.org", "uid": "u", "generation": 3},
        "spec": {"authority": {}},
    }))
    .unwrap()
}

/// Ids that tests can compare; the keys are real.
#[derive(Default)]
struct Numbered(u32);

impl KeySource for Numbered {
    fn key(&mut self, key_type: countersign_core::key::KeyType) -> Result<PrivateKey, KeyError> {
        RandomKeys.key(key_type)
    }

    fn id(&mut self) -> Result<String, KeyError> {
        self.0 += 1;
        Ok(format!("{:032x}", self.0))
    }
}

fn facts_of(domain: &TrustDomain) -> super::DomainFacts {
    facts(domain, "example.org".parse().unwrap())
}

fn journal(now: Timestamp) -> Journal {
    let facts = facts_of(&domain());
    Journal::create("cluster", Some(&facts.trust_domain), &facts.policy, &mut Numbered::default(), now).unwrap()
}

fn missing() -> Problem {
    Problem::Missing { secret: "trust-domain.example.org".to_owned(), published: 5 }
}

#[test]
fn a_journal_is_made_once_advanced_in_time_and_never_replaced() {
    let policy = facts_of(&domain()).policy;
    assert!(matches!(decide(Ok(None), false, &policy, at(0)), Due::Create));
    assert!(matches!(decide(Ok(Some(journal(at(0)))), false, &policy, at(60)), Due::Nothing(_)));
    let half = decide(Ok(Some(journal(at(0)))), false, &policy, at(43_200));
    assert!(matches!(half, Due::Advance(_, plan) if plan.steps.len() == 4));
    let adopting = decide(Ok(Some(journal(at(0)))), true, &policy, at(60));
    assert!(matches!(adopting, Due::Advance(_, plan) if plan.is_empty()), "the Secret gets its new owner");
    let damaged = JournalError::Damaged { what: "checksum".to_owned() };
    let unusable = Problem::Unusable { secret: "s".to_owned(), error: damaged };
    for problem in [missing(), unusable] {
        assert!(matches!(decide(Err(problem), true, &policy, at(43_200)), Due::Problem(_)));
    }
}

#[test]
fn the_status_of_a_signing_domain() {
    let facts = facts_of(&domain());
    let status = status(&domain(), &Standing::Signing { journal: journal(at(0)), facts }, at(60));
    insta::assert_yaml_snapshot!(status);
}

#[test]
fn the_status_of_a_damaged_journal_is_stalled_and_keeps_what_was_published() {
    let mut domain = domain();
    let signing = Standing::Signing { journal: journal(at(0)), facts: facts_of(&domain) };
    domain.status = Some(status(&domain, &signing, at(60)));
    let damaged = JournalError::Damaged { what: "the checksum does not fit".to_owned() };
    let problem = Problem::Unusable { secret: "trust-domain.example.org".to_owned(), error: damaged };
    let facts = facts_of(&domain);
    assert!(facts.published_sequence.is_some());
    let stalled = status(&domain, &Standing::Problem { problem, facts }, at(120));
    assert_eq!(stalled.bundle, domain.status.unwrap().bundle);
    insta::assert_yaml_snapshot!(stalled.conditions);
}

#[test]
fn the_status_of_a_duplicate_and_of_an_invalid_domain_is_stalled() {
    let duplicate = Standing::Duplicate { of: "first".to_owned(), trust_domain: "example.org".to_owned() };
    let invalid = Standing::Invalid("spec.grants[0].paths: nonsense".to_owned());
    let conditions = [duplicate, invalid].map(|standing| status(&domain(), &standing, at(0)).conditions);
    let told: Vec<_> = conditions.iter().flatten().filter(|one| one.type_ != "Reconciling").collect();
    insta::assert_yaml_snapshot!(told);
}

#[test]
fn a_status_is_written_only_when_it_means_something_else() {
    let mut domain = domain();
    let standing = |domain: &TrustDomain| Standing::Signing { journal: journal(at(0)), facts: facts_of(domain) };
    let first = status(&domain, &standing(&domain), at(60));
    domain.status = Some(first.clone());
    let again = status(&domain, &standing(&domain), at(3_000));
    // Each journal here has new keys, of which the status shows nothing: only the ids, which are numbered.
    assert_eq!(again, first);
}
