//! Which patterns keep namespaces apart: examples, and all paths of small alphabets.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::{select, subsequence};

use super::fixtures::{domain, path_grant};
use super::separation::{Example, GrantedPath, path_overlaps};
use super::{Grant, NamePattern, NamespaceSelector, PathPattern};

/// The example for one pair of patterns, each with the only namespaces that can use it.
fn shared(first: (&str, &[&str]), second: (&str, &[&str]), cluster: &str) -> Option<Example> {
    let side = |(pattern, names): (&str, &[&str])| Side {
        pattern: pattern.to_owned(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
    };
    shared_by(&side(first), &side(second), cluster)
}

fn shared_by(first: &Side, second: &Side, cluster: &str) -> Option<Example> {
    let patterns = [first, second].map(|side| PathPattern::parse(&side.pattern).unwrap());
    let granted: Vec<_> = [first, second]
        .into_iter()
        .zip(&patterns)
        .map(|(side, pattern)| GrantedPath { grant: 0, index: 0, pattern, names: &side.names })
        .collect();
    let found = path_overlaps(&granted, cluster, |first, second| first != second).next();
    found.map(|overlap| overlap.example)
}

// R32, R48: no namespace can claim what another is granted, unless the owner says `shared`.
#[test]
fn namespace_at_different_positions_is_no_separation() {
    for (first, second, path, namespaces) in [
        ("/{namespace}/**", "/ns/{namespace}/**", "/ns/shop/x", ["ns", "shop"]),
        ("/ns/{namespace}/**", "/{namespace}/**", "/ns/shop/x", ["shop", "ns"]),
        ("/{namespace}/*", "/*/{namespace}", "/shop/bank", ["shop", "bank"]),
        ("/{namespace}/{serviceAccount}", "/{serviceAccount}/{namespace}", "/shop/bank", ["shop", "bank"]),
        ("/ns/{namespace}/**", "/ns/*/{namespace}/**", "/ns/shop/bank/x", ["shop", "bank"]),
        ("/a/{namespace}", "/{namespace}/{serviceAccount}", "/a/shop", ["shop", "a"]),
    ] {
        let expected = Example { path: path.to_owned(), namespaces: namespaces.map(str::to_owned) };
        assert_eq!(shared((first, &[]), (second, &[]), "prod"), Some(expected), "{first} {second}");
    }
}

#[test]
fn patterns_that_keep_namespaces_apart_are_left_alone() {
    for (first, second) in [
        // The same position.
        ("/ns/{namespace}/**", "/ns/{namespace}/**"),
        ("/ns/{namespace}/**", "/ns/{namespace}/sa/{serviceAccount}"),
        ("/ns/{namespace}/**", "/*/{namespace}/**"),
        // Different literals, different lengths.
        ("/ns/{namespace}/**", "/team/*/{namespace}"),
        ("/{namespace}", "/ns/{namespace}"),
        ("/{namespace}/a/**", "/ns/{namespace}"),
        // A literal that is no namespace's name.
        ("/{namespace}/**", "/NS/{namespace}/**"),
        ("/{namespace}/**", "/a.b/{namespace}/**"),
        ("/{serviceAccount}/{namespace}", "/Admin/{podName}/{namespace}"),
        // One fact cannot be two values.
        ("/{serviceAccount}/{serviceAccount}/{namespace}", "/a/b/*/{namespace}"),
        ("/{namespace}/{namespace}/x", "/a/b/{namespace}"),
        ("/{serviceAccount}/{namespace}/x/{serviceAccount}", "/Admin/x/{namespace}/x"),
        // Both namespaces are what stands at the same place of the other.
        ("/{namespace}/{namespace}", "/{namespace}/*"),
    ] {
        assert_eq!(shared((first, &[]), (second, &[]), "prod"), None, "{first} {second}");
    }
}

#[test]
fn only_the_namespaces_that_can_use_a_grant_count() {
    let two = ["shop", "ns"];
    let (any, ns) = ("/{namespace}/**", "/ns/{namespace}/**");
    assert_eq!(shared((any, &["shop"]), (ns, &[]), ""), None, "only shop can use the first");
    assert!(shared((any, &two), (ns, &[]), "").is_some());
    assert_eq!(shared((any, &two), (ns, &["ns"]), ""), None, "ns alone can use both");
    assert!(shared((any, &two), (ns, &["ns", "bank"]), "").is_some_and(|example| example.namespaces == ["ns", "bank"]));
    // Nothing can have these names.
    assert_eq!(shared(("/{namespace}/*", &["A", "a.b"]), ("/*/{namespace}", &[]), ""), None);
}

#[test]
fn the_clusters_name_is_a_literal() {
    let of_cluster = ("/{cluster}/{namespace}/**", &[][..]);
    assert_eq!(
        shared(of_cluster, ("/*/*/{namespace}", &[]), "prod").map(|found| found.path).unwrap(),
        "/prod/shop/bank"
    );
    assert_eq!(shared(of_cluster, ("/eu/*/{namespace}", &[]), "prod"), None);
    assert!(shared(of_cluster, ("/eu/*/{namespace}", &[]), "eu").is_some());
    assert_eq!(shared(of_cluster, ("/{namespace}/prod/**", &[]), "prod"), None, "both would be namespace prod");
    assert_eq!(shared(of_cluster, ("/{namespace}/a/**", &[]), "Prod"), None, "no namespace is called so");
}

#[test]
fn a_cluster_without_a_known_name_equals_no_literal() {
    let of_cluster = ("/{cluster}/*/{namespace}", &[][..]);
    assert_eq!(shared(of_cluster, ("/ns/{namespace}/**", &[]), ""), None);
    let found = shared(of_cluster, ("/{namespace}/**", &[]), "").unwrap();
    assert_eq!(found.namespaces, ["shop".to_owned(), "{cluster}".to_owned()]);
    assert_eq!(shared(of_cluster, ("/{namespace}/**", &["ns"]), ""), None);
}

#[test]
fn a_pair_is_told_with_both_positions_and_what_to_do() {
    let mut second = path_grant("/ns/{namespace}/**");
    second.paths.insert(0, PathPattern::parse("/x/{namespace}").unwrap());
    let shared = Grant { shared: true, ..path_grant("/*/{namespace}") };
    let domain = domain(vec![shared, path_grant("/{namespace}/**"), second]);
    let paths = domain.unshared_paths();
    let found: Vec<_> = path_overlaps(&paths, "prod", |_, _| true).map(|overlap| overlap.to_string()).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        found[1],
        "spec.grants[1].paths[0] (/{namespace}/**) and spec.grants[2].paths[1] (/ns/{namespace}/**) do not keep namespaces \
         apart: namespace ns can claim \"/ns/shop/x\" by the first and namespace shop by the second; put {namespace} at the \
         same position of both, begin them with different literals, restrict the grants by matchNames, or write `shared: \
         true` in one of the grants if that is meant"
    );
    assert_eq!(path_overlaps(&paths, "prod", |_, _| false).count(), 0);
}

