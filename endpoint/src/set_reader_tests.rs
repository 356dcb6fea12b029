use std::os::unix::fs::symlink;

use super::*;
use crate::test_set::TestDomain;

/// Writes a set and makes it the current one, as the agent does.
fn write(directory: &Path, set: &str, entries: &[Entry]) {
    for entry in entries {
        let path = directory.join(set).join(&entry.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &entry.content).unwrap();
    }
    let next = directory.join(".credentials.next");
    symlink(set, &next).unwrap();
    fs::rename(next, directory.join("credentials")).unwrap();
}

fn found(reader: &mut SetReader) -> Result<Vec<u8>, String> {
    match reader.check(Timestamp::now()) {
        Found::New(publication) => Ok(publication.documents.bundle("a.example").unwrap().body.to_vec()),
        Found::Unreadable(error) => Err(error.to_string()),
        Found::Unchanged => Err("unchanged".to_owned()),
    }
}

#[test]
fn a_set_is_read_once_and_again_when_the_link_leads_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut reader = SetReader::new(folder.path(), HostNames::default());
    assert!(found(&mut reader).unwrap_err().contains("cannot read"));
    assert_eq!(found(&mut reader).unwrap_err(), "unchanged", "reported once");
    let now = Timestamp::now();
    let [first, second] = ["a.example", "a.example"].map(|name| TestDomain::new(name, now));
    write(folder.path(), ".credentials-1", &first.files("", None, now));
    assert_eq!(found(&mut reader), Ok(first.document()));
    assert_eq!(found(&mut reader).unwrap_err(), "unchanged");
    write(folder.path(), ".credentials-2", &second.files("", None, now));
    assert_eq!(found(&mut reader), Ok(second.document()));
    // An identity was withdrawn and given again, and the agent restarted between.
    let third = TestDomain::new("a.example", now);
    fs::remove_dir_all(folder.path().join(".credentials-2")).unwrap();
    write(folder.path(), ".credentials-2", &third.files("", None, now));
    assert_eq!(found(&mut reader), Ok(third.document()));
    assert_eq!(found(&mut reader).unwrap_err(), "unchanged");
}

#[test]
fn a_set_that_becomes_readable_is_published_and_one_that_does_not_is_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut reader = SetReader::new(folder.path(), HostNames::default());
    let now = Timestamp::now();
    let domain = TestDomain::new("a.example", now);
    let files = domain.files("", None, now);
    write(folder.path(), "1", &files[..1]);
    assert_eq!(found(&mut reader).unwrap_err(), "./tls.key is missing");
    assert_eq!(found(&mut reader).unwrap_err(), "unchanged");
    for file in &files[1..] {
        fs::write(folder.path().join("1").join(&file.path), &file.content).unwrap();
    }
    assert_eq!(found(&mut reader), Ok(domain.document()));
}

#[test]
fn tokens_and_other_files_are_not_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let mut files = TestDomain::new("a.example", now).files("", None, now);
    for path in ["jwt/tls.crt", "jwt/x.token", "ca.crt", "credential-bundle.private-key.x509.pem"] {
        files.push(Entry { path: path.to_owned(), content: b"nothing".to_vec().into() });
    }
    write(folder.path(), "1", &files);
    let names: Vec<String> = read_set(&folder.path().join("1")).unwrap().into_iter().map(|entry| entry.path).collect();
    assert!(names.iter().all(|name| !name.contains("jwt/") && !name.contains("ca.crt") && !name.contains(".pem")));
    assert!(found(&mut SetReader::new(folder.path(), HostNames::default())).is_ok());
}
