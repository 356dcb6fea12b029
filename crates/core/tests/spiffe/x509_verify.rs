//! X509-SVIDs as a relying party verifies them (X509-SVID, section 5).

use countersign_core::x509::{
    CaCertificateError, CertificateClaims, MAX_CHAIN_LENGTH, NotACertificate, X509SvidError, leaf_faults, leaf_id,
    verify_x509_svid,
};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::fixtures::{Forger, at, bundle, clock, id, leaf_params, now, trust_domain, trusting, uri};

const CART: &str = "spiffe://example.org/ns/shop/sa/cart";
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALTERNATIVE_NAME: &[u64] = &[2, 5, 29, 17];

#[test]
fn a_leaf_that_keeps_every_rule_is_accepted() {
    assert_eq!(verified(|_| {}), Ok(CART.to_owned()));
}

/// R28
#[test]
fn every_rule_that_a_leaf_breaks_is_named_the_first_one_first() {
    let leaf = Forger::new("example.org").leaf(|params| {
        params.subject_alt_names = vec![uri("https://example.org/cart"), uri("spiffe://example.org")];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let expected = [
        X509SvidError::UriNames { count: 2 },
        X509SvidError::LeafIsCa,
        X509SvidError::KeyUsage,
        X509SvidError::ExtendedKeyUsage,
    ];
    assert_eq!(leaf_faults(&leaf), expected);
    assert_eq!(leaf_id(&leaf).unwrap_err(), expected[0]);
    assert_eq!(leaf_faults(&Forger::new("example.org").leaf(|_| {})), []);
    assert_eq!(leaf_faults(b"x"), [X509SvidError::Malformed { position: 0 }]);
}

/// R28
#[test]
fn what_a_certificate_says_of_itself_is_read_whether_or_not_it_keeps_the_rules() {
    let authority = Forger::new("example.org");
    let leaf = authority.leaf(|params| {
        params.subject_alt_names = vec![uri("https://example.org/"), uri(CART)];
        params.subject_alt_names.push(SanType::DnsName("cart.example".try_into().unwrap()));
    });
    let claims = CertificateClaims::from_der(&leaf).unwrap();
    assert_eq!(claims.uris, ["https://example.org/", CART]);
    assert_eq!((claims.dns_names, claims.key.as_str()), (vec!["cart.example".to_owned()], "ECDSA P-256"));
    assert_eq!((claims.not_before, claims.not_after, claims.is_ca), (at(-60), at(3600), false));
    assert!(CertificateClaims::from_der(authority.certificate.der()).unwrap().is_ca);

    let longer = [leaf.as_slice(), b"xy"].concat();
    assert_eq!(CertificateClaims::from_der(&longer), Err(NotACertificate::Trailing(2)));
    assert_eq!(CertificateClaims::from_der(&leaf[..leaf.len() - 1]), Err(NotACertificate::Structure));
}

#[test]
fn a_leaf_without_extended_key_usage_or_with_both_is_accepted() {
    let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    assert!(verified(|params| params.extended_key_usages = both).is_ok());
}

#[test]
fn names_of_other_kinds_beside_the_uri_are_accepted() {
    let dns = SanType::DnsName("cart.shop.svc".try_into().unwrap());
    assert!(verified(|params| params.subject_alt_names.push(dns)).is_ok());
}

#[test]
fn a_leaf_of_two_uris_is_refused() {
    let error = verified(|params| {
        params.subject_alt_names.push(uri("spiffe://example.org/other"));
    });
    assert_eq!(error, Err(X509SvidError::UriNames { count: 2 }));
    let error = verified(|params| {
        params.subject_alt_names.push(uri("https://example.org/other"));
    });
    assert_eq!(error, Err(X509SvidError::UriNames { count: 2 }));
}

#[test]
fn a_leaf_without_uri_is_refused() {
    let dns = SanType::DnsName("cart.shop.svc".try_into().unwrap());
    assert_eq!(verified(|params| params.subject_alt_names = vec![dns]), Err(X509SvidError::UriNames { count: 0 }));
    assert_eq!(verified(|params| params.subject_alt_names = vec![]), Err(X509SvidError::UriNames { count: 0 }));
}

#[test]
fn a_leaf_whose_uri_is_no_spiffe_id_is_refused() {
    for text in [
        "https://example.org/cart",
        "spiffe://Example.org/cart",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/",
    ] {
        let verified = verified(|params| params.subject_alt_names = vec![uri(text)]);
        assert!(matches!(verified, Err(X509SvidError::Id(_))), "{text}");
    }
}

#[test]
fn a_leaf_whose_id_has_no_path_is_refused() {
    let error = verified(|params| params.subject_alt_names = vec![uri("spiffe://example.org")]);
    assert_eq!(error, Err(X509SvidError::IdWithoutPath { id: id("spiffe://example.org") }));
}

#[test]
fn a_leaf_with_ca_is_refused() {
    let error = verified(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(error, Err(X509SvidError::LeafIsCa));
}

#[test]
fn a_leaf_that_may_sign_certificates_or_crls_is_refused() {
    for purpose in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        assert_eq!(verified(|params| params.key_usages.push(purpose)), Err(X509SvidError::KeyUsage));
    }
}

#[test]
fn a_leaf_without_key_usage_or_digital_signature_is_refused() {
    assert_eq!(verified(|params| params.key_usages = vec![]), Err(X509SvidError::KeyUsage));
    assert_eq!(
        verified(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]),
        Err(X509SvidError::KeyUsage)
    );
}

#[test]
fn a_leaf_whose_key_usage_is_not_critical_is_refused() {
    let mut usage = CustomExtension::from_oid_content(KEY_USAGE, vec![0x03, 0x02, 0x07, 0x80]);
    let with = |usage: CustomExtension| {
        verified(|params| {
            params.key_usages = vec![];
            params.custom_extensions = vec![usage];
        })
    };
    assert_eq!(with(usage.clone()), Err(X509SvidError::KeyUsage));
    usage.set_criticality(true);
    assert!(with(usage).is_ok());
}

#[test]
fn a_leaf_for_clients_or_servers_alone_is_refused() {
    for purpose in
        [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::CodeSigning]
    {
        let error = verified(|params| params.extended_key_usages = vec![purpose]);
        assert_eq!(error, Err(X509SvidError::ExtendedKeyUsage));
    }
}

#[test]
fn names_that_are_not_critical_beside_an_empty_subject_are_refused() {
    let content = [&[0x30, 38, 0x86, 36], CART.as_bytes()].concat();
    assert_eq!(CART.len(), 36);
    let names = CustomExtension::from_oid_content(SUBJECT_ALTERNATIVE_NAME, content);
    let with = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![];
        params.custom_extensions = vec![names.clone()];
    };
    assert_eq!(verified(with), Err(X509SvidError::NamesNotCritical));
    let named = verified(|params| {
        with(params);
        params.distinguished_name.push(rcgen::DnType::CommonName, "cart");
    });
    assert!(named.is_ok());
}

