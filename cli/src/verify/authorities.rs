//! A bundle: a SPIFFE bundle document, or the certificates of authorities. Pure.

use countersign_core::{
    bundle::Bundle,
    x509::{CaCertificate, CertificateClaims},
};
use countersign_reasons::Reason;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Asked,
    anchors::{certificates_in, trust_domain_of},
    report::{BundleFacts, Subject},
};
use crate::{
    bundles::Authority,
    finding::Finding,
    output::printable,
    times::{moment, span},
};

/// `claims` are those of `ders`; each has cA set.
pub(super) fn examine_certificates(
    ders: &[Vec<u8>],
    claims: &[CertificateClaims],
    asked: &Asked,
) -> (Subject, Vec<Finding>) {
    let trust_domain = asked.trust_domain.clone().or_else(|| trust_domain_of(ders));
    let mut findings = Vec::new();
    let mut authorities = Vec::new();
    for (der, position) in ders.iter().zip(1..) {
        match CaCertificate::from_der(der) {
            Ok(authority) => authorities.push(authority),
            Err(error) => {
                let message = format!("certificate {position} of {}: {error}", ders.len());
                findings.push(Finding::failed("form", Reason::BundleRuleBroken, printable(&message)));
            }
        }
    }
    if findings.is_empty() {
        let message = "every certificate is one of an authority: it is a bundle, and no credential of a workload";
        findings.push(Finding::ok("form", message));
    }
    findings.extend(validity(&authorities, asked.now));
    let facts = BundleFacts {
        trust_domain: trust_domain.as_ref().map(ToString::to_string),
        sequence: None,
        refresh_hint: None,
        authorities: authorities.iter().map(Authority::from_certificate).collect(),
        subjects: claims.iter().map(|one| printable(&one.subject)).collect(),
    };
    findings.push(among_given(trust_domain.as_ref(), &authorities, asked));
    (Subject::Bundle(facts), findings)
}

pub(super) fn examine_document(document: &[u8], asked: &Asked) -> (Subject, Vec<Finding>) {
    let ders = certificates_in(document);
    let named = asked.trust_domain.clone().or_else(|| trust_domain_of(&ders));
    // Whose it is decides nothing about its form.
    let parsed = match named.clone().map_or_else(|| "unknown".parse(), Ok) {
        Ok(trust_domain) => Bundle::parse(&trust_domain, document).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let bundle = match parsed {
        Ok(bundle) => bundle,
        Err(error) => {
            let finding = Finding::failed("form", Reason::BundleRuleBroken, printable(&error))
                .with_mend("positions are counted from 0: have the bundle published anew by its owner");
            return (Subject::Nothing, vec![finding]);
        }
    };
    let json: Value = serde_json::from_slice(document).unwrap_or_default();
    let mut findings = vec![Finding::ok("form", "it is a SPIFFE bundle document")];
    findings.extend(sequence(&json));
    findings.extend(ignored(&json, &bundle));
    findings.extend(validity(&bundle.x509_authorities, asked.now));
    findings.push(among_given(named.as_ref(), &bundle.x509_authorities, asked));
    let facts = BundleFacts {
        trust_domain: named.as_ref().map(ToString::to_string),
        sequence: Some(bundle.sequence),
        refresh_hint: Some(bundle.refresh_hint.as_secs()),
        authorities: Authority::all(&bundle),
        subjects: Vec::new(),
    };
    (Subject::Bundle(facts), findings)
}

fn sequence(json: &Value) -> Option<Finding> {
    let is_there = json.get("spiffe_sequence").is_some_and(Value::is_u64);
    (!is_there).then(|| {
        let message = "it has no spiffe_sequence: a reader cannot know which of two bundles is the newer one";
        Finding::warning("sequence", Reason::SequenceMissing, message)
            .with_mend("ask its owner to publish it with spiffe_sequence")
    })
}

fn ignored(json: &Value, bundle: &Bundle) -> Option<Finding> {
    let all = json.get("keys").and_then(Value::as_array).map_or(0, Vec::len);
    let used = bundle.x509_authorities.len() + bundle.jwt_authorities.len() + bundle.wit_authorities.len();
    if used == 0 {
        let message = format!("it has no key that verifies an SVID, among {all} keys: who uses it trusts nobody");
        let mend = "each key needs use x509-svid, jwt-svid or wit-svid; that of an OIDC issuer (use sig) is no bundle";
        return Some(Finding::warning("keys", Reason::TrustsNothing, message).with_mend(mend));
    }
    (used < all).then(|| {
        let message = format!("{} of {all} keys are of a use or kind that is not known here, and ignored", all - used);
        Finding::warning("keys", Reason::KeysIgnored, message)
    })
}

fn validity(authorities: &[CaCertificate], now: Timestamp) -> Vec<Finding> {
    let Some(last) = authorities.iter().map(CaCertificate::not_after).max() else { return Vec::new() };
    let ended: Vec<&CaCertificate> = authorities.iter().filter(|one| !one.is_valid_at(now)).collect();
    if ended.len() == authorities.len() {
        let message = format!("no X.509 authority of it is valid now; the last one ends at {}", moment(last));
        return vec![
            Finding::failed("validity", Reason::NoValidAuthority, message)
                .with_mend("get a newer bundle, and compare the clock of this machine"),
        ];
    }
    let mut findings = vec![Finding::ok(
        "validity",
        format!("it has a valid X.509 authority for {} more", span(last.duration_since(now))),
    )];
    findings.extend(ended.iter().map(|one| {
        let message = format!(
            "authority {} is valid from {} until {}, and not now",
            Authority::from_certificate(one).id,
            moment(one.not_before()),
            moment(one.not_after())
        );
        Finding::warning("validity", Reason::AuthorityExpired, message)
    }));
    findings
}

/// An authority is trusted because it is in a bundle, not because of a signature.
fn among_given(
    trust_domain: Option<&countersign_core::id::TrustDomain>,
    authorities: &[CaCertificate],
    asked: &Asked,
) -> Finding {
    if !asked.anchors.are_given {
        return Finding::skipped(
            "trust",
            "authorities are trusted where they are configured; compare them with --bundle or --cluster",
        );
    }
    let Some(trust_domain) = trust_domain else {
        return Finding::skipped("trust", "it does not name its trust domain: add --trust-domain");
    };
    let Some(bundle) = asked.anchors.set.get(trust_domain) else {
        return super::chain::no_bundle(trust_domain, asked);
    };
    let strangers: Vec<String> = authorities
        .iter()
        .filter(|one| !bundle.x509_authorities.contains(one))
        .map(|one| Authority::from_certificate(one).id)
        .collect();
    if strangers.is_empty() {
        return Finding::ok("trust", format!("every X.509 authority is in the bundle of {trust_domain}"));
    }
    let message = format!("not in the bundle of {trust_domain}: {}", strangers.join(", "));
    Finding::failed("trust", Reason::NotAmongAuthorities, message)
        .with_mend("they were removed or replaced since, or are of somebody else: ask the owner of the trust domain")
}
