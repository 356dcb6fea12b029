//! JV, JB and JF: JWT-SVIDs that a client validates and fetches, and JWT bundles.

use super::{Case, must, optional, should};

pub(super) const CASES: &[Case] = &[
    must(
        "JV-1",
        "accepts a valid token, and takes its subject as the SPIFFE ID",
        "JS 4, WA 6.3",
        &[("", "jv::jv_1_a_valid_token_is_accepted")],
    ),
    must(
        "JV-2",
        "accepts every supported algorithm",
        "JS 2.1",
        &[
            ("RS256", "jv::algorithms::jv_2_rs256_is_accepted"),
            ("RS384", "jv::algorithms::jv_2_rs384_is_accepted"),
            ("RS512", "jv::algorithms::jv_2_rs512_is_accepted"),
            ("ES256", "jv::algorithms::jv_2_es256_is_accepted"),
            ("ES384", "jv::algorithms::jv_2_es384_is_accepted"),
            ("ES512", "jv::algorithms::jv_2_es512_is_accepted"),
            ("PS256", "jv::algorithms::jv_2_ps256_is_accepted"),
            ("PS384", "jv::algorithms::jv_2_ps384_is_accepted"),
            ("PS512", "jv::algorithms::jv_2_ps512_is_accepted"),
        ],
    ),
    must("JV-3", "rejects alg none", "JS 2.1", &[("", "jv::algorithms::jv_3_alg_none_is_rejected")]),
    must(
        "JV-4",
        "rejects algorithms with a shared secret",
        "JS 2.1",
        &[
            ("HS256", "jv::algorithms::jv_4_hs256_is_rejected"),
            ("HS384", "jv::algorithms::jv_4_hs384_is_rejected"),
            ("HS512", "jv::algorithms::jv_4_hs512_is_rejected"),
            ("public key as secret", "jv::algorithms::jv_4_the_public_key_is_no_shared_secret"),
        ],
    ),
    must(
        "JV-5",
        "rejects an algorithm outside of the list, although its key is in the bundle",
        "JS 2.1",
        &[("", "jv::algorithms::jv_5_eddsa_is_rejected_although_its_key_is_in_the_bundle")],
    ),
    must(
        "JV-6",
        "rejects an algorithm that does not fit the key",
        "JS 4",
        &[
            ("RS256, EC key", "jv::algorithms::jv_6_rs256_with_an_ec_key_is_rejected"),
            ("ES384, P-256 key", "jv::algorithms::jv_6_es384_with_a_p256_key_is_rejected"),
        ],
    ),
    must("JV-7", "rejects a token without aud", "JS 3.2", &[("", "jv::claims::jv_7_a_token_without_aud_is_rejected")]),
    must(
        "JV-8",
        "rejects a token for another audience",
        "JS 3.2",
        &[("", "jv::claims::jv_8_another_audience_is_rejected")],
    ),
    must(
        "JV-9",
        "accepts its audience among others",
        "JS 3.2",
        &[("", "jv::claims::jv_9_one_audience_among_others_is_accepted")],
    ),
    must("JV-10", "accepts aud as a string", "JS 4", &[("", "jv::claims::jv_10_aud_as_a_string_is_accepted")]),
    must(
        "JV-11",
        "rejects a token without exp",
        "JS 3.3",
        &[("", "jv::claims::jv_11_a_token_without_exp_is_rejected")],
    ),
    must(
        "JV-12",
        "rejects an expired token",
        "JS 3.3, App. A",
        &[("", "jv::claims::jv_12_an_expired_token_is_rejected")],
    ),
    must(
        "JV-13",
        "rejects a token that is not valid yet",
        "JS 4",
        &[("", "jv::claims::jv_13_a_token_that_is_not_valid_yet_is_rejected")],
    ),
    must(
        "JV-14",
        "rejects a changed signature",
        "JS 4",
        &[("", "jv::signature::jv_14_a_changed_signature_is_rejected")],
    ),
    must("JV-15", "rejects a changed payload", "JS 4", &[("", "jv::signature::jv_15_a_changed_payload_is_rejected")]),
    must(
        "JV-16",
        "rejects a key that is not in the bundle",
        "JS 4, WA 6.3",
        &[("", "jv::signature::jv_16_a_key_that_is_not_in_the_bundle_is_rejected")],
    ),
    must(
        "JV-17",
        "rejects the key of another trust domain",
        "WA 6.3",
        &[("", "jv::signature::jv_17_the_key_of_another_trust_domain_is_rejected")],
    ),
    must(
        "JV-18",
        "rejects a token of a trust domain of which it has no bundle",
        "WA 6.3",
        &[("", "jv::signature::jv_18_a_trust_domain_without_bundle_is_rejected")],
    ),
    must(
        "JV-19",
        "rejects a subject that is no SPIFFE ID",
        "JS 3.1",
        &[("", "jv::claims::jv_19_a_subject_that_is_no_spiffe_id_is_rejected")],
    ),
    must(
        "JV-20",
        "accepts typ JWT, JOSE or none",
        "JS 2.3",
        &[
            ("JWT", "jv::header::jv_20_typ_jwt_is_accepted"),
            ("JOSE", "jv::header::jv_20_typ_jose_is_accepted"),
            ("none", "jv::header::jv_20_no_typ_is_accepted"),
        ],
    ),
    must("JV-21", "rejects any other typ", "JS 2.3", &[("", "jv::header::jv_21_any_other_typ_is_rejected")]),
    must(
        "JV-22",
        "accepts a token without kid",
        "JS 2.2",
        &[("", "jv::header::jv_22_a_token_without_kid_is_accepted")],
    ),
    must("JV-23", "rejects an unknown crit header", "JS 4", &[("", "jv::header::jv_23_an_unknown_crit_is_rejected")]),
    must(
        "JV-24",
        "rejects the JSON serialization",
        "JS 1, 5.1",
        &[("", "jv::encoding::jv_24_the_json_serialization_is_rejected")],
    ),
    must(
        "JV-25",
        "rejects a malformed token",
        "JS 5.1",
        &[
            ("two parts", "jv::encoding::jv_25_two_parts_are_rejected"),
            ("base64url", "jv::encoding::jv_25_invalid_base64url_is_rejected"),
            ("JSON", "jv::encoding::jv_25_invalid_json_is_rejected"),
        ],
    ),
    must("JB-1", "uses a key that an update adds", "WA 4.3", &[("", "jb::jb_1_a_key_that_was_added_is_used")]),
    must(
        "JB-2",
        "does not use a key that an update removes",
        "WA 4.4",
        &[("", "jb::jb_2_a_key_that_was_removed_is_not_used")],
    ),
    should(
        "JB-3",
        "does not trust a trust domain whose bundle an update removes",
        "WA 4.4",
        &[("", "jb::jb_3_a_trust_domain_whose_bundle_was_removed_is_not_trusted")],
    ),
    must("JB-4", "selects the key by kid", "JS 6.2", &[("", "jb::jb_4_the_key_is_selected_by_kid")]),
    must(
        "JB-5",
        "ignores a key of another use",
        "JS 6.2, TB 4.2.2",
        &[("", "jb::jb_5_a_key_of_another_use_is_ignored")],
    ),
    optional(
        "JB-5",
        "uses a key without use",
        "WA 6.2.2",
        &[("without use", "jb::jb_5_a_key_without_use_is_used")],
    )
    .note(
        "The catalogue asks the reverse, and says that the rule is unclear: TB 4.2.2 is about SPIFFE bundles, while WA 6.2.2 serves a \
         standard JWK set of JWT authorities. SPIRE leaves `use` out of it, so who ignores such keys validates nothing there.",
    ),
    must(
        "JB-6",
        "ignores a key of unknown type, and uses the others",
        "TB 4.1.3, 4.2.1",
        &[("", "jb::jb_6_a_key_of_unknown_type_does_not_discard_the_others")],
    ),
    must(
        "JB-7",
        "trusts nothing by a bundle without keys",
        "TB 4.1.3",
        &[("", "jb::jb_7_a_bundle_without_keys_trusts_nothing")],
    ),
    must(
        "JB-8",
        "accepts a token of a federated trust domain",
        "WA 6.2.2, 6.3",
        &[("", "jb::jb_8_a_token_of_a_federated_trust_domain_is_accepted")],
    ),
    must(
        "JF-1",
        "fetches a token for the audience, and returns it",
        "WA 6.2.1",
        &[("", "jf::jf_1_the_token_of_the_server_is_returned")],
    ),
    must("JF-2", "passes several audiences on", "WA 6.2.1", &[("", "jf::jf_2_several_audiences_are_passed_on")]),
    optional("JF-3", "passes the SPIFFE ID on", "WA 6.2.1", &[("", "jf::jf_3_the_spiffe_id_is_passed_on")]),
    optional(
        "JF-4",
        "reports PermissionDenied instead of returning an earlier token",
        "WA 6.2.1",
        &[("", "jf::jf_4_permission_denied_is_an_error")],
    ),
];