// A DNS name has its namespace in it, or is for one namespace by name, or the owner says that it is shared.
#[test]
fn a_dns_name_for_several_namespaces_needs_their_name_in_it() {
    let named =
        |names: &[&str]| NamespaceSelector { names: names.iter().map(|&name| name.into()).collect(), labels: None };
    let grant = |text: &str| Grant { dns_names: vec![NamePattern::parse(text).unwrap()], ..path_grant("/{namespace}") };
    let found = |grant: Grant| {
        domain(vec![path_grant("/{namespace}"), grant]).unseparated_names().map(|name| name.to_string()).next()
    };

    for text in ["*.shop.example.org", "api.example.org", "{serviceAccount}.example.org", "{cluster}.example.org"] {
        assert!(
            found(grant(text))
                .is_some_and(|told| told.starts_with(&format!("spec.grants[1].dnsNames[0] ({text}) has no label")))
        );
        assert!(found(Grant { namespaces: named(&["a", "b"]), ..grant(text) }).is_some(), "{text} for two");
        assert_eq!(found(Grant { namespaces: named(&["a"]), ..grant(text) }), None, "{text} for one");
        assert_eq!(found(Grant { shared: true, ..grant(text) }), None, "{text} shared");
    }
    for text in ["*.{namespace}.svc", "{namespace}.example.org", "api.{namespace}.example.org"] {
        assert_eq!(found(grant(text)), None, "{text}");
    }
}

/// Small alphabets, in which what is a name of one kind is often one of another too.
const NAMESPACES: [&str; 3] = ["a", "b", "ns"];
const NAMES: [&str; 3] = ["a", "ns", "a.b"];
const LITERALS: [&str; 4] = ["a", "ns", "a.b", "A"];
/// The name of a cluster that the function is not told.
const UNKNOWN: &str = "c";

#[derive(Clone, Debug)]
struct Side {
    pattern: String,
    names: Vec<String>,
}

fn side() -> impl Strategy<Value = Side> {
    let segment = prop_oneof![
        3 => select(LITERALS.to_vec()),
        3 => Just("{namespace}"),
        3 => select(vec!["{serviceAccount}", "{podName}", "{cluster}"]),
        2 => Just("*"),
    ];
    let names = prop_oneof![2 => Just(Vec::new()), 1 => subsequence(NAMESPACES.to_vec(), 1..3)];
    (vec(segment, 1..4), any::<bool>(), names).prop_map(|(mut segments, rest, names)| {
        segments.extend(rest.then_some("**"));
        Side { pattern: format!("/{}", segments.join("/")), names: names.into_iter().map(str::to_owned).collect() }
    })
}

