//! XV: peers that a client authenticates, as server and as client.

use rcgen::{BasicConstraints, DistinguishedName, IsCa, KeyUsagePurpose, SanType};

use crate::support::authority::{Authority, Svid, after, uri};
use crate::support::env::{Env, OWN, UNKNOWN, case};
use crate::support::failure::Verdict;
use crate::support::role::Role;

/// A test for each role: the name of the one as server, and of the one as client.
macro_rules! in_both_roles {
    ($($server:ident, $client:ident: $verb:ident($peer:expr);)*) => {$(
        #[tokio::test]
        async fn $server() -> Verdict {
            case(async |env| $verb(env, Role::Server, $peer).await).await
        }

        #[tokio::test]
        async fn $client() -> Verdict {
            case(async |env| $verb(env, Role::Client, $peer).await).await
        }
    )*};
}

async fn accepts(env: &Env, role: Role, peer: impl FnOnce(&Authority) -> Svid) -> Verdict {
    role.accepts(env, &peer(&env.own)).await
}

async fn rejects(env: &Env, role: Role, peer: impl FnOnce(&Authority) -> Svid) -> Verdict {
    role.control(env).await?;
    role.rejects(env, &peer(&env.own)).await
}

in_both_roles! {
    xv_1_server_accepts_a_valid_peer, xv_1_client_accepts_a_valid_peer:
        accepts(|own| own.issue(&own.id("/xv-1")));

    xv_2_server_accepts_a_chain_with_an_intermediate, xv_2_client_accepts_a_chain_with_an_intermediate:
        accepts(|own| own.below().issue(&own.id("/xv-2")));

    xv_3_server_accepts_dns_names_beside_the_id, xv_3_client_accepts_dns_names_beside_the_id:
        accepts(|own| own.issue_with(&own.id("/xv-3"), |leaf| {
            leaf.subject_alt_names.push(SanType::DnsName("workload.example.org".try_into().unwrap()));
        }));

    // The names are critical where the subject is empty.
    xv_4_server_accepts_an_empty_subject, xv_4_client_accepts_an_empty_subject:
        accepts(|own| own.issue_with(&own.id("/xv-4"), |leaf| leaf.distinguished_name = DistinguishedName::new()));

    xv_5_server_rejects_an_unknown_authority, xv_5_client_rejects_an_unknown_authority:
        rejects(|own| Authority::new(OWN).issue(&own.id("/xv-5")));

    xv_6_server_rejects_an_expired_leaf, xv_6_client_rejects_an_expired_leaf:
        rejects(|own| own.issue_with(&own.id("/xv-6"), |leaf| {
            (leaf.not_before, leaf.not_after) = (after(-7200), after(-3600));
        }));

    xv_7_server_rejects_a_leaf_that_is_not_valid_yet, xv_7_client_rejects_a_leaf_that_is_not_valid_yet:
        rejects(|own| own.issue_with(&own.id("/xv-7"), |leaf| {
            (leaf.not_before, leaf.not_after) = (after(3600), after(7200));
        }));

    xv_8_server_rejects_a_leaf_with_ca_set, xv_8_client_rejects_a_leaf_with_ca_set:
        rejects(|own| own.issue_with(&own.id("/xv-8"), |leaf| {
            leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }));

    xv_9_server_rejects_a_leaf_that_may_sign_certificates, xv_9_client_rejects_a_leaf_that_may_sign_certificates:
        rejects(|own| own.issue_with(&own.id("/xv-9"), |leaf| leaf.key_usages.push(KeyUsagePurpose::KeyCertSign)));

    xv_10_server_rejects_a_leaf_that_may_sign_crls, xv_10_client_rejects_a_leaf_that_may_sign_crls:
        rejects(|own| own.issue_with(&own.id("/xv-10"), |leaf| leaf.key_usages.push(KeyUsagePurpose::CrlSign)));

    xv_11_server_rejects_two_uris, xv_11_client_rejects_two_uris:
        rejects(|own| own.issue_with(&own.id("/xv-11"), |leaf| leaf.subject_alt_names.push(uri(&own.id("/second")))));

    xv_12_server_rejects_a_leaf_without_uri, xv_12_client_rejects_a_leaf_without_uri:
        rejects(|own| own.issue_with(&own.id("/xv-12"), |leaf| {
            leaf.subject_alt_names = vec![SanType::DnsName("workload.example.org".try_into().unwrap())];
        }));

    xv_13_server_rejects_a_uri_of_another_scheme, xv_13_client_rejects_a_uri_of_another_scheme:
        rejects(|own| own.issue(&format!("https://{}/xv-13", own.trust_domain)));

    xv_14_server_rejects_an_id_without_path, xv_14_client_rejects_an_id_without_path:
        rejects(|own| own.issue(&own.id("")));

    xv_15_server_rejects_a_trust_domain_without_bundle, xv_15_client_rejects_a_trust_domain_without_bundle:
        rejects(|own| own.issue(&format!("spiffe://{UNKNOWN}/xv-15")));
}