#[test]
fn a_leaf_that_has_its_names_twice_is_refused() {
    let content = [&[0x30, 38, 0x86, 36], CART.as_bytes()].concat();
    let names = CustomExtension::from_oid_content(SUBJECT_ALTERNATIVE_NAME, content);
    let error = verified(|params| params.custom_extensions = vec![names]);
    assert_eq!(error, Err(X509SvidError::Malformed { position: 0 }));
}

// What cannot be read may be what another verifier reads.
#[test]
fn a_leaf_with_a_name_that_cannot_be_read_is_refused() {
    let unreadable = [0x86, 2, 0xff, 0xfe];
    let content = [&[0x30, 42, 0x86, 36], CART.as_bytes(), &unreadable].concat();
    let mut names = CustomExtension::from_oid_content(SUBJECT_ALTERNATIVE_NAME, content);
    names.set_criticality(true);
    let error = verified(|params| {
        params.subject_alt_names = vec![];
        params.custom_extensions = vec![names];
    });
    assert_eq!(error, Err(X509SvidError::Malformed { position: 0 }));
}

#[test]
fn a_leaf_with_an_extension_that_cannot_be_read_is_refused() {
    // A key identifier, and certificate policies, which nothing here looks at.
    for oid in [&[2, 5, 29, 14], &[2, 5, 29, 32]] {
        let extension = CustomExtension::from_oid_content(oid, vec![0xff]);
        let error = verified(|params| params.custom_extensions = vec![extension]);
        assert_eq!(error, Err(X509SvidError::Malformed { position: 0 }), "{oid:?}");
    }
}

