use std::time::Duration;

use axum::body::Bytes;
use countersign_core::{
    bundle::{Bundle, METADATA_PATH, TRUST_BUNDLE_PATH},
    jwt::JwtAuthority,
    key::KeyType,
};
use serde_json::Value;

use super::*;
use crate::{documents::TrustDomainDocuments, host_names::HostNames};

fn domain(name: &str, issuer: Option<&str>) -> TrustDomainDocuments {
    let authority = JwtAuthority::generate(KeyType::EcP256).unwrap();
    let bundle = Bundle {
        trust_domain: name.parse().unwrap(),
        x509_authorities: Vec::new(),
        jwt_authorities: vec![authority.verification_key().clone()],
        wit_authorities: Vec::new(),
        sequence: 7,
        refresh_hint: Duration::from_secs(17),
    };
    let document = Bytes::from(bundle.to_json());
    TrustDomainDocuments { bundle, document, issuer: issuer.map(|url| url.parse().unwrap()) }
}

fn documents(domains: &[TrustDomainDocuments]) -> Documents {
    let hosts = ["bundles.example=a.example", "gone.example=gone", "10.0.0.1=b.example"];
    let hosts = HostNames::new(hosts.iter().map(|host| host.parse().unwrap())).unwrap();
    Documents::new(Some("a.example".parse().unwrap()), domains, hosts)
}

fn two() -> Documents {
    documents(&[domain("a.example", None), domain("b.example", None)])
}

fn get<'a>(documents: &'a Documents, profile: Profile, host: &str, path: &str) -> Answer<'a> {
    let hosts = [host.as_bytes()];
    answer(documents, profile, &Head { method: "GET", authority: None, hosts: &hosts, path, if_none_match: &[] })
}

