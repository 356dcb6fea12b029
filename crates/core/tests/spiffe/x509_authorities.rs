//! X.509 authorities and their own certificates (X509-SVID, sections 3.2 and 4).

use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::x509::{CaCertificate, CaCertificateError, IssueError, LeafRequest, X509Authority};
use rcgen::{CustomExtension, KeyPair, KeyUsagePurpose};
use std::time::Duration;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::fixtures::{
    DAY, Forger, HOUR, at, authority, bundle, ca_params, id, leaf_params, now, trust_domain, trusting, uri,
};

#[test]
fn a_root_is_an_authority_that_names_its_trust_domain_without_path() {
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let authority = X509Authority::generate(&trust_domain("example.org"), key_type, DAY, now()).unwrap();
        let (_, root) = X509Certificate::from_der(authority.certificate().der()).unwrap();
        let constraints = root.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = root.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && !usage.value.digital_signature());
        let names = &root.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names.as_slice(), [GeneralName::URI("spiffe://example.org")]);
        root.verify_signature(None).unwrap();
    }
}

#[test]
fn two_roots_of_one_trust_domain_differ_in_name_serial_and_key_id() {
    let authorities = [authority("example.org"), authority("example.org")];
    let [one, two] =
        authorities.each_ref().map(|authority| X509Certificate::from_der(authority.certificate().der()).unwrap().1);
    assert_ne!(one.subject().to_string(), two.subject().to_string());
    assert_ne!(one.raw_serial(), two.raw_serial());
    assert_ne!(authorities[0].certificate().subject_key_id(), authorities[1].certificate().subject_key_id());
}

#[test]
fn a_root_says_when_it_is_valid() {
    let authority = authority("example.org");
    let certificate = authority.certificate();
    assert_eq!((certificate.not_before(), certificate.not_after()), (at(-30), at(86_400)));
    for (time, valid) in [(at(-31), false), (at(-30), true), (at(86_400), true), (at(86_401), false)] {
        assert_eq!(certificate.is_valid_at(time), valid, "{time}");
    }
}

#[test]
fn a_root_without_life_or_beyond_time_is_not_made() {
    for lifetime in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(u64::MAX)] {
        let made = X509Authority::generate(&trust_domain("td"), KeyType::EcP256, lifetime, now());
        assert_eq!(made.unwrap_err(), IssueError::Lifetime);
    }
}

#[test]
fn a_stored_authority_issues_what_its_bundle_verifies() {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let made = X509Authority::self_signed(&trust_domain("example.org"), key.clone(), DAY, now()).unwrap();
    let key = PrivateKey::from_pkcs8_der(key.pkcs8_der()).unwrap();
    let certificate = CaCertificate::from_der(made.certificate().der()).unwrap();
    let stored = X509Authority::from_parts(certificate, &[], key).unwrap();
    assert_eq!(stored.trust_domain(), Some(&trust_domain("example.org")));

    let workload = PrivateKey::generate(KeyType::EcP256).unwrap();
    let cart = id("spiffe://example.org/cart");
    let request = LeafRequest { spki: workload.public_key(), id: &cart, dns_names: &[], ttl: HOUR };
    let issued = stored.issue(&request, now()).unwrap();
    let chain: Vec<&[u8]> = issued.chain.iter().map(Vec::as_slice).collect();
    let bundles = trusting([bundle("example.org", &[made.certificate()], &[])]);
    assert_eq!(countersign_core::x509::verify_x509_svid(&chain, &bundles, now()), Ok(cart));
    assert_eq!(issued.authority_key_id, made.certificate().subject_key_id());
}

#[test]
fn an_authority_with_the_key_of_another_is_refused() {
    let certificate = authority("example.org").certificate().clone();
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    assert_eq!(X509Authority::from_parts(certificate, &[], key).unwrap_err(), IssueError::KeyMismatch);
}

#[test]
fn an_authority_shows_nothing_of_its_key() {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let authority = X509Authority::self_signed(&trust_domain("td"), key, DAY, now()).unwrap();
    assert!(format!("{authority:?}").starts_with("X509Authority { certificate: CaCertificate("));
}

