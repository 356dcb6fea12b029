//! Public and private keys, and the requests that carry them.

use countersign_core::csr::{Csr, MAX_CSR_LENGTH};
use countersign_core::key::{KeyKind, PrivateKey, Signer as _, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use crate::der;
use crate::known::KNOWN;

/// An accepted request yields an allowed key, that of the request, and only with proof of possession. First byte 0: a
/// request; otherwise the signed part of one, which the known key then signs.
pub(crate) fn csr(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let request = match kind {
        0 => rest.to_vec(),
        _ if rest.len() > MAX_CSR_LENGTH => return,
        _ => der::signed(rest, &KNOWN.key.sign(rest).unwrap()),
    };
    let Ok(csr) = Csr::verify(&request) else {
        return;
    };
    assert!(request.len() <= MAX_CSR_LENGTH);
    allowed(csr.public_key_spki());
    assert_eq!(csr.key_type(), csr.public_key_spki().kind());
    let (rest, parsed) = X509CertificationRequest::from_der(&request).unwrap();
    assert!(rest.is_empty());
    parsed.verify_signature().expect("another reader finds the proof wrong");
    assert_eq!(parsed.certification_request_info.subject_pki.raw, csr.public_key_spki().der());
    if *kind != 0 {
        assert_eq!(csr.public_key_spki(), KNOWN.key.public_key(), "signed by the known key, and yet of another");
    }
}

/// An accepted public key has one encoding and is of an allowed kind; an accepted private key can be written, read again,
/// and signs what its public key verifies.
pub(crate) fn keys(input: &[u8]) {
    if let Ok(key) = SubjectPublicKeyInfo::from_der(input) {
        assert_eq!(key.der(), input, "a second encoding of one key");
        allowed(&key);
    }
    if let Ok(key) = PrivateKey::from_pkcs8_der(input) {
        allowed(key.public_key());
        let again = PrivateKey::from_pkcs8_der(key.pkcs8_der()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert!(key.pkcs8_pem().starts_with("-----BEGIN PRIVATE KEY-----\n"));
        let request = Csr::create(&key).unwrap();
        assert_eq!(Csr::verify(&request).unwrap().public_key_spki(), key.public_key());
        assert!(!format!("{key:?}").contains(&key.pkcs8_pem()[28..40]));
    }
}

fn allowed(key: &SubjectPublicKeyInfo) {
    match key.kind() {
        KeyKind::EcP256 => assert_eq!((key.key_bits().len(), key.key_bits()[0]), (65, 4)),
        KeyKind::EcP384 => assert_eq!((key.key_bits().len(), key.key_bits()[0]), (97, 4)),
        KeyKind::Rsa { bits } => assert!((2048..=4096).contains(&bits), "RSA of {bits} bits"),
    }
    assert_eq!(&SubjectPublicKeyInfo::from_der(key.der()).unwrap(), key);
}