/// The trust domain whose bundle is answered.
fn bundle_of<'a>(documents: &'a Documents, answer: &Answer<'_>) -> Result<&'a str, Refusal> {
    match answer {
        Answer::Document(Route::Bundle, document) => {
            Ok(["a.example", "b.example"].into_iter().find(|name| documents.bundle(name) == Some(document)).unwrap())
        }
        Answer::Refused(refusal) => Err(*refusal),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_root_is_the_bundle_of_the_trust_domain_that_the_host_stands_for() {
    let documents = two();
    for profile in [Profile::Spiffe, Profile::Web] {
        for (host, expected) in [
            ("b.example", Ok("b.example")),
            ("B.Example:8443", Ok("b.example")),
            ("b.example.", Ok("b.example")),
            ("bundles.example", Ok("a.example")),
            ("10.0.0.1:443", Ok("b.example")),
            // A name of a trust domain that is not published is not that of another one.
            ("gone.example", Err(Refusal::NotFound)),
        ] {
            assert_eq!(bundle_of(&documents, &get(&documents, profile, host, "/")), expected, "{profile:?} {host}");
        }
    }
}

// Who authenticated nothing but the name must not be handed the bundle of another trust domain under it.
#[test]
fn a_host_that_stands_for_none_gets_the_default_by_spiffe_and_nothing_by_the_web() {
    let documents = two();
    for host in ["other.example", "127.0.0.1:8443", "[::1]:8443"] {
        assert_eq!(bundle_of(&documents, &get(&documents, Profile::Spiffe, host, "/")), Ok("a.example"));
        assert_eq!(bundle_of(&documents, &get(&documents, Profile::Web, host, "/")), Err(Refusal::UnknownHost));
    }
}

#[test]
fn a_trust_domain_has_its_own_path_at_every_host() {
    let documents = two();
    for profile in [Profile::Spiffe, Profile::Web] {
        for host in ["a.example", "other.example"] {
            assert_eq!(bundle_of(&documents, &get(&documents, profile, host, "/b.example")), Ok("b.example"));
            for path in ["/c.example", "/b.example/", "//b.example", "/B.example", "/b.example/keys", "*", ""] {
                let found = bundle_of(&documents, &get(&documents, profile, host, path));
                assert_eq!(found, Err(Refusal::NotFound), "{path}");
            }
        }
    }
}

#[test]
fn documents_of_an_issuer_are_at_its_host_and_path_and_by_the_web_alone() {
    let documents = documents(&[
        domain("a.example", Some("https://issuer.example:8443/a/")),
        domain("b.example", Some("https://b.example")),
    ]);
    let route = |profile, host, path| match get(&documents, profile, host, path) {
        Answer::Document(route, document) => {
            let json: Value = serde_json::from_slice(&document.body).unwrap();
            assert_eq!(document.max_age, Duration::from_secs(17));
            (Some(route), json["issuer"].as_str().map(str::to_owned))
        }
        Answer::Refused(Refusal::NotFound) => (None, None),
        other => panic!("{other:?}"),
    };
    let (configuration, keys) = (Some(Route::Configuration), Some(Route::Keys));
    let a = Some("https://issuer.example:8443/a/".to_owned());
    for (host, path, expected) in [
        ("issuer.example:8443", "/a/.well-known/openid-configuration", (configuration, a.clone())),
        ("issuer.example", "/a/.well-known/openid-configuration", (configuration, a)),
        ("issuer.example", "/a/keys", (keys, None)),
        ("issuer.example", "/.well-known/openid-configuration", (None, None)),
        ("issuer.example", "/keys", (None, None)),
        ("b.example", "/keys", (keys, None)),
        ("b.example", "/.well-known/openid-configuration", (configuration, Some("https://b.example".to_owned()))),
        ("b.example", "/a/keys", (None, None)),
        ("a.example", "/a/keys", (None, None)),
        ("bundles.example", "/keys", (None, None)),
    ] {
        assert_eq!(route(Profile::Web, host, path), expected, "{host}{path}");
        assert_eq!(route(Profile::Spiffe, host, path), (None, None), "{host}{path}");
    }
}

/// What is answered, read as JSON, and its media type.
fn read(
    documents: &Documents,
    profile: Profile,
    host: &str,
    path: &str,
) -> Result<(Route, &'static str, Value), Refusal> {
    match get(documents, profile, host, path) {
        Answer::Document(route, document) => {
            Ok((route, document.media_type, serde_json::from_slice(&document.body).unwrap()))
        }
        Answer::Refused(refusal) => Err(refusal),
        other @ Answer::NotModified(..) => panic!("{other:?}"),
    }
}

/// Host and path of a URL.
fn after_scheme(url: &Value) -> (String, String) {
    let rest = url.as_str().unwrap().strip_prefix("https://").unwrap();
    let (host, path) = rest.split_at(rest.find('/').unwrap());
    (host.to_owned(), path.to_owned())
}

/// R34
#[test]
fn a_trust_domain_is_discovered_at_the_host_of_its_name_and_by_the_web_alone() {
    let documents = documents(&[domain("a.example", None), domain("b.a.example", None), domain("local", None)]);
    for name in ["a.example", "b.a.example"] {
        let (route, media_type, metadata) = read(&documents, Profile::Web, name, METADATA_PATH).unwrap();
        assert_eq!((route, media_type), (Route::TrustDomainMetadata, "application/wimse-trust-domain-metadata+json"));
        assert_eq!(metadata["trust_domain"], name);
        // Whoever follows the metadata arrives at the trust bundle.
        let (host, path) = after_scheme(&metadata["trust_bundle_endpoint"]);
        let (route, media_type, bundle) = read(&documents, Profile::Web, &host, &path).unwrap();
        assert_eq!((route, media_type), (Route::TrustBundle, "application/wimse-trust-bundle+json"));
        assert_eq!((&bundle["sequence_number"], &bundle["keys"][0]["use"]), (&7.into(), &"wimse-jwt".into()));
    }
    // A host that stands for a trust domain, and one that is below it or no DNS name, authenticate another name.
    for host in ["bundles.example", "c.a.example", "example", "local", "10.0.0.1"] {
        for path in [METADATA_PATH, TRUST_BUNDLE_PATH] {
            assert_eq!(read(&documents, Profile::Web, host, path), Err(Refusal::NotFound), "{host}{path}");
        }
    }
    assert_eq!(read(&documents, Profile::Spiffe, "a.example", METADATA_PATH), Err(Refusal::NotFound));
    let own = documents.bundle("a.example").unwrap();
    assert_eq!(read(&documents, Profile::Web, "a.example", "/").unwrap().1, own.media_type);
}

#[test]
fn an_issuer_of_two_trust_domains_is_served_for_neither() {
    for (first, second) in
        [("https://i.example/x", "https://i.example/x"), ("https://i.example/x", "https://I.example:8443/x/")]
    {
        let documents = documents(&[domain("a.example", Some(first)), domain("b.example", Some(second))]);
        assert_eq!(documents.contradictory().len(), 2);
        for path in ["/x/keys", "/x/.well-known/openid-configuration"] {
            let answer = get(&documents, Profile::Web, "i.example", path);
            assert_eq!(answer, Answer::Refused(Refusal::Contradictory), "{path}");
        }
        assert_eq!(bundle_of(&documents, &get(&documents, Profile::Web, "b.example", "/")), Ok("b.example"));
    }
    let apart =
        documents(&[domain("a.example", Some("https://i.example/x")), domain("b.example", Some("https://i.example"))]);
    assert!(apart.contradictory().is_empty());
}

#[test]
fn only_get_and_head_are_answered_and_paths_are_bounded() {
    let documents = two();
    let with = |method, path: &str| {
        let head = Head { method, authority: None, hosts: &[b"a.example"], path, if_none_match: &[] };
        match answer(&documents, Profile::Web, &head) {
            Answer::Refused(refusal) => Some(refusal.status().as_u16()),
            _ => None,
        }
    };
    assert_eq!((with("GET", "/"), with("HEAD", "/")), (None, None));
    for method in ["POST", "PUT", "OPTIONS", "get", "CONNECT", ""] {
        assert_eq!(with(method, "/"), Some(405), "{method}");
    }
    assert_eq!(with("GET", &format!("/{}", "a".repeat(MAX_PATH_LENGTH - 1))), Some(404));
    assert_eq!(with("GET", &format!("/{}", "a".repeat(MAX_PATH_LENGTH))), Some(414));
}

#[test]
fn a_request_has_exactly_one_valid_host() {
    let read = |authority, hosts: &[&[u8]]| super::host(authority, hosts);
    assert_eq!(read(Some("A.example:1"), &[]).as_deref(), Some("a.example"));
    assert_eq!(read(Some("a.example"), &[b"b.example"]).as_deref(), Some("a.example"), "the target's comes first");
    assert_eq!(read(None, &[b"[2001:DB8::1]:443"]).as_deref(), Some("[2001:db8::1]"));
    assert_eq!(read(None, &[b"a.example:"]).as_deref(), Some("a.example"));
    assert_eq!(read(None, &[]), None);
    assert_eq!(read(None, &[b"a.example", b"a.example"]), None);
    assert_eq!(read(Some("a"), &[b"a", b"a"]), None);
    for host in ["", ":443", ".", "a b", "a/b", "me@a", "a:x", "a:123456", "[::1", "[::1]x", "a\u{e9}"] {
        assert_eq!(read(None, &[host.as_bytes()]), None, "{host}");
    }
    assert_eq!(read(None, &[b"\xff"]), None);
}

// RFC 9110, section 13.1.2.
#[test]
fn who_has_the_document_is_told_so() {
    let documents = two();
    let etag = documents.bundle("a.example").unwrap().etag.clone();
    let has = |fields: &[&[u8]]| {
        let head = Head { method: "GET", authority: None, hosts: &[b"a.example"], path: "/", if_none_match: fields };
        matches!(answer(&documents, Profile::Spiffe, &head), Answer::NotModified(Route::Bundle, _))
    };
    for yes in [
        etag.clone(),
        format!("W/{etag}"),
        format!("\"x,y\", {etag}"),
        format!(" \"x\" ,W/\"y\",{etag} , \"z\""),
        "*".into(),
    ] {
        assert!(has(&[yes.as_bytes()]), "{yes}");
    }
    assert!(has(&[b"\"x\"", etag.as_bytes()]));
    let bare = etag.trim_matches('"');
    for no in ["", "\"x\"", bare, "\"", "W/", "*, \"x\"", &format!("\"x\" {etag}"), &format!("\"{etag}\"")] {
        assert!(!has(&[no.as_bytes()]), "{no}");
    }
    assert!(!has(&[]));
    let other = documents.bundle("b.example").unwrap().etag.clone();
    assert!(!has(&[other.as_bytes()]), "tags of two documents differ");
}
