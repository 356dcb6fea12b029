//! What must hold whatever is claimed, granted and observed.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;

use super::claims_properties::overlap;
use super::fixtures::{domain, identity, path_grant, pod};
use super::{
    ClaimHistory, ClaimKey, GrantedPath, IdentitySpec, Judged, PathPattern, PathTemplate, Placeholder, PodFacts, Scope,
    claims_of,
};
use super::{identities_for, judge_all, path_overlaps};
use crate::id::SpiffeId;

const CLUSTER: &str = "prod";

/// Few values, so that overlaps are common; some are both names and literals.
fn word() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "shop", "prod"]).prop_map(str::to_owned)
}

fn template_segment() -> impl Strategy<Value = String> {
    prop_oneof![
        word(),
        select(vec!["{namespace}", "{serviceAccount}", "{podName}", "{cluster}"]).prop_map(str::to_owned)
    ]
}

fn path(segment: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    vec(segment, 1..4).prop_map(|segments| format!("/{}", segments.join("/")))
}

fn template() -> impl Strategy<Value = PathTemplate> {
    path(template_segment()).prop_map(|text| PathTemplate::parse(&text).unwrap())
}

fn pattern() -> impl Strategy<Value = PathPattern> {
    let body = path(prop_oneof![4 => template_segment(), 1 => Just("*".to_owned())]);
    (body, any::<bool>()).prop_map(|(body, rest)| PathPattern::parse(&if rest { body + "/**" } else { body }).unwrap())
}

/// A pattern made from a template by replacing segments, so that it often admits it.
fn related(template: &PathTemplate) -> impl Strategy<Value = PathPattern> + use<> {
    let segments: Vec<String> = template.segments().iter().map(ToString::to_string).collect();
    let one = |segment: String| prop_oneof![3 => Just(segment), 1 => Just("*".to_owned()), 2 => template_segment()];
    let patterns = segments.into_iter().map(one).collect::<Vec<_>>();
    (patterns, 0_usize..6).prop_map(|(mut segments, keep)| {
        if (1..segments.len()).contains(&keep) {
            segments.truncate(keep);
            segments.push("**".to_owned());
        }
        PathPattern::parse(&format!("/{}", segments.join("/"))).unwrap()
    })
}

/// A claim, a pattern that may admit it, and a pod that it likely selects.
fn claim_pattern_and_pod() -> impl Strategy<Value = (IdentitySpec, PathPattern, PodFacts)> {
    (spec(), pod_facts(), any::<prop::sample::Index>()).prop_flat_map(|(spec, mut pod, account)| {
        pod.namespace.clone_from(&spec.namespace);
        if !spec.selector.service_accounts.is_empty() {
            pod.service_account.clone_from(account.get(&spec.selector.service_accounts));
        }
        (related(&spec.path), Just(spec), Just(pod)).prop_map(|(pattern, spec, pod)| (spec, pattern, pod))
    })
}

fn spec() -> impl Strategy<Value = IdentitySpec> {
    (word(), prop::collection::btree_set(word(), 0..3), template(), 0_i64..4, 0_u32..1_000_000).prop_map(
        |(namespace, accounts, path, created, uid)| {
            let mut spec = identity(&namespace, "a");
            spec.selector.labels.match_labels.insert("app".into(), "x".into());
            spec.selector.service_accounts = accounts.into_iter().collect();
            spec.created = Timestamp::from_second(created).unwrap();
            spec.uid = format!("{uid:06}");
            IdentitySpec { path, name: spec.uid.clone(), ..spec }
        },
    )
}

/// Identities of distinct uids.
fn specs() -> impl Strategy<Value = Vec<IdentitySpec>> {
    vec(spec(), 1..12).prop_map(|specs| {
        let by_uid: BTreeMap<_, _> = specs.into_iter().map(|spec| (spec.uid.clone(), spec)).collect();
        by_uid.into_values().collect()
    })
}

fn pod_facts() -> impl Strategy<Value = PodFacts> {
    (word(), word(), word()).prop_map(|(namespace, account, name)| {
        let mut facts = pod(&namespace, &account);
        facts.labels.insert("app".into(), "x".into());
        PodFacts { name, ..facts }
    })
}

