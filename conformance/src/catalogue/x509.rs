//! XS, XV and XF: the X509-SVID of the client, and those of peers.

use super::{Case, must};

pub(super) const CASES: &[Case] = &[
    must(
        "XS-1",
        "presents the X509-SVID it received",
        "WA 5.2.1",
        &[("", "xs::xs_1_the_svid_of_the_workload_api_is_presented")],
    ),
    must("XS-2", "presents the whole chain, leaf first", "WA 5.1", &[("", "xs::xs_2_the_whole_chain_is_presented")]),
    must(
        "XS-3",
        "presents a rotated X509-SVID on new connections",
        "WA 4.3",
        &[("", "xs::xs_3_a_rotated_svid_is_used_for_new_connections")],
    ),
    must(
        "XS-4",
        "trusts every authority of a bundle",
        "WA 5.1",
        &[("", "xs::xs_4_every_authority_of_a_bundle_is_trusted")],
    ),
    must(
        "XS-5",
        "does not trust an authority that was removed from the bundle",
        "WA 4.3, 4.4",
        &[("", "xs::xs_5_an_authority_that_was_removed_is_not_trusted")],
    ),
    must(
        "XV-1",
        "accepts a valid peer",
        "XS 5.1",
        &[("server", "xv::xv_1_server_accepts_a_valid_peer"), ("client", "xv::xv_1_client_accepts_a_valid_peer")],
    ),
    must(
        "XV-2",
        "accepts a chain with an intermediate",
        "XS 5.1",
        &[
            ("server", "xv::xv_2_server_accepts_a_chain_with_an_intermediate"),
            ("client", "xv::xv_2_client_accepts_a_chain_with_an_intermediate"),
        ],
    ),
    must(
        "XV-3",
        "accepts DNS names beside the SPIFFE ID",
        "XS 2",
        &[
            ("server", "xv::xv_3_server_accepts_dns_names_beside_the_id"),
            ("client", "xv::xv_3_client_accepts_dns_names_beside_the_id"),
        ],
    ),
    must(
        "XV-4",
        "accepts an empty subject beside critical names",
        "XS 3.1",
        &[
            ("server", "xv::xv_4_server_accepts_an_empty_subject"),
            ("client", "xv::xv_4_client_accepts_an_empty_subject"),
        ],
    ),
    must(
        "XV-5",
        "rejects a chain to an unknown authority",
        "XS 5.1",
        &[
            ("server", "xv::xv_5_server_rejects_an_unknown_authority"),
            ("client", "xv::xv_5_client_rejects_an_unknown_authority"),
        ],
    ),
    must(
        "XV-6",
        "rejects an expired certificate",
        "XS 5.1",
        &[("server", "xv::xv_6_server_rejects_an_expired_leaf"), ("client", "xv::xv_6_client_rejects_an_expired_leaf")],
    ),
    must(
        "XV-7",
        "rejects a certificate that is not valid yet",
        "XS 5.1",
        &[
            ("server", "xv::xv_7_server_rejects_a_leaf_that_is_not_valid_yet"),
            ("client", "xv::xv_7_client_rejects_a_leaf_that_is_not_valid_yet"),
        ],
    ),
    must(
        "XV-8",
        "rejects a leaf with cA set",
        "XS 5.2",
        &[
            ("server", "xv::xv_8_server_rejects_a_leaf_with_ca_set"),
            ("client", "xv::xv_8_client_rejects_a_leaf_with_ca_set"),
        ],
    ),
    must(
        "XV-9",
        "rejects a leaf with keyCertSign",
        "XS 5.2",
        &[
            ("server", "xv::xv_9_server_rejects_a_leaf_that_may_sign_certificates"),
            ("client", "xv::xv_9_client_rejects_a_leaf_that_may_sign_certificates"),
        ],
    ),
    must(
        "XV-10",
        "rejects a leaf with cRLSign",
        "XS 5.2",
        &[
            ("server", "xv::xv_10_server_rejects_a_leaf_that_may_sign_crls"),
            ("client", "xv::xv_10_client_rejects_a_leaf_that_may_sign_crls"),
        ],
    ),
    must(
        "XV-11",
        "rejects more than one URI",
        "XS 2, 5.2",
        &[("server", "xv::xv_11_server_rejects_two_uris"), ("client", "xv::xv_11_client_rejects_two_uris")],
    ),
    must(
        "XV-12",
        "rejects a leaf without URI",
        "XS 2",
        &[
            ("server", "xv::xv_12_server_rejects_a_leaf_without_uri"),
            ("client", "xv::xv_12_client_rejects_a_leaf_without_uri"),
        ],
    ),
    must(
        "XV-13",
        "rejects a URI of another scheme than spiffe",
        "XS 5.2",
        &[
            ("server", "xv::xv_13_server_rejects_a_uri_of_another_scheme"),
            ("client", "xv::xv_13_client_rejects_a_uri_of_another_scheme"),
        ],
    ),
    must(
        "XV-14",
        "rejects a SPIFFE ID without path",
        "XS 3.1, 5.2",
        &[
            ("server", "xv::xv_14_server_rejects_an_id_without_path"),
            ("client", "xv::xv_14_client_rejects_an_id_without_path"),
        ],
    ),
    must(
        "XV-15",
        "rejects a peer of a trust domain of which it has no bundle",
        "WA 4.6, FD 7.3",
        &[
            ("server", "xv::xv_15_server_rejects_a_trust_domain_without_bundle"),
            ("client", "xv::xv_15_client_rejects_a_trust_domain_without_bundle"),
        ],
    ),
    must(
        "XF-1",
        "accepts a peer of a federated trust domain",
        "WA 4.6",
        &[
            ("server", "xf::xf_1_server_accepts_a_peer_of_a_federated_trust_domain"),
            ("client", "xf::xf_1_client_accepts_a_peer_of_a_federated_trust_domain"),
        ],
    ),
    must(
        "XF-2",
        "verifies a peer by the bundle of its own trust domain alone",
        "WA 4.6, FD 4.2, 7.3",
        &[("server", "xf::xf_2_server_does_not_merge_bundles"), ("client", "xf::xf_2_client_does_not_merge_bundles")],
    ),
    must(
        "XF-3",
        "does not trust a trust domain that a later response leaves out",
        "WA 4.4",
        &[
            ("server", "xf::xf_3_server_does_not_trust_a_trust_domain_that_was_left_out"),
            ("client", "xf::xf_3_client_does_not_trust_a_trust_domain_that_was_left_out"),
        ],
    ),
];
