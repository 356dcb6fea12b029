//! The remote part of TrustDomains.

use countersign_core::{
    entitlement::{FieldReader, NamespaceSelector, PathPattern, RemoteTerms},
    federation::{Endpoint, EndpointUrl, Profile, RemoteSpec},
    id::{SpiffeId, TrustDomain},
};
use countersign_crds as crds;

use super::selectors;

/// Who may trust it here, and which of its ids.
pub(crate) fn terms(reader: &mut FieldReader, remote: &crds::Remote) -> RemoteTerms {
    let at = |field: &str| format!("spec.remote.{field}");
    let namespaces = &remote.namespaces;
    let labels = selectors::labels(reader, &at("namespaces"), &namespaces.match_labels, &namespaces.match_expressions);
    let paths = reader.list(&at("paths"), &remote.paths, |text| {
        let pattern = PathPattern::parse(text).map_err(|error| error.to_string())?;
        if pattern.has_placeholder() {
            return Err("placeholders stand for pods of this cluster: use * for any one segment".to_owned());
        }
        Ok(pattern)
    });
    RemoteTerms {
        namespaces: NamespaceSelector {
            names: namespaces.match_names.clone(),
            labels: (!labels.is_empty()).then_some(labels),
        },
        paths: paths.into(),
    }
}

/// Where the bundle of `trust_domain` comes from; `None` where this cluster is the authority. What [`check`] refuses is left
/// out.
pub(crate) fn spec(object: &crds::TrustDomain, trust_domain: &TrustDomain) -> Option<RemoteSpec> {
    let remote = object.spec.remote.as_ref()?;
    let endpoint = remote.endpoint.as_ref();
    let endpoint = endpoint.and_then(|one| self::endpoint(&mut FieldReader::default(), one, trust_domain));
    let spec = RemoteSpec::new(trust_domain.clone(), endpoint).with_max_stale(remote.max_stale.duration());
    Some(match &remote.bootstrap {
        // One that cannot be read is reported and takes nothing away, so it is no error of the object.
        Some(bootstrap) => spec.with_bootstrap(bootstrap.bundle.as_bytes(), bootstrap.replace),
        None => spec,
    })
}

/// Reads the fields of which [`spec`] has no report.
pub(crate) fn check(reader: &mut FieldReader, remote: &crds::Remote, trust_domain: &TrustDomain) {
    if let Some(one) = &remote.endpoint {
        endpoint(reader, one, trust_domain);
    }
}

fn endpoint(reader: &mut FieldReader, endpoint: &crds::BundleEndpoint, trust_domain: &TrustDomain) -> Option<Endpoint> {
    let at = |field: &str| format!("spec.remote.endpoint.{field}");
    let url = match (&endpoint.url, endpoint.profile) {
        (None, crds::EndpointProfile::WimseDiscovery) => {
            let found = trust_domain.wimse_metadata_url().ok_or(
                "wimse_discovery needs a trust domain whose name is a fully qualified DNS name; use https_web with a url",
            );
            reader.read(at("profile"), found)
        }
        (url, _) => reader.read(at("url"), url.as_deref().unwrap_or_default().parse::<EndpointUrl>()),
    };
    let mut roots = || {
        let bundle = endpoint.ca_bundle.as_deref().map(certificates).transpose();
        reader.read(at("caBundle"), bundle).map(Option::unwrap_or_default)
    };
    let profile = match endpoint.profile {
        crds::EndpointProfile::HttpsWeb => roots().map(|roots| Profile::HttpsWeb { roots }),
        crds::EndpointProfile::WimseDiscovery => roots().map(|roots| Profile::WimseDiscovery { roots }),
        crds::EndpointProfile::HttpsSpiffe => {
            let id = endpoint.spiffe_id.as_deref().unwrap_or_default().parse::<SpiffeId>();
            reader.read(at("spiffeID"), id).map(|id| Profile::HttpsSpiffe { id })
        }
    };
    Some(Endpoint { url: url?, profile: profile? })
}

/// The certificates in a PEM text, ASN.1 DER; at least one.
fn certificates(text: &str) -> Result<Vec<Vec<u8>>, &'static str> {
    let blocks = pem::parse_many(text).map_err(|_| "it is no PEM text")?;
    if blocks.is_empty() || blocks.iter().any(|block| block.tag() != "CERTIFICATE") {
        return Err("it holds something else than certificates, or none");
    }
    Ok(blocks.into_iter().map(pem::Pem::into_contents).collect())
}

#[cfg(test)]
mod tests {
    use countersign_core::entitlement::{DomainKind, FieldErrors};
    use serde_json::{Value, json};

