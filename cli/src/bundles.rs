//! The bundles of a cluster's trust domains, as workloads are given them.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context as _, Result};
use countersign_contract::objects::{FEDERATION_NAMESPACE, own_bundle, remote_bundle};
use countersign_core::{
    bundle::Bundle,
    federation::{Remote, Stored, StoredError, StoredRemote, trusted},
    id::TrustDomain as Name,
    x509::CaCertificate,
};
use countersign_crds::{AuthorityKind, AuthorityState, AuthorityStatus, TrustDomain};
use countersign_reasons::Reason;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt};
use serde::Serialize;

use crate::{
    access::{required, unless_denied},
    cluster::Cluster,
    finding::Finding,
    reading::{Gap, Right},
};

/// Objects that are read at the same time.
const CONCURRENT: usize = 8;

/// A TrustDomain and its bundle.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) object: TrustDomain,
    /// Its name as ids have it.
    pub(crate) trust_domain: String,
    pub(crate) bundle: Result<Bundle, Missing>,
}

/// Why there is no bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Denied(Right),
    /// The operator has not published it.
    NotPublished {
        config_map: String,
    },
    /// It was read, and cannot be used.
    Unreadable(String),
    /// It is kept, and nobody is given it any more, or yet.
    NotTrusted,
}

/// An authority in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Authority {
    /// `x509`, `jwt` or `wit`.
    pub(crate) kind: &'static str,
    /// The key id by which what it signs names it: of a certificate its subject key id, hexadecimal.
    pub(crate) id: String,
    /// The name of the authority in the status of its TrustDomain, where it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) authority: Option<String>,
    /// Where it is in its life; known of this cluster's own alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<AuthorityState>,
    /// From when it signs no longer; known of this cluster's own alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signs_until: Option<Timestamp>,
    /// When it leaves the bundle, or else the end of its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_after: Option<Timestamp>,
}

impl Found {
    pub(crate) fn is_local(&self) -> bool {
        self.object.spec.authority.is_some()
    }
}

impl Authority {
    pub(crate) fn from_certificate(certificate: &CaCertificate) -> Self {
        let id = certificate.subject_key_id().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { not_after: Some(certificate.not_after()), ..Self::of("x509", id) }
    }

    /// Those of a bundle.
    pub(crate) fn all(bundle: &Bundle) -> Vec<Self> {
        let x509 = bundle.x509_authorities.iter().map(Self::from_certificate);
        let jwt = bundle.jwt_authorities.iter().map(|key| Self::of("jwt", key.kid().to_owned()));
        let wit = bundle.wit_authorities.iter().map(|key| Self::of("wit", key.kid().to_owned()));
        x509.chain(jwt).chain(wit).collect()
    }

    /// As the status has it, where the bundle cannot be read.
    pub(crate) fn from_status(status: &AuthorityStatus) -> Self {
        let kind = match status.kind {
            AuthorityKind::X509 => "x509",
            AuthorityKind::Jwt => "jwt",
            AuthorityKind::Wit => "wit",
        };
        let id = status.subject_key_id.clone().unwrap_or_else(|| status.id.clone());
        Self {
            authority: (id != status.id).then(|| status.id.clone()),
            state: Some(status.state),
            signs_until: Some(status.retire_at.0),
            not_after: Some(status.remove_at.0),
            ..Self::of(kind, id)
        }
    }

    fn of(kind: &'static str, id: String) -> Self {
        Self { kind, id, authority: None, state: None, signs_until: None, not_after: None }
    }
}

impl Missing {
    pub(crate) fn finding(&self, trust_domain: &str) -> Finding {
        match self {
            Self::Denied(right) => Finding::denied(trust_domain, right),
            Self::NotPublished { .. } => Finding::warning(trust_domain, Reason::BundleNotPublished, self.to_string())
                .with_mend(format!("its conditions say why:\nkubectl describe trustdomain {trust_domain}")),
            Self::Unreadable(_) => Finding::warning(trust_domain, Reason::StoredUnreadable, self.to_string()),
            Self::NotTrusted => Finding::warning(trust_domain, Reason::NoBundle, self.to_string())
                .with_mend(format!("kubectl countersign federation status {trust_domain}")),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(right) => Gap::Forbidden(right).fmt(f),
            Self::NotPublished { config_map } => {
                write!(
                    f,
                    "no bundle is published: ConfigMap {config_map} of namespace {FEDERATION_NAMESPACE} is missing"
                )
            }
            Self::Unreadable(error) => write!(f, "the published bundle cannot be read: {error}"),
            Self::NotTrusted => f.write_str("no bundle of it is handed out at this time"),
        }
    }
}

