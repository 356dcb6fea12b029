//! Removes from a text what looks like a private key, a token or a password, in every encoding in which logs could hold it. It is the
//! last line: what is known to be secret is not collected in the first place.

use std::{borrow::Cow, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use regex::{Captures, Regex};
use serde::Serialize;

/// How much was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Redacted {
    pub(super) private_keys: usize,
    pub(super) tokens: usize,
    pub(super) values: usize,
}

/// What stands in for it.
const KEY: &str = "<redacted private key>";
const TOKEN: &str = "<redacted token>";
pub(super) const VALUE: &str = "<redacted>";

/// Until the end of the block, or of the text where it is cut off. Line breaks may be escaped.
static PEM: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"-----BEGIN[A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END[A-Z ]*PRIVATE KEY-----|\z)").ok()
});
/// JWS compact, whole or any part of it that is JSON.
static JWS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}").ok());
/// RFC 6750, RFC 7617.
static AUTHORIZATION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}").ok());
/// `password=…`, `"token": "…"`.
static ASSIGNMENT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"(?i)\b([a-z0-9_-]*(?:password|passwd|passphrase|client_secret|api[_-]?key|access[_-]?key|access[_-]?token|refresh[_-]?token|id[_-]?token)\\?["']?\s*[=:]\s*)(\\?["']?)([^\s"',;\\}]{4,})"#,
    )
    .ok()
});
/// Text that may be an encoding of bytes: Base64, hexadecimal with and without colons, lists of numbers.
static ENCODED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"[A-Za-z0-9+/_-]{32,}={0,2}|(?:[0-9A-Fa-f]{2}[:, ]+){20,}[0-9A-Fa-f]{2}|(?:[0-9]{1,3}, ?){20,}[0-9]{1,3}",
    )
    .ok()
});

/// Prefixes of the secret in PKCS#8 (RFC 5208, RFC 5915, RFC 8017): the algorithm and the wrapping, without what differs from key to
/// key. EC keys on P-256 and P-384, with their public key and without, and RSA keys.
const PREFIXES: [&[u8]; 5] = [
    &[
        0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
        0x03, 0x01, 0x07, 0x04, 0x6d,
    ],
    &[
        0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
        0x03, 0x01, 0x07, 0x04, 0x27,
    ],
    &[
        0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
        0x04, 0x81,
    ],
    &[
        0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
        0x04, 0x4e,
    ],
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00, 0x04, 0x82],
];

/// The encodings of [`PREFIXES`] and of the armour of a PEM private key.
static MARKS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut marks: Vec<String> = base64_forms(b" PRIVATE KEY-----");
    for prefix in PREFIXES {
        marks.extend(base64_forms(prefix));
        marks.push(prefix.iter().map(|byte| format!("{byte:02x}")).collect());
        marks.push(prefix.iter().map(u8::to_string).collect::<Vec<_>>().join(","));
    }
    marks
});

/// A text without what looks like a secret.
pub(super) fn text(text: &str, removed: &mut Redacted) -> String {
    let text = replace(&PEM, text, |_| {
        removed.private_keys += 1;
        KEY.to_owned()
    });
    let text = replace(&ENCODED, &text, |found| {
        let whole = found.get(0).map_or("", |found| found.as_str());
        if !encodes_a_key(whole) {
            return whole.to_owned();
        }
        removed.private_keys += 1;
        KEY.to_owned()
    });
    let text = replace(&JWS, &text, |_| {
        removed.tokens += 1;
        TOKEN.to_owned()
    });
    let text = replace(&AUTHORIZATION, &text, |found| {
        removed.tokens += 1;
        format!("{} {TOKEN}", found.get(1).map_or("", |scheme| scheme.as_str()))
    });
    let text = replace(&ASSIGNMENT, &text, |found| {
        let part = |at: usize| found.get(at).map_or("", |part| part.as_str());
        if part(3).starts_with("<redacted") {
            return part(0).to_owned();
        }
        removed.values += 1;
        format!("{}{}{VALUE}", part(1), part(2))
    });
    text.into_owned()
}

/// The patterns are constants, and tests use each; one that could not be read would leave nothing of the text.
fn replace<'a>(
    pattern: &LazyLock<Option<Regex>>,
    text: &'a str,
    with: impl FnMut(&Captures<'_>) -> String,
) -> Cow<'a, str> {
    match pattern.as_ref() {
        Some(pattern) => pattern.replace_all(text, with),
        None => Cow::Owned(VALUE.to_owned()),
    }
}

