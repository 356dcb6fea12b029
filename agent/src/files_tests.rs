use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use countersign_core::bundle::{Bundle, BundleSet};
use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::x509::{LeafRequest, X509Authority};
use jiff::Timestamp;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CREDENTIAL_BUNDLE, Folder, NAME_MAX, directory_names, percent_encode};
use crate::publish::{Credentials, Svid};

fn svid(authority: &X509Authority, name: &str) -> Svid {
    let id = format!("spiffe://example.org/{name}").parse().unwrap();
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let leaf = LeafRequest { spki: key.public_key(), id: &id, dns_names: &[], ttl: Duration::from_secs(60) };
    let issued = authority.issue(&leaf, Timestamp::now()).unwrap();
    let (chain, expires_at) = (issued.chain, issued.not_after);
    Svid {
        id,
        hint: String::new(),
        chain,
        key,
        expires_at,
        federates_with: Vec::new(),
        tokens: Default::default(),
        wit: None,
    }
}

fn authority() -> X509Authority {
    let domain = "example.org".parse().unwrap();
    X509Authority::generate(&domain, KeyType::EcP256, Duration::from_secs(3600), Timestamp::now()).unwrap()
}

fn credentials(authority: &X509Authority, svids: Vec<Svid>) -> Credentials {
    let bundle = Bundle {
        trust_domain: "example.org".parse().unwrap(),
        x509_authorities: vec![authority.certificate().clone()],
        jwt_authorities: Vec::new(),
        wit_authorities: Vec::new(),
        sequence: 1,
        refresh_hint: Duration::from_secs(300),
    };
    Credentials {
        revision: 1,
        wit_revision: 1,
        svids,
        trust: Arc::new(BundleSet::new([bundle]).unwrap()),
        terms: Arc::default(),
    }
}

/// Whether the key in a bundle file is the one its leaf certifies.
fn belongs_together(bundle: &str) -> bool {
    let blocks = pem::parse_many(bundle).unwrap();
    let key = PrivateKey::from_pkcs8_der(blocks[0].contents()).unwrap();
    let (_, leaf) = X509Certificate::from_der(blocks[1].contents()).unwrap();
    leaf.public_key().raw == key.public_key_spki_der()
}

/// The set before the current one stays, so a reader that takes longer than one change of sets is not served; each change
/// therefore waits until a read has ended since the last one. R71
#[test]
fn a_reader_never_sees_a_mixed_pair_nor_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority();
    let sets: Vec<Credentials> = (0..8).map(|_| credentials(&authority, vec![svid(&authority, "a")])).collect();
    let mut folder = Folder::new(directory.path(), 0o444);
    folder.write(&sets[0]).unwrap();
    let (done, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let reader = std::thread::spawn({
        let (done, reads) = (Arc::clone(&done), Arc::clone(&reads));
        let path = directory.path().join("credentials").join(CREDENTIAL_BUNDLE);
        move || {
            let mut seen = std::collections::HashSet::new();
            while !done.load(Ordering::Relaxed) {
                let bundle = std::fs::read_to_string(&path).expect("there is always one");
                assert!(belongs_together(&bundle));
                seen.insert(bundle);
                reads.fetch_add(1, Ordering::Release);
            }
            seen.len()
        }
    });
    for n in 0..200 {
        folder.write(&sets[n % sets.len()]).unwrap();
        let before = reads.load(Ordering::Acquire);
        while reads.load(Ordering::Acquire) == before && !reader.is_finished() {
            std::thread::yield_now();
        }
    }
    done.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 1);
    let entries = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(entries, 3, "the link, the current set and the one before");
}

#[test]
fn modes_are_those_asked_for_and_directories_can_be_entered() {
    let authority = authority();
    for (mode, directory_mode) in [(0o444, 0o755), (0o440, 0o750), (0o400, 0o700)] {
        let directory = tempfile::tempdir().unwrap();
        Folder::new(directory.path(), mode).write(&credentials(&authority, vec![svid(&authority, "a")])).unwrap();
        let set = directory.path().join("credentials");
        let bits = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(bits(&set), directory_mode);
        for file in std::fs::read_dir(&set).unwrap() {
            assert_eq!(bits(&file.unwrap().path()), mode);
        }
    }
}

/// With an `fsGroup`, files in the volume get its group: otherwise 0440 would be for the agent's own group.
#[test]
fn files_have_the_group_of_a_volume_that_gives_it() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o2775)).unwrap();
    let authority = authority();
    let mut credentials = credentials(&authority, vec![svid(&authority, "a"), svid(&authority, "b")]);
    credentials.svids[1].hint = "other".into();
    Folder::new(directory.path(), 0o440).write(&credentials).unwrap();
    for directory in ["credentials", "credentials/other"].map(|name| directory.path().join(name)) {
        assert_eq!(std::fs::metadata(directory).unwrap().permissions().mode() & 0o7777, 0o2750);
    }
}

