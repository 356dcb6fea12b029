//! EP and WA: the Workload Endpoint and the streams of the Workload API.

use super::{Case, must, optional, should};

pub(super) const CASES: &[Case] = &[
    must(
        "EP-1",
        "finds the endpoint by SPIFFE_ENDPOINT_SOCKET",
        "WE 4",
        &[("", "ep::ep_1_the_endpoint_is_discovered_from_the_environment")],
    ),
    must(
        "EP-2",
        "sends the metadata workload.spiffe.io: true with every call",
        "WE 3",
        &[("", "ep::ep_2_every_call_has_the_security_header")],
    ),
    should("EP-3", "calls a tcp:// endpoint", "WE 3, 4", &[("", "ep::ep_3_a_tcp_endpoint_is_supported")]),
    optional(
        "EP-4",
        "rejects a URI with a component that its scheme does not have",
        "WE 4",
        &[
            ("authority of unix", "ep::ep_4_an_authority_in_a_unix_uri_is_rejected"),
            ("path of tcp", "ep::ep_4_a_path_in_a_tcp_uri_is_rejected"),
        ],
    ),
    should(
        "EP-5",
        "tries again with backoff after Unavailable",
        "WE 6, App. A",
        &[("", "ep::ep_5_unavailable_is_retried_with_backoff")],
    )
    .note("WE 6 says MAY, its appendix A says to retry."),
    should(
        "EP-6",
        "tries again with backoff after PermissionDenied",
        "WE 6, App. A",
        &[("", "ep::ep_6_permission_denied_is_retried_with_backoff")],
    )
    .note("WE 6 says MAY, its appendix A says to retry."),
    should(
        "EP-7",
        "does not try again after InvalidArgument",
        "WE 6, App. A",
        &[("", "ep::ep_7_invalid_argument_is_not_retried")],
    ),
    optional(
        "EP-8",
        "tries again while the endpoint is not reachable",
        "WE 6",
        &[("", "ep::ep_8_an_endpoint_that_is_not_reachable_yet_is_retried")],
    ),
    should(
        "WA-1",
        "opens the stream again after the server closed it",
        "WA 4.2",
        &[("", "wa::wa_1_the_stream_is_opened_again_after_the_server_closed_it")],
    ),
    should(
        "WA-2",
        "discards a response without a mandatory field",
        "WA 4.5",
        &[
            ("svids", "wa::wa_2_a_response_without_svids_is_discarded"),
            ("spiffe_id", "wa::wa_2_a_response_with_an_empty_spiffe_id_is_discarded"),
            ("x509_svid", "wa::wa_2_a_response_with_an_empty_certificate_is_discarded"),
            ("x509_svid_key", "wa::wa_2_a_response_with_an_empty_key_is_discarded"),
            ("bundle", "wa::wa_2_a_response_with_an_empty_bundle_is_discarded"),
        ],
    ),
    must(
        "WA-3",
        "has the first SVID of a response as its default identity",
        "WA 5.3",
        &[("", "wa::wa_3_the_first_svid_is_the_default_identity")],
    )
    .note("The catalogue cites WA 8."),
    should(
        "WA-4",
        "does not use SVIDs after PermissionDenied",
        "WA 5.2.1",
        &[("", "wa::wa_4_svids_are_not_used_after_permission_denied")],
    ),
];