fn encodes_a_key(text: &str) -> bool {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | ',' | ' ')).collect::<String>().to_lowercase();
    let numbers = text.replace(", ", ",");
    // URL-safe Base64 differs in two characters.
    let standard = text.replace('-', "+").replace('_', "/");
    MARKS.iter().any(|mark| standard.contains(mark) || numbers.contains(mark) || digits.contains(mark))
}

/// Base64 at each of the three alignments within a longer value, without the characters that hold bits of neighbours.
fn base64_forms(bytes: &[u8]) -> Vec<String> {
    let form = |offset: usize| {
        let shifted = [&vec![0; offset], bytes].concat();
        let encoded = STANDARD_NO_PAD.encode(&shifted);
        encoded.get((offset * 8).div_ceil(6)..shifted.len() * 8 / 6).map(str::to_owned)
    };
    (0..3).filter_map(form).collect()
}

#[cfg(test)]
mod tests {
    use base64::{
        Engine as _,
        engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    };
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};

    use super::{Redacted, text};

    const JWT: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzcGlmZmU6Ly9hL2IifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ";

    fn redact(original: &str) -> (String, Redacted) {
        let mut removed = Redacted::default();
        (text(original, &mut removed), removed)
    }

    /// Some characters from the middle of an encoding, which hold a part of the secret.
    fn middle(encoded: &str) -> &str {
        let half = encoded.len() / 2;
        &encoded[half..half + 16]
    }

    #[test]
    fn a_private_key_is_removed_in_every_form() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let der = key.serialize_der();
            for form in [
                key.serialize_pem(),
                serde_json::json!({ "key": key.serialize_pem() }).to_string(),
                STANDARD.encode(key.serialize_pem()),
                STANDARD.encode(format!("x{}", key.serialize_pem())),
                STANDARD.encode(&der),
                URL_SAFE_NO_PAD.encode(&der),
                STANDARD.encode([b"xy", der.as_slice()].concat()),
                format!("{der:?}"),
                format!("{der:02x?}").replace(['[', ']'], ""),
                der.iter().map(|byte| format!("{byte:02X}")).collect(),
                der.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":"),
            ] {
                let (redacted, removed) = redact(&format!("before {form} | rest"));
                assert!(!redacted.contains(middle(&form)), "{algorithm:?}: {form} is in {redacted}");
                assert!(redacted.starts_with("before ") && redacted.ends_with("rest"), "{redacted}");
                assert_eq!(removed.private_keys, 1, "{redacted}");
            }
        }
    }

    #[test]
    fn a_key_that_is_cut_off_is_removed_up_to_the_end() {
        let (redacted, _) = redact("log\n-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG");
        assert_eq!(redacted, "log\n<redacted private key>");
    }

    #[test]
    fn tokens_are_removed_whole_and_in_part() {
        let parts: Vec<&str> = JWT.split('.').collect();
        for original in
            [format!("token={JWT} end"), format!("\"{JWT}\""), parts[1].to_owned(), format!("{}.", &JWT[..40])]
        {
            let (redacted, removed) = redact(&original);
            assert!(!redacted.contains(parts[1]) && !redacted.contains(parts[2]), "{redacted}");
            assert_eq!(removed.tokens, 1, "{redacted}");
        }
        let (redacted, _) = redact("Authorization: Bearer abcdefghijklmn");
        assert_eq!(redacted, "Authorization: Bearer <redacted token>");
    }

    #[test]
    fn assigned_passwords_are_removed() {
        for original in [
            "password=hunter22",
            r#"{"api_key": "hunter22"}"#,
            "DB_PASSWORD: hunter22",
            r#"{\"password\":\"hunter22\"}"#,
        ] {
            let (redacted, removed) = redact(original);
            assert!(!redacted.contains("hunter22"), "{redacted}");
            assert_eq!(removed.values, 1);
        }
    }

    #[test]
    fn public_things_stay() {
        let key = KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::new(vec!["a.b".to_owned()]).unwrap().serialize_request(&key).unwrap();
        for original in [
            key.public_key_pem(),
            csr.pem().unwrap(),
            STANDARD.encode(csr.der()),
            "spiffe://shop.example/ns/shop/sa/orders".to_owned(),
            "automountServiceAccountToken: false".to_owned(),
            "the token has expired, and the token keys were fetched".to_owned(),
            "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
            "2030-01-01T00:00:00Z INFO issued kind=x509 id=a1b2c3".to_owned(),
        ] {
            assert_eq!(redact(&original), (original, Redacted::default()));
        }
    }
}
