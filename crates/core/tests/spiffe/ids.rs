//! SPIFFE-ID, sections 2.1 to 2.3.

use countersign_core::id::{IdError, MAX_ID_LENGTH, SpiffeId, TrustDomain, check_path, check_segment};
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

use crate::fixtures::{id, trust_domain};

// R32: one spelling for each id.
#[test]
fn an_id_has_a_trust_domain_and_a_path() {
    let id = id("spiffe://example.org/ns/shop/sa/cart");
    assert_eq!(id.trust_domain(), &trust_domain("example.org"));
    assert_eq!(id.path(), "/ns/shop/sa/cart");
    assert_eq!(id.segments().collect::<Vec<_>>(), ["ns", "shop", "sa", "cart"]);
    assert_eq!(id.to_string(), "spiffe://example.org/ns/shop/sa/cart");
    assert_eq!(format!("{id:?}"), "SpiffeId(spiffe://example.org/ns/shop/sa/cart)");
}

#[test]
fn the_id_of_a_trust_domain_has_no_path() {
    let id = id("spiffe://example.org");
    assert_eq!((id.path(), id.segments().count()), ("", 0));
    assert_eq!(id.to_string(), trust_domain("example.org").id_string());
    assert_eq!(trust_domain("example.org").as_ref(), "example.org");
    assert_eq!(format!("{:?}", id.trust_domain()), "TrustDomain(example.org)");
}

#[test]
fn every_allowed_character_is_accepted() {
    let text = "spiffe://abcdefghijklmnopqrstuvwxyz0123456789.-_/ABCXYZabcxyz0123456789.-_/...";
    assert_eq!(id(text).to_string(), text);
}

#[test]
fn the_longest_id_is_accepted_and_one_byte_more_refused() {
    let longest = format!("spiffe://td/{}", "a".repeat(MAX_ID_LENGTH - "spiffe://td/".len()));
    assert_eq!(id(&longest).to_string().len(), 2048);
    let longer = format!("{longest}a");
    assert_eq!(longer.parse::<SpiffeId>(), Err(IdError::TooLong { length: 2049 }));
}

#[test]
fn no_id_longer_than_allowed_is_made() {
    let path = format!("/{}", "a".repeat(MAX_ID_LENGTH));
    assert!(matches!(SpiffeId::new(&trust_domain("td"), &path), Err(IdError::TooLong { .. })));
}

#[test]
fn a_trust_domain_has_at_most_255_bytes() {
    assert!("a".repeat(255).parse::<TrustDomain>().is_ok());
    assert_eq!("a".repeat(256).parse::<TrustDomain>(), Err(IdError::TrustDomainTooLong { length: 256 }));
}

#[test]
fn an_empty_trust_domain_is_refused() {
    for text in ["spiffe://", "spiffe:///path"] {
        assert_eq!(text.parse::<SpiffeId>(), Err(IdError::EmptyTrustDomain), "{text}");
    }
    assert_eq!("".parse::<TrustDomain>(), Err(IdError::EmptyTrustDomain));
}

#[test]
fn another_scheme_or_its_upper_case_is_refused() {
    for text in
        ["", "example.org", "https://example.org/a", "SPIFFE://example.org/a", "spiffe:/example.org", "//example.org/a"]
    {
        assert_eq!(text.parse::<SpiffeId>(), Err(IdError::Scheme), "{text}");
    }
}

// R32: case variants denied.
#[test]
fn an_upper_case_trust_domain_is_refused_and_not_folded() {
    let error = IdError::TrustDomainCharacter { character: 'E', position: 0 };
    assert_eq!("spiffe://Example.org/a".parse::<SpiffeId>(), Err(error));
}

#[test]
fn user_port_escape_query_and_fragment_are_refused_in_the_trust_domain() {
    for text in [
        "spiffe://user@example.org/a",
        "spiffe://example.org:8443/a",
        "spiffe://exampl%65.org/a",
        "spiffe://example.org?query",
        "spiffe://example.org#fragment",
        "spiffe://exämple.org/a",
        "spiffe://[::1]/a",
        "spiffe://example.org\0/a",
    ] {
        assert!(matches!(text.parse::<SpiffeId>(), Err(IdError::TrustDomainCharacter { .. })), "{text}");
    }
}

