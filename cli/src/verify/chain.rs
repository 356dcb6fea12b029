//! An X.509-SVID and the certificates above it. Pure.

use countersign_core::x509::{
    CaCertificate, CertificateClaims, MAX_CHAIN_LENGTH, X509SvidError, leaf_faults, leaf_id, verify_x509_svid,
};
use countersign_reasons::Reason;
use jiff::Timestamp;

use super::{
    Asked,
    report::{Certificate, Subject},
};
use crate::{
    finding::Finding,
    output::printable,
    times::{moment, span},
};

/// `claims` are those of `ders`, which are not empty and the leaf first.
pub(super) fn examine(ders: &[Vec<u8>], claims: &[CertificateClaims], asked: &Asked) -> (Subject, Vec<Finding>) {
    let mut findings = form(ders);
    let is_well_formed = findings.is_empty();
    if is_well_formed {
        findings.push(Finding::ok("form", "it keeps the rules of an X.509-SVID"));
    }
    findings.extend(claims.iter().zip(1..).map(|(one, position)| validity(one, position, claims.len(), asked.now)));
    findings.push(match is_well_formed {
        true => trust(ders, claims, asked),
        false => Finding::skipped("trust", "not looked at: what is not an X.509-SVID is trusted by nobody"),
    });
    if asked.audience.is_some() {
        findings.push(Finding::skipped("audience", "certificates have none: --audience is for JWT-SVIDs"));
    }
    (Subject::Chain(claims.iter().map(Certificate::from).collect()), findings)
}

fn form(ders: &[Vec<u8>]) -> Vec<Finding> {
    let broken = |message: String| Finding::failed("form", Reason::SVIDRuleBroken, message);
    let (leaf, above) = ders.split_first().map_or((&[][..], &[][..]), |(leaf, above)| (leaf.as_slice(), above));
    let mut findings: Vec<Finding> = leaf_faults(leaf).into_iter().map(|fault| broken(fault_of_leaf(&fault))).collect();
    if ders.len() > MAX_CHAIN_LENGTH {
        findings.push(broken(X509SvidError::TooLong { length: ders.len() }.to_string()));
    }
    for (der, position) in above.iter().zip(2..) {
        if let Err(error) = CaCertificate::from_der(der) {
            findings.push(broken(format!("certificate {position} of the chain: {error}")));
        }
    }
    findings
}

fn fault_of_leaf(fault: &X509SvidError) -> String {
    match fault {
        X509SvidError::LeafIsCa => format!("{fault}. The leaf comes first in a chain"),
        fault => printable(&fault.to_string()),
    }
}

fn validity(one: &CertificateClaims, position: usize, of: usize, now: Timestamp) -> Finding {
    let about = if of == 1 { "validity".to_owned() } else { format!("validity {position}/{of}") };
    judge_validity(&about, (one.not_before, one.not_after), now)
}

/// Both ends are included (RFC 5280, section 4.1.2.5).
pub(super) fn judge_validity(about: &str, (from, until): (Timestamp, Timestamp), now: Timestamp) -> Finding {
    if now < from {
        let message = format!("it is not valid before {}, in {}", moment(from), span(from.duration_since(now)));
        return Finding::failed(about, Reason::SVIDNotYetValid, message)
            .with_mend("compare the clocks of this machine and of the issuer");
    }
    if now > until {
        let message = format!("it expired at {}, {} ago", moment(until), span(now.duration_since(until)));
        return Finding::failed(about, Reason::SVIDExpired, message).with_mend(
            "read it anew from where the agent writes it; if that is expired too:\nkubectl countersign why POD",
        );
    }
    let life = span(until.duration_since(from));
    Finding::ok(about, format!("valid for {} more of {life}", span(until.duration_since(now))))
}

fn trust(ders: &[Vec<u8>], claims: &[CertificateClaims], asked: &Asked) -> Finding {
    if !asked.anchors.are_given {
        return Finding::skipped("trust", "no bundle was given: add --bundle FILE, or --cluster");
    }
    let chain: Vec<&[u8]> = ders.iter().map(Vec::as_slice).collect();
    let verified = verify_x509_svid(&chain, &asked.anchors.set, asked.now);
    // That it has ended is said already; whether an authority signed it is another question.
    let verified = match verified {
        Err(X509SvidError::Expired | X509SvidError::NotYetValid) => {
            let at = claims
                .first()
                .map_or(asked.now, |leaf| asked.now.clamp(leaf.not_before, leaf.not_after.max(leaf.not_before)));
            verify_x509_svid(&chain, &asked.anchors.set, at)
        }
        verified => verified,
    };
    match verified {
        Ok(id) => Finding::ok("trust", format!("signed by an authority of {}", id.trust_domain())),
        Err(X509SvidError::UntrustedDomain(domain)) => no_bundle(&domain, asked),
        Err(X509SvidError::NoAuthority(domain)) => {
            let message = X509SvidError::NoAuthority(domain.clone()).to_string();
            Finding::failed("trust", Reason::NoValidAuthority, message)
                .with_mend(format!("get a newer bundle:\nkubectl countersign bundle export {domain}"))
        }
        Err(X509SvidError::Path { trust_domain, reason }) => {
            let known = leaf_id(ders.first().map(Vec::as_slice).unwrap_or_default())
                .ok()
                .and_then(|id| asked.anchors.set.get(id.trust_domain()));
            let known = known.iter().flat_map(|bundle| &bundle.x509_authorities).map(|one| hex(one.subject_key_id()));
            let signer =
                claims.last().and_then(|last| last.authority_key_id.clone()).unwrap_or_else(|| "none".to_owned());
            let message = format!(
                "no authority of {trust_domain} signed it ({reason}). It names the authority's key {signer}; the bundle has {}",
                list(known)
            );
            Finding::failed("trust", Reason::NotSignedByAuthority, message).with_mend(
                "if the bundle is older than the certificate, get a newer one; else somebody else uses the trust domain's name",
            )
        }
        Err(error) => Finding::failed("trust", Reason::SVIDRuleBroken, printable(&error.to_string())),
    }
}

/// There is no bundle of the trust domain.
pub(super) fn no_bundle(domain: &countersign_core::id::TrustDomain, asked: &Asked) -> Finding {
    let given = list(asked.anchors.set.iter().map(|bundle| bundle.trust_domain.to_string()));
    let message = format!("there is no bundle of trust domain {domain}; there are bundles of {given}");
    Finding::failed("trust", Reason::NoBundleGiven, message)
        .with_mend(format!("give it with --bundle, or federate with it: a TrustDomain {domain} with spec.remote"))
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
