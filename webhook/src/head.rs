//! Parses the beginning of an AdmissionReview whose rest has not arrived or will not be read. API servers write `uid` and
//! `namespace` of a request before its objects.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

/// The longest uid or namespace that is read, in bytes. Kubernetes has none longer.
pub const LONGEST: usize = 63;

/// The fields found in the beginning of a review.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The uid to return in the answer; `None` if absent or too long.
    pub uid: Option<String>,
    /// The object's namespace; "" if absent, or if the object has none.
    pub namespace: String,
}

/// Reads as much as there is, and stops at malformed input: the error is reported when the whole review is read.
#[must_use]
pub fn head(beginning: &[u8]) -> Head {
    let mut head = Head::default();
    let mut document = serde_json::Deserializer::from_slice(beginning);
    // The input ends within the document, so this always fails.
    let _ = ReviewSeed(&mut head).deserialize(&mut document);
    head
}

/// Reads `request` of the review.
struct ReviewSeed<'a>(&'a mut Head);

/// Reads `uid` and `namespace` of the request.
struct RequestSeed<'a>(&'a mut Head);

impl<'de> DeserializeSeed<'de> for ReviewSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReviewSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an AdmissionReview")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(key) = fields.next_key::<Cow<'de, str>>()? {
            if key == "request" {
                fields.next_value_seed(RequestSeed(self.0))?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for RequestSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RequestSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(key) = fields.next_key::<Cow<'de, str>>()? {
            match &*key {
                "uid" => self.0.uid = Some(text(&mut fields)?),
                "namespace" => self.0.namespace = text(&mut fields)?,
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

fn text<'de, A: MapAccess<'de>>(fields: &mut A) -> Result<String, A::Error> {
    let text: String = fields.next_value()?;
    if text.len() > LONGEST {
        return Err(A::Error::custom("it is too long"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{Head, head};

    /// As API servers write it.
    const REVIEW: &str = r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u1",
        "kind":{"group":"","version":"v1","kind":"Pod"},"namespace":"shop","operation":"CREATE",
        "object":{"metadata":{"uid":"not this"},"spec":[1,2,3]},"oldObject":null}}"#;

    #[test]
    fn the_beginning_of_a_review_names_its_uid_and_namespace() {
        let expected = Head { uid: Some("u1".into()), namespace: "shop".into() };
        let object = REVIEW.find(r#""object""#).unwrap();
        for end in object..=REVIEW.len() {
            assert_eq!(head(&REVIEW.as_bytes()[..end]), expected, "{}", &REVIEW[..end]);
        }
        assert_eq!(head(&REVIEW.as_bytes()[..20]), Head::default());
    }

    #[test]
    fn what_is_no_uid_is_not_repeated() {
        let long = format!(r#"{{"request":{{"uid":"{}","namespace":"shop"#, "u".repeat(64));
        for beginning in [&long, r#"{"request":{"uid":7,"#, r#"[{"request":{"uid":"u"#, "", "\u{0}"] {
            assert_eq!(head(beginning.as_bytes()), Head::default(), "{beginning}");
        }
    }
}
