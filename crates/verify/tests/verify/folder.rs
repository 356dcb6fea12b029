//! Credentials from files, as Countersign's agent lays them out: R26.

use std::{fs, os::unix::fs::symlink, path::Path};

use countersign_contract::files::{BUNDLE_DOCUMENT_SUFFIX, CHAIN, KEY, TRUST_BUNDLE_SUFFIX};
use countersign_core::{bundle::Bundle, x509::CaCertificate};
use countersign_verify::{Authorizer, Source, SourceError};

use crate::fixtures::{Domain, Fixed, TTL};

/// One set of files, and the link to it, as the agent replaces them.
fn write(folder: &Path, set: &str, svid: &Fixed, bundles: &[Bundle]) {
    let directory = folder.join(set);
    fs::create_dir(&directory).unwrap();
    let chain: String = svid.chain.iter().map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der.clone()))).collect();
    fs::write(directory.join(CHAIN), chain).unwrap();
    fs::write(directory.join(KEY), svid.key.pkcs8_pem().as_bytes()).unwrap();
    for bundle in bundles {
        let anchors: String = bundle.x509_authorities.iter().map(CaCertificate::pem).collect();
        fs::write(directory.join(format!("{}{TRUST_BUNDLE_SUFFIX}", bundle.trust_domain)), anchors).unwrap();
        fs::write(directory.join(format!("{}{BUNDLE_DOCUMENT_SUFFIX}", bundle.trust_domain)), bundle.to_json())
            .unwrap();
    }
    let next = folder.join("next");
    symlink(set, &next).unwrap();
    fs::rename(next, folder.join("credentials")).unwrap();
}

#[tokio::test]
async fn files_are_read_replaced_and_withdrawn() {
    let (own, foreign) = (Domain::new("a.test"), Domain::new("b.test"));
    let folder = tempfile::tempdir().unwrap();
    let source = Source::from_folder(folder.path().join("credentials"));
    assert!(matches!(source.x509(), Err(SourceError::Waiting { .. })));
    let first = own.svid("/workload");
    write(folder.path(), "1", &first, &[own.bundle(), foreign.bundle()]);
    let source = source.ready().await.unwrap();
    let credentials = source.x509().unwrap();
    assert_eq!(*credentials.svids()[0].id(), own.id("/workload"));
    assert_eq!(credentials.bundles().len(), 2);
    let token = own.token("/client", "service", TTL);
    assert!(source.validate_jwt_svid(&token, "service", &Authorizer::anybody()).is_ok());

    let mut changes = source.x509_changes();
    let second = own.svid("/workload");
    write(folder.path(), "2", &second, &[own.bundle()]);
    changes.changed().await.unwrap();
    let credentials = source.x509().unwrap();
    assert_eq!(credentials.svids()[0].certified_key().cert[0].as_ref(), second.chain[0]);
    assert_eq!(credentials.bundles().len(), 1);

    fs::remove_file(folder.path().join("credentials")).unwrap();
    changes.changed().await.unwrap();
    assert!(matches!(source.x509(), Err(SourceError::NoIdentity { .. })));
    assert!(source.jwt_bundles().is_err());
}

/// A set that cannot be used, which the source has seen: it says so while nothing was received.
async fn refused(set: impl FnOnce(&Path, &Domain)) -> String {
    let own = Domain::new("a.test");
    let folder = tempfile::tempdir().unwrap();
    set(folder.path(), &own);
    let source = Source::from_folder(folder.path().join("credentials"));
    loop {
        match source.x509() {
            Err(error @ SourceError::Waiting { last: Some(_) }) => break error.to_string(),
            other => assert!(matches!(other, Err(SourceError::Waiting { .. })), "{other:?}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_key_of_another_certificate_is_refused() {
    let error = refused(|folder, own| {
        let mixed = Fixed { chain: own.svid("/workload").chain, key: own.svid("/workload").key };
        write(folder, "1", &mixed, &[own.bundle()]);
    })
    .await;
    assert!(error.contains("not that of the certificate"), "{error}");
}

// R87: the library for PEM shows what it cannot read.
#[tokio::test]
async fn a_key_that_cannot_be_read_is_not_shown() {
    let error = refused(|folder, own| {
        write(folder, "1", &own.svid("/workload"), &[own.bundle()]);
        let key = fs::read_to_string(folder.join("1").join(KEY)).unwrap();
        fs::write(folder.join("1").join(KEY), key.replace('\n', "")).unwrap();
    })
    .await;
    assert!(error.contains(KEY) && !error.contains("MIG"), "{error}");
}

#[tokio::test]
async fn the_own_bundle_must_be_readable_and_a_foreign_one_is_left_out() {
    let foreign = format!("b.test{TRUST_BUNDLE_SUFFIX}");
    let own = Domain::new("a.test");
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "1", &own.svid("/workload"), &[own.bundle()]);
    fs::write(folder.path().join("1").join(foreign), "-----BEGIN CERTIFICATE-----").unwrap();
    let source = Source::from_folder(folder.path().join("credentials")).ready().await.unwrap();
    assert_eq!(source.x509().unwrap().bundles().len(), 1);

    let error = refused(|folder, own| {
        write(folder, "1", &own.svid("/workload"), &[own.bundle()]);
        fs::write(folder.join("1").join(format!("a.test{TRUST_BUNDLE_SUFFIX}")), "-----BEGIN CERTIFICATE-----")
            .unwrap();
    })
    .await;
    assert!(error.contains("a.test"), "{error}");
}

#[tokio::test]
async fn jwt_bundles_of_an_earlier_set_are_not_used_with_a_set_that_has_none() {
    let own = Domain::new("a.test");
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "1", &own.svid("/workload"), &[own.bundle()]);
    let source = Source::from_folder(folder.path().join("credentials")).ready_to_validate_jwt_svids().await.unwrap();
    let mut changes = source.x509_changes();
    write(folder.path(), "2", &own.svid("/workload"), &[]);
    let anchors: String = own.bundle().x509_authorities.iter().map(CaCertificate::pem).collect();
    fs::write(folder.path().join("2").join(format!("a.test{TRUST_BUNDLE_SUFFIX}")), anchors).unwrap();
    changes.changed().await.unwrap();
    while source.jwt_bundles().is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_token_is_that_of_the_file_of_its_audience() {
    let own = Domain::new("a.test");
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "1", &own.svid("/workload"), &[own.bundle()]);
    let jwt = folder.path().join("credentials/jwt");
    fs::create_dir(&jwt).unwrap();
    let token = own.token("/workload", "https://api.test/v1", TTL);
    fs::write(jwt.join("https%3A%2F%2Fapi.test%2Fv1.token"), &token).unwrap();
    let source = Source::from_folder(folder.path().join("credentials")).ready().await.unwrap();
    assert_eq!(source.jwt_svid(&["https://api.test/v1"]).await.unwrap().token(), token);
    assert!(source.jwt_svid(&["https://other.test"]).await.unwrap_err().to_string().contains("other.test"));
    // Encoded, it leads nowhere; otherwise it would lead to this one.
    fs::write(folder.path().join("1").join("out.token"), own.token("/workload", "../out", TTL)).unwrap();
    assert!(source.jwt_svid(&["../out"]).await.unwrap_err().to_string().contains("..%2Fout"));
}
