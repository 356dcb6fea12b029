//! Private and public keys.

use countersign_core::key::{KeyError, KeyKind, KeyType, PrivateKey, Signer, SubjectPublicKeyInfo};
use rcgen::{KeyPair, PublicKeyData};

use crate::requests::{P224, SECP256K1, bits, der, ec_spki, rsa_spki};

#[test]
fn p256_is_the_default() {
    assert_eq!(KeyType::default(), KeyType::EcP256);
    assert_eq!(serde_json::to_string(&KeyType::EcP256).unwrap(), "\"ec-p256\"");
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        assert_eq!(serde_json::to_string(&key_type).unwrap(), format!("\"{key_type}\""));
    }
}

#[test]
fn every_kind_of_key_is_made_stored_and_read_again() {
    let kinds = [
        (KeyType::EcP256, KeyKind::EcP256),
        (KeyType::EcP384, KeyKind::EcP384),
        (KeyType::Rsa2048, KeyKind::Rsa { bits: 2048 }),
    ];
    for (key_type, kind) in kinds {
        let key = PrivateKey::generate(key_type).unwrap();
        let read = PrivateKey::from_pkcs8_der(key.pkcs8_der()).unwrap();
        assert_eq!(read.public_key(), key.public_key());
        assert_eq!(read.key_id(), key.key_id());
        assert_eq!(key.public_key().kind(), kind);
        assert_eq!(SubjectPublicKeyInfo::from_der(key.public_key_spki_der()).unwrap(), *key.public_key());
        assert!(!key.sign(b"message").unwrap().is_empty());
    }
}

#[test]
fn two_keys_differ() {
    let keys = [(); 2].map(|()| PrivateKey::generate(KeyType::EcP256).unwrap());
    assert_ne!(keys[0].key_id(), keys[1].key_id());
}

#[test]
fn the_pem_form_is_the_pkcs8_key() {
    for key_type in [KeyType::EcP256, KeyType::Rsa2048] {
        let key = PrivateKey::generate(key_type).unwrap();
        let text = key.pkcs8_pem();
        let block = pem::parse(text.as_bytes()).unwrap();
        assert_eq!((block.tag(), block.contents()), ("PRIVATE KEY", key.pkcs8_der().as_slice()));
        assert!(text.lines().all(|line| line.len() <= 64) && text.ends_with("-----END PRIVATE KEY-----\n"));
    }
}

#[test]
fn a_private_key_shows_nothing_of_itself() {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(ECDSA P-256, redacted)");
}

#[test]
fn bytes_that_are_no_private_key_are_refused() {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let cut = &key.pkcs8_der()[..40];
    for bytes in [&b""[..], b"key", cut, KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialized_der()] {
        assert_eq!(PrivateKey::from_pkcs8_der(bytes).unwrap_err(), KeyError::Private);
    }
}

#[test]
fn public_keys_of_kinds_not_in_use_are_refused_by_name() {
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().subject_public_key_info();
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap().subject_public_key_info();
    let compressed = ec_spki(&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], &[2; 33]);
    for (spki, found) in [
        (ed25519, "Ed25519"),
        (p521, "ECDSA P-521"),
        (ec_spki(P224, &[4; 57]), "elliptic-curve 1.3.132.0.33"),
        (ec_spki(SECP256K1, &[4; 65]), "elliptic-curve 1.3.132.0.10"),
        (compressed, "compressed elliptic-curve"),
        (rsa_spki(1024, 65_537), "RSA 1024"),
        (rsa_spki(2047, 65_537), "RSA 2047"),
        (rsa_spki(4097, 65_537), "RSA 4097"),
        (rsa_spki(8192, 65_537), "RSA 8192"),
    ] {
        assert_eq!(
            SubjectPublicKeyInfo::from_der(&spki).unwrap_err(),
            KeyError::Unsupported { found: found.to_owned() }
        );
    }
}

