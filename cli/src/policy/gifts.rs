//! What policies give to each session of each pod. Pure.

use std::collections::{BTreeMap, BTreeSet};

use countersign_index::{Entitlement, Index};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde::Serialize;

use crate::{
    finding::Finding,
    objects::{sessions, uid},
};

/// One thing that a session gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Gift {
    pub(super) kind: Kind,
    pub(super) value: String,
    /// The identity that it belongs to; absent for the identity itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) of: Option<String>,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Kind {
    #[serde(rename = "identity")]
    Identity,
    #[serde(rename = "DNS name")]
    DnsName,
    #[serde(rename = "audience")]
    Audience,
    #[serde(rename = "federated trust domain")]
    Foreign,
    #[serde(rename = "WIT-SVID")]
    Wit,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::DnsName => "DNS name",
            Self::Audience => "audience",
            Self::Foreign => "federated trust domain",
            Self::Wit => "WIT-SVID",
        }
    }
}

/// A session: the pod's, `namespace/name`, and the container, empty for that of the whole pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Session {
    pub(super) pod: String,
    pub(super) container: String,
}

/// What a session gets, or why it gets nothing.
pub(super) type Given = Result<BTreeSet<Gift>, Finding>;

/// What each session of these pods gets; those of pods that have ended are left out.
pub(super) fn of<'a>(index: &Index, pods: impl IntoIterator<Item = &'a Pod>) -> BTreeMap<Session, Given> {
    let mut all = BTreeMap::new();
    for pod in pods {
        for container in sessions(pod) {
            let given = match index.entitlement(&uid(pod), &container) {
                Entitlement::Gone => continue,
                Entitlement::None(absence) => Err(Finding::failed("has none", absence.reason, absence.message)),
                Entitlement::Entitled(entitled) => Ok(entitled.iter().flat_map(of_identity).collect()),
            };
            let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
            all.insert(Session { pod: name, container }, given);
        }
    }
    all
}

fn of_identity(entitled: &countersign_core::entitlement::Entitled) -> Vec<Gift> {
    let id = entitled.id.to_string();
    let of = |kind, value: String| Gift { kind, value, of: Some(id.clone()) };
    let audiences = entitled.identity.jwt.audiences.iter().map(|audience| of(Kind::Audience, audience.to_string()));
    let names = entitled.dns_names.iter().map(|name| of(Kind::DnsName, name.clone()));
    let foreign = entitled.foreign.iter().filter(|one| one.consent.is_ok());
    let foreign = foreign.map(|one| of(Kind::Foreign, one.trust_domain.to_string()));
    let wit = entitled.wit_ttl().map(|_| of(Kind::Wit, "yes".to_owned()));
    let identity = Gift { kind: Kind::Identity, value: id.clone(), of: None };
    std::iter::once(identity).chain(audiences).chain(names).chain(foreign).chain(wit).collect()
}