    use crate::trust_domain;

    fn read(remote: &Value) -> countersign_core::entitlement::DeclaredDomain {
        let object = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": { "name": "b.org" },
            "spec": { "remote": remote },
        });
        trust_domain(&serde_json::from_value(object).unwrap(), "")
    }

    fn fields(remote: &Value) -> Vec<String> {
        let errors: Option<FieldErrors> = read(remote).spec.err();
        errors.iter().flat_map(FieldErrors::iter).map(|error| error.field.clone()).collect()
    }

    fn with(changes: Value) -> Value {
        let mut remote = json!({
            "namespaces": { "matchNames": ["shop"] },
            "endpoint": { "url": "https://b.org/", "profile": "https_web" },
        });
        for (key, value) in changes.as_object().unwrap() {
            remote[key] = value.clone();
        }
        remote
    }

    #[test]
    fn a_remote_trust_domain_has_terms_and_a_source_and_no_authority() {
        let read = read(&with(json!({ "paths": ["/ns/*/sa/api"], "bootstrap": { "bundle": "{\"keys\":[]}" } })));
        let spec = read.spec.unwrap();
        let DomainKind::Remote(terms) = spec.kind else { panic!("remote") };
        assert_eq!((terms.namespaces.names.as_slice(), terms.paths.len()), (&["shop".to_owned()][..], 1));
        assert!(read.authority.is_none());
        let remote = read.remote.unwrap();
        assert_eq!(remote.endpoint().unwrap().url.as_str(), "https://b.org/");
        assert_eq!(remote.max_stale().as_secs(), 24 * 3600);
    }

    #[test]
    fn a_kind_of_trust_domain_that_is_not_known_signs_nothing_and_admits_nobody() {
        let object = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": { "name": "b.org" }, "spec": {},
        });
        let read = trust_domain(&serde_json::from_value(object).unwrap(), "");
        let DomainKind::Remote(terms) = read.spec.unwrap().kind else { panic!("it would sign") };
        assert!(!terms.namespaces.selects("shop", &Default::default()));
        assert!(read.authority.is_none() && read.remote.is_none());
    }

    #[test]
    fn what_cannot_be_used_names_its_field() {
        let endpoint = |url: &str, more: Value| {
            let mut endpoint = json!({ "url": url, "profile": "https_web" });
            for (key, value) in more.as_object().unwrap() {
                endpoint[key] = value.clone();
            }
            json!({ "endpoint": endpoint })
        };
        for (changes, field) in [
            (endpoint("http://b.org/", json!({})), "spec.remote.endpoint.url"),
            (endpoint("https://u@b.org/", json!({})), "spec.remote.endpoint.url"),
            (endpoint("https://b.org", json!({ "caBundle": "none" })), "spec.remote.endpoint.caBundle"),
            (
                endpoint("https://b.org", json!({ "profile": "https_spiffe", "spiffeID": "spiffe://B/x" })),
                "spec.remote.endpoint.spiffeID",
            ),
            (json!({ "endpoint": { "profile": "https_web" } }), "spec.remote.endpoint.url"),
            (json!({ "paths": ["/a", "/ns/{namespace}/a"] }), "spec.remote.paths[1]"),
            (json!({ "paths": ["/**/a"] }), "spec.remote.paths[0]"),
        ] {
            assert_eq!(fields(&with(changes.clone())), [field], "{changes}");
        }
    }

    /// R34
    #[test]
    fn an_endpoint_that_is_discovered_is_at_the_name_of_the_trust_domain() {
        let changes = with(json!({ "endpoint": { "profile": "wimse_discovery" } }));
        let remote = read(&changes).remote.unwrap();
        let endpoint = remote.endpoint().unwrap();
        assert_eq!(endpoint.url.as_str(), "https://b.org/.well-known/wimse-trust-domain");
        assert_eq!(endpoint.profile, countersign_core::federation::Profile::WimseDiscovery { roots: Vec::new() });

        let object = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": { "name": "local" },
            "spec": { "remote": changes },
        });
        let read = trust_domain(&serde_json::from_value(object).unwrap(), "");
        let errors = read.spec.unwrap_err();
        assert_eq!(
            errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(),
            ["spec.remote.endpoint.profile"]
        );
    }

    /// R26: a bundle that cannot be read leaves the one that is kept.
    #[test]
    fn a_bundle_in_the_spec_that_cannot_be_read_is_no_error_of_the_object() {
        let read = read(&with(json!({ "bootstrap": { "bundle": "<html>" } })));
        assert!(read.spec.is_ok() && read.remote.is_some());
    }
}
