//! Patterns of private keys and tokens, which also find secrets that no test has recorded.

use std::{collections::BTreeSet, sync::LazyLock};

use regex::Regex;

/// Patterns of a private key or a token in every encoding in which it could appear in a text. White space is removed before
/// matching.
#[expect(clippy::expect_used, reason = "the patterns are constants, and the tests use each")]
static PATTERNS: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    let patterns = [
        ("a PEM private key", "-----BEGIN[A-Z]*PRIVATEKEY-----".to_owned()),
        // As in a value of a Secret, or in an encoded file.
        ("a PEM private key in Base64", any_of(crate::secrets::base64_forms(b" PRIVATE KEY-----"))),
        // JWS compact: a header and claims that begin with `{"`, and a signature.
        ("a token", r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}".to_owned()),
        ("a PKCS#8 key in Base64", alternatives(crate::secrets::base64_forms)),
        ("a PKCS#8 key in hexadecimal", format!("(?i){}", alternatives(hex))),
        ("a PKCS#8 key as numbers", alternatives(|prefix| [numbers(prefix)].into())),
    ];
    patterns.into_iter().map(|(name, pattern)| (name, Regex::new(&pattern).expect("a pattern"))).collect()
});

/// Prefixes of the secret in PKCS#8 (RFC 5208, RFC 5915, RFC 8017): the algorithm and the wrapping, without what differs from key
/// to key.
const PREFIXES: [&[u8]; 5] = [
    // id-ecPublicKey with P-256; OCTET STRING of an ECPrivateKey, with its public key and without.
    &[
        0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
        0x03, 0x01, 0x07, 0x04, 0x6d,
    ],
    &[
        0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
        0x03, 0x01, 0x07, 0x04, 0x27,
    ],
    // The same with P-384.
    &[
        0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
        0x04, 0x81,
    ],
    &[
        0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
        0x04, 0x4e,
    ],
    // rsaEncryption.
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00, 0x04, 0x82],
];

/// The names of the patterns found in a text.
#[must_use]
pub fn find(text: &str) -> BTreeSet<&'static str> {
    let squeezed: String = text.replace("\\n", "").replace("\\r", "").chars().filter(|c| !c.is_whitespace()).collect();
    PATTERNS.iter().filter(|(_, pattern)| pattern.is_match(&squeezed)).map(|(name, _)| *name).collect()
}

fn alternatives(forms: impl Fn(&[u8]) -> BTreeSet<String>) -> String {
    any_of(PREFIXES.iter().flat_map(|prefix| forms(prefix)))
}

fn any_of(forms: impl IntoIterator<Item = String>) -> String {
    forms.into_iter().map(|form| regex::escape(&form)).collect::<Vec<_>>().join("|")
}

fn hex(bytes: &[u8]) -> BTreeSet<String> {
    ["", ":", ","]
        .into_iter()
        .map(|between| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(between))
        .collect()
}

fn numbers(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};

    use super::find;

    #[test]
    fn any_key_is_found_in_every_form() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let der = key.serialize_der();
            for text in [
                key.serialize_pem(),
                serde_json::json!({ "key": key.serialize_pem() }).to_string(),
                STANDARD.encode(key.serialize_pem()),
                STANDARD.encode(format!("x{}", key.serialize_pem())),
                STANDARD.encode(format!("xy{}", key.serialize_pem())),
                STANDARD.encode(&der),
                STANDARD.encode([b"x", der.as_slice()].concat()),
                STANDARD.encode([b"xy", der.as_slice()].concat()),
                format!("{der:?}"),
                format!("{der:02x?}"),
                der.iter().map(|byte| format!("{byte:02X}")).collect(),
            ] {
                assert!(!find(&format!("before {text} after")).is_empty(), "{algorithm:?}: not found in {text}");
            }
        }
    }

    #[test]
    fn any_token_is_found() {
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzcGlmZmU6Ly9hL2IifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ";
        assert_eq!(find(&format!("token={token}")).into_iter().collect::<Vec<_>>(), ["a token"]);
    }

    #[test]
    fn public_things_are_not_found() {
        let key = KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::new(vec!["a.b".to_owned()]).unwrap().serialize_request(&key).unwrap();
        let public = key.public_key_pem();
        for text in [STANDARD.encode(&public), public, csr.pem().unwrap(), STANDARD.encode(csr.der())] {
            assert!(find(&text).is_empty(), "{:?} found in {text}", find(&text));
        }
    }
}