#[test]
fn the_control_plane_and_the_workloads_have_separate_roots() {
    let control_plane = X509Authority::generate_control_plane(KeyType::EcP256, DAY, now()).unwrap();
    assert_eq!((control_plane.trust_domain(), control_plane.certificate().spiffe_id()), (None, None));
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let names = ["countersign-issuer.countersign-system.svc".to_owned()];
    let server = control_plane.issue_server(key.public_key(), &names, HOUR, now()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&server.chain[0]).unwrap();
    let found = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(found.as_slice(), [GeneralName::DNSName(names[0].as_str())]);

    let cart = id("spiffe://example.org/cart");
    let request = LeafRequest { spki: key.public_key(), id: &cart, dns_names: &[], ttl: HOUR };
    assert_eq!(control_plane.issue(&request, now()), Err(IssueError::ControlPlane));
    let workloads = authority("example.org");
    assert_eq!(workloads.issue_server(key.public_key(), &names, HOUR, now()), Err(IssueError::WorkloadAuthority));
    assert_eq!(control_plane.issue_server(key.public_key(), &[], HOUR, now()), Err(IssueError::NoName));
}

#[test]
fn two_certificates_of_an_authority_are_equal_when_their_bytes_are() {
    let root = authority("example.org");
    assert_eq!(CaCertificate::from_der(root.certificate().der()).unwrap(), *root.certificate());
    assert_ne!(authority("example.org").certificate(), root.certificate());
}

#[test]
fn an_authority_is_known_by_the_key_id_in_its_certificate() {
    let named = |params: &mut rcgen::CertificateParams| {
        params.subject_alt_names = vec![uri("spiffe://example.org")];
        params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![7; 20]);
    };
    assert_eq!(Forger::with(named).certificate.subject_key_id(), [7; 20]);
}

#[test]
fn a_certificate_without_ca_is_no_authority() {
    let leaf = leaf_params(|_| {}).self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert_eq!(CaCertificate::from_der(leaf.der()), Err(CaCertificateError::NotCa));
}

#[test]
fn an_authority_without_cert_sign_is_refused() {
    assert_eq!(refused(|params| params.key_usages = vec![]), CaCertificateError::KeyUsage);
    assert_eq!(refused(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]), CaCertificateError::KeyUsage);
}

#[test]
fn an_authority_whose_id_has_a_path_is_refused() {
    let error = refused(|params| params.subject_alt_names = vec![uri("spiffe://example.org/ca")]);
    assert_eq!(error, CaCertificateError::IdWithPath { id: id("spiffe://example.org/ca") });
}

#[test]
fn an_authority_of_two_ids_or_of_none_in_its_uri_is_refused() {
    let two = refused(|params| params.subject_alt_names = vec![uri("spiffe://a"), uri("spiffe://b")]);
    assert_eq!(two, CaCertificateError::UriNames { count: 2 });
    let other = refused(|params| params.subject_alt_names = vec![uri("https://example.org")]);
    assert!(matches!(other, CaCertificateError::Id(_)));
}

#[test]
fn an_authority_of_a_kind_of_key_that_verifies_nothing_is_refused() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = ca_params(|_| {}).self_signed(&key).unwrap();
    assert_eq!(CaCertificate::from_der(certificate.der()), Err(CaCertificateError::Key));
}

#[test]
fn a_certificate_of_64_kib_is_looked_at_and_a_longer_one_is_not() {
    assert!(CaCertificate::from_der(&padded(65_536)).is_ok());
    assert_eq!(CaCertificate::from_der(&padded(65_537)), Err(CaCertificateError::Malformed));
}

/// A certificate of this length. That of its signature is not the same each time, so it is made until it fits.
fn padded(length: usize) -> Vec<u8> {
    let mut padding = 65_000;
    loop {
        let extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 1], vec![0; padding]);
        let params = ca_params(|params| {
            params.subject_alt_names = vec![uri("spiffe://example.org")];
            params.custom_extensions = vec![extension];
        });
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        if certificate.len() == length {
            return certificate;
        }
        padding = padding + length - certificate.len();
    }
}

#[test]
fn bytes_that_are_no_certificate_or_follow_one_are_refused() {
    let good = authority("example.org").certificate().der().to_vec();
    for der in [Vec::new(), good[..good.len() - 1].to_vec(), [good.as_slice(), &[0]].concat(), vec![0x30; 70_000]] {
        assert_eq!(CaCertificate::from_der(&der), Err(CaCertificateError::Malformed));
    }
}

fn refused(change: impl FnOnce(&mut rcgen::CertificateParams)) -> CaCertificateError {
    let certificate = ca_params(change).self_signed(&KeyPair::generate().unwrap()).unwrap();
    CaCertificate::from_der(certificate.der()).unwrap_err()
}
