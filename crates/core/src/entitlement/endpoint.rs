//! The identity of what publishes a trust domain's bundle. It is nobody's to claim: no WorkloadIdentity renders an id whose path
//! begins with [`RESERVED`].

use std::sync::Arc;

use jiff::Timestamp;

use super::decide::Entitled;
use super::facts::PodFacts;
use super::selector::Selector;
use super::spec::{DomainSpec, IdentitySpec, JwtSpec, X509Spec};
use super::template::{PathTemplate, TemplateError};
use crate::id::SpiffeId;

/// The first segment of every path that is kept for this system.
pub const RESERVED: &str = "countersign";

/// The path of the id of what publishes a trust domain's bundle.
pub const ENDPOINT_PATH: &str = "/countersign/endpoint";

/// Whether a rendered path is reserved.
pub(super) fn is_reserved(path: &str) -> bool {
    path.split('/').nth(1) == Some(RESERVED)
}

/// What the pod gets that publishes the bundle of `domain`: an id at [`ENDPOINT_PATH`]. Its X509-SVID lives as long as the trust
/// domain allows, so that the bundle can be fetched while no operator runs.
///
/// # Errors
/// None can occur for the fixed path.
pub fn endpoint_identity(domain: &Arc<DomainSpec>, pod: &PodFacts) -> Result<Entitled, TemplateError> {
    let path = PathTemplate::parse(ENDPOINT_PATH)?;
    let id = SpiffeId::new(&domain.trust_domain, ENDPOINT_PATH).map_err(|_| TemplateError::TooLong)?;
    let identity = IdentitySpec {
        namespace: pod.namespace.clone(),
        name: domain.name.clone(),
        uid: domain.uid.clone(),
        created: Timestamp::UNIX_EPOCH,
        trust_domain: domain.trust_domain.clone(),
        selector: Selector { service_accounts: vec![pod.service_account.clone()], ..Selector::default() },
        path,
        x509: X509Spec { ttl: Some(domain.x509.longest), dns_names: Vec::new() },
        jwt: JwtSpec::default(),
        wit: None,
        federates_with: Vec::new(),
        hint: None,
    };
    Ok(Entitled {
        identity: Arc::new(identity),
        domain: Arc::clone(domain),
        id,
        dns_names: Vec::new(),
        hint: None,
        foreign: Arc::default(),
        renewal: pod.renewal,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::fixtures::{domain, identity, path_grant, pod};
    use super::super::{ClaimHistory, Grant, IdentitySpec, Labels, PathPattern, identities_for, judge_all};
    use super::*;

    /// What a pod of `namespace` gets by a WorkloadIdentity with that path, under a grant for everything.
    fn got(namespace: &str, path: &str) -> Result<Vec<Entitled>, &'static str> {
        let everything = Grant { paths: vec![PathPattern::parse("/**").unwrap()], shared: true, ..path_grant("/**") };
        let domain = Arc::new(domain(vec![everything]));
        let identity = IdentitySpec { path: PathTemplate::parse(path).unwrap(), ..identity(namespace, "orders") };
        let labels = BTreeMap::from([(namespace.to_owned(), Labels::new())]);
        let judged = judge_all([Arc::new(identity)], |_| Some(domain.clone()), |_| ClaimHistory::Original, &labels);
        identities_for(&pod(namespace, "orders"), "", &judged).map_err(|error| error.reason().name())
    }

    /// R16: a workload with the endpoint's id could replace the bundles that other clusters poll.
    #[test]
    fn no_grant_gives_a_reserved_id_neither_spelled_nor_rendered() {
        for path in ["/countersign/endpoint", "/countersign", "/countersign/{serviceAccount}"] {
            assert_eq!(got("shop", path).unwrap_err(), "Reserved", "{path}");
        }
        assert_eq!(got("countersign", "/{namespace}/endpoint").unwrap_err(), "Reserved");
        assert_eq!(got("shop", "/{namespace}/countersign").unwrap()[0].id.path(), "/shop/countersign");
        assert_eq!(got("shop", "/countersign2/a").unwrap().len(), 1);
    }

    #[test]
    fn the_endpoints_identity_is_at_the_reserved_path_and_lives_as_long_as_may_be() {
        let domain = Arc::new(domain(Vec::new()));
        let entitled = endpoint_identity(&domain, &pod("a", "b")).unwrap();
        assert_eq!(entitled.id.to_string(), "spiffe://example.org/countersign/endpoint");
        assert_eq!(entitled.x509_ttl(), domain.x509.longest);
        assert!(!entitled.allows_audience("a"));
    }
}