#[test]
fn rsa_keys_of_2048_to_4096_bits_are_accepted() {
    for (modulus, exponent) in [(2048, 65_537), (3072, 65_537), (4096, 65_537), (2048, 3)] {
        let key = SubjectPublicKeyInfo::from_der(&rsa_spki(modulus, exponent)).unwrap();
        assert_eq!(key.kind(), KeyKind::Rsa { bits: modulus });
    }
}

#[test]
fn a_public_key_has_one_encoding() {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let good = key.public_key_spki_der();
    let trailing = [good, &[0]].concat();
    let inner = der(0x30, &[&good[2..], &[5, 0]].concat());
    let long_length = [&[0x30, 0x81, 0x59], &good[2..]].concat();
    let rsa = rsa_spki(2048, 65_537);
    let rsa_inner = der(0x30, &[&rsa[4..], &[5, 0]].concat());
    for spki in [trailing, inner, long_length, rsa_inner, good[..50].to_vec(), Vec::new()] {
        assert_eq!(SubjectPublicKeyInfo::from_der(&spki).unwrap_err(), KeyError::Public, "{spki:02x?}");
    }
}

/// An RSA key of what its SEQUENCE holds: modulus, exponent, and nothing more if it is right.
fn rsa_of(content: &[Vec<u8>]) -> Vec<u8> {
    let algorithm = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    der(0x30, &[der(0x30, &algorithm), bits(&der(0x30, &content.concat()))].concat())
}

// RFC 8017, A.1.1, and X.690, 8.3.2: one encoding, of positive numbers.
#[test]
fn an_rsa_keys_numbers_are_positive_and_of_the_fewest_bytes() {
    let integer = |bytes: &[u8]| der(0x02, bytes);
    let refusal = |content: &[Vec<u8>]| SubjectPublicKeyInfo::from_der(&rsa_of(content)).err();
    let (modulus, exponent) = ([&[0], &*vec![0xff; 256]].concat(), integer(&[1, 0, 1]));
    assert_eq!(refusal(&[integer(&modulus), exponent.clone()]), None);
    let negative = &modulus[1..];
    let padded = [&[0], &*vec![0x7f; 256]].concat();
    let twice = [&[0], &*modulus].concat();
    for modulus in [negative, &padded, &twice] {
        assert_eq!(refusal(&[integer(modulus), exponent.clone()]), Some(KeyError::Public));
    }
    for exponent in [&[0, 1, 0, 1][..], &[0x81, 0, 1]] {
        assert_eq!(refusal(&[integer(&modulus), integer(exponent)]), Some(KeyError::Public));
    }
    assert_eq!(refusal(&[integer(&modulus), exponent, vec![5, 0]]), Some(KeyError::Public));
}

#[test]
fn a_public_key_is_shown_by_its_kind_and_id() {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let id: String = key.key_id().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(format!("{:?}", key.public_key()), format!("SubjectPublicKeyInfo(ECDSA P-256, {id})"));
}

#[test]
fn what_follows_a_key_not_in_use_is_no_part_of_it() {
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().subject_public_key_info();
    let trailing = [&*ed25519, &[0]].concat();
    assert_eq!(SubjectPublicKeyInfo::from_der(&trailing).unwrap_err(), KeyError::Public);
}

#[test]
fn an_rsa_exponent_that_signs_nothing_is_refused() {
    for exponent in [1, 2, 65_536] {
        assert_eq!(SubjectPublicKeyInfo::from_der(&rsa_spki(2048, exponent)).unwrap_err(), KeyError::Public);
    }
}

#[test]
fn an_rsa_key_without_null_parameters_is_refused() {
    let key = PrivateKey::generate(KeyType::Rsa2048).unwrap();
    let oid = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    let spki = der(0x30, &[der(0x30, &oid), bits(key.public_key().key_bits())].concat());
    assert_eq!(SubjectPublicKeyInfo::from_der(&spki).unwrap_err(), KeyError::Public);
}
