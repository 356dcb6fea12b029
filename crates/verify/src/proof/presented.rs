//! By what a request says who sent it. Nothing is verified here.

use countersign_core::wimse::{Field, WIT_FIELD, signature::is_signed};

use super::{Method, RefusalReason};

const AUTHORIZATION_FIELD: &str = "authorization";
/// The field of draft 01 of Workload Proof Tokens.
const OLD_PROOF_FIELD: &str = "workload-proof-token";

/// What a request presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presented<'a> {
    /// Nothing: the connection alone says who sent it.
    Nothing,
    /// This token.
    JwtSvid(&'a str),
    /// A Workload Proof Token and its WIT, wherever they are.
    Wpt,
    /// A signature with the tag of the profile.
    HttpSignature,
}

impl<'a> Presented<'a> {
    /// Looks at the fields of a request.
    ///
    /// # Errors
    /// When there are several proofs, a WIT without one, or something that may be meant as one and is none.
    pub(super) fn of(fields: &'a [Field<'a>]) -> Result<Self, RefusalReason> {
        let authorized = authorization(fields)?;
        let is_signed = is_signed(fields)?;
        match (authorized, is_signed) {
            (Some(Self::JwtSvid(_)), true) => Err(RefusalReason::TwoProofs(Method::JwtSvid, Method::HttpSignature)),
            (Some(_), true) => Err(RefusalReason::TwoProofs(Method::Wpt, Method::HttpSignature)),
            (None, true) => Ok(Self::HttpSignature),
            (Some(Self::Wpt), false) => Ok(Self::Wpt),
            (found, false) if has(fields, WIT_FIELD) => Err(match found {
                Some(Self::JwtSvid(_)) => RefusalReason::WitBesideJwtSvid,
                _ => RefusalReason::WitWithoutProof,
            }),
            (_, false) if has(fields, OLD_PROOF_FIELD) => Err(RefusalReason::OldProof),
            (found, false) => Ok(found.unwrap_or(Self::Nothing)),
        }
    }
}

/// What `Authorization` presents; `None` where there is no such field.
fn authorization<'a>(fields: &'a [Field<'a>]) -> Result<Option<Presented<'a>>, RefusalReason> {
    let mut lines = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(AUTHORIZATION_FIELD));
    let Some((_, value)) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(RefusalReason::SeveralAuthorization);
    }
    let text = std::str::from_utf8(value).map_err(|_| RefusalReason::Authorization)?;
    let (scheme, rest) = text.trim_matches([' ', '\t']).split_once(' ').ok_or(RefusalReason::Authorization)?;
    if scheme.eq_ignore_ascii_case("wpt") {
        return Ok(Some(Presented::Wpt));
    }
    let token = rest.trim_start_matches(' ');
    // Several lines may have been joined by commas on the way (RFC 9110, section 5.3).
    let is_one = !token.is_empty() && !token.contains([',', ' ', '\t']);
    if scheme.eq_ignore_ascii_case("bearer") && is_one {
        Ok(Some(Presented::JwtSvid(token)))
    } else {
        Err(RefusalReason::Authorization)
    }
}

fn has(fields: &[Field<'_>], name: &str) -> bool {
    fields.iter().any(|(field, _)| field.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: [(&str, &str); 2] =
        [("Signature-Input", r#"a=("@method");tag="wimse-workload-to-workload""#), ("Signature", "a=:AAAA:")];

    fn presented(fields: &[(&str, &str)]) -> Result<String, RefusalReason> {
        let fields: Vec<Field<'_>> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        Presented::of(&fields).map(|presented| format!("{presented:?}"))
    }

    #[test]
    fn what_is_presented_is_found_whatever_the_case_of_names_and_schemes() {
        assert_eq!(presented(&[("accept", "*/*")]).unwrap(), "Nothing");
        assert_eq!(presented(&[("AUTHORIZATION", "bearer  a.b.c")]).unwrap(), "JwtSvid(\"a.b.c\")");
        assert_eq!(presented(&[("Authorization", "wpt a.b.c"), (WIT_FIELD, "d.e.f")]).unwrap(), "Wpt");
        assert_eq!(presented(&SIGNATURE).unwrap(), "HttpSignature");
    }

    #[test]
    fn signatures_of_others_are_not_a_proof() {
        assert_eq!(presented(&[("Signature-Input", r#"a=("@method");tag="other""#)]).unwrap(), "Nothing");
    }

    // R12.
    #[test]
    fn two_proofs_are_refused() {
        use Method::{HttpSignature, JwtSvid, Wpt};
        let beside = |authorization| presented(&[("authorization", authorization), SIGNATURE[0], SIGNATURE[1]]);
        assert_eq!(beside("Bearer a.b.c"), Err(RefusalReason::TwoProofs(JwtSvid, HttpSignature)));
        assert_eq!(beside("WPT a.b.c"), Err(RefusalReason::TwoProofs(Wpt, HttpSignature)));
        let twice = presented(&[("authorization", "Bearer a.b.c"), ("authorization", "WPT a.b.c")]);
        assert_eq!(twice, Err(RefusalReason::SeveralAuthorization));
        for joined in ["Bearer a.b.c, WPT d.e.f", "Bearer a.b.c,Bearer d.e.f", "Basic a, WPT d.e.f", "Basic a", "WPT"] {
            assert_eq!(presented(&[("authorization", joined)]), Err(RefusalReason::Authorization), "{joined}");
        }
        let [input, _] = SIGNATURE;
        let several = presented(&[input, ("Signature-Input", &input.1.replacen('a', "b", 1)), SIGNATURE[1]]);
        assert!(matches!(several, Err(RefusalReason::Signature(_))), "{several:?}");
    }

    // R12.
    #[test]
    fn what_is_meant_as_a_proof_and_is_none_is_refused() {
        assert_eq!(presented(&[(WIT_FIELD, "a.b.c")]), Err(RefusalReason::WitWithoutProof));
        let bearer = ("authorization", "Bearer a.b.c");
        assert_eq!(presented(&[bearer, (WIT_FIELD, "a.b.c")]), Err(RefusalReason::WitBesideJwtSvid));
        assert_eq!(presented(&[("workload-proof-token", "a.b.c")]), Err(RefusalReason::OldProof));
        assert_eq!(presented(&[bearer, ("workload-proof-token", "a.b.c")]), Err(RefusalReason::OldProof));
        assert!(matches!(presented(&[("signature-input", "(((")]), Err(RefusalReason::Signature(_))));
    }
}
