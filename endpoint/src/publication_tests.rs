use std::str::FromStr as _;

use countersign_core::id::TrustDomain;

use super::*;
use crate::test_set::{TestDomain, entry};

fn now() -> Timestamp {
    Timestamp::from_str("2026-11-26T12:00:00Z").unwrap()
}

fn build(entries: &[Entry]) -> Result<Publication, SetError> {
    let hosts = HostNames::new(["west.example=b.example".parse().unwrap()]).unwrap();
    Publication::build(entries, &hosts, now())
}

fn domains() -> [TestDomain; 2] {
    ["a.example", "b.example"].map(|name| TestDomain::new(name, now()))
}

/// The files without the one of this path.
fn without(entries: &[Entry], path: &str) -> Vec<Entry> {
    let rest: Vec<Entry> = entries.iter().filter(|entry| entry.path != path).cloned().collect();
    assert_eq!(rest.len() + 1, entries.len(), "{path}");
    rest
}

fn with(entries: &[Entry], path: &str, content: &[u8]) -> Vec<Entry> {
    let mut all = without(entries, path);
    all.push(entry("", path, content));
    all
}

#[test]
fn each_identity_publishes_its_own_trust_domain_byte_for_byte() {
    let [a, b] = domains();
    let mut entries = [a.files("", Some("https://a.example"), now()), b.files("west/", None, now())].concat();
    // What a federates with is in its directory too.
    let foreign = TestDomain::new("c.example", now());
    entries.push(entry("", "c.example.spiffe-bundle.json", &foreign.document()));
    entries.push(entry("", "d.example.spiffe-bundle.json", b"not JSON"));
    let publication = build(&entries).unwrap();
    for domain in [&a, &b] {
        let document = publication.documents.bundle(domain.name.as_str()).unwrap();
        assert_eq!(document.body, domain.document());
        assert_eq!(document.max_age.as_secs(), 17);
    }
    assert_eq!(publication.documents.len(), 2);
    assert!(publication.documents.at_host("a.example", "/keys").is_some());
    assert_eq!(publication.documents.default_trust_domain(), Some("a.example"));
    assert_eq!(publication.expires, now() + std::time::Duration::from_secs(3600));
}

#[test]
fn the_svid_is_that_of_the_named_trust_domain_or_the_default() {
    let [a, b] = domains();
    let publication = build(&[a.files("", None, now()), b.files("2/", None, now())].concat()).unwrap();
    let [of_a, of_b] = ["a.example", "b.example"].map(|name| publication.certificate(Some(name)).cert.clone());
    assert_ne!(of_a, of_b);
    for (name, expected) in [
        (Some("B.example"), &of_b),
        (Some("west.example"), &of_b),
        (Some("c.example"), &of_a),
        (Some(""), &of_a),
        (None, &of_a),
    ] {
        assert_eq!(publication.certificate(name).cert, *expected, "{name:?}");
    }
}

#[test]
fn of_two_identities_of_a_trust_domain_the_first_represents_it() {
    let [a, _] = domains();
    let entries = [a.files("", Some("https://one.example"), now()), a.files("2/", Some("https://two.example"), now())];
    let publication = build(&entries.concat()).unwrap();
    assert!(publication.documents.at_host("one.example", "/keys").is_some());
    assert!(publication.documents.at_host("two.example", "/keys").is_none());
    assert!(publication.documents.contradictory().is_empty());
}

#[test]
fn a_trust_domain_without_document_does_not_keep_others_from_being_published() {
    let [a, b] = domains();
    let entries = [a.files("", None, now()), b.files("2/", None, now())].concat();
    let publication = build(&without(&entries, "a.example.spiffe-bundle.json")).unwrap();
    assert_eq!(publication.without_document, [TrustDomain::from_str("a.example").unwrap()]);
    assert!(publication.documents.bundle("a.example").is_none() && publication.documents.bundle("b.example").is_some());
    assert_eq!(publication.documents.default_trust_domain(), Some("a.example"), "no other one takes its place");
    let none = without(&without(&entries, "a.example.spiffe-bundle.json"), "2/b.example.spiffe-bundle.json");
    assert_eq!(build(&none).unwrap_err(), SetError::NoDocuments);
}

#[test]
fn a_set_with_a_file_that_is_wrong_is_refused_and_the_file_named() {
    let [a, b] = domains();
    let entries = [a.files("", Some("https://a.example"), now()), b.files("2/", None, now())].concat();
    let key = b.files("", None, now()).remove(1);
    let long = vec![b' '; countersign_core::bundle::MAX_BUNDLE_LENGTH + 1];
    for (set, expected) in [
        (Vec::new(), "./tls.crt is missing"),
        (without(&entries, "2/tls.key"), "2/tls.key is missing"),
        (with(&entries, "tls.crt", b""), ".: tls.crt is not one or more certificates"),
        (with(&entries, "tls.key", b"secret"), ".: tls.key is not a private key"),
        (with(&entries, "2/tls.key", &key.content), "2: tls.key is not the key of the leaf"),
        (
            with(&entries, "a.example.spiffe-bundle.json", b"[]"),
            ".: bundle document of a.example: bundle is not a JSON",
        ),
        (with(&entries, "2/b.example.spiffe-bundle.json", &long), "2: bundle document of b.example: bundle of 1048577"),
        (
            with(&entries, "a.example.jwt-issuer", b"https://a.example\n"),
            ".: JWT issuer of a.example: issuer has a char",
        ),
        (with(&entries, "a.example.jwt-issuer", b"\xff"), ".: JWT issuer of a.example: the file is not UTF-8"),
        // Nobody could verify it.
        (
            with(&entries, "a.example.spiffe-bundle.json", br#"{"keys":[]}"#),
            "./tls.crt: bundle of a.example has no auth",
        ),
        (
            with(&entries, "a.example.spiffe-bundle.json", &TestDomain::new("a.example", now()).document()),
            "./tls.crt: chain does not lead",
        ),
    ] {
        let error = build(&set).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}\n{expected}");
        assert!(!error.contains("secret"));
    }
    let late = now() + std::time::Duration::from_secs(3601);
    let error = Publication::build(&entries, &HostNames::default(), late).unwrap_err().to_string();
    assert!(error.contains("no authority that is valid") || error.contains("expired"), "{error}");
}

#[test]
fn an_error_holds_nothing_of_a_key() {
    let [a, _] = domains();
    let entries = a.files("", None, now());
    let text = std::str::from_utf8(&entries[1].content).unwrap().to_owned();
    let inside = &text[40..60];
    for broken in [text.replace("-----END", "-----EN"), text.replace('\n', " "), text[..80].to_owned()] {
        let error = build(&with(&entries, "tls.key", broken.as_bytes())).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(inside));
    }
    assert!(!format!("{:?}", build(&entries).unwrap()).contains(inside));
}
