//! ID and HX: SPIFFE IDs, and X509-SVIDs that a client had better ignore.

use super::{Case, must, optional};

pub(super) const CASES: &[Case] = &[
    must(
        "ID-1",
        "rejects an invalid SPIFFE ID",
        "ID 2",
        &[
            ("empty trust domain", "id::id_1_an_empty_trust_domain_is_rejected"),
            ("port", "id::id_1_a_port_is_rejected"),
            ("user information", "id::id_1_user_information_is_rejected"),
            ("query", "id::id_1_a_query_is_rejected"),
            ("fragment", "id::id_1_a_fragment_is_rejected"),
            ("percent-encoding", "id::id_1_percent_encoding_is_rejected"),
            ("empty segment", "id::id_1_an_empty_segment_is_rejected"),
            ("dot segment", "id::id_1_a_dot_segment_is_rejected"),
            ("double dot segment", "id::id_1_a_double_dot_segment_is_rejected"),
            ("trailing slash", "id::id_1_a_trailing_slash_is_rejected"),
            ("character of the path", "id::id_1_an_invalid_character_in_the_path_is_rejected"),
            ("character of the trust domain", "id::id_1_an_invalid_character_in_the_trust_domain_is_rejected"),
            ("port, X.509", "id::id_1_a_port_in_a_certificate_is_rejected"),
            ("query, X.509", "id::id_1_a_query_in_a_certificate_is_rejected"),
            ("percent-encoding, X.509", "id::id_1_percent_encoding_in_a_certificate_is_rejected"),
            ("double dot segment, X.509", "id::id_1_a_double_dot_segment_in_a_certificate_is_rejected"),
            ("trailing slash, X.509", "id::id_1_a_trailing_slash_in_a_certificate_is_rejected"),
        ],
    )
    .note("A trust domain with an invalid name has no bundle, for which its tokens may be rejected too."),
    must(
        "ID-2",
        "accepts every valid SPIFFE ID",
        "ID 2.1, 2.2, 2.3",
        &[
            ("path", "id::id_2_every_character_of_a_path_is_accepted"),
            ("trust domain", "id::id_2_every_character_of_a_trust_domain_is_accepted"),
            ("like an IPv4 address", "id::id_2_a_trust_domain_like_an_ipv4_address_is_accepted"),
            ("2048 bytes", "id::id_2_2048_bytes_are_accepted"),
        ],
    ),
    optional(
        "HX-1",
        "ignores an X509-SVID with an invalid signature",
        "none",
        &[("", "hx::hx_1_an_invalid_signature_is_ignored")],
    ),
    optional(
        "HX-2",
        "ignores an X509-SVID that does not chain to its bundle",
        "none",
        &[("", "hx::hx_2_a_chain_to_no_authority_of_the_bundle_is_ignored")],
    ),
    optional("HX-3", "ignores an X509-SVID that is expired", "none", &[("", "hx::hx_3_an_expired_svid_is_ignored")]),
    optional(
        "HX-4",
        "ignores an X509-SVID whose leaf has cA set",
        "none",
        &[("", "hx::hx_4_a_leaf_with_ca_set_is_ignored")],
    ),
    optional(
        "HX-5",
        "ignores an X509-SVID whose leaf has keyCertSign",
        "none",
        &[("", "hx::hx_5_a_leaf_that_may_sign_certificates_is_ignored")],
    ),
    optional("HX-6", "ignores an X509-SVID with more than one URI", "none", &[("", "hx::hx_6_two_uris_are_ignored")]),
    optional(
        "HX-7",
        "ignores an X509-SVID with a URI of another scheme",
        "none",
        &[("", "hx::hx_7_a_uri_of_another_scheme_is_ignored")],
    ),
    optional(
        "HX-8",
        "ignores an X509-SVID whose key is of another certificate",
        "none",
        &[("", "hx::hx_8_a_key_of_another_certificate_is_ignored")],
    ),
    optional(
        "HX-9",
        "ignores an X509-SVID whose spiffe_id is not the one of the certificate",
        "none",
        &[("", "hx::hx_9_an_id_that_is_not_the_one_of_the_certificate_is_ignored")],
    ),
];
