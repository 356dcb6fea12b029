//! Checks that the grants of a TrustDomain separate namespaces. Stored grants that do not cause only a warning, so that the rest
//! of the object can be edited; the operator honours them and reports them in the status.

use countersign_core::entitlement::{Grant as ReadGrant, GrantedPath, UnseparatedName, path_overlaps};
use countersign_crds::Grant;

use super::Verdict;

/// The most overlaps of each kind in messages.
const MOST_OVERLAPS: usize = 8;

/// Checks the `grants` against each other. `read` are the same without the patterns that cannot be used, `stored` the
/// grants of the object that is replaced.
pub(super) fn separation(grants: &[Grant], read: &[ReadGrant], stored: &[Grant], verdict: &mut Verdict) {
    dns_names(grants, read, stored, verdict);
    paths(grants, read, stored, verdict);
}

/// The patterns with their positions among the texts that they were read from.
fn positions<'a, P: ToString>(texts: &[String], patterns: &'a [P]) -> impl Iterator<Item = (usize, &'a P)> {
    let mut texts = texts.iter().enumerate();
    patterns.iter().filter_map(move |pattern| {
        let written = pattern.to_string();
        texts.by_ref().find(|(_, text)| **text == written).map(|(index, _)| (index, pattern))
    })
}

/// A DNS name for several namespaces must contain their name, unless the grant is shared.
fn dns_names(grants: &[Grant], read: &[ReadGrant], stored: &[Grant], verdict: &mut Verdict) {
    let unshared = grants.iter().zip(read).enumerate().filter(|(_, (granted, _))| !granted.shared);
    for (grant, (granted, read)) in unshared {
        let names = &granted.namespaces.match_names;
        let patterns = positions(&granted.dns_names, &read.dns_names);
        for (index, pattern) in patterns.filter(|(_, pattern)| !pattern.keeps_namespaces_apart(names)) {
            let message = UnseparatedName { grant, index, pattern }.to_string();
            let text = pattern.to_string();
            let is_stored = unshared_for(stored, granted).any(|stored| stored.dns_names.contains(&text));
            if is_stored { &mut verdict.warnings } else { &mut verdict.problems }.push(message);
        }
    }
}

/// Checks that no two namespaces can claim the same path. Whether two patterns overlap depends only on their texts and
/// namespaces, so a pair that is stored already is not new.
fn paths(grants: &[Grant], read: &[ReadGrant], stored: &[Grant], verdict: &mut Verdict) {
    let mut paths = Vec::new();
    let mut kinds = Vec::new();
    for (grant, (granted, read)) in grants.iter().zip(read).enumerate() {
        let patterns = positions(&granted.paths, &read.paths);
        for (index, pattern) in patterns.filter(|(_, pattern)| granted.shared || pattern.is_namespaced()) {
            let text = pattern.to_string();
            paths.push(GrantedPath { grant, index, pattern, names: &granted.namespaces.match_names });
            kinds.push(match granted.shared {
                true => Kind::Shared,
                false if unshared_for(stored, granted).any(|stored| stored.paths.contains(&text)) => Kind::Stored,
                false => Kind::New,
            });
        }
    }
    let pair = |one: usize, other: usize| Some((*kinds.get(one)?, *kinds.get(other)?));
    // Overlaps that depend on the cluster's name, which only the operator knows, are reported in the status.
    let overlaps = |which: fn((Kind, Kind)) -> bool| {
        path_overlaps(&paths, "", move |one, other| pair(one, other).is_some_and(which)).take(MOST_OVERLAPS)
    };
    let refused = overlaps(|pair| matches!(pair, (Kind::New, Kind::New | Kind::Stored) | (Kind::Stored, Kind::New)));
    verdict.problems.extend(refused.map(|overlap| overlap.to_string()));
    let known = overlaps(|pair| pair == (Kind::Stored, Kind::Stored));
    verdict.warnings.extend(known.map(|overlap| overlap.to_string()));
    let shared = overlaps(|(one, other)| (one == Kind::Shared) != (other == Kind::Shared));
    verdict.warnings.extend(shared.map(|overlap| {
        format!(
            "{} and {}: one of the two grants is shared and covers ids of the other, such as {:?}, of which then the oldest \
             claim of any namespace holds",
            overlap.first, overlap.second, overlap.example.path
        )
    }));
}

