//! The bundles of a cluster, and the authorities in each.

use anyhow::{Result, bail};
use countersign_core::journal::names_key_id;
use countersign_crds::AuthorityState;
use countersign_reasons::Reason;
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;

use crate::{
    Options, Outcome,
    bundles::{self, Authority, Found},
    finding::Finding,
    output::{self, Page, printable},
    times::{moment, relative},
};

/// Show the authorities in the bundle of each trust domain.
///
/// Of each the ids by which taint and revoke name it, where it is in its life, and until when it is trusted. Exit code 1 if a bundle is
/// missing, or is not the one of the status.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The TrustDomain, or the trust domain; all if absent.
    name: Option<String>,
}

pub(crate) async fn run(Args { name }: Args, options: &Options) -> Result<Outcome> {
    let cluster = options.cluster().await?;
    let found = bundles::read(&cluster, name.as_deref()).await?;
    if let (Some(name), true) = (&name, found.is_empty()) {
        bail!("there is no TrustDomain {name}: see kubectl countersign bundle show");
    }
    let report = report(&found, Timestamp::now());
    options.print(&report)?;
    Ok(if report.is_well() { Outcome::Well } else { Outcome::Problem })
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    bundles: Vec<Shown>,
    #[serde(skip)]
    now: Timestamp,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// The name of the TrustDomain.
    name: String,
    trust_domain: String,
    /// Whether this cluster is its authority.
    local: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    authorities: Vec<Authority>,
    /// What is wrong with it.
    findings: Vec<Finding>,
}

fn report(found: &[Found], now: Timestamp) -> Report {
    Report { bundles: found.iter().map(|one| shown(one, now)).collect(), now }
}

fn shown(found: &Found, now: Timestamp) -> Shown {
    let mut shown = Shown {
        name: found.object.name_any(),
        trust_domain: found.trust_domain.clone(),
        local: found.is_local(),
        sequence: None,
        authorities: Vec::new(),
        findings: Vec::new(),
    };
    match &found.bundle {
        Err(missing) => {
            let status = found.object.status.iter().flat_map(|status| &status.authorities);
            shown.authorities = status.map(Authority::from_status).collect();
            shown.findings.push(missing.finding(&found.trust_domain));
        }
        Ok(bundle) => {
            shown.sequence = Some(bundle.sequence);
            shown.authorities = Authority::all(bundle).into_iter().map(|one| with_status(one, found)).collect();
            shown.findings.extend(behind(found, bundle.sequence));
            shown.findings.extend(ended(&shown.authorities, &found.trust_domain, now));
        }
    }
    shown
}

/// What the status says of an authority, beside what is in the bundle.
fn with_status(mut shown: Authority, found: &Found) -> Authority {
    let status = found.object.status.iter().flat_map(|status| &status.authorities);
    let mut status = status.filter(|one| {
        let hex = one.subject_key_id.as_deref();
        one.id == shown.id || hex.is_some_and(|hex| names_key_id(&shown.id, hex))
    });
    if let Some(one) = status.next() {
        shown.authority = (one.id != shown.id).then(|| one.id.clone());
        shown.state = Some(one.state);
        shown.signs_until = Some(one.retire_at.0);
        shown.not_after = Some(one.remove_at.0);
    }
    shown
}

/// The operator publishes the bundle after it has written the status.
fn behind(found: &Found, sequence: u64) -> Option<Finding> {
    let status = found.object.status.as_ref()?.bundle.as_ref()?;
    let expected = u64::try_from(status.sequence).ok()?;
    // A remote bundle is handed out under a sequence of its own.
    (found.is_local() && expected != sequence).then(|| {
        let message = format!("the published bundle has sequence {sequence}, and the status speaks of {expected}");
        Finding::warning(&found.trust_domain, Reason::BundleBehindStatus, message).with_mend(
            "look again in a moment; if it stays:\nkubectl logs -n countersign-system deployment/countersign-operator",
        )
    })
}

fn ended(authorities: &[Authority], trust_domain: &str, now: Timestamp) -> Option<Finding> {
    let mut ends = authorities.iter().filter(|one| one.kind == "x509").filter_map(|one| one.not_after);
    let last = ends.by_ref().max()?;
    (last <= now).then(|| {
        let message = format!("its last X.509 authority ended at {}", moment(last));
        Finding::failed(trust_domain, Reason::NoValidAuthority, message)
            .with_mend(format!("kubectl describe trustdomain {trust_domain}"))
    })
}

