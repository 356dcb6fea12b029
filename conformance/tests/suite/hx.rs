//! HX: X509-SVIDs of the Workload API that a client had better ignore, although no specification demands it.

use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};

use crate::support::authority::{Authority, Svid, after, uri};
use crate::support::env::{OWN, case};
use crate::support::failure::Verdict;
use crate::support::mock::X509Update;
use crate::wa;

#[tokio::test]
async fn hx_1_an_invalid_signature_is_ignored() -> Verdict {
    ignores(|own| {
        let mut svid = own.issue(&own.id("/hx-1"));
        // The certificate ends with its signature.
        *svid.chain[0].last_mut().unwrap() ^= 1;
        svid
    })
    .await
}

#[tokio::test]
async fn hx_2_a_chain_to_no_authority_of_the_bundle_is_ignored() -> Verdict {
    ignores(|own| Authority::new(OWN).issue(&own.id("/hx-2"))).await
}

#[tokio::test]
async fn hx_3_an_expired_svid_is_ignored() -> Verdict {
    ignores(|own| {
        own.issue_with(&own.id("/hx-3"), |leaf| (leaf.not_before, leaf.not_after) = (after(-7200), after(-3600)))
    })
    .await
}

#[tokio::test]
async fn hx_4_a_leaf_with_ca_set_is_ignored() -> Verdict {
    ignores(|own| own.issue_with(&own.id("/hx-4"), |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))).await
}

#[tokio::test]
async fn hx_5_a_leaf_that_may_sign_certificates_is_ignored() -> Verdict {
    ignores(|own| own.issue_with(&own.id("/hx-5"), |leaf| leaf.key_usages.push(KeyUsagePurpose::KeyCertSign))).await
}

#[tokio::test]
async fn hx_6_two_uris_are_ignored() -> Verdict {
    ignores(|own| own.issue_with(&own.id("/hx-6"), |leaf| leaf.subject_alt_names.push(uri(&own.id("/second"))))).await
}

#[tokio::test]
async fn hx_7_a_uri_of_another_scheme_is_ignored() -> Verdict {
    ignores(|own| {
        let other = uri("https://example.org/hx-7");
        own.issue_with(&own.id("/hx-7"), |leaf| leaf.subject_alt_names = vec![other])
    })
    .await
}

#[tokio::test]
async fn hx_8_a_key_of_another_certificate_is_ignored() -> Verdict {
    ignores(|own| {
        let key = own.issue(&own.id("/another")).key;
        Svid { key, ..own.issue(&own.id("/hx-8")) }
    })
    .await
}

#[tokio::test]
async fn hx_9_an_id_that_is_not_the_one_of_the_certificate_is_ignored() -> Verdict {
    ignores(|own| Svid { id: own.id("/claimed"), ..own.issue(&own.id("/hx-9")) }).await
}

async fn ignores(bad: impl FnOnce(&Authority) -> Svid) -> Verdict {
    case(async |env| {
        let bad = bad(&env.own);
        wa::ignores(env, &bad, async || {
            env.mock.push_x509(X509Update { svids: &[&bad], bundle: &[&env.own], federated: &[] });
        })
        .await
    })
    .await
}