/// The kind of a path pattern in the check of separation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Its grant is shared by namespaces.
    Shared,
    /// It is in the stored object for the same namespaces.
    Stored,
    New,
}

/// The stored grants for the same namespaces that are not shared.
fn unshared_for<'a>(stored: &'a [Grant], granted: &Grant) -> impl Iterator<Item = &'a Grant> {
    stored.iter().filter(|stored| !stored.shared && stored.namespaces == granted.namespaces)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{Verdict, testing::trust_domain};

    /// A TrustDomain with these grants: a selector of namespaces, paths, and further fields.
    fn domain(grants: &[(Value, &[&str], Value)]) -> Value {
        let grant = |(namespaces, paths, more): &(Value, &[&str], Value)| {
            let mut grant = json!({ "namespaces": namespaces, "paths": paths });
            for (key, value) in more.as_object().unwrap() {
                grant[key] = value.clone();
            }
            grant
        };
        json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": { "name": "example.org" },
            "spec": { "authority": {}, "grants": grants.iter().map(grant).collect::<Vec<_>>() },
        })
    }

    fn labelled() -> Value {
        json!({ "matchLabels": { "team": "shop" } })
    }

    fn named(names: &[&str]) -> Value {
        json!({ "matchNames": names })
    }

    fn created(grants: &[(Value, &[&str], Value)]) -> Verdict {
        trust_domain(&domain(grants), &Value::Null)
    }

    const BELOW: &[&str] = &["/{namespace}/**"];
    const BELOW_NS: &[&str] = &["/ns/{namespace}/**"];

    // R32, R48
    #[test]
    fn grants_by_which_two_namespaces_can_claim_one_path_are_refused() {
        let found = created(&[(labelled(), BELOW, json!({})), (named(&["a", "ns", "b"]), BELOW_NS, json!({}))]);
        let expected = "spec.grants[0].paths[0] (/{namespace}/**) and spec.grants[1].paths[0] (/ns/{namespace}/**) do not keep \
                        namespaces apart: namespace ns can claim \"/ns/a/x\" by the first and namespace a by the second";
        assert!(found.problems[0].starts_with(expected), "{found:?}");
        assert_eq!((found.problems.len(), found.warnings.len()), (1, 0));

        let one_grant =
            created(&[(labelled(), &["/ns/{namespace}/**", "/x/{namespace}/a", "/{namespace}/**"], json!({}))]);
        assert_eq!(one_grant.problems.len(), 2, "each pair is told: {one_grant:?}");

        let only_shop = created(&[(named(&["shop"]), BELOW, json!({})), (labelled(), BELOW_NS, json!({}))]);
        assert_eq!(only_shop, Verdict::default(), "no namespace but shop can use the first");
    }

    #[test]
    fn what_is_wrong_otherwise_is_told_with_the_overlaps() {
        let found = created(&[
            (labelled(), BELOW, json!({ "audiences": ["a b"] })),
            (labelled(), &["/ns/{namespace}/**", "/a//b"], json!({ "dnsNames": ["a..b", "api.example.org"] })),
        ]);
        for field in [
            "grants[0].audiences[0]",
            "grants[1].paths[1]",
            "grants[1].dnsNames[0]",
            "grants[1].dnsNames[1]",
            "keep namespaces",
        ] {
            assert!(found.problems.iter().any(|problem| problem.contains(field)), "{field}: {found:?}");
        }
        assert_eq!(found.problems.len(), 5);
    }

    // An upgrade causes no outage: grants that were stored before this check stay until they are changed.
    #[test]
    fn stored_grants_that_overlap_do_not_hinder_other_edits() {
        let stored =
            [(labelled(), BELOW, json!({})), (labelled(), BELOW_NS, json!({ "dnsNames": ["api.example.org"] }))];
        let edited = |grants: &[(Value, &[&str], Value)]| trust_domain(&domain(grants), &domain(&stored));
        let [first, second] = stored.clone();

        let mut more =
            [second.clone(), first.clone(), (labelled(), &["/x/y/{namespace}"][..], json!({ "audiences": ["a"] }))];
        more[1].2 = json!({ "audiences": ["b"] });
        let found = edited(&more);
        assert_eq!(found.problems.len(), 1, "the third pattern is new: {found:?}");
        assert!(found.problems[0].contains("spec.grants[1].paths[0] (/{namespace}/**) and spec.grants[2].paths[0]"));
        more[2].1 = &["/ns/{namespace}/a"];
        let found = edited(&more);
        assert_eq!(found.problems.len(), 1, "that with the new pattern alone: {found:?}");
        let found = edited(&more[..2]);
        assert_eq!(found.problems, [""; 0]);
        assert!(
            found.warnings[0].contains("dnsNames[0] (api.example.org)")
                && found.warnings[1].contains("do not keep namespaces apart")
        );
        assert_eq!(found.warnings.len(), 2);

        // Another pattern, other namespaces, or no longer shared: that is a change.
        for changed in [
            (labelled(), &["/ns/{namespace}/sa/**"][..], json!({})),
            (json!({ "matchLabels": { "team": "bank" } }), BELOW_NS, json!({})),
        ] {
            assert_eq!(edited(&[first.clone(), changed.clone()]).problems.len(), 1, "{changed:?}");
        }
        let shared = domain(&[first.clone(), (labelled(), BELOW_NS, json!({ "shared": true }))]);
        assert_eq!(trust_domain(&domain(&[first, second]), &shared).problems.len(), 2);
    }

    #[test]
    fn a_dns_name_for_several_namespaces_has_theirs_in_it_or_is_shared() {
        let of = |namespaces: Value, name: &str, shared: bool| {
            created(&[(namespaces, BELOW_NS, json!({ "dnsNames": [name], "shared": shared }))]).problems
        };
        for name in ["*.shop.example.org", "api.example.org", "{serviceAccount}.example.org"] {
            for several in [labelled(), named(&["a", "b"])] {
                let problems = of(several, name, false);
                assert!(
                    problems[0].starts_with(&format!("spec.grants[0].dnsNames[0] ({name}) has no label {{namespace}}"))
                );
            }
            assert!(of(labelled(), name, true).is_empty() && of(named(&["a"]), name, false).is_empty(), "{name}");
        }
        assert!(of(labelled(), "*.{namespace}.svc", false).is_empty());
    }

    #[test]
    fn a_shared_grant_over_ids_of_another_is_warned_of() {
        let shared = (labelled(), &["/ns/*/frontend"][..], json!({ "shared": true }));
        let found = created(&[(labelled(), BELOW_NS, json!({})), shared]);
        assert_eq!(found.problems, [""; 0]);
        assert!(
            found.warnings[0].contains("one of the two grants is shared")
                && found.warnings[0].contains("/ns/shop/frontend")
        );
        assert_eq!(found.warnings.len(), 1);
        let apart = (labelled(), &["/svc/*"][..], json!({ "shared": true }));
        assert_eq!(created(&[(labelled(), BELOW_NS, json!({})), apart.clone(), apart]), Verdict::default());
    }

    // A TrustDomain of maximum size is checked, and not all its problems are listed.
    #[test]
    fn a_few_of_many_overlaps_are_told() {
        let texts: Vec<_> = (0..20)
            .map(|i| format!("/{{namespace}}/{i}/*"))
            .chain((0..20).map(|i| format!("/*/{i}/{{namespace}}")))
            .collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        assert_eq!(created(&[(labelled(), &texts, json!({}))]).problems.len(), 8);
    }
}
