//! What the warnings say. Kubernetes may cut a warning after 256 characters; each ends with its code.

use countersign_core::entitlement::{ClaimKind, MissingConsent};
use countersign_index::{DomainVerdict, IdentityKey, IdentityView};
use countersign_reasons::Reason;

/// The most characters of a warning.
const LONGEST: usize = 250;

/// The most warnings about one object.
const MOST: usize = 5;

/// How many WorkloadIdentities are named.
const NAMED: usize = 3;

/// About a WorkloadIdentity.
pub(super) fn of_identity(view: &IdentityView) -> Vec<String> {
    // What cannot be read was refused.
    let Ok(judged) = &view.outcome else { return Vec::new() };
    let domain = match judged.outcome() {
        Ok(domain) => domain,
        Err(refusal) => return vec![warning("no pod gets it yet", refusal.reason(), &refusal.to_string())],
    };
    let mut warnings = Vec::new();
    for lost in judged.lost() {
        let kind = match lost.claim.kind {
            ClaimKind::Path => "path",
            ClaimKind::DnsName => "DNS name",
        };
        let text = format!("{kind} {} is held by WorkloadIdentity {}/{}", lost.claim.value, lost.namespace, lost.name);
        warnings.push(warning("pods do not get all of it", Reason::ClaimedByAnother, &text));
    }
    for foreign in judged.foreign().iter() {
        if let Err(missing) = &foreign.consent {
            let missing: &MissingConsent = missing;
            warnings.push(warning("pods do not get a bundle yet", missing.reason(), &foreign.to_string()));
        }
    }
    if judged.identity().wit.is_some() && domain.wit.is_none() {
        let text = format!("TrustDomain {} has no spec.authority.wit", domain.name);
        warnings.push(warning("pods get no WIT-SVIDs yet", Reason::NoWITAuthority, &text));
    }
    warnings.truncate(MOST);
    warnings
}

/// About a TrustDomain, and the WorkloadIdentities that it no longer admits.
pub(super) fn of_domain(verdict: Option<&DomainVerdict>, lost: &[&IdentityKey]) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(DomainVerdict::Duplicate { of, trust_domain }) = verdict {
        let text = format!("TrustDomain {of}, which is older, holds trust domain {trust_domain}");
        warnings.push(warning("it has no effect", Reason::Duplicate, &text));
    }
    if !lost.is_empty() {
        let names: Vec<String> = lost.iter().take(NAMED).map(|key| format!("{}/{}", key.namespace, key.name)).collect();
        let more = if lost.len() > NAMED { format!(" and {} more", lost.len() - NAMED) } else { String::new() };
        let text = format!("WorkloadIdentity {}{more}", names.join(", "));
        warnings.push(warning("pods lose their identities by this change", Reason::NotGranted, &text));
    }
    warnings
}

fn warning(consequence: &str, reason: Reason, text: &str) -> String {
    let longest = LONGEST - "countersign: :  (CS0000)".len() - consequence.len();
    let text = if text.len() > longest {
        format!("{}…", text.get(..text.floor_char_boundary(longest - "…".len())).unwrap_or_default())
    } else {
        text.to_owned()
    };
    format!("countersign: {consequence}: {}", reason.with_code(&text))
}