// RFC 5280, 4.1.2.1: where there are extensions, it is version 3.
#[test]
fn a_leaf_that_says_it_is_of_another_version_is_refused() {
    let forger = Forger::new("example.org");
    let mut leaf = forger.leaf(|_| {});
    let version = leaf.windows(5).position(|window| window == [0xa0, 3, 2, 1, 2]).unwrap();
    leaf[version + 4] = 1;
    assert_eq!(verify(&[&leaf], &forger, now()), Err(X509SvidError::Malformed { position: 0 }));
}

#[test]
fn an_unknown_critical_extension_is_refused() {
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 1], vec![5, 0]);
    extension.set_criticality(true);
    assert!(matches!(verified(|params| params.custom_extensions = vec![extension]), Err(X509SvidError::Path { .. })));
}

#[test]
fn an_expired_leaf_and_one_not_yet_valid_are_refused() {
    let forger = Forger::new("example.org");
    let leaf = forger.leaf(|params| {
        params.not_before = clock(at(100));
        params.not_after = clock(at(200));
    });
    for (time, expected) in
        [(at(99), Some(X509SvidError::NotYetValid)), (at(150), None), (at(201), Some(X509SvidError::Expired))]
    {
        assert_eq!(verify(&[&leaf], &forger, time).err(), expected, "{time}");
    }
}

#[test]
fn a_trust_domain_without_bundle_is_refused() {
    let forger = Forger::new("other.org");
    let leaf = forger.leaf(|_| {});
    let bundles = trusting([bundle("other.org", &[&forger.certificate], &[])]);
    let error = X509SvidError::UntrustedDomain(trust_domain("example.org"));
    assert_eq!(verify_x509_svid(&[&leaf], &bundles, now()), Err(error));
}

#[test]
fn the_authority_of_one_trust_domain_does_not_vouch_for_another() {
    let (ours, theirs) = (Forger::new("example.org"), Forger::new("other.org"));
    let bundles =
        trusting([bundle("example.org", &[&ours.certificate], &[]), bundle("other.org", &[&theirs.certificate], &[])]);
    let forged = theirs.leaf(|_| {});
    assert!(matches!(verify_x509_svid(&[&forged], &bundles, now()), Err(X509SvidError::Path { .. })));
    let genuine = ours.leaf(|_| {});
    assert_eq!(verify_x509_svid(&[&genuine], &bundles, now()), Ok(id(CART)));
}

#[test]
fn an_authority_of_the_same_name_and_another_key_does_not_vouch() {
    let (trusted, impostor) = (Forger::new("example.org"), Forger::new("example.org"));
    assert!(matches!(verify(&[&impostor.leaf(|_| {})], &trusted, now()), Err(X509SvidError::Path { .. })));
}

#[test]
fn a_self_signed_leaf_is_refused() {
    let leaf = leaf_params(|_| {}).self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert!(matches!(verify(&[leaf.der()], &Forger::new("example.org"), now()), Err(X509SvidError::Path { .. })));
}

#[test]
fn an_expired_authority_vouches_for_nobody() {
    let forger = Forger::with(|params| params.not_after = clock(at(10)));
    let leaf = forger.leaf(|_| {});
    assert!(verify(&[&leaf], &forger, at(10)).is_ok());
    assert_eq!(verify(&[&leaf], &forger, at(11)), Err(X509SvidError::NoAuthority(trust_domain("example.org"))));
}

#[test]
fn an_empty_bundle_trusts_nothing() {
    let leaf = Forger::new("example.org").leaf(|_| {});
    let bundles = trusting([bundle("example.org", &[], &[])]);
    let error = X509SvidError::NoAuthority(trust_domain("example.org"));
    assert_eq!(verify_x509_svid(&[&leaf], &bundles, now()), Err(error));
}

