//! WorkloadIdentities.

use countersign_core::{
    entitlement::{
        AudiencePattern, DeclaredIdentity, FieldErrors, FieldReader, IdentitySpec, JwtSpec, NameTemplate, PathTemplate,
        Selector, Unresolved, WitSpec, X509Spec,
    },
    id::TrustDomain,
};
use countersign_crds as crds;
use kube::Resource as _;

use super::{claims, created, selectors};

/// Reads a WorkloadIdentity, whatever other objects there are.
#[must_use]
pub fn workload_identity(object: &crds::WorkloadIdentity) -> DeclaredIdentity {
    let metadata = object.meta();
    DeclaredIdentity {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        domain: object.spec.trust_domain.clone(),
        history: claims::history(object),
        spec: spec(object),
    }
}

fn spec(object: &crds::WorkloadIdentity) -> Result<IdentitySpec<Unresolved>, FieldErrors> {
    let mut reader = FieldReader::default();
    let (metadata, spec) = (object.meta(), &object.spec);
    let selector = &spec.selector;
    let x509 = spec.x509.clone().unwrap_or_default();
    let jwt = spec.jwt.clone().unwrap_or_default();
    let labels = selectors::labels(&mut reader, "spec.selector", &selector.match_labels, &selector.match_expressions);
    let path = reader.read("spec.path", PathTemplate::parse(&spec.path));
    let dns_names = reader.list("spec.x509.dnsNames", &x509.dns_names, NameTemplate::parse);
    let audiences = reader.list("spec.jwt.audiences", &jwt.audiences, AudiencePattern::parse);
    let federates_with = reader.list("spec.federatesWith", &spec.federates_with, str::parse::<TrustDomain>);
    let read = path.map(|path| IdentitySpec {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        created: created(object),
        trust_domain: Unresolved,
        selector: Selector {
            service_accounts: selector.service_accounts.clone(),
            labels,
            containers: selector.containers.clone(),
        },
        path,
        x509: X509Spec { ttl: x509.ttl.map(crds::Lifetime::duration), dns_names },
        jwt: JwtSpec { ttl: jwt.ttl.map(crds::Lifetime::duration), audiences },
        wit: spec
            .wit
            .as_ref()
            .map(|wit| WitSpec { ttl: wit.ttl.map(crds::Lifetime::duration), export_key: wit.export_key }),
        federates_with,
        hint: spec.hint.clone(),
    });
    reader.finish(read)
}
