//! The condition `BundleSequenceConsistent`: whether agents report a newer bundle than this cluster has published. That happens
//! where a cluster was restored from an old backup. An agent may also lie, so nothing but the condition follows from it.

use countersign_core::{journal::Journal, x509::BACKDATE};
use countersign_crds::{TrustDomain, condition::BUNDLE_SEQUENCE_CONSISTENT};
use countersign_reasons::Reason;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{controllers::conditions, inspect::receipts::NewerClaims};

/// The highest sequence that a replica may publish of `journal`, which is the newest: the leader alone writes it. Another's clock
/// may be ahead of ours by twice as much as a clock may be off (ADR 12), so that it has removed an authority already.
pub(super) fn highest_published(journal: &Journal, now: Timestamp) -> u64 {
    let ahead = SignedDuration::try_from(2 * BACKDATE).unwrap_or_default();
    journal.sequence(now.saturating_add(ahead).unwrap_or(now))
}

/// `published` is the sequence of the bundle now; `name` tells a pod's namespace and name by its uid.
pub(super) fn condition(
    object: &TrustDomain,
    published: u64,
    claims: Option<&NewerClaims>,
    name: impl Fn(&str) -> String,
    now: Timestamp,
) -> Condition {
    let (status, reason, message) = match claims {
        None => ("Unknown", Reason::NotReported, "not every replica of the operator has reported yet".to_owned()),
        Some(NewerClaims { agents: 0, .. }) => {
            ("True", Reason::Consistent, "no agent reports a newer bundle than the one that is published".to_owned())
        }
        Some(claims) => ("False", Reason::NewerSequenceReported, message(published, claims, name)),
    };
    let old = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions::condition(BUNDLE_SEQUENCE_CONSISTENT, (status, reason, message), object.metadata.generation, old, now)
}

fn message(published: u64, claims: &NewerClaims, name: impl Fn(&str) -> String) -> String {
    let names: Vec<String> = claims.pods.iter().map(|uid| name(uid)).collect();
    let more = match claims.agents.saturating_sub(names.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "this cluster has published the bundle up to sequence {published}, and agents report up to {}: {}{more}. If the cluster \
         was restored from a backup, name again in spec.authority what was tainted or revoked since, then set rotation.after to \
         now (docs/recovery.md). Otherwise these agents report what is not true",
        claims.highest,
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::{NewerClaims, TrustDomain, condition, highest_published};
    use countersign_core::journal::{Journal, Kind, LocalMaker};
    use countersign_policy::authority_config;
    use futures::FutureExt as _;
    use jiff::{SignedDuration, Timestamp};
    use serde_json::json;

    fn domain() -> TrustDomain {
        serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
            "metadata": {"name": "example.org"}, "spec": {"authority": {}},
        }))
        .unwrap()
    }

    fn told(claims: Option<&NewerClaims>) -> (String, String, String) {
        let found = condition(&domain(), 7, claims, |uid| format!("shop/{uid}"), Timestamp::UNIX_EPOCH);
        (found.status, found.reason, found.message)
    }

    #[test]
    fn agents_that_report_a_newer_bundle_are_counted_and_three_are_named_with_what_to_do() {
        let pods = ["a", "b", "c"].map(str::to_owned).to_vec();
        let (status, reason, message) = told(Some(&NewerClaims { agents: 12, highest: 9, pods }));
        assert_eq!((status.as_str(), reason.as_str()), ("False", "NewerSequenceReported"));
        for part in ["up to sequence 7", "up to 9: shop/a, shop/b, shop/c and 9 more.", "rotation.after", "not true"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        let one = NewerClaims { agents: 1, highest: u64::MAX, pods: vec!["a".to_owned()] };
        assert!(told(Some(&one)).2.contains("18446744073709551615: shop/a."), "{:?}", told(Some(&one)));
    }

    #[test]
    fn no_report_of_a_newer_bundle_is_consistent_and_what_is_not_known_is_said_so() {
        let none = told(Some(&NewerClaims::default()));
        assert_eq!((none.0.as_str(), none.1.as_str()), ("True", "Consistent"));
        assert_eq!((told(None).0.as_str(), told(None).1.as_str()), ("Unknown", "NotReported"));
    }

    // Otherwise agents of a replica whose clock is ahead would seem to report too much for a moment.
    #[test]
    fn what_a_replica_whose_clock_is_ahead_has_published_already_counts_as_published() {
        let facts = authority_config(&domain(), "example.org".parse().unwrap());
        let made = Timestamp::from_second(1_800_000_000).unwrap();
        let journal = Journal::create("cluster", Some(&facts.trust_domain), &facts.policy, &LocalMaker, made);
        let journal = journal.now_or_never().expect("it is made here").unwrap();
        let end = journal.slots(Kind::X509).iter().map(|slot| slot.times.remove_at).min().unwrap();
        let before = |seconds| end.checked_sub(SignedDuration::from_secs(seconds)).unwrap();
        assert_eq!(highest_published(&journal, before(60)), journal.sequence(end));
        assert_eq!(highest_published(&journal, before(61)), journal.sequence(made));
        assert_ne!(journal.sequence(end), journal.sequence(made));
    }
}
