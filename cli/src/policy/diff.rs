//! What changes for which running pods if the objects in files are applied to a cluster, or deleted from it. Nothing is changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::Result;
use countersign_crds::{TrustDomain, WorkloadIdentity};
use countersign_index::{DomainVerdict, IdentityKey};
use countersign_reasons::Reason;
use kube::{Resource, ResourceExt as _};
use serde::Serialize;

use super::gifts::{self, Gift, Given, Session};
use crate::{
    Options, Outcome, files,
    finding::{self, Finding},
    objects::Objects,
    output::{self, Mark, Page},
};

/// Say which running pods gain or lose which identity, DNS name, audience or federated trust domain if the objects in these files are
/// applied. Each replaces the object of its name, as GitOps does. Exit code 1 if a pod loses something or an object gives nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// YAML with TrustDomains, WorkloadIdentities and Namespaces; files, folders or - for standard input; may be repeated.
    #[arg(long, short, required = true)]
    filename: Vec<PathBuf>,
    /// What if they are deleted.
    #[arg(long)]
    delete: bool,
}

pub(super) async fn run(Args { filename, delete }: Args, options: &Options) -> Result<Outcome> {
    let changes = files::read(&filename)?;
    let cluster = options.cluster().await?;
    let before = cluster.objects().await?;
    let after = if delete { before.without(&changes) } else { before.with(&changes) };
    let applied = if delete { Objects::default() } else { changes };
    let report = report(&before, &after, &applied);
    options.print(&report)?;
    Ok(if report.is_well() { Outcome::Well } else { Outcome::Problem })
}

/// What changes.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    pods: Vec<Change>,
    /// Objects of the files that give nothing, or less than they ask for.
    objects: Vec<Refused>,
    /// Pods that are as before.
    unchanged: usize,
}

/// What changes for a session of a pod.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Change {
    pod: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    container: String,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    gains: BTreeSet<Gift>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    loses: BTreeSet<Gift>,
    /// Why it has no identity afterwards.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "finding::as_cause_if_any")]
    cause: Option<Finding>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Refused {
    object: String,
    #[serde(serialize_with = "finding::as_cause")]
    cause: Finding,
}

/// Pure.
fn report(before: &Objects, after: &Objects, applied: &Objects) -> Report {
    let earlier = gifts::of(&before.index_with(&before.pods), &before.pods);
    let index = after.index_with(&before.pods);
    let later = gifts::of(&index, &before.pods);
    let pods: Vec<Change> =
        earlier.iter().filter_map(|(session, given)| change(session, given, later.get(session)?)).collect();
    let mut objects: Vec<Refused> = Vec::new();
    for identity in &applied.identities {
        let object = format!("WorkloadIdentity {}/{}", identity.namespace().unwrap_or_default(), identity.name_any());
        let was = before.identity(identity);
        if was.is_some_and(|was| was.spec.trust_domain != identity.spec.trust_domain) {
            let text =
                "spec.trustDomain is immutable: the API server refuses this change; make another WorkloadIdentity";
            objects.push(Refused { object: object.clone(), cause: refused(Reason::Invalid, text) });
        }
        let key = IdentityKey { namespace: identity.namespace().unwrap_or_default(), name: identity.name_any() };
        let Some(view) = index.identity(&key) else { continue };
        match &view.outcome {
            Err(errors) => objects.push(Refused { object, cause: refused(Reason::Invalid, errors.to_string()) }),
            Ok(judged) => {
                if let Err(refusal) = judged.outcome() {
                    objects.push(Refused { object, cause: refused(refusal.reason(), refusal.to_string()) });
                    continue;
                }
                let missing = judged.foreign().iter().filter_map(|one| Some((one.consent.as_ref().err()?, one)));
                objects.extend(missing.map(|(missing, one)| Refused {
                    object: object.clone(),
                    cause: refused(missing.reason(), one.to_string()),
                }));
            }
        }
    }
    for domain in &applied.domains {
        let cause = match index.domain(&domain.name_any()) {
            Some(DomainVerdict::Invalid(errors)) => refused(Reason::Invalid, errors.to_string()),
            Some(DomainVerdict::Duplicate { of, trust_domain }) => refused(
                Reason::Duplicate,
                format!("TrustDomain {of}, which is older, holds trust domain {trust_domain}"),
            ),
            Some(DomainVerdict::Accepted(_)) | None => continue,
        };
        objects.push(Refused { object: format!("TrustDomain {}", domain.name_any()), cause });
    }
    Report { unchanged: earlier.len() - pods.len(), pods, objects }
}