#[test]
fn a_restarted_agent_keeps_the_set_until_it_replaces_it_and_leaves_no_litter() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority();
    let set = credentials(&authority, vec![svid(&authority, "a")]);
    Folder::new(directory.path(), 0o444).write(&set).unwrap();
    std::fs::create_dir(directory.path().join(".credentials-77")).unwrap();
    let mut again = Folder::new(directory.path(), 0o444);
    assert!(directory.path().join("credentials/tls.key").exists());
    again.write(&set).unwrap();
    again.write(&set).unwrap();
    assert!(!directory.path().join(".credentials-77").exists());
    again.withdraw().unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    again.withdraw().unwrap();
}

#[test]
fn the_link_is_relative_because_the_workload_mounts_it_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority();
    Folder::new(directory.path(), 0o444).write(&credentials(&authority, vec![svid(&authority, "a")])).unwrap();
    assert!(std::fs::read_link(directory.path().join("credentials")).unwrap().is_relative());
}

/// The names of the SPIFFE Filesystem Delivery draft, and the former ones, which lead to the same files wherever the directory
/// is mounted.
#[test]
fn former_names_are_relative_links_beside_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority();
    let mut credentials = credentials(&authority, vec![svid(&authority, "a"), svid(&authority, "b")]);
    credentials.svids[1].hint = "other".into();
    Folder::new(directory.path(), 0o444).write(&credentials).unwrap();
    let mounted = tempfile::tempdir().unwrap();
    let moved = mounted.path().join("elsewhere");
    std::fs::rename(std::fs::canonicalize(directory.path().join("credentials")).unwrap(), &moved).unwrap();
    for set in [moved.clone(), moved.join("other")] {
        for (former, name) in [
            ("credential-bundle.pem", "credential-bundle.private-key.x509.pem"),
            ("example.org.trust-bundle.pem", "example.org.spiffe-trust-bundle.x509.pem"),
        ] {
            assert_eq!(std::fs::read_link(set.join(former)).unwrap().to_str(), Some(name));
            assert!(std::fs::symlink_metadata(set.join(name)).unwrap().is_file());
            assert_eq!(std::fs::read(set.join(former)).unwrap(), std::fs::read(set.join(name)).unwrap());
        }
    }
}

/// A trust domain may have 255 bytes: the longer suffix of the draft does not always fit.
#[test]
fn a_trust_domain_too_long_for_the_draft_keeps_the_former_file_name() {
    let authority = authority();
    for (length, expected) in
        [(226, ".spiffe-trust-bundle.x509.pem"), (227, ".trust-bundle.pem"), (238, ".trust-bundle.pem")]
    {
        let domain = "d".repeat(length);
        let mut svid = svid(&authority, "a");
        svid.federates_with = vec![domain.parse().unwrap()];
        let mut credentials = credentials(&authority, vec![svid]);
        let own = Bundle::clone(credentials.trust.get(&"example.org".parse().unwrap()).unwrap());
        let foreign = Bundle { trust_domain: domain.parse().unwrap(), ..own.clone() };
        credentials.trust = Arc::new(BundleSet::new([own, foreign]).unwrap());
        let directory = tempfile::tempdir().unwrap();
        Folder::new(directory.path(), 0o444).write(&credentials).unwrap();
        let file = directory.path().join("credentials").join(format!("{domain}{expected}"));
        assert!(file.file_name().unwrap().len() <= NAME_MAX);
        assert!(std::fs::symlink_metadata(&file).unwrap().is_file(), "{length}");
        assert!(directory.path().join("credentials").join(format!("{domain}.trust-bundle.pem")).exists());
    }
}

#[test]
fn further_identities_are_named_by_hint_or_position() {
    let authority = authority();
    let with = |hint: &str| Svid { hint: hint.into(), ..svid(&authority, "a") };
    let hints = ["ignored", "reports", "reports", "", "jwt", "tls.key", "../up", "7", ".."];
    let svids: Vec<Svid> = hints.map(with).into();
    assert_eq!(directory_names(&svids), ["", "reports", "3", "4", "5", "6", "7", "8", "9"]);
}

#[test]
fn an_audience_cannot_leave_its_directory() {
    for (audience, name) in [
        ("payments", "payments"),
        ("https://pay/v1?x", "https%3A%2F%2Fpay%2Fv1%3Fx"),
        ("../../x", "..%2F..%2Fx"),
        ("ü%", "%C3%BC%25"),
    ] {
        assert_eq!(percent_encode(audience), name);
    }
    let directory = tempfile::tempdir().unwrap();
    let authority = authority();
    let mut svid = svid(&authority, "a");
    svid.tokens = [("x".repeat(300), "t".to_owned().into()), ("../b".into(), "t".to_owned().into())].into();
    Folder::new(directory.path(), 0o444).write(&credentials(&authority, vec![svid])).unwrap();
    let names: Vec<_> =
        std::fs::read_dir(directory.path().join("credentials/jwt")).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(names, ["..%2Fb.token"]);
}
