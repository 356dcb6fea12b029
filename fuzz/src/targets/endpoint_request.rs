//! Requests to the bundle endpoint.

use std::sync::LazyLock;
use std::time::Duration;

use countersign_core::bundle::{Bundle, IssuerUrl, METADATA_PATH, TRUST_BUNDLE_PATH};
use countersign_core::id::TrustDomain;
use countersign_endpoint::documents::{Documents, TrustDomainDocuments};
use countersign_endpoint::host_names::HostNames;
use countersign_endpoint::request::{Answer, Head, MAX_PATH_LENGTH, Profile, Route, answer};
use serde_json::Value;

use crate::known::{DOMAIN, KNOWN};

/// The trust domains, and their issuers; two have one.
const DOMAINS: [(&str, &str); 4] = [
    (DOMAIN, "https://issuer.example.org:8443/x/"),
    ("b.example", "https://b.example"),
    ("c.example", "https://shared.example"),
    ("d.example", "https://shared.example:1/"),
];

static DOCUMENTS: LazyLock<Documents> = LazyLock::new(|| {
    let hosts = HostNames::new(["bundles.example.org=example.org".parse().unwrap()]).unwrap();
    let domains = DOMAINS.map(|(name, issuer)| domain(name, issuer.parse().unwrap()));
    Documents::new(Some(DOMAIN.parse().unwrap()), &domains, hosts)
});

/// A document is answered only to GET and HEAD, and only at its place: a bundle at its trust domain's path or at the root of a
/// host that stands for it, those of an issuer and of discovery at its host over the web. A peer is told that it has a document only if it named
/// its tag. And the documents of every issuer that is accepted are found by whoever follows its URL.
pub(crate) fn request(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let mut lines = rest.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (method, host, path, if_none_match) = (line(), line(), line(), line());
    let (Ok(method), Ok(path)) = (std::str::from_utf8(method), std::str::from_utf8(path)) else {
        return;
    };
    let profile = if kind & 1 == 0 { Profile::Spiffe } else { Profile::Web };
    // In HTTP/2 the host is in the target, which is text.
    let authority = (kind & 2 != 0).then(|| std::str::from_utf8(host).ok()).flatten();
    let (hosts, fields) = ([host], [if_none_match]);
    let hosts = if authority.is_some() { &hosts[..0] } else { &hosts[..] };
    let head = Head { method, authority, hosts, path, if_none_match: &fields };
    let (route, document, is_sent) = match answer(&DOCUMENTS, profile, &head) {
        Answer::Document(route, document) => (route, document, true),
        Answer::NotModified(route, document) => (route, document, false),
        Answer::Refused(refusal) => {
            assert!(refusal.status().as_u16() >= 400 && refusal.text().ends_with('\n'));
            return follow(host, path);
        }
    };
    assert!(matches!(method, "GET" | "HEAD") && path.len() <= MAX_PATH_LENGTH);
    let named = String::from_utf8_lossy(if_none_match).contains(&document.etag) || if_none_match.trim_ascii() == b"*";
    assert!(is_sent || named, "told to have what it did not name");
    let host = std::str::from_utf8(host).unwrap().to_ascii_lowercase();
    let body: Value = serde_json::from_slice(&document.body).unwrap();
    match route {
        Route::Bundle => {
            let (name, _) = DOMAINS.iter().find(|(name, _)| DOCUMENTS.bundle(name) == Some(document)).unwrap();
            let own_host = host.starts_with(name)
                || *name == DOMAIN && (profile == Profile::Spiffe || host.starts_with("bundles."));
            assert!(path == format!("/{name}") || path == "/" && own_host, "{name} at {host}{path}");
        }
        Route::Configuration | Route::Keys => {
            assert!(profile == Profile::Web);
            let is_at = |(place, issuer): &(&str, &str)| {
                host.starts_with(place) && (body["issuer"].is_null() || body["issuer"] == *issuer)
            };
            assert!(
                [("issuer.example.org", DOMAINS[0].1), ("b.example", DOMAINS[1].1)].iter().any(is_at),
                "{host}{path}"
            );
            if let Some(keys) = body["keys"].as_array() {
                assert!(route == Route::Keys && keys.iter().all(|key| key["use"] == "sig" && key["x5c"].is_null()));
            }
        }
        Route::TrustDomainMetadata => {
            let name = body["trust_domain"].as_str().unwrap();
            assert!(
                profile == Profile::Web && host.starts_with(name) && path == METADATA_PATH,
                "{name} at {host}{path}"
            );
            assert_eq!(body["trust_bundle_endpoint"], format!("https://{name}{TRUST_BUNDLE_PATH}"));
        }
        Route::TrustBundle => {
            let is_its =
                |(place, (name, _)): (usize, &(&str, &str))| host.starts_with(name) && body["sequence_number"] == place;
            assert!(profile == Profile::Web && path == TRUST_BUNDLE_PATH, "{host}{path}");
            assert!(DOMAINS.iter().enumerate().any(is_its), "{host}: {body}");
        }
        Route::Unknown => panic!("a document of no kind"),
    }
}

/// What a relying party does with an issuer: it asks the host of the URL for the paths below it.
fn follow(host: &[u8], path: &str) {
    let Ok(host) = std::str::from_utf8(host) else {
        return;
    };
    let Ok(issuer) = format!("https://{host}{path}").parse::<IssuerUrl>() else {
        return;
    };
    let documents = Documents::new(None, &[domain(DOMAIN, issuer.clone())], HostNames::default());
    let rest = &issuer.as_str()["https://".len()..];
    let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
    for (path, expected) in [(issuer.configuration_path(), Route::Configuration), (issuer.keys_path(), Route::Keys)] {
        let head = Head { method: "GET", authority: Some(authority), hosts: &[], path: &path, if_none_match: &[] };
        let found = answer(&documents, Profile::Web, &head);
        assert!(matches!(found, Answer::Document(route, _) if route == expected), "{issuer}: {found:?}");
    }
}

fn domain(name: &str, issuer: IssuerUrl) -> TrustDomainDocuments {
    let trust_domain: TrustDomain = name.parse().unwrap();
    // Each has its own sequence, so that no two documents are the same.
    let sequence = DOMAINS.iter().position(|(each, _)| *each == name).unwrap() as u64;
    let bundle = Bundle { trust_domain, sequence, refresh_hint: Duration::from_secs(300), ..KNOWN.bundle.clone() };
    let document = bundle.to_json().into();
    TrustDomainDocuments { bundle, document, issuer: Some(issuer) }
}