// R32: dot-segment variants denied.
#[test]
fn dot_segments_are_refused() {
    for text in ["spiffe://td/.", "spiffe://td/..", "spiffe://td/a/../b", "spiffe://td/a/./b", "spiffe://td/a/.."] {
        assert!(matches!(text.parse::<SpiffeId>(), Err(IdError::DotSegment { .. })), "{text}");
    }
}

#[test]
fn empty_segments_and_a_trailing_slash_are_refused() {
    for text in ["spiffe://td/", "spiffe://td//", "spiffe://td//a", "spiffe://td/a/", "spiffe://td/a//b"] {
        assert!(matches!(text.parse::<SpiffeId>(), Err(IdError::EmptySegment { .. })), "{text}");
    }
}

#[test]
fn escapes_queries_fragments_and_foreign_letters_are_refused_in_the_path() {
    for text in [
        "spiffe://td/a%2fb",
        "spiffe://td/a?b",
        "spiffe://td/a#b",
        "spiffe://td/ä",
        "spiffe://td/a b",
        "spiffe://td/a\n",
        "spiffe://td/a:b",
    ] {
        assert!(matches!(text.parse::<SpiffeId>(), Err(IdError::PathCharacter { .. })), "{text}");
    }
}

#[test]
fn a_path_begins_with_a_slash() {
    assert_eq!(check_path("a"), Err(IdError::PathNotAbsolute));
    assert_eq!(check_path(""), Ok(()));
    assert_eq!(SpiffeId::new(&trust_domain("td"), "evil"), Err(IdError::PathNotAbsolute));
}

#[test]
fn a_segment_holds_no_slash() {
    assert_eq!(check_segment("a/b"), Err(IdError::PathCharacter { character: '/', segment: 1 }));
    assert_eq!(check_segment("a"), Ok(()));
}

#[test]
fn an_error_names_the_place_and_shows_no_control_character() {
    let error = "spiffe://td/a/b\u{1b}[2J".parse::<SpiffeId>().unwrap_err();
    assert_eq!(error, IdError::PathCharacter { character: '\u{1b}', segment: 2 });
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
}

#[test]
fn ids_are_texts_in_json_and_checked_on_the_way_in() {
    let id = id("spiffe://example.org/a");
    let json = serde_json::to_string(&id).unwrap();
    assert_eq!(json, "\"spiffe://example.org/a\"");
    assert_eq!(serde_json::from_str::<SpiffeId>(&json).unwrap(), id);
    assert!(serde_json::from_str::<SpiffeId>("\"spiffe://example.org/../a\"").is_err());
    assert!(serde_json::from_str::<TrustDomain>("\"Example.org\"").is_err());
}

fn any_id() -> impl Strategy<Value = String> {
    let segment = "[a-zA-Z0-9._-]{1,20}".prop_filter("no dot segment", |segment| segment != "." && segment != "..");
    ("[a-z0-9._-]{1,60}", proptest::collection::vec(segment, 0..8)).prop_map(|(trust_domain, segments)| {
        segments.iter().fold(format!("spiffe://{trust_domain}"), |id, segment| format!("{id}/{segment}"))
    })
}

proptest! {
    #[test]
    fn a_valid_id_is_read_and_written_as_it_was(text in any_id()) {
        let id: SpiffeId = text.parse().unwrap();
        prop_assert_eq!(id.to_string(), text);
        prop_assert_eq!(SpiffeId::new(id.trust_domain(), id.path()).unwrap(), id);
    }

    #[test]
    fn what_is_read_is_written_as_it_was(text in "(spiffe://)?[a-zA-Z0-9./%:@?_-]{0,40}") {
        if let Ok(id) = text.parse::<SpiffeId>() {
            prop_assert_eq!(id.to_string(), text.clone());
            prop_assert!(!text.contains("/../") && !text.ends_with('/'));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in proptest::prelude::any::<String>()) {
        let _ = text.parse::<SpiffeId>();
        let _ = format!("spiffe://{text}").parse::<SpiffeId>();
        let _ = format!("spiffe://td/{text}").parse::<SpiffeId>();
    }
}
