//! SPIFFE IDs and trust domain names.

use countersign_core::id::{MAX_ID_LENGTH, MAX_TRUST_DOMAIN_LENGTH, SpiffeId, TrustDomain, check_path, check_segment};

/// An accepted id has one spelling, contains only what SPIFFE-ID allows, and is accepted by the `spiffe` crate; an id that
/// the crate accepts without lower-casing is refused here only for its length.
pub(crate) fn ids(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let known = spiffe::SpiffeId::new(text);
    match text.parse::<SpiffeId>() {
        Ok(id) => {
            accepted(text, &id);
            assert_eq!(known.expect("another reader refuses it").to_string(), text);
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let as_it_is = known.is_ok_and(|id| id.to_string() == text);
            assert!(!as_it_is || is_too_long(text), "refused with {error}, accepted by another reader: {text:?}");
        }
    }
    if let Ok(name) = text.parse::<TrustDomain>() {
        assert_eq!(name.as_str(), text);
        assert_eq!(name.id_string().parse::<SpiffeId>().unwrap().trust_domain(), &name);
    }
    let with_path = format!("spiffe://example.org{text}");
    if text.is_empty() || text.starts_with('/') {
        let fits = with_path.len() <= MAX_ID_LENGTH;
        assert_eq!(check_path(text).is_ok() && fits, with_path.parse::<SpiffeId>().is_ok());
    }
    assert_eq!(check_segment(text).is_ok(), check_path(&format!("/{text}")).is_ok() && !text.contains('/'));
}

fn accepted(text: &str, id: &SpiffeId) {
    assert!(text.len() <= MAX_ID_LENGTH);
    assert_eq!(id.to_string(), text);
    let json = serde_json::to_string(id).unwrap();
    assert_eq!(&serde_json::from_str::<SpiffeId>(&json).unwrap(), id);
    let name = id.trust_domain().as_str();
    assert!((1..=MAX_TRUST_DOMAIN_LENGTH).contains(&name.len()));
    assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte)));
    assert_eq!(id.segments().map(|segment| format!("/{segment}")).collect::<String>(), id.path());
    for segment in id.segments() {
        assert!(!["", ".", ".."].contains(&segment), "{text:?}");
        assert!(segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)), "{text:?}");
    }
}

fn is_too_long(text: &str) -> bool {
    let name = text.strip_prefix("spiffe://").unwrap_or_default().split('/').next().unwrap_or_default();
    text.len() > MAX_ID_LENGTH || name.len() > MAX_TRUST_DOMAIN_LENGTH
}
