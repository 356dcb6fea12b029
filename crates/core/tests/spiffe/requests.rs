//! Certificate signing requests: the key and the proof, and nothing else.

use std::time::Duration;

use countersign_core::csr::{Csr, CsrError, MAX_CSR_LENGTH};
use countersign_core::key::{KeyError, KeyKind, KeyType, PrivateKey, Signer};
use countersign_core::x509::LeafRequest;
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, KeyUsagePurpose, SanType};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::fixtures::{authority, id, now, uri};

/// id-ecPublicKey.
const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
pub(crate) const P224: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x21];
pub(crate) const SECP256K1: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];
const ECDSA_SHA256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_SHA1: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
const RSA_SHA1: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05];

#[test]
fn a_request_of_every_kind_of_key_is_made_and_verified() {
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let key = PrivateKey::generate(key_type).unwrap();
        let csr = Csr::verify(&Csr::create(&key).unwrap()).unwrap();
        assert_eq!(csr.public_key_spki(), key.public_key());
        assert_eq!(csr.key_type(), key.public_key().kind());
    }
}

#[test]
fn a_request_we_make_holds_a_key_and_nothing_else() {
    let der = Csr::create(&PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap();
    let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
    let info = &request.certification_request_info;
    assert_eq!((info.subject.iter().count(), info.attributes().len()), (0, 0));
}

#[test]
fn a_wrong_signature_is_refused() {
    let mut der = Csr::create(&PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap();
    *der.last_mut().unwrap() ^= 1;
    assert_eq!(Csr::verify(&der), Err(CsrError::Signature));
}

#[test]
fn the_key_of_someone_else_is_refused() {
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let [mine, theirs] = [(); 2].map(|()| PrivateKey::generate(key_type).unwrap());
        let algorithm = match key_type {
            KeyType::EcP256 => ECDSA_SHA256,
            KeyType::EcP384 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
            KeyType::Rsa2048 => &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b],
        };
        let good = request(mine.public_key_spki_der(), algorithm, |info| mine.sign(info).unwrap());
        assert!(Csr::verify(&good).is_ok());
        let stolen = request(theirs.public_key_spki_der(), algorithm, |info| mine.sign(info).unwrap());
        assert_eq!(Csr::verify(&stolen), Err(CsrError::Signature));
    }
}

#[test]
fn a_point_off_its_curve_is_refused() {
    let spki = ec_spki(&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], &[4; 65]);
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let der = request(&spki, ECDSA_SHA256, |info| key.sign(info).unwrap());
    assert_eq!(Csr::verify(&der), Err(CsrError::Signature));
}

#[test]
fn keys_not_in_use_are_refused_with_a_reason() {
    let proven = |algorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
    };
    let claimed = |spki: Vec<u8>| request(&spki, ECDSA_SHA256, |_| vec![0; 70]);
    for (der, found) in [
        (proven(&rcgen::PKCS_ED25519), "Ed25519"),
        (proven(&rcgen::PKCS_ECDSA_P521_SHA512), "ECDSA P-521"),
        (claimed(ec_spki(P224, &[4; 57])), "elliptic-curve 1.3.132.0.33"),
        (claimed(ec_spki(SECP256K1, &[4; 65])), "elliptic-curve 1.3.132.0.10"),
        (claimed(rsa_spki(1024, 65_537)), "RSA 1024"),
        (claimed(rsa_spki(8192, 65_537)), "RSA 8192"),
    ] {
        let error = Csr::verify(&der).unwrap_err();
        assert_eq!(error, CsrError::Key(KeyError::Unsupported { found: found.to_owned() }));
        assert!(error.to_string().contains("use ECDSA P-256"), "{error}");
    }
}