impl Report {
    fn is_well(&self) -> bool {
        self.bundles.iter().all(|one| one.findings.is_empty())
    }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        if self.bundles.is_empty() {
            return page.line("There is no TrustDomain.");
        }
        for one in &self.bundles {
            let place = if one.local { "authority in this cluster" } else { "remote" };
            let sequence = one.sequence.map(|sequence| format!(", sequence {sequence}")).unwrap_or_default();
            page.heading(format_args!("{} ({place}{sequence})", one.trust_domain));
            if one.sequence.is_some() && one.authorities.is_empty() {
                page.line("  It has no authority: nobody is trusted.");
            }
            if !one.authorities.is_empty() {
                page.table(
                    &["KIND", "ID", "STATE", "TRUSTED UNTIL"],
                    one.authorities.iter().map(|each| self.row(each)),
                );
            }
            one.findings.iter().for_each(|finding| finding.write(page));
        }
    }
}

impl Report {
    fn row(&self, one: &Authority) -> Vec<String> {
        let id = printable(&one.id);
        let id = one.authority.as_ref().map_or_else(|| id.clone(), |name| format!("{name}\n{id}"));
        let state = match one.state {
            None => "trusted",
            Some(AuthorityState::Prepared) => "prepared",
            Some(AuthorityState::Active) => "active",
            Some(AuthorityState::Retiring) => "retiring",
            Some(AuthorityState::Tainted) => "tainted",
        };
        let until =
            one.not_after.map_or_else(|| "-".to_owned(), |at| format!("{}\n{}", moment(at), relative(at, self.now)));
        vec![one.kind.to_owned(), id, state.to_owned(), until]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use countersign_core::{bundle::Bundle, key::KeyType, x509::X509Authority};
    use serde_json::{Value, json};

    use super::*;
    use crate::bundles::Missing;

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    fn found(spec: &Value, change: impl FnOnce(&mut Value)) -> Found {
        let name = "shop.example".parse().unwrap();
        let authority = X509Authority::generate(&name, KeyType::EcP256, Duration::from_secs(86_400), now()).unwrap();
        let certificate = authority.certificate().clone();
        let hex = Authority::from_certificate(&certificate).id;
        let at = |seconds: i64| (now() + jiff::SignedDuration::from_secs(seconds)).to_string();
        let mut object = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
            "metadata": {"name": "shop.example"}, "spec": spec,
            "status": {
                "bundle": {"sequence": 7, "refreshHint": "5m"},
                "authorities": [{
                    "kind": "x509", "id": "a1", "state": "active", "subjectKeyId": hex,
                    "activateAt": at(-60), "retireAt": at(60), "removeAt": at(120), "notAfter": at(86_400),
                }],
            },
        });
        change(&mut object);
        let bundle = Bundle {
            trust_domain: name,
            x509_authorities: vec![certificate],
            jwt_authorities: Vec::new(),
            wit_authorities: Vec::new(),
            sequence: 7,
            refresh_hint: Duration::from_secs(300),
        };
        let object = serde_json::from_value(object).unwrap();
        Found { object, trust_domain: "shop.example".to_owned(), bundle: Ok(bundle) }
    }

    fn local() -> Value {
        json!({"authority": {}})
    }

    #[test]
    fn an_authority_has_the_name_and_the_state_that_the_status_gives_it() {
        let shown = shown(&found(&local(), |_| {}), now());
        let [one] = shown.authorities.as_slice() else { panic!("{shown:?}") };
        assert_eq!((one.authority.as_deref(), one.state), (Some("a1"), Some(AuthorityState::Active)));
        assert_eq!(one.not_after, Some(now() + jiff::SignedDuration::from_secs(120)), "when it leaves the bundle");
        assert!(shown.findings.is_empty(), "{shown:?}");
    }

    #[test]
    fn a_bundle_that_is_not_the_one_of_the_status_is_a_problem_of_local_trust_domains_alone() {
        let other = |object: &mut Value| object["status"]["bundle"]["sequence"] = 8.into();
        assert_eq!(shown(&found(&local(), other), now()).findings[0].known_reason(), Some(Reason::BundleBehindStatus));
        let remote = json!({"remote": {"namespaces": {}, "bootstrap": {"bundle": "{}"}}});
        assert!(shown(&found(&remote, other), now()).findings.is_empty());
    }

    #[test]
    fn what_may_not_be_read_is_named_and_ends_nothing() {
        let denied = crate::reading::Right::new("get", "configmaps", Some("countersign-federation"));
        let mut all = vec![found(&local(), |_| {}), found(&local(), |_| {})];
        all[0].bundle = Err(Missing::Denied(denied));
        let report = report(&all, now());
        assert!(report.bundles[0].findings[0].message.contains("get configmaps in namespace countersign-federation"));
        let known = |one: &Authority| (one.authority.clone(), one.state, one.not_after);
        let [denied, read] = [0, 1].map(|each| report.bundles[each].authorities.iter().map(known).collect::<Vec<_>>());
        assert_eq!((denied.len(), &denied), (1, &read), "the status has them too");
        assert!(!report.is_well());
    }
}
