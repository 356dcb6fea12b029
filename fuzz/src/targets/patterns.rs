//! Patterns and templates of paths, names and audiences in WorkloadIdentities and TrustDomains.

use countersign_core::entitlement::{
    AudiencePattern, NamePattern, NameTemplate, PathPattern, PathTemplate, PodFacts, Scope, check_requested,
};
use countersign_core::id::SpiffeId;

use crate::known::trust_domain;

/// An accepted pattern is printed as it was written; a template renders to an id that a pattern of the same text admits; of
/// two lines, the first grants and the second claims.
pub(crate) fn patterns(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let (granted, claimed) = text.split_once('\n').unwrap_or((text, text));
    paths(granted, claimed);
    names(granted, claimed);
    audiences(granted, claimed);
}

fn paths(granted: &str, claimed: &str) {
    let (pattern, template) = (PathPattern::parse(granted), PathTemplate::parse(claimed));
    if let Ok(pattern) = &pattern {
        assert_eq!(pattern.to_string(), granted);
    }
    let Ok(template) = template else {
        return;
    };
    assert_eq!(template.to_string(), claimed);
    let path = template.render(&pod(), "east").expect("every fact is a segment");
    let id = SpiffeId::new(&trust_domain(), &path).expect("a rendered path is a path");
    assert_eq!(id.segments().count(), template.segments().len());
    let same = PathPattern::parse(claimed).expect("a template is a pattern");
    assert!(same.admits(&template, &scope()), "a template is not admitted by itself");
    if let Ok(pattern) = pattern
        && pattern.admits(&template, &scope())
    {
        let literal = PathTemplate::parse(&path).unwrap();
        let of_the_same_pod = granted.replace("{podName}", "cart-1").replace("{serviceAccount}", "cart");
        assert!(
            PathPattern::parse(&of_the_same_pod).unwrap().admits(&literal, &scope()),
            "{granted} admits {claimed}, not {path}"
        );
    }
}

fn names(granted: &str, claimed: &str) {
    let pattern = NamePattern::parse(granted);
    if let Ok(pattern) = &pattern {
        assert_eq!(pattern.to_string(), granted);
    }
    let Ok(template) = NameTemplate::parse(claimed) else {
        return;
    };
    assert_eq!(template.to_string(), claimed);
    if let Ok(name) = template.render(&pod(), "east") {
        assert!(name.len() <= 253, "longer than a DNS name: {name}");
        assert!(name.split('.').all(|label| (1..=63).contains(&label.len())), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte)));
    }
    let same = NamePattern::parse(claimed).expect("a template is a pattern");
    assert!(same.admits(&template, &scope()), "a template is not admitted by itself");
}

fn audiences(granted: &str, claimed: &str) {
    let (granted, claimed) = (AudiencePattern::parse(granted), AudiencePattern::parse(claimed));
    if let (Ok(granted), Ok(claimed)) = (granted, claimed) {
        assert!(granted.admits(&granted) && claimed.admits(&claimed));
        assert_eq!(AudiencePattern::parse(&granted.to_string()).unwrap(), granted);
        if let Some(audience) = claimed.exact() {
            assert!(claimed.matches(audience));
            // A workload's own choice in place of a `*` is narrower than what a WorkloadIdentity may name exactly.
            assert!(granted.admits(&claimed) || !granted.matches(audience));
            if check_requested(audience).is_ok() {
                assert_eq!(granted.admits(&claimed), granted.matches(audience));
            }
        }
    }
}

fn pod() -> PodFacts {
    PodFacts {
        namespace: "shop".into(),
        name: "cart-1".into(),
        uid: "u".into(),
        service_account: "cart".into(),
        ..PodFacts::default()
    }
}

fn scope() -> Scope<'static> {
    Scope { namespace: "shop", cluster: "east", service_accounts: &[] }
}