/// Every path of at most four segments that a namespace can claim, with `extra` as a further name of everything.
fn rendered(side: &Side, namespace: &str, cluster: &str, extra: &[&str]) -> BTreeSet<String> {
    let names: Vec<&str> = NAMES.iter().chain(extra).copied().collect();
    let all: Vec<&str> =
        LITERALS.iter().chain(&NAMESPACES).chain(extra).copied().collect::<BTreeSet<_>>().into_iter().collect();
    let mut segments: Vec<&str> = side.pattern.split('/').skip(1).collect();
    let rest = segments.last() == Some(&"**");
    segments.truncate(segments.len() - usize::from(rest));
    let mut found = BTreeSet::new();
    for (account, pod) in names.iter().flat_map(|account| names.iter().map(move |pod| (*account, *pod))) {
        let lengths = if rest { segments.len() + 1..=4 } else { segments.len()..=segments.len() };
        for length in lengths {
            let mut paths = vec![String::new()];
            for position in 0..length {
                let values: Vec<&str> = match segments.get(position).copied() {
                    None | Some("*") => all.clone(),
                    Some("{namespace}") => vec![namespace],
                    Some("{serviceAccount}") => vec![account],
                    Some("{podName}") => vec![pod],
                    Some("{cluster}") => vec![cluster],
                    Some(literal) => vec![literal],
                };
                paths =
                    paths.iter().flat_map(|path| values.iter().map(move |value| format!("{path}/{value}"))).collect();
            }
            found.extend(paths);
        }
    }
    found
}

/// Whether a namespace can claim a path by a pattern, whatever the pods are called.
fn can_claim(side: &Side, namespace: &str, path: &str, cluster: &str) -> bool {
    let is_label =
        |text: &str| text.len() <= 63 && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !text.is_empty();
    let is_name = |text: &str| text.split('.').all(is_label);
    let mut facts = BTreeMap::new();
    let mut path = path.split('/').skip(1);
    let fits = side.pattern.split('/').skip(1).all(|granted| {
        let Some(actual) = path.next() else { return false };
        match granted {
            "*" => true,
            "**" => path.by_ref().count() < usize::MAX,
            "{namespace}" => actual == namespace,
            "{cluster}" => actual == cluster,
            "{serviceAccount}" | "{podName}" => is_name(actual) && *facts.entry(granted).or_insert(actual) == actual,
            literal => actual == literal,
        }
    });
    let may_use = side.names.is_empty() || side.names.iter().any(|name| name == namespace);
    fits && path.next().is_none() && may_use && is_label(namespace)
}

proptest! {
    // R32, R48: exactly the pairs under which two namespaces can claim a path are found, and the example is one.
    #[test]
    fn what_is_found_is_what_two_namespaces_can_claim(first in side(), second in side(), named in any::<bool>()) {
        let (cluster, actual, extra): (_, _, &[&str]) = if named { ("a", "a", &[]) } else { ("", UNKNOWN, &[UNKNOWN]) };
        let found = shared_by(&first, &second, cluster);
        if let Some(Example { path, namespaces: [one, other] }) = &found {
            let [path, one, other] = [path, one, other].map(|text| text.replace("{cluster}", UNKNOWN));
            prop_assert!(one != other);
            prop_assert!(can_claim(&first, &one, &path, actual), "{one} {path}");
            prop_assert!(can_claim(&second, &other, &path, actual), "{other} {path}");
            return Ok(());
        }
        let namespaces: Vec<&str> = NAMESPACES.iter().chain(extra).copied().collect();
        let usable = |side: &Side, name: &str| side.names.is_empty() || side.names.iter().any(|one| one == name);
        let paths = |side: &Side| namespaces.iter().filter(|name| usable(side, name)).map(|name| (*name, rendered(side, name, actual, extra))).collect::<Vec<_>>();
        let others = paths(&second);
        for (one, claimed) in paths(&first) {
            for (other, rival) in others.iter().filter(|(other, _)| *other != one) {
                prop_assert!(claimed.is_disjoint(rival), "{one} and {other} share {:?}", claimed.intersection(rival).next());
            }
        }
    }

    #[test]
    fn the_order_of_two_patterns_does_not_matter(first in side(), second in side()) {
        prop_assert_eq!(shared_by(&first, &second, "a").is_some(), shared_by(&second, &first, "a").is_some());
    }
}
