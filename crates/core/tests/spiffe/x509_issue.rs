//! X509-SVIDs as an authority issues them (X509-SVID, sections 2 to 4).

use std::time::Duration;

use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::x509::{IssueError, IssuedX509, LeafRequest, MAX_DNS_NAMES, verify_x509_svid};
use jiff::Timestamp;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::fixtures::{HOUR, at, authority, bundle, id, now, trust_domain, trusting};

const CART: &str = "spiffe://example.org/ns/shop/sa/cart";

// R74, R11: X.509, by ECDSA.
#[test]
fn what_is_issued_is_verified_for_every_kind_of_key() {
    let authority = authority("example.org");
    let bundles = trusting([bundle("example.org", &[authority.certificate()], &[])]);
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let key = PrivateKey::generate(key_type).unwrap();
        let request = LeafRequest { spki: key.public_key(), id: &id(CART), dns_names: &[], ttl: HOUR };
        let issued = authority.issue(&request, now()).unwrap();
        let leaf = issued.chain[0].as_slice();
        assert_eq!(verify_x509_svid(&[leaf], &bundles, now()), Ok(id(CART)));
        let (_, parsed) = X509Certificate::from_der(leaf).unwrap();
        assert_eq!(parsed.public_key().raw, key.public_key_spki_der());
    }
}

#[test]
fn a_leaf_is_no_authority_and_signs_nothing_but_handshakes() {
    let issued = issue(CART, &[], HOUR, now()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let constraints = leaf.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    // digitalSignature is the first bit; no other is set.
    assert_eq!(usage.value.flags, 1);
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
}

#[test]
fn a_leaf_has_one_uri_san_critical_beside_an_empty_subject() {
    let issued = issue(CART, &[], HOUR, now()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    assert_eq!(leaf.subject().iter().count(), 0);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical);
    assert_eq!(names.value.general_names.as_slice(), [GeneralName::URI(CART)]);
}

#[test]
fn a_leaf_has_the_dns_names_that_were_asked_for() {
    let issued = issue(CART, &["cart.shop.svc", "cart"], HOUR, now()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(
        names.as_slice(),
        [GeneralName::URI(CART), GeneralName::DNSName("cart.shop.svc"), GeneralName::DNSName("cart")]
    );
}

#[test]
fn a_leaf_names_its_authority_by_key_and_subject() {
    let authority = authority("example.org");
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let request = LeafRequest { spki: key.public_key(), id: &id(CART), dns_names: &[], ttl: HOUR };
    let issued = authority.issue(&request, now()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let (_, root) = X509Certificate::from_der(authority.certificate().der()).unwrap();
    assert_eq!(leaf.issuer().as_raw(), root.subject().as_raw());
    let key_ids: Vec<&[u8]> = leaf
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        })
        .collect();
    assert_eq!(key_ids, [authority.certificate().subject_key_id(), key.key_id().as_slice()]);
    assert_eq!(issued.authority_key_id, authority.certificate().subject_key_id());
    leaf.verify_signature(Some(root.public_key())).unwrap();
}

#[test]
fn the_root_is_not_in_the_chain() {
    assert_eq!(issue(CART, &[], HOUR, now()).unwrap().chain.len(), 1);
}

#[test]
fn serials_are_positive_of_sixteen_bytes_and_never_the_same() {
    let authority = authority("example.org");
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let request = LeafRequest { spki: key.public_key(), id: &id(CART), dns_names: &[], ttl: HOUR };
    let mut serials: Vec<Vec<u8>> = (0..50).map(|_| authority.issue(&request, now()).unwrap().serial).collect();
    assert!(serials.iter().all(|serial| serial.len() == 16 && (0x40..0x80).contains(&serial[0])));
    let issued = authority.issue(&request, now()).unwrap();
    assert_eq!(X509Certificate::from_der(&issued.chain[0]).unwrap().1.raw_serial(), issued.serial);
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 50);
}

#[test]
fn a_leaf_is_backdated_and_lives_as_long_as_was_asked() {
    let authority = authority("example.org");
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let request = LeafRequest { spki: key.public_key(), id: &id(CART), dns_names: &[], ttl: HOUR };
    // Half a second later, so that the fraction is seen to be dropped.
    let later = at(1000) + jiff::SignedDuration::from_millis(500);
    let issued = authority.issue(&request, later).unwrap();
    assert_eq!((issued.not_before, issued.not_after), (at(970), at(4600)));
    assert_eq!(validity(&issued), (at(970), at(4600)));
}

#[test]
fn a_leaf_lies_within_the_life_of_its_authority() {
    let early = issue(CART, &[], Duration::from_secs(100 * 86_400), at(-10)).unwrap();
    assert_eq!(validity(&early), (at(-30), at(86_400)));
    assert_eq!((early.not_before, early.not_after), validity(&early));
}

#[test]
fn an_authority_that_is_not_valid_issues_nothing() {
    for time in [at(-31), at(86_401)] {
        assert!(matches!(issue(CART, &[], HOUR, time), Err(IssueError::AuthorityNotValid { .. })), "{time}");
    }
}

#[test]
fn an_id_of_another_trust_domain_is_refused() {
    let error =
        IssueError::OtherTrustDomain { id: id("spiffe://other.org/cart"), authority: trust_domain("example.org") };
    assert_eq!(issue("spiffe://other.org/cart", &[], HOUR, now()), Err(error));
}

#[test]
fn an_id_without_path_is_refused() {
    let error = IssueError::IdWithoutPath { id: id("spiffe://example.org") };
    assert_eq!(issue("spiffe://example.org", &[], HOUR, now()), Err(error));
}

#[test]
fn what_is_no_dns_name_is_refused() {
    let long = "a".repeat(64);
    for name in
        ["", "*.example.org", "a b", "a..b", "-", "10.0.0.1", "::1", "cart.", "cärt", "a\0b", "spiffe://td/a", &long]
    {
        assert_eq!(issue(CART, &[name], HOUR, now()), Err(IssueError::DnsName { name: name.to_owned() }));
    }
}

#[test]
fn dns_names_are_counted() {
    let names = vec!["a"; MAX_DNS_NAMES + 1];
    assert_eq!(issue(CART, &names, HOUR, now()), Err(IssueError::TooManyDnsNames { count: 65 }));
    assert!(issue(CART, &names[1..], HOUR, now()).is_ok());
}

#[test]
fn a_leaf_without_life_is_refused() {
    for ttl in [Duration::ZERO, Duration::from_millis(999)] {
        assert_eq!(issue(CART, &[], ttl, now()), Err(IssueError::Lifetime));
    }
}

fn issue(text: &str, dns_names: &[&str], ttl: Duration, time: Timestamp) -> Result<IssuedX509, IssueError> {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let dns_names: Vec<String> = dns_names.iter().map(|name| (*name).to_owned()).collect();
    let request = LeafRequest { spki: key.public_key(), id: &id(text), dns_names: &dns_names, ttl };
    authority("example.org").issue(&request, time)
}

fn validity(issued: &IssuedX509) -> (Timestamp, Timestamp) {
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let time = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).unwrap();
    (time(leaf.validity().not_before), time(leaf.validity().not_after))
}
