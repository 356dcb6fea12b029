//! What is said of the input.

use countersign_core::{id::SpiffeId, token::UnverifiedToken, x509::CertificateClaims};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::token::{audiences, text, time};
use crate::{
    bundles::Authority,
    finding::Finding,
    output::{self, Page, printable},
    times::moment,
};

/// What the input is, and what is wrong with it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) source: String,
    /// Whether nothing that was looked at is wrong.
    pub(super) acceptable: bool,
    pub(super) subject: Subject,
    pub(super) findings: Vec<Finding>,
}

/// Who it says that it is. Nothing of this is verified by itself; the findings say what is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Subject {
    /// The leaf first.
    Chain(Vec<Certificate>),
    Token(Token),
    Bundle(BundleFacts),
    #[serde(rename = "unknown")]
    Nothing,
}

/// A certificate.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Certificate {
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_id: Option<SpiffeId>,
    uris: Vec<String>,
    dns_names: Vec<String>,
    subject: String,
    issuer: String,
    serial: String,
    key: String,
    is_authority: bool,
    subject_key_id: Option<String>,
    authority_key_id: Option<String>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// A token, without its signature.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Token {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_id: Option<SpiffeId>,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

/// A bundle.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BundleFacts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trust_domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sequence: Option<u64>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_hint: Option<u64>,
    pub(super) authorities: Vec<Authority>,
    /// The distinguished names of certificates, where it consists of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) subjects: Vec<String>,
}

impl Subject {
    /// The one that it names.
    pub(super) fn trust_domain(&self) -> Option<String> {
        let id = match self {
            Self::Chain(chain) => chain.first()?.spiffe_id.as_ref(),
            Self::Token(token) => token.spiffe_id.as_ref(),
            Self::Bundle(bundle) => return bundle.trust_domain.clone(),
            Self::Nothing => None,
        };
        id.map(|id| id.trust_domain().to_string())
    }
}

impl From<&CertificateClaims> for Certificate {
    fn from(claims: &CertificateClaims) -> Self {
        let uris: Vec<String> = claims.uris.iter().map(|uri| printable(uri)).collect();
        Self {
            spiffe_id: match claims.uris.as_slice() {
                [one] => one.parse().ok(),
                _ => None,
            },
            uris,
            dns_names: claims.dns_names.iter().map(|name| printable(name)).collect(),
            subject: printable(&claims.subject),
            issuer: printable(&claims.issuer),
            serial: claims.serial.clone(),
            key: claims.key.clone(),
            is_authority: claims.is_ca,
            subject_key_id: claims.subject_key_id.clone(),
            authority_key_id: claims.authority_key_id.clone(),
            not_before: claims.not_before,
            not_after: claims.not_after,
        }
    }
}

impl Token {
    pub(super) fn new(read: UnverifiedToken, is_wit: bool) -> Self {
        let spiffe_id = text(read.claims.get("sub")).and_then(|sub| sub.parse().ok());
        let kind = if is_wit { "WIT-SVID" } else { "JWT-SVID" };
        Self { kind, spiffe_id, header: read.header, claims: read.claims }
    }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        match &self.subject {
            Subject::Chain(chain) => write_chain(page, chain),
            Subject::Token(token) => token.write(page),
            Subject::Bundle(bundle) => bundle.write(page),
            Subject::Nothing => page.heading(printable(&self.source)),
        }
        self.findings.iter().for_each(|finding| finding.write(page));
    }
}

fn write_chain(page: &mut Page, chain: &[Certificate]) {
    let Some((leaf, above)) = chain.split_first() else { return };
    page.heading("X.509 certificate");
    match &leaf.spiffe_id {
        Some(id) => {
            page.fact("SPIFFE ID", id);
            page.fact("trust domain", id.trust_domain());
        }
        None => page.fact("URI names", or_none(&leaf.uris)),
    }
    page.fact("DNS names", or_none(&leaf.dns_names));
    if !leaf.subject.is_empty() {
        page.fact("subject", &leaf.subject);
    }
    page.fact("key", &leaf.key);
    page.fact("serial", &leaf.serial);
    page.fact("valid from", moment(leaf.not_before));
    page.fact("valid until", moment(leaf.not_after));
    page.fact("signed by key", leaf.authority_key_id.as_deref().unwrap_or("not named"));
    for (one, position) in above.iter().zip(2..) {
        let id = one.subject_key_id.as_deref().unwrap_or("not named");
        page.fact(
            &format!("certificate {position}"),
            format_args!("{}, key id {id}, {}, until {}", one.subject, one.key, moment(one.not_after)),
        );
    }
}

impl Token {
    fn write(&self, page: &mut Page) {
        let read = UnverifiedToken { header: self.header.clone(), claims: self.claims.clone() };
        page.heading(self.kind);
        match &self.spiffe_id {
            Some(id) => {
                page.fact("SPIFFE ID", id);
                page.fact("trust domain", id.trust_domain());
            }
            None => page.fact("subject", shown(self.claims.get("sub"))),
        }
        if self.claims.contains_key("aud") {
            let audiences: Vec<String> = audiences(&read).iter().map(|one| printable(one)).collect();
            page.fact("audience", or_none(&audiences));
        }
        for (claim, name) in [("iat", "issued"), ("nbf", "valid from"), ("exp", "valid until")] {
            if self.claims.contains_key(claim) {
                let at = time(&read, claim).map_or_else(|| shown(self.claims.get(claim)), moment);
                page.fact(name, at);
            }
        }
        page.fact("algorithm", shown(self.header.get("alg")));
        page.fact("key id", shown(self.header.get("kid")));
        let known = ["sub", "aud", "iat", "nbf", "exp"];
        for (claim, value) in self.claims.iter().filter(|(claim, _)| !known.contains(&claim.as_str())) {
            page.fact(&printable(claim), shown(Some(value)));
        }
    }
}

impl BundleFacts {
    fn write(&self, page: &mut Page) {
        page.heading("Bundle");
        page.fact("trust domain", self.trust_domain.as_deref().unwrap_or("not named"));
        if let Some(sequence) = self.sequence {
            page.fact("sequence", sequence);
        }
        if let Some(seconds) = self.refresh_hint {
            page.fact("refresh hint", format_args!("{seconds} s"));
        }
        for subject in self.subjects.iter().filter(|subject| !subject.is_empty()) {
            page.fact("subject", subject);
        }
        for one in &self.authorities {
            let until = one.not_after.map(|at| format!(", until {}", moment(at))).unwrap_or_default();
            page.fact(&format!("{} authority", one.kind), format_args!("{}{until}", printable(&one.id)));
        }
    }
}

fn or_none(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

/// A value as JSON, but a text without quotes.
fn shown(value: Option<&Value>) -> String {
    match value {
        None => "none".to_owned(),
        Some(Value::String(text)) => printable(text),
        Some(value) => printable(&value.to_string()),
    }
}