/// The bundles of all TrustDomains, by name; or that of one, by the name of the object or of the trust domain.
pub(crate) async fn read(cluster: &Cluster, name: Option<&str>) -> Result<Vec<Found>> {
    let mut domains: Vec<TrustDomain> =
        required(cluster.list().await, &Right::new("list", "trustdomains.countersign.dev", None))?;
    domains.sort_by_key(ResourceExt::name_any);
    let own = own(&domains);
    domains.retain(|one| name.is_none_or(|name| one.name_any() == name || one.trust_domain_name() == name));
    let config_maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), FEDERATION_NAMESPACE);
    let read = |object: TrustDomain| {
        let config_maps = config_maps.clone();
        async move {
            let (name, _) = place(&object);
            let read = config_maps.get_opt(&name).await.with_context(|| format!("reading ConfigMap {name}"));
            let denied = Right::new("get", "configmaps", Some(FEDERATION_NAMESPACE));
            Ok::<_, anyhow::Error>((object, unless_denied(read, denied)?))
        }
    };
    let read: Vec<_> = stream::iter(domains).map(read).buffered(CONCURRENT).try_collect().await?;
    let now = Timestamp::now();
    Ok(read.into_iter().map(|(object, config_map)| found(object, config_map, &own, now)).collect())
}

/// The trust domains of which this cluster is the authority.
fn own(domains: &[TrustDomain]) -> std::collections::BTreeSet<Name> {
    let local = domains.iter().filter(|one| one.spec.authority.is_some());
    local.filter_map(|one| one.trust_domain_name().parse().ok()).collect()
}

/// The name and the key of the ConfigMap with its bundle.
fn place(object: &TrustDomain) -> (String, &'static str) {
    let name = object.name_any();
    match object.spec.remote {
        Some(_) => (remote_bundle::config_map(&name), remote_bundle::KEY),
        None => (own_bundle::config_map(&name), own_bundle::KEY),
    }
}

fn found(
    object: TrustDomain,
    config_map: Result<Option<ConfigMap>, Right>,
    own: &std::collections::BTreeSet<Name>,
    now: Timestamp,
) -> Found {
    let (name, key) = place(&object);
    let text = match config_map {
        Err(denied) => Err(Missing::Denied(denied)),
        Ok(None) => Err(Missing::NotPublished { config_map: name }),
        Ok(Some(config_map)) => {
            let mut data: BTreeMap<String, String> = config_map.data.unwrap_or_default();
            data.remove(key).ok_or(Missing::NotPublished { config_map: name })
        }
    };
    let bundle = text.and_then(|text| match object.spec.remote {
        Some(_) => of_remote(&object, text.as_bytes(), own, now),
        None => of_local(&object, text.as_bytes()),
    });
    Found { trust_domain: object.trust_domain_name().to_owned(), object, bundle }
}

fn of_local(object: &TrustDomain, document: &[u8]) -> Result<Bundle, Missing> {
    let unreadable = |error: String| Missing::Unreadable(error);
    let name: Name = object.trust_domain_name().parse().map_err(|error| unreadable(format!("{error}")))?;
    Bundle::parse(&name, document).map_err(|error| unreadable(error.to_string()))
}

/// What the operator hands out of it, decided as it does.
fn of_remote(
    object: &TrustDomain,
    stored: &[u8],
    own: &std::collections::BTreeSet<Name>,
    now: Timestamp,
) -> Result<Bundle, Missing> {
    let spec = countersign_policy::trust_domain(object, "").remote;
    let spec = spec.ok_or_else(|| Missing::Unreadable("its TrustDomain has fields that cannot be used".to_owned()))?;
    let unreadable = |error: StoredError| Missing::Unreadable(error.to_string());
    let stored = StoredRemote::from_bytes(spec.trust_domain(), stored).map_err(unreadable)?;
    let remote = Remote { spec: &spec, own, stored: Stored::Read(&stored) };
    trusted(&remote, now).bundle.ok_or(Missing::NotTrusted)
}
