//! What the input is: certificates, a token or a bundle document, and whether a private key is among it. Pure.

use serde_json::{Map, Value};

/// The most bytes that are read.
pub(super) const MAX_INPUT: usize = 4 * 1024 * 1024;

/// The input, recognized.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recognized {
    pub(super) content: Content,
    /// How many private keys are among it. They are not kept.
    pub(super) private_keys: usize,
    /// What was left out.
    pub(super) left_out: Vec<String>,
}

/// What is verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// ASN.1 DER, in the order in which they were found.
    Certificates(Vec<Vec<u8>>),
    /// In compact form.
    Token(String),
    /// A bundle document, JSON.
    Document(Vec<u8>),
    /// Private keys and nothing else.
    OnlyKeys,
}

/// Recognizes the input.
///
/// # Errors
/// What it looks like, and where it is damaged.
pub(super) fn recognize(bytes: &[u8]) -> Result<Recognized, String> {
    if bytes.is_empty() {
        return Err("it is empty".to_owned());
    }
    if bytes.len() > MAX_INPUT {
        return Err(format!("it is longer than {MAX_INPUT} bytes"));
    }
    let text = std::str::from_utf8(bytes).map(|text| text.trim_start_matches('\u{feff}').trim());
    match text {
        Ok(text) if text.contains("-----BEGIN ") => pem(text),
        Ok(text) if text.starts_with('{') => document(text),
        Ok(text) if looks_like_a_token(text) => Ok(only(Content::Token(bare(text).to_owned()))),
        _ if bytes.first() == Some(&0x30) => der(bytes),
        Ok(text) if looks_like_a_token(&text.split_whitespace().collect::<String>()) => {
            let at = bare(text).find(char::is_whitespace).unwrap_or_default();
            Err(format!("it begins as a token, and byte {at} of it is white space: copy it as one line"))
        }
        Ok("") => Err("it holds nothing but white space".to_owned()),
        Ok(_) => {
            Err("it is text, and neither PEM (no -----BEGIN line), nor JSON (no {), nor a token of three parts"
                .to_owned())
        }
        Err(error) => Err(format!(
            "it is neither text (byte {} is not UTF-8) nor DER (the first byte is not 0x30)",
            error.valid_up_to()
        )),
    }
}

fn only(content: Content) -> Recognized {
    Recognized { content, private_keys: 0, left_out: Vec::new() }
}

/// Without the scheme of an `Authorization` header.
fn bare(text: &str) -> &str {
    text.strip_prefix("Bearer ").unwrap_or(text).trim()
}

/// A damaged token is one too: what is wrong with it is found later.
fn looks_like_a_token(text: &str) -> bool {
    let text = bare(text);
    text.starts_with("ey") && text.contains('.') && !text.contains(char::is_whitespace)
}

fn pem(text: &str) -> Result<Recognized, String> {
    let mut recognized = only(Content::OnlyKeys);
    let mut certificates = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((first, number)) = lines.next() {
        let Some(label) = first.trim().strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let mut block = vec![first.trim()];
        let is_whole = lines.by_ref().map(|(line, _)| line.trim()).any(|line| {
            block.push(line);
            line == end
        });
        if !is_whole {
            return Err(format!("the PEM block {label} that begins at line {number} has no line {end}"));
        }
        match label {
            "CERTIFICATE" => certificates.push(
                pem::parse(block.join("\n"))
                    .map_err(|error| format!("the PEM block {label} that begins at line {number}: {error}"))?
                    .into_contents(),
            ),
            label if label.ends_with("PRIVATE KEY") => recognized.private_keys += 1,
            label => recognized.left_out.push(format!("the PEM block {label} at line {number}")),
        }
    }
    if certificates.is_empty() && recognized.private_keys == 0 {
        return Err("it has no PEM block CERTIFICATE".to_owned());
    }
    if !certificates.is_empty() {
        recognized.content = Content::Certificates(certificates);
    }
    Ok(recognized)
}

