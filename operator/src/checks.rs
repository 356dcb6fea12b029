//! What must be there before a replica of the operator is ready.

use countersign_runtime::readiness::{Readiness, ReadinessCheck, ReadinessGroup};

/// The checks, each held by the part that knows.
#[derive(Clone, Debug)]
pub struct Checks {
    /// Every pod was listed once.
    pub pods: ReadinessCheck,
    /// Every namespace was listed once.
    pub namespaces: ReadinessCheck,
    /// Every TrustDomain was listed once.
    pub trust_domains: ReadinessCheck,
    /// Every WorkloadIdentity was listed once.
    pub workload_identities: ReadinessCheck,
    /// Every authority journal was listed once.
    pub journals: ReadinessCheck,
    /// What is kept of remote trust domains was listed once.
    pub remote_bundles: ReadinessCheck,
    /// The keys which sign service account tokens are known.
    pub token_keys: ReadinessCheck,
    /// The control plane's root is loaded and the serving certificate is signed by it.
    pub control_plane_root: ReadinessCheck,
    /// The issuer accepts connections.
    pub issuer: ReadinessCheck,
    /// The clock agrees with the API server's.
    pub clock: ReadinessCheck,
    /// What is known of the cluster is young enough to issue from.
    pub fresh_views: ReadinessCheck,
}

impl Checks {
    /// Adds all of them.
    #[must_use]
    pub fn new(readiness: &Readiness) -> Self {
        Self {
            pods: readiness.check("pods are not listed yet"),
            namespaces: readiness.check("namespaces are not listed yet"),
            trust_domains: readiness.check("TrustDomains are not listed yet"),
            workload_identities: readiness.check("WorkloadIdentities are not listed yet"),
            journals: readiness.check("authority journals are not listed yet"),
            remote_bundles: readiness.check("what is kept of remote trust domains is not listed yet"),
            token_keys: readiness.check("the cluster's token keys (/openid/v1/jwks) are not known yet"),
            control_plane_root: readiness.check("the control plane's root is not loaded yet"),
            issuer: readiness.check("the issuer does not listen yet"),
            clock: readiness.check("the clock is not known to agree with the API server's, see the log"),
            fresh_views: readiness
                .check("a view of the cluster is too old to issue from, see countersign_view_age_seconds"),
        }
    }

    /// The index is complete once all that it is made of was listed: until then "no identity" would be a guess, and a State
    /// without a foreign bundle would withdraw it.
    #[must_use]
    pub fn index_complete(&self) -> ReadinessGroup {
        let Self { pods, namespaces, trust_domains, workload_identities, remote_bundles, .. } = self.clone();
        ReadinessGroup::new([pods, namespaces, trust_domains, workload_identities, remote_bundles])
    }

    /// Everything was listed that the controllers decide from: a replica that led before would write what is not so.
    #[must_use]
    pub fn caches_complete(&self) -> ReadinessGroup {
        let Self { pods, namespaces, trust_domains, workload_identities, journals, remote_bundles, .. } = self.clone();
        ReadinessGroup::new([pods, namespaces, trust_domains, workload_identities, journals, remote_bundles])
    }
}

#[cfg(test)]
mod tests {
    use super::{Checks, Readiness};

    #[test]
    fn the_index_is_complete_once_all_that_it_is_made_of_was_listed() {
        let checks = Checks::new(&Readiness::default());
        for part in [&checks.pods, &checks.namespaces, &checks.trust_domains, &checks.remote_bundles] {
            part.pass();
            assert!(!checks.index_complete().is_passing());
        }
        checks.workload_identities.pass();
        assert!(checks.index_complete().is_passing() && !checks.caches_complete().is_passing());
        checks.journals.pass();
        assert!(checks.caches_complete().is_passing());
    }

    #[test]
    fn a_replica_is_ready_once_all_eleven_pass() {
        let readiness = Readiness::default();
        let _checks = Checks::new(&readiness);
        assert_eq!(readiness.missing().len(), 11);
    }
}
