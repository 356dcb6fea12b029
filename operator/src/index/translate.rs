//! From the API's objects to what `core` decides on. What cannot be translated names its field and becomes a condition.

use countersign_core::{
    entitlement::{
        AudiencePattern, ClaimHistory, ClaimKey, ClaimKind, DomainSpec, Grant, IdentitySpec, JwtSpec, LabelSelector,
        Lives, NamePattern, NameTemplate, NamespaceSelector, PathPattern, PathTemplate, Requirement, Selector,
        X509Spec,
    },
    id::TrustDomain,
};
use countersign_crds as crds;
use jiff::Timestamp;
use kube::Resource;

/// A field that the schema lets through and that still means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    /// Where, such as `spec.grants[0].paths`.
    pub field: String,
    /// What is wrong and what to do.
    pub reason: String,
}

fn field<T, E: std::fmt::Display>(name: impl Into<String>, result: Result<T, E>) -> Result<T, FieldError> {
    result.map_err(|error| FieldError { field: name.into(), reason: error.to_string() })
}

fn all<T, E: std::fmt::Display>(
    name: &str,
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, FieldError> {
    texts.iter().map(|text| field(name, parse(text))).collect()
}

/// A TrustDomain; `cluster` is what `{cluster}` stands for, empty when it has no name.
///
/// # Errors
/// The first field that cannot be read.
pub(super) fn domain(object: &crds::TrustDomain, cluster: &str) -> Result<DomainSpec, FieldError> {
    let named_by = if object.spec.trust_domain.is_some() { "spec.trustDomain" } else { "metadata.name" };
    let trust_domain = field(named_by, object.trust_domain_name().parse::<TrustDomain>())?;
    let authority = object.spec.authority.clone().unwrap_or_default();
    let grants = object.spec.grants.iter().enumerate().map(|(index, each)| grant(index, each));
    Ok(DomainSpec {
        trust_domain,
        name: object.meta().name.clone().unwrap_or_default(),
        uid: object.meta().uid.clone().unwrap_or_default(),
        created: created(object),
        grants: grants.collect::<Result<_, _>>()?,
        x509: Lives {
            default: authority.x509.svid_ttl.duration(),
            longest: authority.x509.longest_svid_life().duration(),
        },
        jwt: Lives {
            default: authority.jwt.svid_ttl.duration(),
            longest: authority.jwt.longest_svid_life().duration(),
        },
        local: object.spec.authority.is_some(),
        cluster: cluster.to_owned(),
    })
}

/// A WorkloadIdentity whose TrustDomain is `trust_domain`.
///
/// # Errors
/// The first field that cannot be read.
pub(super) fn identity(
    object: &crds::WorkloadIdentity,
    trust_domain: &TrustDomain,
) -> Result<IdentitySpec, FieldError> {
    let spec = &object.spec;
    let selector = &spec.selector;
    let x509 = spec.x509.clone().unwrap_or_default();
    let jwt = spec.jwt.clone().unwrap_or_default();
    Ok(IdentitySpec {
        namespace: object.meta().namespace.clone().unwrap_or_default(),
        name: object.meta().name.clone().unwrap_or_default(),
        uid: object.meta().uid.clone().unwrap_or_default(),
        created: created(object),
        trust_domain: trust_domain.clone(),
        selector: Selector {
            service_accounts: selector.service_accounts.clone(),
            labels: LabelSelector {
                match_labels: selector.match_labels.clone(),
                match_expressions: requirements("spec.selector", &selector.match_expressions)?,
            },
            containers: selector.containers.clone(),
        },
        path: field("spec.path", PathTemplate::parse(&spec.path))?,
        x509: X509Spec {
            ttl: x509.ttl.map(crds::Lifetime::duration),
            dns_names: all("spec.x509.dnsNames", &x509.dns_names, NameTemplate::parse)?,
        },
        jwt: JwtSpec {
            ttl: jwt.ttl.map(crds::Lifetime::duration),
            audiences: all("spec.jwt.audiences", &jwt.audiences, AudiencePattern::parse)?,
        },
        federates_with: all("spec.federatesWith", &spec.federates_with, str::parse::<TrustDomain>)?,
        hint: spec.hint.clone(),
    })
}

/// What the status says of the ages of the claims.
pub(crate) fn history(object: &crds::WorkloadIdentity) -> ClaimHistory {
    match object.status.as_ref().and_then(|status| status.claims.as_ref()) {
        Some(claims) => ClaimHistory::Recorded(claims.iter().map(|one| (claim(one), one.since.0)).collect()),
        None if is_original(object) => ClaimHistory::Original,
        None => ClaimHistory::Changed,
    }
}

fn claim(record: &crds::ClaimRecord) -> ClaimKey {
    let kind = match record.kind {
        crds::ClaimKind::Path => ClaimKind::Path,
        crds::ClaimKind::DNSName => ClaimKind::DnsName,
    };
    ClaimKey { kind, value: record.value.as_str().into() }
}

/// Whether the claims of an object of which none is recorded are those that it was created with, and were granted as far
/// as the leader has looked. An operator of an earlier version recorded no claims: what it found granted is as old as its
/// object, as it was to that operator, so that an upgrade takes nothing from anybody.
fn is_original(object: &crds::WorkloadIdentity) -> bool {
    let as_created = object.metadata.generation == Some(1);
    let Some(status) = object.status.as_ref().filter(|status| status.observed_generation.is_some()) else {
        return as_created;
    };
    let ready = status.conditions.iter().find(|one| one.type_ == crds::condition::READY);
    let reason = ready.map(|one| one.reason.as_str());
    if status.observed_generation != object.metadata.generation {
        return false;
    }
    match reason {
        _ if ready.is_some_and(|ready| ready.status == "True") => true,
        Some("AuthorityNotReady" | "AuthorityStalled") => true,
        Some("Conflict" | "NoTrustDomain") => as_created,
        _ => false,
    }
}

fn grant(index: usize, grant: &crds::Grant) -> Result<Grant, FieldError> {
    let at = |name: &str| format!("spec.grants[{index}].{name}");
    let namespaces = &grant.namespaces;
    let labels = LabelSelector {
        match_labels: namespaces.match_labels.clone(),
        match_expressions: requirements(&at("namespaces"), &namespaces.match_expressions)?,
    };
    let grant = Grant {
        namespaces: NamespaceSelector {
            names: namespaces.match_names.clone(),
            labels: (!labels.is_empty()).then_some(labels),
        },
        paths: all(&at("paths"), &grant.paths, PathPattern::parse)?,
        dns_names: all(&at("dnsNames"), &grant.dns_names, NamePattern::parse)?,
        audiences: all(&at("audiences"), &grant.audiences, AudiencePattern::parse)?,
        federates_with: all(&at("federatesWith"), &grant.federates_with, str::parse::<TrustDomain>)?,
        allow_label_only: grant.allow_label_only,
        shared: grant.shared,
    };
    let ineffective = grant.ineffective_paths().next().map(|pattern| {
        let reason = format!("{pattern} holds no {{namespace}}: add it, or say shared: true");
        FieldError { field: at("paths"), reason }
    });
    ineffective.map_or(Ok(grant), Err)
}

fn requirements(at: &str, expressions: &[crds::LabelRequirement]) -> Result<Vec<Requirement>, FieldError> {
    let parse = |each: &crds::LabelRequirement| {
        let operator = match each.operator {
            crds::Operator::In => "In",
            crds::Operator::NotIn => "NotIn",
            crds::Operator::Exists => "Exists",
            crds::Operator::DoesNotExist => "DoesNotExist",
        };
        field(format!("{at}.matchExpressions"), Requirement::parse(&each.key, operator, &each.values))
    };
    expressions.iter().map(parse).collect()
}

/// When the API server made the object; what is not stored yet counts as youngest, so that it displaces nobody.
fn created(object: &impl Resource) -> Timestamp {
    object.meta().creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0)
}
