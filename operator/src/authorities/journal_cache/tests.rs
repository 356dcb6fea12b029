//! Which journals are used and which never are.

use std::time::Duration;

use countersign_core::journal::{
    AuthorityPolicy, Journal, JournalError, Kind, LocalMaker, Plan, Receipts, RotationRequests, next,
};
use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};

use super::{AuthorityConfig, JournalCache, Problem, StoredSecret, examine};

const CLUSTER: &str = "cluster-a";
const SECRET: &str = "trust-domain.example.org";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn policy() -> AuthorityPolicy {
    AuthorityPolicy {
        ca_life: Duration::from_secs(86_400),
        longest_svid_life: Duration::from_secs(3_600),
        refresh_hint: Duration::from_secs(300),
        max_delay: Duration::from_secs(1_800),
        taint_max_delay: Duration::from_secs(600),
        ..super::control_plane_policy()
    }
}

fn facts() -> AuthorityConfig {
    AuthorityConfig {
        name: "example.org".to_owned(),
        uid: "td-uid".to_owned(),
        trust_domain: "example.org".parse().unwrap(),
        policy: policy(),
        requests: super::NO_REQUESTS,
        jwt_issuer: None,
        published_sequence: None,
        adopts: None,
    }
}

fn journal(cluster: &str, now: Timestamp) -> Journal {
    let (trust_domain, policy) = (facts().trust_domain, policy());
    let made = Journal::create(cluster, Some(&trust_domain), &policy, &LocalMaker, now);
    made.now_or_never().expect("it is made here").unwrap()
}

fn due(journal: &Journal, now: Timestamp) -> Plan {
    next(journal, &policy(), &super::NO_REQUESTS, &Receipts::default(), now)
}

fn stored(journal: &Journal, version: &str) -> StoredSecret {
    StoredSecret {
        resource_version: version.to_owned(),
        owner: Some("td-uid".to_owned()),
        journal: Some(journal.to_bytes().unwrap()),
    }
}

fn damaged(version: &str) -> StoredSecret {
    let mut secret = stored(&journal(CLUSTER, at(0)), version);
    let bytes = secret.journal.as_mut().unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
    secret
}

fn sequence(cache: &JournalCache) -> Option<u64> {
    cache.published(at(10)).bundles.get(&facts().trust_domain).map(|bundle| bundle.sequence)
}

#[test]
fn a_journal_is_published_whichever_of_secret_and_trust_domain_is_seen_first() {
    let journal = journal(CLUSTER, at(0));
    let mut first = JournalCache::new(CLUSTER.to_owned());
    first.apply_secret(SECRET, stored(&journal, "1"), at(0));
    assert_eq!(sequence(&first), None);
    first.configure(facts(), at(0));
    let mut second = JournalCache::new(CLUSTER.to_owned());
    second.configure(facts(), at(0));
    assert_eq!(second.apply_secret(SECRET, stored(&journal, "1"), at(0)), ["example.org"]);
    assert_eq!(sequence(&first), Some(journal.sequence(at(10))));
    assert_eq!(sequence(&second), sequence(&first));
}

// A damaged journal is never a new root, and takes nothing from those who hold credentials.
#[test]
fn a_damaged_journal_is_a_problem_and_what_was_loaded_before_signs_on() {
    let mut cache = JournalCache::new(CLUSTER.to_owned());
    cache.configure(facts(), at(0));
    cache.apply_secret(SECRET, stored(&journal(CLUSTER, at(0)), "1"), at(0));
    let before = sequence(&cache);
    cache.apply_secret(SECRET, damaged("2"), at(5));
    assert_eq!(cache.problem("example.org").unwrap().reason().name(), "JournalDamaged");
    assert_eq!(sequence(&cache), before);
    assert!(before.is_some());

    let mut fresh = JournalCache::new(CLUSTER.to_owned());
    fresh.configure(facts(), at(5));
    fresh.apply_secret(SECRET, damaged("2"), at(5));
    assert_eq!(sequence(&fresh), None, "a replica that never held it signs nothing");
    let empty = StoredSecret { journal: None, ..damaged("3") };
    fresh.apply_secret(SECRET, empty, at(5));
    assert_eq!(fresh.problem("example.org").unwrap().reason().name(), "JournalDamaged");
}

