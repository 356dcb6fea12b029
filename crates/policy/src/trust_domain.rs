//! TrustDomains.

use countersign_contract::metadata::annotation;
use countersign_core::{
    entitlement::{
        AudiencePattern, DeclaredDomain, DomainKind, DomainSpec, FieldErrors, FieldReader, Grant, LifetimeBounds,
        NamePattern, NamespaceSelector, PathPattern, RemoteTerms,
    },
    id::TrustDomain,
    journal::{AuthorityConfig, AuthorityPolicy, RotationRequests},
    key::KeyType,
};
use countersign_crds as crds;
use kube::{Resource as _, ResourceExt as _};

use super::{created, remote, selectors};

/// Reads a TrustDomain; `cluster` is what `{cluster}` stands for, empty when the cluster has no name.
#[must_use]
pub fn trust_domain(object: &crds::TrustDomain, cluster: &str) -> DeclaredDomain {
    let spec = spec(object, cluster);
    let local = spec.as_ref().ok().filter(|spec| spec.kind == DomainKind::Local);
    DeclaredDomain {
        name: object.meta().name.clone().unwrap_or_default(),
        authority: local.map(|spec| authority_config(object, spec.trust_domain.clone())),
        remote: spec.as_ref().ok().and_then(|spec| remote::spec(object, &spec.trust_domain)),
        spec,
    }
}

/// What a TrustDomain of which this cluster is the authority specifies of its authorities; `trust_domain` is its own.
#[must_use]
pub fn authority_config(object: &crds::TrustDomain, trust_domain: TrustDomain) -> AuthorityConfig {
    let authority = object.spec.authority.clone().unwrap_or_default();
    let published = object.status.as_ref().and_then(|status| status.bundle.as_ref());
    AuthorityConfig {
        name: object.meta().name.clone().unwrap_or_default(),
        uid: object.meta().uid.clone().unwrap_or_default(),
        trust_domain,
        policy: AuthorityPolicy {
            ca_life: authority.x509.ca_ttl.duration(),
            longest_svid_life: authority.longest_svid_life().duration(),
            refresh_hint: authority.bundle_refresh_hint.duration(),
            max_delay: authority.max_delay(),
            taint_max_delay: authority.taint_max_delay(),
            x509_key_type: key_type(authority.x509.key_type),
            jwt_key_type: key_type(authority.jwt.key_type),
            wit_key_type: authority.wit.as_ref().map(|wit| key_type(wit.key_type)),
        },
        requests: RotationRequests {
            after: authority.rotation.and_then(|rotation| rotation.after).map(|after| after.0),
            tainted: authority.tainted.into_iter().collect(),
            revoked: authority.revoked.into_iter().collect(),
        },
        jwt_issuer: authority.jwt.issuer,
        published_sequence: published.and_then(|bundle| u64::try_from(bundle.sequence).ok()),
        adopts: object.annotations().get(annotation::ADOPT_AUTHORITIES).cloned(),
    }
}

fn key_type(key_type: crds::KeyType) -> KeyType {
    match key_type {
        crds::KeyType::EcP256 => KeyType::EcP256,
        crds::KeyType::EcP384 => KeyType::EcP384,
        crds::KeyType::Rsa2048 => KeyType::Rsa2048,
    }
}

/// The grants of a TrustDomain, each without the patterns that cannot be used.
#[must_use]
pub fn grants(object: &crds::TrustDomain) -> Vec<Grant> {
    read_grants(&mut FieldReader::default(), object)
}

fn read_grants(reader: &mut FieldReader, object: &crds::TrustDomain) -> Vec<Grant> {
    object.spec.grants.iter().enumerate().map(|(position, each)| grant(reader, position, each)).collect()
}

fn spec(object: &crds::TrustDomain, cluster: &str) -> Result<DomainSpec, FieldErrors> {
    let mut reader = FieldReader::default();
    let named_by = if object.spec.trust_domain.is_some() { "spec.trustDomain" } else { "metadata.name" };
    let trust_domain = reader.read(named_by, object.trust_domain_name().parse::<TrustDomain>());
    let authority = object.spec.authority.clone().unwrap_or_default();
    let grants = read_grants(&mut reader, object);
    // Neither may be there where a later release stored the object. Then nothing is signed, and nothing admitted.
    let kind = match (&object.spec.authority, &object.spec.remote) {
        (Some(_), _) => DomainKind::Local,
        (None, Some(remote)) => DomainKind::Remote(remote::terms(&mut reader, remote)),
        (None, None) => DomainKind::Remote(RemoteTerms::default()),
    };
    if let (Some(remote), Some(trust_domain)) = (&object.spec.remote, &trust_domain) {
        remote::check(&mut reader, remote, trust_domain);
    }
    let spec = trust_domain.map(|trust_domain| DomainSpec {
        trust_domain,
        name: object.meta().name.clone().unwrap_or_default(),
        uid: object.meta().uid.clone().unwrap_or_default(),
        created: created(object),
        grants,
        x509: LifetimeBounds {
            default: authority.x509.svid_ttl.duration(),
            longest: authority.x509.longest_svid_life().duration(),
        },
        jwt: LifetimeBounds {
            default: authority.jwt.svid_ttl.duration(),
            longest: authority.jwt.longest_svid_life().duration(),
        },
        wit: authority.wit.as_ref().map(|wit| LifetimeBounds {
            default: wit.svid_ttl.duration(),
            longest: wit.longest_svid_life().duration(),
        }),
        kind,
        cluster: cluster.to_owned(),
    });
    reader.finish(spec)
}

fn grant(reader: &mut FieldReader, position: usize, grant: &crds::Grant) -> Grant {
    let at = |name: &str| format!("spec.grants[{position}].{name}");
    let namespaces = &grant.namespaces;
    let labels = selectors::labels(reader, &at("namespaces"), &namespaces.match_labels, &namespaces.match_expressions);
    let read = Grant {
        namespaces: NamespaceSelector {
            names: namespaces.match_names.clone(),
            labels: (!labels.is_empty()).then_some(labels),
        },
        paths: reader.list(&at("paths"), &grant.paths, PathPattern::parse),
        dns_names: reader.list(&at("dnsNames"), &grant.dns_names, NamePattern::parse),
        audiences: reader.list(&at("audiences"), &grant.audiences, AudiencePattern::parse),
        federates_with: reader.list(&at("federatesWith"), &grant.federates_with, str::parse::<TrustDomain>),
        allow_label_only: grant.allow_label_only,
        shared: grant.shared,
    };
    for pattern in read.ineffective_paths() {
        reader.refuse(at("paths"), format!("{pattern} holds no {{namespace}}: add it, or say shared: true"));
    }
    read
}