#[test]
fn a_signature_by_sha1_or_of_another_kind_of_key_is_refused() {
    let ec = PrivateKey::generate(KeyType::EcP256).unwrap();
    let rsa = PrivateKey::generate(KeyType::Rsa2048).unwrap();
    for (key, algorithm) in [(&ec, ECDSA_SHA1), (&ec, RSA_SHA1), (&rsa, RSA_SHA1), (&rsa, ECDSA_SHA256)] {
        let der = request(key.public_key_spki_der(), algorithm, |info| key.sign(info).unwrap());
        assert!(matches!(Csr::verify(&der), Err(CsrError::SignatureAlgorithm { .. })));
    }
}

#[test]
fn a_request_that_is_too_long_is_not_read() {
    let length = MAX_CSR_LENGTH + 1;
    assert_eq!(Csr::verify(&vec![0x30; length]), Err(CsrError::TooLong { length }));
}

#[test]
fn bytes_that_are_no_request_or_follow_one_are_refused() {
    let good = Csr::create(&PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap();
    let cut = good[..good.len() - 1].to_vec();
    let followed = [good.as_slice(), &[0]].concat();
    let certificate = authority("example.org").certificate().der().to_vec();
    for der in [Vec::new(), b"-----BEGIN CERTIFICATE REQUEST-----".to_vec(), cut, followed, certificate] {
        assert_eq!(Csr::verify(&der), Err(CsrError::Malformed));
    }
}

// R11: from the CSR come the public key and the proof, nothing else.
#[test]
fn what_a_request_asks_for_never_reaches_the_certificate() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["evil.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
    params.subject_alt_names.push(uri("spiffe://example.org/ns/kube-system/sa/admin"));
    params.subject_alt_names.push(SanType::Rfc822Name("root@evil.example".try_into().unwrap()));
    params.distinguished_name.push(rcgen::DnType::CommonName, "evil");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 1], vec![5, 0])];
    let csr = Csr::verify(params.serialize_request(&key).unwrap().der()).unwrap();

    let cart = id("spiffe://example.org/ns/shop/sa/cart");
    let asked = LeafRequest { spki: csr.public_key_spki(), id: &cart, dns_names: &[], ttl: Duration::from_secs(3600) };
    let issued = authority("example.org").issue(&asked, now()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    assert_eq!(leaf.subject().iter().count(), 0);
    assert!(!leaf.is_ca());
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names.as_slice(), [GeneralName::URI("spiffe://example.org/ns/shop/sa/cart")]);
    assert!(!leaf.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert!(leaf.extensions().iter().all(|extension| !extension.oid.to_id_string().starts_with("1.3.6.1.4.1")));
    assert_eq!(csr.key_type(), KeyKind::EcP256);
}

/// A request of that key, algorithm and signature, whatever they are.
fn request(spki: &[u8], algorithm: &[u8], sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let info = der(0x30, &[&[0x02, 0x01, 0x00, 0x30, 0x00], spki, &[0xa0, 0x00]].concat());
    let signature = bits(&sign(&info));
    der(0x30, &[info, der(0x30, algorithm), signature].concat())
}

pub(crate) fn ec_spki(curve: &[u8], point: &[u8]) -> Vec<u8> {
    der(0x30, &[der(0x30, &[EC, curve].concat()), bits(point)].concat())
}

/// A key whose modulus has so many bits, and no known factors.
pub(crate) fn rsa_spki(modulus_bits: usize, exponent: u32) -> Vec<u8> {
    let mut modulus = vec![0xff; modulus_bits.div_ceil(8)];
    modulus[0] = 0xff >> (modulus.len() * 8 - modulus_bits);
    if modulus[0] & 0x80 != 0 {
        modulus.insert(0, 0);
    }
    let exponent: Vec<u8> = exponent.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    let key = der(0x30, &[der(0x02, &modulus), der(0x02, &exponent)].concat());
    let algorithm = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    der(0x30, &[der(0x30, &algorithm), bits(&key)].concat())
}

pub(crate) fn bits(content: &[u8]) -> Vec<u8> {
    der(0x03, &[&[0], content].concat())
}

pub(crate) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    let [high, low] = length.to_be_bytes();
    let header = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&header, content].concat()
}