#[test]
fn a_journal_that_is_gone_or_of_another_cluster_or_older_is_a_problem() {
    let known = |secret: Option<&StoredSecret>, facts: &AuthorityConfig| examine(secret, facts, CLUSTER, None, at(10));
    let published = AuthorityConfig { published_sequence: Some(7), ..facts() };
    assert!(matches!(known(None, &facts()), Ok(None)), "there has never been one");
    assert!(matches!(known(None, &published), Err(Problem::Missing { published: 7, .. })));

    let foreign = stored(&journal("cluster-b", at(0)), "1");
    assert_eq!(known(Some(&foreign), &facts()).unwrap_err().reason().name(), "JournalOfOtherCluster");

    let old = journal(CLUSTER, at(0));
    let newer = AuthorityConfig { published_sequence: Some(old.sequence(at(10)) + 1), ..facts() };
    let problem = known(Some(&stored(&old, "1")), &newer).unwrap_err();
    assert!(matches!(problem, Problem::Unusable { error: JournalError::OlderThanPublished { .. }, .. }), "{problem}");
}

#[test]
fn a_journal_is_missing_only_once_all_were_listed() {
    let mut cache = JournalCache::new(CLUSTER.to_owned());
    cache.configure(AuthorityConfig { published_sequence: Some(7), ..facts() }, at(0));
    assert_eq!(cache.problem("example.org"), None);
    assert_eq!(cache.complete(at(0)), ["example.org"]);
    assert_eq!(cache.problem("example.org").unwrap().reason().name(), "JournalMissing");
}

#[test]
fn an_older_copy_never_replaces_what_this_replica_holds() {
    let (old, later) = (journal(CLUSTER, at(0)), at(23 * 3_600));
    let plan = due(&old, later);
    let new = old.apply(&plan, &policy(), &LocalMaker, later).now_or_never().unwrap().unwrap();
    let mut cache = JournalCache::new(CLUSTER.to_owned());
    cache.configure(facts(), at(0));
    cache.apply_secret(SECRET, stored(&new, "2"), later);
    cache.apply_secret(SECRET, stored(&old, "3"), later);
    assert_eq!(cache.problem("example.org").unwrap().reason().name(), "JournalOlderThanPublished");
    assert_eq!(cache.journal("example.org").unwrap().generation(), new.generation());
    cache.apply_secret(SECRET, stored(&new, "4"), later);
    assert_eq!(cache.problem("example.org"), None);
}

#[test]
fn a_journal_left_behind_is_taken_over_with_consent_only() {
    let secret = stored(&journal(CLUSTER, at(0)), "1");
    let remade = AuthorityConfig { uid: "new-uid".to_owned(), ..facts() };
    let problem = examine(Some(&secret), &remade, CLUSTER, None, at(10)).unwrap_err();
    assert_eq!(problem.reason().name(), "JournalNotAdopted");
    let command = "kubectl annotate --overwrite trustdomain example.org countersign.dev/adopt-authorities=td-uid. ";
    assert!(problem.to_string().contains(command), "{problem}");
    let consenting = AuthorityConfig { adopts: Some("td-uid".to_owned()), ..remade.clone() };
    assert!(matches!(examine(Some(&secret), &consenting, CLUSTER, None, at(10)), Ok(Some(_))));
    for other in ["true", "", "new-uid", "td-uid ", "TD-UID"] {
        let naming_another = AuthorityConfig { adopts: Some(other.to_owned()), ..remade.clone() };
        let problem = examine(Some(&secret), &naming_another, CLUSTER, None, at(10)).unwrap_err();
        assert_eq!(problem.reason().name(), "JournalNotAdopted");
        assert!(problem.to_string().contains(&format!("names {other:?} instead")), "{problem}");
    }
}