#[test]
fn an_intermediate_leads_to_the_authority() {
    let forger = Forger::new("example.org");
    let (intermediate, leaf) = chain(&forger, |params| {
        params.subject_alt_names = vec![uri("spiffe://example.org")];
    });
    assert_eq!(verify(&[&leaf, &intermediate], &forger, now()), Ok(CART.to_owned()));
    assert!(matches!(verify(&[&leaf], &forger, now()), Err(X509SvidError::Path { .. })));
}

#[test]
fn an_intermediate_that_may_not_sign_is_refused() {
    let forger = Forger::new("example.org");
    let (intermediate, leaf) = chain(&forger, |params| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    let error = X509SvidError::Intermediate(CaCertificateError::KeyUsage);
    assert_eq!(verify(&[&leaf, &intermediate], &forger, now()), Err(error));
    let (intermediate, leaf) = chain(&forger, |params| params.is_ca = IsCa::ExplicitNoCa);
    assert!(matches!(verify(&[&leaf, &intermediate], &forger, now()), Err(X509SvidError::Path { .. })));
}

#[test]
fn an_intermediate_whose_id_has_a_path_is_refused() {
    let forger = Forger::new("example.org");
    let (intermediate, leaf) = chain(&forger, |params| params.subject_alt_names = vec![uri(CART)]);
    let error = X509SvidError::Intermediate(CaCertificateError::IdWithPath { id: id(CART) });
    assert_eq!(verify(&[&leaf, &intermediate], &forger, now()), Err(error));
}

#[test]
fn a_workloads_leaf_signs_no_other() {
    let forger = Forger::new("example.org");
    let (own, leaf) = chain(&forger, |params| *params = leaf_params(|_| {}));
    assert!(matches!(verify(&[&leaf, &own], &forger, now()), Err(X509SvidError::Path { .. })));
}

#[test]
fn a_chain_that_is_empty_or_too_long_is_refused() {
    let forger = Forger::new("example.org");
    assert_eq!(verify(&[], &forger, now()), Err(X509SvidError::Empty));
    let leaf = forger.leaf(|_| {});
    let length = MAX_CHAIN_LENGTH + 1;
    assert_eq!(verify(&vec![leaf.as_slice(); length], &forger, now()), Err(X509SvidError::TooLong { length }));
    let longest = verify(&[leaf.as_slice(); MAX_CHAIN_LENGTH], &forger, now());
    assert!(!matches!(longest, Err(X509SvidError::TooLong { .. })), "{longest:?}");
}

#[test]
fn bytes_that_are_no_certificate_or_follow_one_are_refused() {
    let forger = Forger::new("example.org");
    let leaf = forger.leaf(|_| {});
    for der in [Vec::new(), leaf[..leaf.len() - 1].to_vec(), [leaf.as_slice(), &[0]].concat(), vec![0x30; 70_000]] {
        assert_eq!(verify(&[&der], &forger, now()), Err(X509SvidError::Malformed { position: 0 }));
    }
}

#[test]
fn a_changed_leaf_is_refused() {
    let forger = Forger::new("example.org");
    let mut leaf = forger.leaf(|_| {});
    let at = leaf.windows(4).position(|window| window == b"cart").unwrap();
    leaf[at..at + 4].copy_from_slice(b"root");
    assert!(matches!(verify(&[&leaf], &forger, now()), Err(X509SvidError::Path { .. })));
}

fn verified(change: impl FnOnce(&mut CertificateParams)) -> Result<String, X509SvidError> {
    let forger = Forger::new("example.org");
    verify(&[&forger.leaf(change)], &forger, now())
}

fn verify(chain: &[&[u8]], trusted: &Forger, time: Timestamp) -> Result<String, X509SvidError> {
    let bundles = trusting([bundle("example.org", &[&trusted.certificate], &[])]);
    verify_x509_svid(chain, &bundles, time).map(|id| id.to_string())
}

/// An intermediate changed by `change`, and a good leaf signed by it.
fn chain(forger: &Forger, change: impl FnOnce(&mut CertificateParams)) -> (Vec<u8>, Vec<u8>) {
    let (intermediate, issuer) = forger.intermediate(change);
    let leaf = leaf_params(|_| {}).signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    (intermediate, leaf.der().to_vec())
}
