//! Differences that were looked at, each with the rule that decides, and who follows it.

use crate::Case;

/// A text in our error, and why we refuse what go-spiffe accepts.
const WE_REFUSE: [(&str, &str); 12] = [
    (
        "extended key usage has not both",
        "extended key usage has serverAuth and clientAuth, where it is there (X509-SVID 4.4)",
    ),
    ("leaf's key usage must be there", "key usage is there and critical, with digitalSignature (X509-SVID 4.3)"),
    ("key usage lacks keyCertSign", "who signs has keyCertSign (X509-SVID 4.3)"),
    ("has a path; the id of an authority", "the id of an authority has no path (X509-SVID 4.1)"),
    ("no path; it is that of an authority", "the id of a leaf has a path (X509-SVID 4.1, 5.2)"),
    ("subject alternative name is not critical", "with an empty subject the names are critical (RFC 5280 4.2.1.6)"),
    ("bytes is longer than 255", "a trust domain has at most 255 bytes (SPIFFE-ID 2.1)"),
    (
        "RequiredEkuNotFound",
        "who signs has clientAuth, where it has an extended key usage (as in the web; RFC 5280 leaves it open)",
    ),
    ("bytes is longer than 2048", "an id has at most 2048 bytes (SPIFFE-ID 2.3)"),
    ("not a JSON object of alg, kid and typ alone", "the header holds nothing but alg, kid and typ (JWT-SVID 2)"),
    ("URI SANs; an X509-SVID has exactly one", "exactly one URI name (X509-SVID 2)"),
    ("authority certificate's URI SAN", "the id of an authority is a SPIFFE ID (X509-SVID 4.1)"),
];

/// A text in go-spiffe's error, and why we accept what it refuses. Each is also asked without what it refuses: see [`Case::theirs_otherwise`].
const WE_ACCEPT: [(&str, &str); 2] = [
    ("missing key id", "a token need not have a kid (JWT-SVID 2.2)"),
    ("token issued in the future (iat)", "iat says when, and limits nothing: nbf does (RFC 7519 4.1.6)"),
];

/// Why the two differ on this case, if that is known.
pub(crate) fn reason(case: &Case) -> Option<&'static str> {
    match (&case.ours, &case.theirs) {
        (Err(error), Ok(_)) => {
            // The base64 of Go skips line breaks, in each of the three parts. In the signature they make another one for us.
            let in_signature = || case.shown.rsplit('.').next().is_some_and(|signature| signature.contains('\n'));
            let is_malformed = error.contains("not in JWS compact form") && case.shown.contains('\n');
            if is_malformed || error.contains("signature is not by the key") && in_signature() {
                return Some("base64url has no line breaks (RFC 7515 2)");
            }
            find(&WE_REFUSE, error)
        }
        // Theirs refuses before it looks at the rest: the rest must be right.
        (Ok(id), Err(error)) if case.theirs_otherwise.as_ref() == Some(id) => find(&WE_ACCEPT, error),
        // Both accept, as different ids: never right.
        _ => None,
    }
}

fn find(known: &[(&str, &'static str)], error: &str) -> Option<&'static str> {
    known.iter().find(|(text, _)| error.contains(text)).map(|(_, reason)| *reason)
}
