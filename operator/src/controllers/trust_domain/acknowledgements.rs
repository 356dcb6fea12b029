//! The condition `BundleAcknowledged`: whether everyone who is expected to has the bundle as it is now.

use countersign_crds::{TrustDomain, condition::BUNDLE_ACKNOWLEDGED};
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{controllers::conditions, inspect::receipts::AckSummary};

/// Such as `998/1000`.
pub(super) fn of_expected(acks: &AckSummary) -> String {
    format!("{}/{}", acks.acknowledged, acks.expected)
}

/// `name` tells a pod's namespace and name by its uid.
pub(super) fn condition(
    object: &TrustDomain,
    acks: Option<&AckSummary>,
    name: impl Fn(&str) -> String,
    now: Timestamp,
) -> Condition {
    let (status, reason, message) = match acks {
        None => ("Unknown", Reason::NotReported, "not every replica of the operator has reported yet".to_owned()),
        Some(acks) if acks.is_complete() => {
            ("True", Reason::Acknowledged, format!("every workload has it: {}{}", of_expected(acks), unable(acks)))
        }
        Some(acks) if acks.acknowledged == acks.expected => {
            ("False", Reason::NotPublished, "a replica of the operator does not publish it yet".to_owned())
        }
        Some(acks) => {
            let names: Vec<String> = acks.laggards.iter().map(|uid| name(uid)).collect();
            let message = format!("{}{}; not yet: {}", of_expected(acks), unable(acks), names.join(", "));
            ("False", Reason::Waiting, message)
        }
    };
    let old = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions::condition(BUNDLE_ACKNOWLEDGED, (status, reason, message), object.metadata.generation, old, now)
}

fn unable(acks: &AckSummary) -> String {
    match acks.unable {
        0 => String::new(),
        unable => format!(" ({unable} more cannot acknowledge)"),
    }
}

#[cfg(test)]
mod tests {
    use super::{AckSummary, TrustDomain, condition};
    use jiff::Timestamp;
    use serde_json::json;

    fn told(acks: Option<&AckSummary>) -> (String, String, String) {
        let domain: TrustDomain = serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
            "metadata": {"name": "example.org"}, "spec": {"authority": {}},
        }))
        .unwrap();
        let found = condition(&domain, acks, |uid| format!("shop/{uid}"), Timestamp::UNIX_EPOCH);
        (found.status, found.reason, found.message)
    }

    fn acks(acknowledged: usize, laggards: &[&str]) -> AckSummary {
        let laggards = laggards.iter().map(|&uid| uid.to_owned()).collect();
        AckSummary { acknowledged, expected: 3, unable: 0, laggards, published_everywhere: true }
    }

    #[test]
    fn who_has_not_got_the_bundle_is_named_and_who_cannot_say_so_is_counted_apart() {
        let waiting = AckSummary { unable: 2, ..acks(1, &["a", "b"]) };
        let (status, reason, message) = told(Some(&waiting));
        assert_eq!((status.as_str(), reason.as_str()), ("False", "Waiting"));
        assert_eq!(message, "1/3 (2 more cannot acknowledge); not yet: shop/a, shop/b (CS2032)");
        let (status, _, message) = told(Some(&acks(3, &[])));
        assert_eq!((status.as_str(), message.as_str()), ("True", "every workload has it: 3/3"));
    }

    #[test]
    fn what_is_not_known_is_said_so() {
        assert_eq!(told(None).0, "Unknown");
        let behind = AckSummary { published_everywhere: false, ..acks(3, &[]) };
        assert_eq!(told(Some(&behind)).1, "NotPublished");
    }
}