#[test]
fn an_annotation_that_adopted_a_journal_adopts_no_other_that_comes_later() {
    let (adopted, now) = (stored(&journal(CLUSTER, at(0)), "1"), at(10));
    let remade = AuthorityConfig { uid: "new-uid".to_owned(), adopts: Some("td-uid".to_owned()), ..facts() };
    let mut cache = JournalCache::new(CLUSTER.to_owned());
    cache.configure(remade, at(5));
    cache.apply_secret(SECRET, adopted.clone(), now);
    assert_eq!(cache.problem("example.org"), None);
    let root = cache.published(now).bundles[&facts().trust_domain].document.clone();
    // As the leader writes it on: it is of the new object now.
    cache.apply_secret(
        SECRET,
        StoredSecret { resource_version: "2".to_owned(), owner: Some("new-uid".to_owned()), ..adopted },
        now,
    );
    assert_eq!(cache.problem("example.org"), None);
    let later = StoredSecret { owner: Some("a-third".to_owned()), ..stored(&journal(CLUSTER, at(6)), "3") };
    cache.apply_secret(SECRET, later, now);
    assert_eq!(cache.problem("example.org").unwrap().reason().name(), "JournalNotAdopted");
    assert_eq!(cache.published(now).bundles[&facts().trust_domain].document, root, "what was loaded before signs on");
}

#[test]
fn a_trust_domain_that_is_gone_signs_nothing() {
    let mut cache = JournalCache::new(CLUSTER.to_owned());
    cache.configure(facts(), at(0));
    cache.apply_secret(SECRET, stored(&journal(CLUSTER, at(0)), "1"), at(0));
    cache.forget("example.org");
    assert_eq!(sequence(&cache), None);
    cache.configure(AuthorityConfig { uid: "new-uid".to_owned(), ..facts() }, at(5));
    assert_eq!(sequence(&cache), None, "not adopted");
}

// Every replica switches at the time that stands in the journal, whoever lives.
#[test]
fn time_alone_switches_authorities_and_removes_them() {
    let journal = journal(CLUSTER, at(0));
    let mut cache = JournalCache::new(CLUSTER.to_owned());
    cache.configure(facts(), at(0));
    cache.apply_secret(SECRET, stored(&journal, "1"), at(0));
    let signer = |now| {
        let published = cache.published(now);
        let signers = &published.signers[&facts().trust_domain];
        let bundle = &published.bundles[&facts().trust_domain];
        let roots = countersign_core::bundle::Bundle::parse(&facts().trust_domain, &bundle.document).unwrap();
        let key_id = signers.x509.as_ref().unwrap().certificate().subject_key_id().to_vec();
        (key_id, signers.jwt.as_ref().unwrap().0.kid().to_owned(), roots.x509_authorities.len())
    };
    // From then on acknowledgements could bring the switch forward.
    let window = cache.next_change(at(0)).unwrap();
    let switch = cache.next_change(window).unwrap();
    let moment = SignedDuration::from_secs(1);
    let (before, after) = (signer(switch.checked_sub(moment).unwrap()), signer(switch));
    assert_ne!((&before.0, &before.1), (&after.0, &after.1));
    assert_eq!((before.2, after.2), (2, 2), "both are trusted on either side of the switch");
    let end = cache.next_change(switch).unwrap();
    assert_eq!(signer(end).2, 1);
}

// After a restore of last week's journal a key that was revoked since would sign until the leader has written.
#[test]
fn what_is_tainted_or_revoked_signs_nothing_even_before_that_is_written() {
    let journal = journal(CLUSTER, at(0));
    let names = [Kind::X509, Kind::Jwt].map(|kind| journal.slots(kind)[0].id.clone());
    let mut cache = JournalCache::new(CLUSTER.to_owned());
    cache.configure(facts(), at(0));
    cache.apply_secret(SECRET, stored(&journal, "1"), at(0));
    let signs = |cache: &JournalCache| {
        let published = cache.published(at(10));
        let signers = &published.signers[&facts().trust_domain];
        (signers.x509.is_some(), signers.jwt.is_some())
    };
    assert_eq!(signs(&cache), (true, true));
    for (tainted, revoked) in [(names.to_vec(), vec![]), (vec![], names.to_vec())] {
        let requests = RotationRequests {
            tainted: tainted.into_iter().collect(),
            revoked: revoked.into_iter().collect(),
            ..super::NO_REQUESTS
        };
        cache.configure(AuthorityConfig { requests, ..facts() }, at(1));
        assert_eq!(signs(&cache), (false, false));
        assert!(cache.is_signing("example.org", at(10)), "no object is written anew for that");
    }
}
