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

    let second = own.svid("/workload");
    write(folder.path(), "2", &second, &[own.bundle()]);
    source.x509_changed().await;
    let credentials = source.x509().unwrap();
    assert_eq!(credentials.svids()[0].certified_key().cert[0].as_ref(), second.chain[0]);
    assert_eq!(credentials.bundles().len(), 1);

    // A key that is not that of the certificate: what was there before stays.
    let mixed = Fixed { chain: own.svid("/workload").chain, key: second.key.clone() };
    write(folder.path(), "3", &mixed, &[own.bundle()]);
    let third = own.svid("/workload/2");
    write(folder.path(), "4", &third, &[own.bundle()]);
    source.x509_changed().await;
    assert_eq!(*source.x509_svid().unwrap().id(), own.id("/workload/2"));

    fs::remove_file(folder.path().join("credentials")).unwrap();
    source.x509_changed().await;
    assert!(matches!(source.x509(), Err(SourceError::NoIdentity { .. })));
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
    assert!(source.jwt_svid(&["../../tls.key"]).await.is_err());
}
