//! Workloads that lack an identity, and the WorkloadIdentity that would give one.

use std::collections::BTreeMap;

use anyhow::Result;
use countersign_contract::{
    metadata::annotation,
    objects::{AUTHORITIES_NAMESPACE, ENDPOINT_NAMESPACE, FEDERATION_NAMESPACE, SYSTEM_NAMESPACE},
};
use countersign_index::Entitlement;
use countersign_reasons::Reason;
use kube::ResourceExt as _;
use serde::Serialize;

use crate::{
    Options, Outcome,
    finding::{self, Finding},
    objects::{Objects, asks_for_injection, service_account, sessions, uid},
    output::{self, Page},
    proposal,
};

/// Find running pods that lack an identity, by service account, and print the WorkloadIdentities that would give one. Exit code 1 if
/// there are any.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// In all namespaces, but for those of Kubernetes and of Countersign.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
}

pub(crate) async fn run(Args { all_namespaces }: Args, options: &Options) -> Result<Outcome> {
    let cluster = options.cluster().await?;
    let objects = if all_namespaces {
        let mut all = cluster.objects().await?;
        all.pods.retain(|pod| !is_of_system(&pod.namespace().unwrap_or_default()));
        all
    } else {
        let mut own = cluster.objects_of_namespace().await?;
        own.pods = cluster.list_in(&cluster.namespace).await?;
        own
    };
    let report = report(&objects);
    options.print(&report)?;
    Ok(if report.workloads.is_empty() { Outcome::Well } else { Outcome::Problem })
}

fn is_of_system(namespace: &str) -> bool {
    let ours = [SYSTEM_NAMESPACE, AUTHORITIES_NAMESPACE, FEDERATION_NAMESPACE, ENDPOINT_NAMESPACE];
    namespace.starts_with("kube-") || ours.contains(&namespace)
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    workloads: Vec<Workload>,
    /// Pods that have all that they need.
    with_identity: usize,
}

/// The pods of a service account that lack something for the same reason.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Workload {
    namespace: String,
    service_account: String,
    pods: usize,
    #[serde(skip)]
    reason: Reason,
    #[serde(serialize_with = "finding::as_cause")]
    cause: Finding,
    /// The WorkloadIdentity that would give them one, as YAML.
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<String>,
}

/// Pure.
fn report(objects: &Objects) -> Report {
    let index = objects.index();
    let mut found: BTreeMap<(String, String, Reason), Workload> = BTreeMap::new();
    let mut with_identity = 0;
    for pod in &objects.pods {
        let (namespace, account) = (pod.namespace().unwrap_or_default(), service_account(pod));
        let missing = sessions(pod).into_iter().find_map(|session| match index.entitlement(&uid(pod), &session) {
            Entitlement::None(absence) => Some(Some((absence.reason, absence.message))),
            Entitlement::Gone => Some(None),
            Entitlement::Entitled(_) => None,
        });
        let (reason, message) = match missing {
            // It has ended.
            Some(None) => continue,
            Some(Some(why)) => why,
            None if pod.annotations().contains_key(annotation::INJECTED) => {
                with_identity += 1;
                continue;
            }
            None if asks_for_injection(objects.injection(pod).as_deref()) => {
                let message = "it is entitled to an identity, and has no agent: create it again";
                (Reason::NotInjected, message.to_owned())
            }
            None => (Reason::NotAsked, "it is entitled to an identity, and nothing asks for an agent".to_owned()),
        };
        let gives_one = [Reason::NoWorkloadIdentity, Reason::ServiceAccountNotSelected].contains(&reason);
        let proposal = gives_one.then(|| proposal::workload_identity(objects, &namespace, &account));
        let workload = found.entry((namespace.clone(), account.clone(), reason)).or_insert(Workload {
            namespace,
            service_account: account,
            pods: 0,
            reason,
            cause: Finding::failed("identity", reason, message),
            proposal,
        });
        workload.pods += 1;
    }
    Report { workloads: found.into_values().collect(), with_identity }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        if self.workloads.is_empty() {
            return page.line(format_args!(
                "No pod lacks an identity; {} one.",
                match self.with_identity {
                    1 => "1 pod has".to_owned(),
                    count => format!("{count} pods have"),
                }
            ));
        }
        page.table(
            &["NAMESPACE", "SERVICE ACCOUNT", "PODS", "REASON", "CODE"],
            self.workloads.iter().map(|one| {
                let reason = one.reason;
                vec![
                    one.namespace.clone(),
                    one.service_account.clone(),
                    one.pods.to_string(),
                    reason.name().to_owned(),
                    reason.code().to_owned(),
                ]
            }),
        );
        let proposals: Vec<&str> = self.workloads.iter().filter_map(|one| one.proposal.as_deref()).collect();
        if !proposals.is_empty() {
            page.heading("What would give them one, if a grant allows it (policy diff says so):");
            page.verbatim(&proposals.join("---\n"), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_of_one_account_are_one_workload_and_each_gets_a_proposal() {
        let pod = |name: &str, account: &str| {
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "shop", "uid": name},
                "spec": {"serviceAccountName": account, "containers": [{"name": "app"}]},
            }))
            .unwrap()
        };
        let objects = Objects {
            domains: vec![
                serde_json::from_value(json!({
                    "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": {"name": "shop.example"},
                    "spec": {
                        "authority": {},
                        "grants": [{"namespaces": {"matchNames": ["shop"]}, "paths": ["/ns/{namespace}/**"]}],
                    },
                }))
                .unwrap(),
            ],
            namespaces: vec![serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap()],
            pods: vec![pod("a", "web"), pod("b", "web"), pod("c", "cart")],
            ..Objects::default()
        };
        let report = report(&objects);
        let found: Vec<_> = report.workloads.iter().map(|one| (one.service_account.as_str(), one.pods)).collect();
        assert_eq!(found, [("cart", 1), ("web", 2)]);
        let proposal = report.workloads[1].proposal.as_deref().unwrap();
        let read: countersign_crds::WorkloadIdentity = serde_saphyr::from_str(proposal).unwrap();
        assert_eq!(read.spec.trust_domain, "shop.example");
        assert_eq!(read.spec.selector.service_accounts, ["web"]);
    }
}
