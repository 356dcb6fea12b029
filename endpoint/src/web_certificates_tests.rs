use super::*;

fn pair(names: &[&str]) -> Pair {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    Pair { chain: made.cert.pem().into_bytes(), key: made.signing_key.serialize_pem().into_bytes().into() }
}

fn certificates(pairs: &[(&str, Pair)], before: &WebCertificates) -> (WebCertificates, Vec<String>) {
    let pairs = pairs.iter().map(|(name, pair)| ((*name).to_owned(), pair.clone())).collect();
    let (certificates, errors) = WebCertificates::build(&pairs, before);
    (certificates, errors.into_iter().map(|(name, _)| name).collect())
}

#[test]
fn the_certificate_is_chosen_exactly_then_by_wildcard_then_the_first() {
    let none = WebCertificates::default();
    assert!(none.certificate(Some("a.example")).is_none());
    let (all, _) = certificates(
        &[("1", pair(&["one.example"])), ("2", pair(&["*.example", "x.y.example"])), ("3", pair(&["a.example"]))],
        &none,
    );
    let of = |name: &str| all.all[name].certified_key.cert.clone();
    for (name, expected) in [
        (Some("one.example"), "1"),
        (Some("A.Example"), "3"),
        (Some("b.example"), "2"),
        (Some("x.y.example"), "2"),
        // A wildcard is for one label.
        (Some("z.y.example"), "1"),
        (Some("example"), "1"),
        (Some("*.example"), "2"),
        (None, "1"),
    ] {
        assert_eq!(all.certificate(name).unwrap().cert, of(expected), "{name:?}");
    }
}

#[test]
fn of_two_for_a_name_the_first_directory_is_served() {
    let (all, _) =
        certificates(&[("b", pair(&["x.example"])), ("a", pair(&["x.example"]))], &WebCertificates::default());
    assert_eq!(all.certificate(Some("x.example")).unwrap().cert, all.all["a"].certified_key.cert);
}

#[test]
fn a_pair_that_does_not_fit_keeps_the_one_before_and_does_not_touch_others() {
    let (old, other, new) = (pair(&["a.example"]), pair(&["b.example"]), pair(&["a.example"]));
    let (before, _) = certificates(&[("a", old.clone()), ("b", other.clone())], &WebCertificates::default());
    // A kubelet was between the two files.
    let torn = Pair { chain: new.chain.clone(), key: old.key };
    let (after, errors) = certificates(&[("a", torn.clone()), ("b", new)], &before);
    assert_eq!(errors, ["a"]);
    assert_eq!(after.all["a"].certified_key.cert, before.all["a"].certified_key.cert);
    assert_ne!(after.all["b"].certified_key.cert, before.all["b"].certified_key.cert);
    let (gone, _) = certificates(&[("b", other)], &before);
    assert!(!gone.all.contains_key("a"), "what is not there is not served");
    let (none, errors) = certificates(&[("a", torn)], &WebCertificates::default());
    assert!(none.is_empty() && errors == ["a"]);
}

#[test]
fn directories_are_read_again_when_their_content_changes_and_an_absent_secret_is_no_pair() {
    let folder = tempfile::tempdir().unwrap();
    let mut reader = WebCertificateReader::new(folder.path().join("web"));
    let none = WebCertificates::default();
    assert!(matches!(reader.check(&none), FoundPairs::Unreadable(_)));
    assert!(matches!(reader.check(&none), FoundPairs::Unchanged), "reported once");
    let place = folder.path().join("web/default");
    fs::create_dir_all(&place).unwrap();
    assert!(matches!(reader.check(&none), FoundPairs::New(all, 0, _) if all.is_empty()));
    for _ in 0..2 {
        let made = pair(&["a.example"]);
        // As a kubelet: the files are links into a directory that is exchanged.
        let data = tempfile::tempdir_in(&place).unwrap().keep();
        fs::write(data.join("tls.crt"), &made.chain).unwrap();
        fs::write(data.join("tls.key"), &made.key).unwrap();
        for file in ["tls.crt", "tls.key"] {
            let _ = fs::remove_file(place.join(file));
            std::os::unix::fs::symlink(data.join(file), place.join(file)).unwrap();
        }
        let found = reader.check(&none);
        assert!(matches!(&found, FoundPairs::New(all, 1, errors) if !all.is_empty() && errors.is_empty()), "{found:?}");
        assert!(matches!(reader.check(&none), FoundPairs::Unchanged));
    }
    fs::remove_file(place.join("tls.key")).unwrap();
    assert!(matches!(reader.check(&none), FoundPairs::New(all, 0, _) if all.is_empty()));
}