fn refused(reason: Reason, message: impl Into<String>) -> Finding {
    Finding::warning("refused", reason, message)
}

fn change(session: &Session, earlier: &Given, later: &Given) -> Option<Change> {
    let none = BTreeSet::new();
    let (was, is) = (earlier.as_ref().unwrap_or(&none), later.as_ref().unwrap_or(&none));
    let gains: BTreeSet<Gift> = is.difference(was).cloned().collect();
    let loses: BTreeSet<Gift> = was.difference(is).cloned().collect();
    if gains.is_empty() && loses.is_empty() {
        return None;
    }
    let Session { pod, container } = session.clone();
    Some(Change { pod, container, gains, loses, cause: later.as_ref().err().cloned() })
}

impl Objects {
    /// With each object in the place of that of its name; pods stay as they are.
    fn with(&self, changes: &Self) -> Self {
        let mut all = self.without(changes);
        all.domains.extend(changes.domains.iter().map(|new| in_place_of(self.domain(new), new)));
        all.identities.extend(changes.identities.iter().map(|new| {
            let mut changed = in_place_of(self.identity(new), new);
            // How old its claims are stays known.
            changed.status = self.identity(new).and_then(|old| old.status.clone());
            changed
        }));
        all.namespaces.extend(changes.namespaces.iter().cloned());
        all
    }

    /// Without the objects of these names.
    fn without(&self, changes: &Self) -> Self {
        let kept = |name: &str| !changes.namespaces.iter().any(|one| one.name_any() == name);
        Self {
            domains: self.domains.iter().filter(|one| changes.domain(one).is_none()).cloned().collect(),
            identities: self.identities.iter().filter(|one| changes.identity(one).is_none()).cloned().collect(),
            namespaces: self.namespaces.iter().filter(|one| kept(&one.name_any())).cloned().collect(),
            pods: Vec::new(),
            cluster: self.cluster.clone(),
        }
    }

    /// The TrustDomain of the name of this one.
    fn domain(&self, like: &TrustDomain) -> Option<&TrustDomain> {
        self.domains.iter().find(|one| one.name_any() == like.name_any())
    }

    /// The WorkloadIdentity of the name of this one.
    fn identity(&self, like: &WorkloadIdentity) -> Option<&WorkloadIdentity> {
        let mut all = self.identities.iter();
        all.find(|one| one.namespace() == like.namespace() && one.name_any() == like.name_any())
    }
}

/// A change keeps the uid and the age of its object.
fn in_place_of<K: Resource + Clone>(old: Option<&K>, new: &K) -> K {
    let mut changed = new.clone();
    match old {
        Some(old) => {
            let generation = old.meta().generation.unwrap_or_default() + 1;
            changed.meta_mut().uid.clone_from(&old.meta().uid);
            changed.meta_mut().creation_timestamp.clone_from(&old.meta().creation_timestamp);
            changed.meta_mut().generation = Some(generation);
        }
        None => {
            let meta = changed.meta_mut();
            let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
            meta.uid.get_or_insert_with(|| format!("{namespace}/{name}"));
            meta.generation = Some(1);
        }
    }
    changed
}

