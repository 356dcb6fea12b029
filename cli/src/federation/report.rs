//! What is shown of remote trust domains.

use std::collections::BTreeMap;

use countersign_crds::{BundleOrigin, EndpointProfile, RemoteStatus, TrustDomain};
use countersign_reasons::Reason;
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;

use crate::{
    finding::Finding,
    output::{self, Page},
    times::{moment_and_relative, relative},
};

/// All remote trust domains.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) remotes: Vec<Remote>,
    /// Trust domains that no TrustDomain is for, with the WorkloadIdentities that name them.
    pub(super) unknown: BTreeMap<String, Vec<String>>,
    pub(super) findings: Vec<Finding>,
    #[serde(skip)]
    pub(super) now: Timestamp,
}

/// One of them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remote {
    name: String,
    trust_domain: String,
    /// Where its bundle may come from.
    sources: Vec<String>,
    /// The sequence in the document of the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<RemoteStatus>,
    pub(super) findings: Vec<Finding>,
    /// The WorkloadIdentities that name it.
    pub(super) users: Vec<User>,
}

/// A WorkloadIdentity that names a remote trust domain.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct User {
    /// `namespace/name`
    pub(super) identity: String,
    /// `None`: it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gets_it: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl User {
    pub(super) fn new(identity: String, gets_it: Option<bool>, missing: Option<(String, String)>) -> Self {
        let (reason, message) = missing.unzip();
        Self { identity, gets_it, reason, message }
    }

    fn row(&self) -> Vec<String> {
        let (gets_it, why) = match (self.gets_it, &self.reason, &self.message) {
            (Some(true), ..) => ("yes", String::new()),
            (_, Some(reason), Some(message)) => {
                let code = reason.parse::<Reason>().map(|reason| format!("{} ", reason.code())).unwrap_or_default();
                ("no", format!("{message} ({code}{reason})"))
            }
            _ => ("unknown", "neither judged here nor reported by the operator".to_owned()),
        };
        vec![self.identity.clone(), gets_it.to_owned(), why]
    }
}

impl Remote {
    pub(super) fn new(domain: &TrustDomain, findings: Vec<Finding>, users: Vec<User>) -> Self {
        let remote = domain.spec.remote.as_ref();
        let endpoint = remote.and_then(|remote| remote.endpoint.as_ref()).map(|endpoint| {
            let profile = match endpoint.profile {
                EndpointProfile::HttpsWeb => "https_web",
                EndpointProfile::HttpsSpiffe => "https_spiffe",
                EndpointProfile::WimseDiscovery => "wimse_discovery",
            };
            let url = endpoint.url.as_deref().unwrap_or("found by the trust domain's name");
            format!("{url} ({profile})")
        });
        let bootstrap = remote.and_then(|remote| remote.bootstrap.as_ref()).map(|_| "spec.remote.bootstrap".to_owned());
        let status = domain.status.as_ref();
        Self {
            name: domain.name_any(),
            trust_domain: domain.trust_domain_name().to_owned(),
            sources: endpoint.into_iter().chain(bootstrap).collect(),
            sequence: status.and_then(|status| status.bundle.as_ref()).map(|bundle| bundle.sequence),
            status: status.and_then(|status| status.remote.clone()),
            findings,
            users,
        }
    }

    fn write(&self, page: &mut Page, now: Timestamp) {
        page.heading(&self.trust_domain);
        if self.name != self.trust_domain {
            page.fact("TrustDomain", &self.name);
        }
        page.fact("source", self.sources.join(", then "));
        if let Some(status) = &self.status {
            self.write_status(page, status, now);
        }
        self.findings.iter().for_each(|finding| finding.write(page));
        if self.users.is_empty() {
            page.line("  No WorkloadIdentity names it in federatesWith.");
        } else {
            page.table(&["WORKLOADIDENTITY", "HAS IT", "WHY NOT"], self.users.iter().map(User::row));
        }
    }

    fn write_status(&self, page: &mut Page, status: &RemoteStatus, now: Timestamp) {
        let origin = match status.origin {
            Some(BundleOrigin::Polled) => "from the endpoint",
            Some(BundleOrigin::Bootstrap) => "from spec.remote.bootstrap",
            None => "none yet",
        };
        let sequence = self.sequence.map(|sequence| format!(", sequence {sequence}")).unwrap_or_default();
        let count = |count: Option<i64>, kind: &str| count.map(|count| format!(", {count} {kind}")).unwrap_or_default();
        let (x509, jwt) = (count(status.x509_authorities, "x509"), count(status.jwt_authorities, "jwt"));
        page.fact("bundle", format_args!("{origin}{sequence}{x509}{jwt}"));
        for (name, at) in [
            ("keys since", &status.changed_at),
            ("confirmed", &status.confirmed_at),
            ("trusted until", &status.trusted_until),
            ("next poll", &status.next_poll),
        ] {
            if let Some(at) = at {
                page.fact(name, moment_and_relative(at.0, now));
            }
        }
        // The condition says the same while polls fail.
        let is_said = self.findings.iter().any(|finding| finding.is(Reason::PollFailing));
        if let Some(error) = status.last_error.as_ref().filter(|_| !is_said) {
            page.fact(
                "last error",
                format_args!(
                    "{} ({}); in a row: {}, the first {}",
                    error.message,
                    error.reason,
                    error.count,
                    relative(error.since.0, now)
                ),
            );
        }
    }
}

impl Report {
    /// Whether every bundle is trusted, and everybody who names it gets it.
    pub(super) fn is_well(&self) -> bool {
        let is_well = |remote: &Remote| {
            !remote.findings.iter().any(Finding::has_failed)
                && remote.users.iter().all(|user| user.gets_it != Some(false))
        };
        self.unknown.is_empty() && self.remotes.iter().all(is_well)
    }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        if self.remotes.is_empty() && self.unknown.is_empty() {
            page.line("There is no remote TrustDomain, and no WorkloadIdentity names one.");
        }
        self.remotes.iter().for_each(|remote| remote.write(page, self.now));
        for (trust_domain, users) in &self.unknown {
            page.heading(trust_domain);
            let message = format!("no TrustDomain is for it, and these name it: {}", users.join(", "));
            Finding::failed("bundle", Reason::NoRemoteTrustDomain, message)
                .with_mend(format!(
                    "create a TrustDomain {trust_domain} with spec.remote, or remove the name from federatesWith"
                ))
                .write(page);
        }
        self.findings.iter().for_each(|finding| finding.write(page));
    }
}