fn document(text: &str) -> Result<Recognized, String> {
    let object: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| format!("it begins as JSON and is not: line {}, column {}", error.line(), error.column()))?;
    if let Some(keys) = object.get("keys").and_then(Value::as_array) {
        let private_keys = keys.iter().filter_map(Value::as_object).filter(|key| is_private(key)).count();
        let content = Content::Document(text.as_bytes().to_vec());
        return Ok(Recognized { content, private_keys, left_out: Vec::new() });
    }
    if is_private(&object) {
        return Ok(Recognized { content: Content::OnlyKeys, private_keys: 1, left_out: Vec::new() });
    }
    Err("it is JSON without the list \"keys\" that a bundle document has".to_owned())
}

/// RFC 7518, sections 6.2.2, 6.3.2 and 6.4.1.
fn is_private(key: &Map<String, Value>) -> bool {
    ["d", "p", "q", "k"].iter().any(|member| key.contains_key(*member))
}

fn der(bytes: &[u8]) -> Result<Recognized, String> {
    let certificates = countersign_core::bundle::split_certificates(bytes).map_err(|_| {
        "it begins as DER, and its lengths do not add up: it is cut off, or something follows".to_owned()
    })?;
    // The first element of a private key in PKCS#8, PKCS#1 or SEC 1 is its version; that of a certificate is a SEQUENCE.
    let (keys, certificates): (Vec<&[u8]>, Vec<&[u8]>) =
        certificates.into_iter().partition(|one| content_of(one).is_some_and(|inner| inner.first() == Some(&0x02)));
    let content = match certificates.is_empty() {
        true => Content::OnlyKeys,
        false => Content::Certificates(certificates.into_iter().map(<[u8]>::to_vec).collect()),
    };
    Ok(Recognized { content, private_keys: keys.len(), left_out: Vec::new() })
}

/// Of a sequence whose length was checked, what is in it.
fn content_of(der: &[u8]) -> Option<&[u8]> {
    let length = *der.get(1)?;
    let header = if length < 0x80 { 2 } else { 2 + usize::from(length & 0x7f) };
    der.get(header..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(input: &str) -> String {
        recognize(input.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_private_key_is_counted_and_not_kept() {
        let both = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n\
                    -----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let read = recognize(both.as_bytes()).unwrap();
        assert_eq!((read.private_keys, read.content), (1, Content::Certificates(vec![vec![0x30, 0]])));
        for only in
            ["-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----", r#"{"kty":"EC","d":"c2VjcmV0"}"#]
        {
            let read = recognize(only.as_bytes()).unwrap();
            assert_eq!((read.private_keys, read.content), (1, Content::OnlyKeys));
        }
        let der = recognize(&[0x30, 3, 2, 1, 0]).unwrap();
        assert_eq!((der.private_keys, der.content), (1, Content::OnlyKeys));
        assert_eq!(recognize(br#"{"keys":[{"kty":"EC","d":"x"}]}"#).unwrap().private_keys, 1);
    }

    #[test]
    fn a_token_is_recognized_with_and_without_the_scheme_of_a_header() {
        for text in ["eyJ9.e30.c2ln\n", "Bearer eyJ9.e30.c2ln"] {
            assert_eq!(recognize(text.as_bytes()).unwrap().content, Content::Token("eyJ9.e30.c2ln".to_owned()));
        }
    }

    #[test]
    fn what_is_damaged_is_named_with_its_place() {
        assert!(
            error("\n\n-----BEGIN CERTIFICATE-----\nMAA=\n").contains("begins at line 1"),
            "white space is trimmed"
        );
        assert!(error("x\n-----BEGIN CERTIFICATE-----\nMAA=\n").contains("begins at line 2"));
        assert!(error("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----").contains("line 1"));
        assert!(error("-----BEGIN X-----\nMAA=\n-----END X-----").contains("no PEM block CERTIFICATE"));
        assert!(error("{\"keys\":\n[}").contains("line 2"));
        assert!(error("{}").contains("\"keys\""));
        assert!(error("hello").contains("neither PEM"));
        assert!(error("eyJ9.e30\n.c2ln").contains("byte 8"));
        assert!(error("").contains("empty"));
        assert!(recognize(&[0x30, 5, 0]).unwrap_err().contains("lengths"));
        assert!(recognize(&[0xff, 5, 0]).unwrap_err().contains("byte 0"));
    }

    #[test]
    fn a_damaged_private_key_shows_nothing_of_itself() {
        let error = error("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n");
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }
}
