//! The signature base: the bytes that are signed (RFC 9421, section 2.5).

use sfv::InnerList;

use super::components::{Component, Message};
use super::structured::{item_text, list_text};

/// In bytes: a WIT, and a few short lines.
const USUAL_LENGTH: usize = 2048;

/// The message has no value of this component, or one with a line break.
#[derive(Debug)]
pub(super) struct NoValue(pub(super) Component);

/// The base of a signature over `components` of `message`, which `list` names, with its parameters. What was read is written anew, as
/// RFC 9421 prescribes, so that the spaces of a sender do not matter.
pub(super) fn signature_base(
    message: Message<'_>,
    components: &[Component],
    list: &InnerList,
) -> Result<Vec<u8>, NoValue> {
    let mut base = Vec::with_capacity(USUAL_LENGTH);
    for (component, item) in components.iter().zip(&list.items) {
        let value = message.value(component).ok_or_else(|| NoValue(component.clone()))?;
        base.extend_from_slice(item_text(item).as_bytes());
        base.extend_from_slice(b": ");
        base.extend_from_slice(&value);
        base.push(b'\n');
    }
    base.extend_from_slice(b"\"@signature-params\": ");
    base.extend_from_slice(list_text(list).as_bytes());
    Ok(base)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::Value;

    use super::signature_base;
    use crate::wimse::signature::components::Message;
    use crate::wimse::signature::digest::check_digest;
    use crate::wimse::signature::tagged::Tagged;
    use crate::wimse::{Body, Field, Request, Response};

    /// The examples of draft-ietf-wimse-http-signature, section 3.7, as its editors' copy of September 2026 has them. They are by EdDSA,
    /// which no WIT-SVID allows; that their signatures hold shows that the bytes that are signed are the same.
    const REQUEST: [(&str, &str); 4] = [
        ("Host", "svcb.example.com"),
        (
            "Signature",
            "sig1=:rMpSBQIFBnFHVlukNhJS2+xEy0aOlB0sPfmgMmZBv+8fDoB8QFoEkgbXhAlIfqhA5Xmttq1rtR+Hg4mpcMpbAQ==:",
        ),
        (
            "Signature-Input",
            r#"sig1=("@method" "@path" "@query" "workload-identity-token");created=1788298924;expires=1788299224;nonce="abcd1111";tag="wimse-workload-to-workload";wimse-aud="https://svcb.example.com/gimme-ice-cream";wimse-sign-response"#,
        ),
        (
            "Workload-Identity-Token",
            "eyJhbGciOiJFZERTQSIsImtpZCI6Imlzc3Vlci1rZXkiLCJ0eXAiOiJ3aXQrand0In0.eyJjbmYiOnsiandrIjp7ImFsZyI6IkVkRFNBIiwiY3J2IjoiRWQyNTUxOSIsImtpZCI6InN2Yy1hLWtleSIsImt0eSI6Ik9LUCIsIngiOiI1SXNGZE8xdno4b1pXZ3dmQ1RMSzNLNmFXSUhGSXozbDB2WktjQ3NfQzNrIn19LCJleHAiOjE3ODgyOTkyMjQsImlhdCI6MTc4ODI5ODkyNCwiaXNzIjoiaHR0cHM6Ly9leGFtcGxlLmNvbS9pc3N1ZXIiLCJqdGkiOiJ3aXQtMTc4ODI5ODkyNDI4MTA3NzA3OSIsInN1YiI6IndpbXNlOi8vZXhhbXBsZS5jb20vc3ZjQSJ9.vCWuTey47Aom9frOm1pfcB2TzL1IdwXl5mvs0Plf7S4zcsZjY7qJkiCfAgkrDVXYt1hBhjgvrxsi6E1QoT1nDA",
        ),
    ];
    const RESPONSE: [(&str, &str); 6] = [
        ("Connection", "close"),
        ("Content-Digest", "sha-256=:UHKweBl9cpjdVqgTB65El8SexXlJYGG+XIslAYqC1mY=:"),
        ("Content-Type", "text/plain"),
        (
            "Signature",
            "sig1=:+yKE34YoWGkdD6iK0VJEhS3ZCQpHGh/pYlDut9+Wf3xOWYvq8tdWnyknaut8dAYJ4GFTzltZkvIcjmEnnj+BAA==:",
        ),
        (
            "Signature-Input",
            r#"sig1=("@status" "workload-identity-token" "content-type" "content-digest" "@method";req "@path";req "@query";req);created=1788298924;expires=1788299226;nonce="abcd2222";tag="wimse-workload-to-workload";wimse-req-nonce="abcd1111""#,
        ),
        (
            "Workload-Identity-Token",
            "eyJhbGciOiJFZERTQSIsImtpZCI6Imlzc3Vlci1rZXkiLCJ0eXAiOiJ3aXQrand0In0.eyJjbmYiOnsiandrIjp7ImFsZyI6IkVkRFNBIiwiY3J2IjoiRWQyNTUxOSIsImtpZCI6InN2Yy1iLWtleSIsImt0eSI6Ik9LUCIsIngiOiI2cTM0dTRZbjZKVWN5bWg0UXd4enBJUXI5dUVvczE5cE5mSzFTNWRWYjhzIn19LCJleHAiOjE3ODgyOTkyMjYsImlhdCI6MTc4ODI5ODkyNiwiaXNzIjoiaHR0cHM6Ly9leGFtcGxlLmNvbS9pc3N1ZXIiLCJqdGkiOiJ3aXQtMTc4ODI5ODkyNDI4MTIwOTY3OSIsInN1YiI6IndpbXNlOi8vZXhhbXBsZS5jb20vc3ZjQiJ9.iSl0qBzfv29LfIaYkYoCgRlc2_IQrbj9wLHpOOUdnUzImhLHXjt_zGnXIoQInc9fQKqwdVeNRgmeiR5pPumiBQ",
        ),
    ];

    /// Whether the signature in `message` is by the key of the WIT in it.
    fn is_signed(message: Message<'_>, fields: &[(&str, &str)]) -> bool {
        let wit = fields.iter().find(|(name, _)| *name == "Workload-Identity-Token").unwrap().1;
        let claims = URL_SAFE_NO_PAD.decode(wit.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let key = URL_SAFE_NO_PAD.decode(claims["cnf"]["jwk"]["x"].as_str().unwrap()).unwrap();
        let signed = Tagged::find(message.fields()).unwrap().unwrap();
        let base = signature_base(message, &signed.components, &signed.list).unwrap();
        UnparsedPublicKey::new(&ED25519, key).verify(&base, &signed.signature).is_ok()
    }

    fn bytes<'a>(fields: &[(&'a str, &'a str)]) -> Vec<Field<'a>> {
        fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
    }

    #[test]
    fn the_signatures_of_the_drafts_examples_hold_over_the_same_bytes() {
        let (of_request, of_response) = (bytes(&REQUEST), bytes(&RESPONSE));
        let request = Request {
            method: "GET",
            path: "/gimme-ice-cream",
            query: Some("flavor=vanilla"),
            authority: None,
            fields: &of_request,
            body: Body::Empty,
        };
        assert!(is_signed(Message::Request(&request), &REQUEST));
        let response = Response { status: 404, fields: &of_response, body: Body::Bytes(b"No ice cream today.\n\n") };
        assert!(is_signed(Message::Response(&request, &response), &RESPONSE));
        assert!(check_digest(response.fields, response.body).is_ok());

        let other = Request { query: Some("flavor=mint"), ..request };
        assert!(!is_signed(Message::Request(&other), &REQUEST));
        assert!(!is_signed(Message::Response(&other, &response), &RESPONSE));
        assert!(!is_signed(Message::Response(&request, &Response { status: 200, ..response }), &RESPONSE));
    }

    /// RFC 9421, section 2.5, as far as its components are those of the profile.
    #[test]
    fn a_base_is_written_as_the_standard_has_it() {
        let fields = bytes(&[
            ("X-Empty", ""),
            ("Content-Type", " application/json\t"),
            ("X-Twice", "a"),
            ("x-twice", " b"),
            (
                "Signature-Input",
                r#"x=("@method"  "@authority" "@path" "@query" "content-type" "x-empty" "x-twice" ); tag="wimse-workload-to-workload";a;b=?0;c=1.50"#,
            ),
            ("Signature", "x=:AA==:"),
        ]);
        let request = Request {
            method: "POST",
            path: "",
            query: None,
            authority: Some("Example.COM:8443"),
            fields: &fields,
            body: Body::Empty,
        };
        let message = Message::Request(&request);
        let signed = Tagged::find(&fields).unwrap().unwrap();
        let base = signature_base(message, &signed.components, &signed.list).unwrap();
        let expected = concat!(
            "\"@method\": POST\n",
            "\"@authority\": example.com:8443\n",
            "\"@path\": /\n",
            "\"@query\": ?\n",
            "\"content-type\": application/json\n",
            "\"x-empty\": \n",
            "\"x-twice\": a, b\n",
            "\"@signature-params\": (\"@method\" \"@authority\" \"@path\" \"@query\" \"content-type\" \"x-empty\" \"x-twice\")",
            ";tag=\"wimse-workload-to-workload\";a;b=?0;c=1.5",
        );
        assert_eq!(String::from_utf8(base).unwrap(), expected);
    }
}
