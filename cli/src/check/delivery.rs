//! Whether pods have what they were issued, and clocks that are right: by the receipts of their agents, which the operator keeps in the
//! status of each WorkloadIdentity.

use std::collections::{BTreeMap, BTreeSet};

use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::{
    category::some,
    pods::{START, Seen, is_alive},
};
use crate::{
    finding::Finding,
    installation::agent_is_ready,
    objects::has_kept_counts,
    output::{Mark, count},
    reading::full_name,
};

pub(super) fn checks(seen: &Seen, now: Timestamp) -> Vec<Finding> {
    let name = "delivery";
    let pods: BTreeMap<String, &Pod> =
        seen.pods.items().iter().filter(|pod| is_alive(pod)).map(|pod| (full_name(pod), pod)).collect();
    let (mut held, mut problems) = (0, BTreeMap::<Reason, BTreeSet<&str>>::new());
    for identity in seen.identities.items() {
        // What a replica could not report is as it was before.
        let Some(status) = identity.status.as_ref().filter(|status| !has_kept_counts(status)) else { continue };
        held += status.pods.and_then(|pods| pods.held).unwrap_or(0);
        for one in &status.undelivered {
            let found = pods.get_key_value(&format!("{}/{}", identity.namespace().unwrap_or_default(), one.pod));
            let (Some((pod, object)), Ok(reason)) = (found, one.reason.parse::<Reason>()) else { continue };
            if is_settled(object, now) {
                problems.entry(reason).or_default().insert(pod);
            }
        }
    }
    if problems.is_empty() {
        let message = match held {
            0 => return Vec::new(),
            held => format!("what was issued last is on the socket and in the files, {}", times(held)),
        };
        return vec![Finding::ok(name, message)];
    }
    let check = |(reason, which): (Reason, BTreeSet<&str>)| {
        let pods = count(which.len(), "pod");
        let message = format!("{pods} {}: {}", whose(reason), some(which.iter().copied()));
        let first = which.first().and_then(|pod| pod.split_once('/')).unwrap_or_default();
        let hint = format!("kubectl countersign identity -n {} {}", first.0, first.1);
        Finding::ok(name, message).marked(Mark::Warning).because(reason.name()).with_mends(hint)
    };
    problems.into_iter().map(check).collect()
}

fn whose(reason: Reason) -> &'static str {
    match reason {
        Reason::AgentNotConnected => "whose agent has no stream to the operator",
        Reason::NothingDelivered => "whose agent is connected, and that have no X.509-SVID",
        Reason::SocketDiffers => "whose socket has another X.509-SVID than was issued last",
        Reason::FilesDiffer => "whose files have another X.509-SVID than the socket",
        Reason::AgentClockDiffers => "on nodes whose clock differs from the operator's",
        _ => "that have not got what was issued to them",
    }
}

fn times(held: i64) -> String {
    if held == 1 { "for one identity of a pod".to_owned() } else { format!("for {held} identities of pods") }
}

/// Of a pod that is new, or whose agent waits, other checks say what is wrong.
fn is_settled(pod: &Pod, now: Timestamp) -> bool {
    let is_new = pod.metadata.creation_timestamp.as_ref().is_none_or(|time| time.0 + START > now);
    !is_new && agent_is_ready(pod)
}

#[cfg(test)]
mod tests {
    use countersign_crds::WorkloadIdentity;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::{Finding, Mark, Seen, checks};
    use crate::reading::Reading;

    fn found(status: &Value, created: &str) -> Vec<Finding> {
        let identity: WorkloadIdentity = serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
            "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {"trustDomain": "shop.example", "selector": {"serviceAccounts": ["orders"]}},
            "status": status,
        }))
        .unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "shop", "creationTimestamp": created},
            "status": {"phase": "Running", "initContainerStatuses": [{
                "name": "countersign-agent", "started": true, "ready": true, "restartCount": 0, "image": "", "imageID": "",
            }]},
        }))
        .unwrap();
        let seen = Seen {
            name_in_paths: String::new(),
            domains: Reading::Found(Vec::new()),
            identities: Reading::Found(vec![identity]),
            namespaces: Reading::Found(Vec::new()),
            pods: Reading::Found(vec![pod]),
        };
        checks(&seen, "2030-01-01T12:00:00Z".parse().unwrap())
    }

    const LONG_AGO: &str = "2030-01-01T00:00:00Z";

    #[test]
    fn a_pod_that_has_not_got_what_was_issued_to_it_is_named_with_the_reason() {
        let undelivered = |pod: &str| json!({"undelivered": [{"pod": pod, "reason": "FilesDiffer", "message": ""}]});
        let [check] = found(&undelivered("a"), LONG_AGO).try_into().unwrap();
        assert_eq!((check.mark, check.code()), (Mark::Warning, Some("CS1303")));
        assert!(check.message.contains("1 pod whose files") && check.message.ends_with("shop/a"), "{check:?}");
        assert!(found(&undelivered("ended"), LONG_AGO).is_empty());
        assert!(found(&undelivered("a"), "2030-01-01T11:59:50Z").is_empty(), "it is new");
    }

    #[test]
    fn deliveries_that_agents_confirm_are_counted() {
        let status = |held: i64| json!({"pods": {"matched": 1, "notInjected": 0, "served": 1, "held": held}});
        let [check] = found(&status(1), LONG_AGO).try_into().unwrap();
        assert_eq!(check.mark, Mark::Ok);
        assert!(found(&status(0), LONG_AGO).is_empty(), "of an operator that does not count them nothing is known");
    }
}
