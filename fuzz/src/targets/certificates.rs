//! Certificates of authorities and chains of X509-SVIDs, compared with the results of another parser.

use countersign_core::bundle::BundleSet;
use countersign_core::id::SpiffeId;
use countersign_core::key::{PrivateKey, Signer as _};
use countersign_core::x509::{
    CaCertificate, CertificateClaims, MAX_CERTIFICATE_LENGTH, MAX_CHAIN_LENGTH, leaf_faults, leaf_id, verify_x509_svid,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::der;
use crate::known::{DOMAIN, KNOWN, key, now};
use crate::seeds::{INTERMEDIATE_KEY, INTERMEDIATE_LEAF};

/// An accepted certificate of an authority is also accepted by another parser, and is written as it was read.
pub(crate) fn authority(input: &[u8]) {
    let Ok(authority) = CaCertificate::from_der(input) else {
        return;
    };
    assert_eq!(authority.der(), input);
    assert!(input.len() <= MAX_CERTIFICATE_LENGTH);
    let certificate = read(input);
    assert_is_authority(&certificate);
    let uris = uris(&certificate);
    assert!(uris.len() <= 1);
    assert_eq!(authority.spiffe_id().map(ToString::to_string), uris.first().map(|uri| (*uri).to_owned()));
    assert!(authority.spiffe_id().is_none_or(|id| id.path().is_empty()));
    assert!(!authority.subject_key_id().is_empty() || certificate.extensions().len() > 2);
    assert_eq!(authority.is_valid_at(now()), is_valid(&certificate));
}

/// An accepted chain ends in a leaf with one id in the known trust domain, which is no authority and is currently valid;
/// every other certificate that signed is an authority. First byte 0: certificates, each after its length in two bytes; 1:
/// the signed part of a leaf, which the known authority then signs; otherwise that of an intermediate, above a valid leaf.
pub(crate) fn svid(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let sign = |body: &[u8], key: &PrivateKey| der::signed(body, &key.sign(body).unwrap());
    let chain = match kind {
        0 => split(rest),
        1 => vec![sign(rest, &KNOWN.key)],
        _ => vec![sign(INTERMEDIATE_LEAF, &key(INTERMEDIATE_KEY)), sign(rest, &KNOWN.key)],
    };
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    if let Some(leaf) = chain.first() {
        let verdict = leaf_id(leaf);
        assert_eq!(
            verdict.as_ref().err(),
            leaf_faults(leaf).first(),
            "the first rule is the one that it is refused by"
        );
        assert!(verdict.is_err() || CertificateClaims::from_der(leaf).is_ok_and(|claims| claims.uris.len() == 1));
    }
    assert!(verify_x509_svid(&chain, &BundleSet::default(), now()).is_err(), "accepted without any bundle");
    let Ok(id) = verify_x509_svid(&chain, &KNOWN.bundles, now()) else {
        return;
    };
    assert!((1..=MAX_CHAIN_LENGTH).contains(&chain.len()));
    assert_leaf(&read(chain[0]), &id);
    let root = read(KNOWN.bundle.x509_authorities[0].der());
    let by_root = |der: &[u8]| read(der).verify_signature(Some(root.public_key())).is_ok();
    assert!(chain.iter().any(|der| by_root(der)), "nothing in the chain is signed by the known authority");
    if !by_root(chain[0]) {
        let issuer = chain[1..].iter().map(|der| X509Certificate::from_der(der).map(|(_, read)| read));
        let issuer = issuer.flatten().find(|issuer| read(chain[0]).verify_signature(Some(issuer.public_key())).is_ok());
        assert_is_authority(&issuer.expect("nothing in the chain signed the leaf"));
    }
}

fn assert_leaf(leaf: &X509Certificate<'_>, id: &SpiffeId) {
    assert_eq!(uris(leaf), [id.to_string()]);
    assert_eq!(id.trust_domain().as_str(), DOMAIN);
    assert!(!id.path().is_empty());
    assert!(is_valid(leaf));
    assert!(!leaf.is_ca());
    let usage = leaf.key_usage().unwrap().expect("a leaf without key usage");
    assert!(
        usage.critical && usage.value.digital_signature() && !usage.value.key_cert_sign() && !usage.value.crl_sign()
    );
    if let Some(usage) = leaf.extended_key_usage().unwrap() {
        assert!(usage.value.server_auth && usage.value.client_auth);
    }
}

fn assert_is_authority(certificate: &X509Certificate<'_>) {
    assert!(certificate.is_ca());
    assert!(certificate.key_usage().unwrap().is_some_and(|usage| usage.value.key_cert_sign()));
}

fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let names = certificate.subject_alternative_name().unwrap();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    names.filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect()
}

fn is_valid(certificate: &X509Certificate<'_>) -> bool {
    let (validity, now) = (certificate.validity(), now().as_second());
    (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
}

fn read(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    certificate
}

fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (part, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        parts.push(part.to_vec());
        bytes = rest;
    }
    parts
}
