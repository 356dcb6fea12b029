//! XS: the X509-SVID and the bundle of the client's own trust domain.

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::support::authority::Authority;
use crate::support::env::{OWN, case};
use crate::support::failure::{Verdict, control, expect};
use crate::support::role::Role;

#[tokio::test]
async fn xs_1_the_svid_of_the_workload_api_is_presented() -> Verdict {
    case(async |env| {
        let svid = env.own.issue(&env.own.id("/xs-1"));
        env.serve(&[&svid]);
        let probe = env.presents(&svid.id).await?;
        expect(probe.chain == svid.chain, || "presented another certificate".to_owned())
    })
    .await
}

#[tokio::test]
async fn xs_2_the_whole_chain_is_presented() -> Verdict {
    case(async |env| {
        let svid = env.own.below().issue(&env.own.id("/xs-2"));
        env.serve(&[&svid]);
        let probe = env.presents(&svid.id).await?;
        expect(probe.chain == svid.chain, || format!("{} certificates, or not leaf first", probe.chain.len()))?;
        let chain: Vec<CertificateDer<'_>> =
            probe.chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let root = CertificateDer::from(env.own.root.as_slice());
        let anchors = [anchor_from_trusted_cert(&root)?];
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
        let (leaf, now) = (EndEntityCert::try_from(&chain[0])?, UnixTime::now());
        let path = leaf.verify_for_usage(algorithms, &anchors, &chain[1..], now, KeyUsage::server_auth(), None, None);
        expect(path.is_ok(), || "does not chain to the root".to_owned())
    })
    .await
}

#[tokio::test]
async fn xs_3_a_rotated_svid_is_used_for_new_connections() -> Verdict {
    case(async |env| {
        for path in ["/xs-3-a", "/xs-3-b"] {
            let svid = env.own.issue(&env.own.id(path));
            env.serve(&[&svid]);
            env.presents(&svid.id).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn xs_4_every_authority_of_a_bundle_is_trusted() -> Verdict {
    case(async |env| {
        let other = Authority::new(OWN);
        env.apply_bundles(&[&env.own, &other], &[]).await?;
        Role::Server.accepts(env, &env.own.issue(&env.own.id("/xs-4-a"))).await?;
        Role::Server.accepts(env, &other.issue(&env.own.id("/xs-4-b"))).await
    })
    .await
}

#[tokio::test]
async fn xs_5_an_authority_that_was_removed_is_not_trusted() -> Verdict {
    case(async |env| {
        let other = Authority::new(OWN);
        let (stays, goes) = (env.own.issue(&env.own.id("/xs-5-a")), other.issue(&env.own.id("/xs-5-b")));
        env.apply_bundles(&[&env.own, &other], &[]).await?;
        control(Role::Server.accepts(env, &goes).await)?;
        env.apply_bundles(&[&env.own], &[]).await?;
        control(Role::Server.accepts(env, &stays).await)?;
        Role::Server.rejects(env, &goes).await
    })
    .await
}