/// What a pattern means, written again and differently: the path is held against the pattern for this very pod.
fn in_granted_space(pattern: &str, path: &str, pod: &PodFacts) -> bool {
    let fits = |(granted, actual): (&str, &str)| match granted {
        "*" => true,
        "{namespace}" => actual == pod.namespace,
        "{serviceAccount}" => actual == pod.service_account,
        "{podName}" => actual == pod.name,
        "{cluster}" => actual == CLUSTER,
        literal => actual == literal,
    };
    let path: Vec<_> = path.split('/').skip(1).collect();
    let mut granted: Vec<_> = pattern.split('/').skip(1).collect();
    if granted.last() == Some(&"**") {
        granted.pop();
        return path.len() > granted.len() && granted.into_iter().zip(path).all(fits);
    }
    path.len() == granted.len() && granted.into_iter().zip(path).all(fits)
}

fn scope(spec: &IdentitySpec) -> Scope<'_> {
    Scope { namespace: &spec.namespace, cluster: CLUSTER, service_accounts: &spec.selector.service_accounts }
}

fn judged(specs: &[IdentitySpec]) -> Vec<Judged> {
    let mut grant = path_grant("/**");
    (grant.shared, grant.allow_label_only) = (true, true);
    let domain = Arc::new(domain(vec![grant]));
    let original = |_: &IdentitySpec| ClaimHistory::Original;
    judge_all(specs.iter().cloned().map(Arc::new), |_| Some(Arc::clone(&domain)), original, &BTreeMap::new())
}

/// The claims that an identity has and that are not lost.
fn held(judged: &Judged) -> Vec<ClaimKey> {
    let lost = |claim: &ClaimKey| judged.lost().iter().any(|lost| lost.claim == *claim);
    claims_of(judged.identity()).into_iter().filter(|claim| !lost(claim)).collect()
}