impl Report {
    fn is_well(&self) -> bool {
        self.objects.is_empty() && self.pods.iter().all(|change| change.loses.is_empty())
    }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        for refused in &self.objects {
            page.heading(&refused.object);
            refused.cause.write(page);
        }
        for change in &self.pods {
            match change.container.as_str() {
                "" => page.heading(format_args!("pod {}", change.pod)),
                container => page.heading(format_args!("pod {}, container {container}", change.pod)),
            }
            let lines = |gifts: &BTreeSet<Gift>| {
                let mut by_kind: BTreeMap<(gifts::Kind, Option<String>), Vec<String>> = BTreeMap::new();
                for gift in gifts {
                    by_kind.entry((gift.kind, gift.of.clone())).or_default().push(gift.value.clone());
                }
                by_kind
                    .into_iter()
                    .map(|((kind, _), values)| format!("{} {}", kind.name(), values.join(", ")))
                    .collect()
            };
            let (gains, loses): (Vec<String>, Vec<String>) = (lines(&change.gains), lines(&change.loses));
            gains.iter().for_each(|line| page.item(Mark::Ok, "gains", line));
            loses.iter().for_each(|line| page.item(Mark::Failed, "loses", line));
            change.cause.iter().for_each(|cause| cause.write(page));
        }
        let unchanged = self.unchanged;
        page.heading(format_args!(
            "{} change, {unchanged} stay as they are",
            output::count(self.pods.len(), "session")
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn objects(grant: &str, identity_path: &str) -> Objects {
        let of = |kind: &str, name: &str, namespace: Option<&str>, spec: Value| {
            json!({
                "apiVersion": "countersign.dev/v1alpha1", "kind": kind,
                "metadata": {"name": name, "namespace": namespace, "uid": name, "generation": 1}, "spec": spec,
            })
        };
        let read = |value: Value| serde_json::from_value(value).unwrap();
        Objects {
            domains: vec![
                serde_json::from_value(of(
                    "TrustDomain",
                    "shop.example",
                    None,
                    json!({"authority": {}, "grants": [{"namespaces": {"matchNames": ["shop"]}, "paths": [grant]}]}),
                ))
                .unwrap(),
            ],
            identities: vec![
                serde_json::from_value(of(
                    "WorkloadIdentity",
                    "orders",
                    Some("shop"),
                    json!({
                        "trustDomain": "shop.example", "selector": {"serviceAccounts": ["orders"]}, "path": identity_path,
                    }),
                ))
                .unwrap(),
            ],
            namespaces: vec![read(json!({"metadata": {"name": "shop"}}))],
            pods: vec![
                serde_json::from_value(json!({
                    "metadata": {"name": "a", "namespace": "shop", "uid": "u"},
                    "spec": {"serviceAccountName": "orders", "containers": [{"name": "app"}]},
                }))
                .unwrap(),
            ],
            cluster: String::new(),
        }
    }

    #[test]
    fn a_narrower_grant_takes_the_identity_and_says_why() {
        let before = objects("/ns/{namespace}/**", "/ns/{namespace}/sa/{serviceAccount}");
        let narrower = Objects { identities: Vec::new(), ..objects("/ns/{namespace}/web", "/x") };
        let after = before.with(&narrower);
        let report = report(&before, &after, &narrower);
        let change = report.pods.first().unwrap();
        assert_eq!(change.loses.first().unwrap().value, "spiffe://shop.example/ns/shop/sa/orders");
        assert!(change.cause.as_ref().unwrap().is(Reason::NotGranted));
        assert!(!report.is_well());
    }

    #[test]
    fn another_path_is_a_loss_and_a_gain() {
        let before = objects("/ns/{namespace}/**", "/ns/{namespace}/sa/{serviceAccount}");
        let other = Objects { domains: Vec::new(), ..objects("/", "/ns/{namespace}/orders") };
        let report = report(&before, &before.with(&other), &other);
        let change = report.pods.first().unwrap();
        let values = |gifts: &BTreeSet<Gift>| gifts.iter().map(|gift| gift.value.clone()).collect::<Vec<_>>();
        assert_eq!(values(&change.loses), ["spiffe://shop.example/ns/shop/sa/orders"]);
        assert_eq!(values(&change.gains), ["spiffe://shop.example/ns/shop/orders"]);
        assert!(report.objects.is_empty(), "{report:?}");
    }

    #[test]
    fn what_changes_nothing_changes_nothing() {
        let before = objects("/ns/{namespace}/**", "/ns/{namespace}/sa/{serviceAccount}");
        let same = Objects { pods: Vec::new(), ..objects("/ns/{namespace}/**", "/ns/{namespace}/sa/{serviceAccount}") };
        let report = report(&before, &before.with(&same), &same);
        assert_eq!((report.pods.len(), report.unchanged, report.is_well()), (0, 1, true));
    }
}