proptest! {
    // R48
    #[test]
    fn an_admitted_template_renders_only_granted_paths((spec, pattern, pod) in claim_pattern_and_pod()) {
        if pattern.admits(&spec.path, &scope(&spec)) {
            prop_assert!(spec.selector.selects_pod(&pod));
            let path = spec.path.render(&pod, CLUSTER).unwrap();
            prop_assert!(in_granted_space(&pattern.to_string(), &path, &pod), "{pattern} admitted {} and got {path}", spec.path);
        }
    }

    /// The other way round, where nothing depends on the pod's name or on which account of several it has.
    #[test]
    fn a_template_that_renders_granted_paths_is_admitted((spec, pattern, pod) in claim_pattern_and_pod()) {
        let fixed = spec.selector.service_accounts.len() == 1 && !spec.path.uses(Placeholder::PodName);
        let path = spec.path.render(&pod, CLUSTER).unwrap();
        let (pattern_text, other) = (pattern.to_string(), PodFacts { name: "other".into(), ..pod.clone() });
        if fixed && in_granted_space(&pattern_text, &path, &pod) && in_granted_space(&pattern_text, &path, &other) {
            prop_assert!(pattern.admits(&spec.path, &scope(&spec)), "{pattern} should admit {}", spec.path);
        }
    }

    // R48: a namespaced pattern never yields another namespace's id.
    #[test]
    fn a_namespaced_pattern_keeps_namespaces_apart(
        (a, pattern, facts) in claim_pattern_and_pod(), b in spec(), others in pod_facts(), same_path in any::<bool>(),
    ) {
        let b = if same_path { IdentitySpec { path: a.path.clone(), ..b } } else { b };
        let admitted = |spec: &IdentitySpec| pattern.admits(&spec.path, &scope(spec));
        if pattern.is_namespaced() && a.namespace != b.namespace && admitted(&a) && admitted(&b) {
            let (pod_a, pod_b) = (PodFacts { namespace: a.namespace.clone(), ..facts }, PodFacts { namespace: b.namespace.clone(), ..others });
            prop_assert!(a.path.render(&pod_a, CLUSTER) != b.path.render(&pod_b, CLUSTER));
        }
    }

    // R32, R48: nor do two patterns that are found to keep namespaces apart.
    #[test]
    fn separate_patterns_keep_namespaces_apart((a, one, pod_a) in claim_pattern_and_pod(), (b, other, pod_b) in claim_pattern_and_pod()) {
        let granted = [&one, &other].map(|pattern| GrantedPath { grant: 0, index: 0, pattern, names: &[] });
        let separate = path_overlaps(&granted, CLUSTER, |_, _| true).next().is_none();
        let admitted = one.admits(&a.path, &scope(&a)) && other.admits(&b.path, &scope(&b));
        if separate && admitted && a.namespace != b.namespace {
            prop_assert!(a.path.render(&pod_a, CLUSTER) != b.path.render(&pod_b, CLUSTER));
        }
    }

    // R32: canonical URIs, whatever a pod claims to be.
    #[test]
    fn rendering_never_yields_an_invalid_id(text in "/[a-z{}]{0,5}(/(\\{podName\\}|\\{serviceAccount\\}|[a-z.]{0,3})){0,4}", name in ".{0,6}", account in "\\PC{0,300}") {
        let Ok(template) = PathTemplate::parse(&text) else { return Ok(()) };
        let pod = PodFacts { name, service_account: account, ..pod("shop", "x") };
        if let Ok(path) = template.render(&pod, CLUSTER) {
            let longest = "a".repeat(255).parse().unwrap();
            let id = SpiffeId::new(&longest, &path);
            prop_assert!(id.is_ok(), "{path}: {id:?}");
            prop_assert_eq!(id.unwrap().segments().count(), template.segments().len());
        }
    }

    // R33
    #[test]
    fn a_template_reads_back_as_it_prints(template in template(), pattern in pattern()) {
        prop_assert_eq!(PathTemplate::parse(&template.to_string()).unwrap(), template);
        prop_assert_eq!(PathPattern::parse(&pattern.to_string()).unwrap(), pattern);
    }

    #[test]
    fn parsers_never_panic(text in "\\PC{0,40}") {
        let _ = (PathTemplate::parse(&text), PathPattern::parse(&text), super::AudiencePattern::parse(&text));
        let _ = (super::NameTemplate::parse(&text), super::NamePattern::parse(&text));
    }

    // R32
    #[test]
    fn identities_without_overlap_never_render_the_same_id(a in spec(), b in spec(), pod_a in pod_facts(), pod_b in pod_facts()) {
        let (pod_a, pod_b) = (PodFacts { namespace: a.namespace.clone(), ..pod_a }, PodFacts { namespace: b.namespace.clone(), ..pod_b });
        let selected = a.selector.selects_pod(&pod_a) && b.selector.selects_pod(&pod_b);
        let overlaps = claims_of(&a).iter().any(|one| claims_of(&b).iter().any(|other| overlap(one, other)));
        if selected && !overlaps {
            prop_assert!(a.path.render(&pod_a, CLUSTER).unwrap() != b.path.render(&pod_b, CLUSTER).unwrap());
        }
    }

    // R32: one owner for each id, whoever asks and in whatever order objects came.
    #[test]
    fn no_two_held_claims_overlap_and_order_does_not_matter(specs in specs()) {
        let judged_forward = judged(&specs);
        let reversed: Vec<_> = specs.iter().rev().cloned().collect();
        let mut judged_backward = judged(&reversed);
        judged_backward.reverse();
        prop_assert_eq!(&judged_forward, &judged_backward);
        for (index, a) in judged_forward.iter().enumerate() {
            for b in judged_forward.iter().skip(index + 1) {
                prop_assert!(held(a).iter().all(|one| held(b).iter().all(|other| !overlap(one, other))));
            }
        }
        let oldest = specs.iter().min_by_key(|spec| spec.precedence()).unwrap();
        let oldest = judged_forward.iter().find(|judged| judged.identity().uid == oldest.uid).unwrap();
        prop_assert!(oldest.is_admitted() && oldest.lost().is_empty());
    }

    #[test]
    fn taking_an_identity_away_takes_nothing_from_others(specs in specs(), gone in any::<prop::sample::Index>()) {
        let gone = gone.get(&specs).uid.clone();
        let rest: Vec<_> = specs.iter().filter(|spec| spec.uid != gone).cloned().collect();
        let before = judged(&specs);
        for after in judged(&rest) {
            let before = before.iter().find(|before| before.identity().uid == after.identity().uid).unwrap();
            prop_assert!(held(before).iter().all(|claim| held(&after).contains(claim)));
        }
    }

    // R32: pods of two identities never hold the same id.
    #[test]
    fn what_pods_get_has_one_owner(specs in specs(), pods in vec(pod_facts(), 2..5)) {
        let judged = judged(&specs);
        let mut owners = BTreeMap::new();
        for pod in &pods {
            for entitled in identities_for(pod, "", &judged).unwrap_or_default() {
                let owner = owners.entry(entitled.id.clone()).or_insert_with(|| entitled.identity.uid.clone());
                prop_assert_eq!(&*owner, &entitled.identity.uid);
            }
        }
    }
}
