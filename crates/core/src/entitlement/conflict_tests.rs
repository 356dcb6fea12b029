use super::super::fixtures::identity;
use super::super::{NameTemplate, PathTemplate};
use super::*;

const NAME: &str = "/ns/{namespace}/sa/{serviceAccount}";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// An identity called `uid`, created at that second.
fn claiming(namespace: &str, uid: &str, created: i64, path: &str) -> IdentitySpec {
    let path = PathTemplate::parse(path).unwrap();
    IdentitySpec { name: uid.into(), uid: uid.into(), created: at(created), path, ..identity(namespace, "a") }
}

fn naming(namespace: &str, uid: &str, created: i64, name: &str) -> IdentitySpec {
    let mut naming = claiming(namespace, uid, created, &format!("/{uid}"));
    naming.x509.dns_names = vec![NameTemplate::parse(name).unwrap()];
    naming
}

fn recorded(identity: &IdentitySpec, since: i64) -> ClaimHistory {
    ClaimHistory::Recorded(claims_of(identity).into_iter().map(|claim| (claim, at(since))).collect())
}

fn entered(identities: &[&IdentitySpec]) -> Claims {
    let mut claims = Claims::default();
    for identity in identities {
        claims.insert(identity, &ClaimHistory::Original);
    }
    claims
}

/// To whom the claims of an identity are lost.
fn lost_to(claims: &Claims, identity: &IdentitySpec) -> Vec<String> {
    claims.lost(identity).into_iter().map(|lost| lost.name).collect()
}

fn uids(claimants: &[Arc<Claimant>]) -> Vec<&str> {
    claimants.iter().map(|claimant| claimant.uid.as_str()).collect()
}

// R32
#[test]
fn overlap_is_that_both_could_render_the_same_id() {
    let with = |namespace, accounts: &[&str], path| {
        let mut claiming = claiming(namespace, &format!("{namespace}{accounts:?}{path}"), 1, path);
        claiming.selector.service_accounts = accounts.iter().map(|&account| account.into()).collect();
        claiming
    };
    for (a, b, expected) in [
        (with("shop", &["a"], NAME), with("shop", &["a"], "/ns/shop/sa/{serviceAccount}"), true),
        (with("shop", &["a"], NAME), with("shop", &["b"], NAME), false),
        (with("shop", &["a", "b"], NAME), with("shop", &["b", "c"], NAME), true),
        (with("shop", &["a"], NAME), with("bank", &["a"], NAME), false),
        (with("shop", &["a"], NAME), with("bank", &["x"], "/ns/shop/sa/a"), true),
        (with("shop", &["a"], NAME), with("bank", &["x"], "/ns/shop/sa/b"), false),
        (with("shop", &["a"], NAME), with("shop", &[], NAME), true),
        (with("shop", &["a"], "/{namespace}/{podName}"), with("shop", &["b"], "/{namespace}/web"), true),
        (with("shop", &["a"], "/{namespace}/{podName}"), with("bank", &["a"], "/{namespace}/web"), false),
        (with("shop", &["a"], "/x/{serviceAccount}/{serviceAccount}"), with("shop", &["b"], "/x/a/b"), false),
        (with("shop", &["a"], "/{cluster}/a"), with("bank", &["a"], "/prod/a"), true),
        (with("shop", &["a"], "/a"), with("shop", &["a"], "/a/a"), false),
    ] {
        let claims = entered(&[&a, &b]);
        let lost = !claims.lost(&a).is_empty() || !claims.lost(&b).is_empty();
        assert_eq!(lost, expected, "{} and {}", a.uid, b.uid);
    }
}

#[test]
fn trust_domains_do_not_overlap() {
    let (a, mut b) = (claiming("shop", "a", 1, NAME), claiming("shop", "b", 2, NAME));
    b.trust_domain = "other.org".parse().unwrap();
    assert!(entered(&[&a, &b]).lost(&b).is_empty());
}

#[test]
fn the_oldest_claim_holds_then_that_of_the_older_object_then_that_of_the_lower_uid() {
    let [old, young, twin] = [("m", 1), ("a", 2), ("z", 1)].map(|(uid, created)| claiming("shop", uid, created, NAME));
    let claims = entered(&[&young, &twin, &old]);
    assert_eq!(lost_to(&claims, &old), [""; 0]);
    assert_eq!((lost_to(&claims, &young), lost_to(&claims, &twin)), (vec!["m".to_owned()], vec!["m".to_owned()]));
    let mut claims = Claims::default();
    claims.insert(&old, &recorded(&old, 100));
    claims.insert(&young, &recorded(&young, 50));
    assert_eq!(lost_to(&claims, &old), ["a"], "the age is that of the claim");
}

// Finding 1: an older object that moves to what another holds.
#[test]
fn a_claim_that_is_new_to_an_old_object_is_the_youngest() {
    let old = claiming("shop", "old", 1, "/svc/payments");
    let holder = claiming("bank", "holder", 500, "/svc/payments");
    let parked = ClaimKey { kind: ClaimKind::Path, value: "/svc/parked".into() };
    for history in [ClaimHistory::Changed, ClaimHistory::Recorded([(parked, at(1))].into())] {
        for holding in [ClaimHistory::Original, recorded(&holder, 500)] {
            let mut claims = Claims::default();
            claims.insert(&old, &history);
            claims.insert(&holder, &holding);
            assert_eq!((lost_to(&claims, &old), lost_to(&claims, &holder)), (vec!["holder".to_owned()], vec![]));
        }
    }
}

// Clocks differ, and a creationTimestamp has whole seconds.
#[test]
fn an_object_made_right_after_a_claim_was_recorded_is_younger_although_its_clock_says_otherwise() {
    let holder = claiming("bank", "holder", 1, "/svc/payments");
    let late = claiming("shop", "late", 970, "/svc/payments");
    let mut claims = Claims::default();
    claims.insert(&holder, &recorded(&holder, 1_000));
    claims.insert(&late, &ClaimHistory::Original);
    assert_eq!(lost_to(&claims, &late), ["holder"]);
    let since = claims.record(&late, &ClaimHistory::Original, Standing::Granted, at(940)).unwrap();
    assert!(since.values().all(|since| *since > at(1_000)), "nor once it is recorded: {since:?}");
}

#[test]
fn what_is_not_entered_is_the_youngest() {
    let (old, young) = (claiming("shop", "old", 1, NAME), claiming("shop", "young", 2, NAME));
    assert_eq!(lost_to(&entered(&[&young]), &old), ["young"]);
    assert_eq!(lost_to(&Claims::default(), &old), [""; 0]);
}

#[test]
fn a_claim_replaced_or_taken_out_no_longer_counts() {
    let (holder, other) = (claiming("shop", "a", 1, NAME), claiming("shop", "b", 2, NAME));
    let mut claims = entered(&[&holder, &other]);
    let elsewhere = claiming("shop", "a", 1, "/elsewhere");
    assert_eq!(uids(&claims.insert(&elsewhere, &ClaimHistory::Original)), ["b"]);
    assert!(claims.lost(&other).is_empty());
    claims.insert(&holder, &ClaimHistory::Original);
    claims.insert(&claiming("shop", "by-pod", 3, "/{podName}"), &ClaimHistory::Original);
    for uid in ["a", "by-pod", "b", "b"] {
        claims.remove(uid);
    }
    assert!(claims.shapes.is_empty() && claims.rivals.is_empty() && claims.entered.is_empty());
}

#[test]
fn a_dns_name_has_one_namespace_within_which_it_may_be_claimed_again() {
    let first = naming("bank", "first", 1, "pay.example.org");
    let late = naming("shop", "late", 2, "{podName}.example.org");
    let second = naming("bank", "second", 3, "pay.example.org");
    let mut claims = entered(&[&second, &late, &first]);
    assert_eq!((lost_to(&claims, &first), lost_to(&claims, &second)), (vec![], vec![]));
    assert_eq!(lost_to(&claims, &late), ["first"]);
    let concerned = claims.remove("first");
    assert_eq!(uids(&concerned), ["second", "late"], "late is older than second");
    assert_eq!((lost_to(&claims, &late), lost_to(&claims, &second)), (vec![], vec!["late".to_owned()]));
}

/// Of one owner the oldest claim decides for all: when it goes, another owner may be older than what is left.
#[test]
fn whoever_shares_an_outcome_is_concerned_when_the_claim_that_decided_it_goes_or_comes() {
    let shop = |uid, created, name| naming("shop", uid, created, name);
    let (other, first, later) =
        (shop("other", 1, "z.svc"), shop("first", 2, "{podName}.svc"), shop("later", 4, "{podName}.svc"));
    let rival = naming("bank", "rival", 3, "b.svc");
    let mut claims = Claims::default();
    for (identity, since) in [(&other, 1), (&first, 2), (&rival, 3), (&later, 4)] {
        claims.insert(identity, &recorded(identity, since));
    }
    assert_eq!(lost_to(&claims, &rival), ["first"]);
    assert!(lost_to(&claims, &later).is_empty());
    let concerned = claims.remove("first");
    assert!(uids(&concerned).contains(&"later"), "{concerned:?}");
    assert_eq!(lost_to(&claims, &later), ["rival"]);
    assert!(lost_to(&claims, &rival).is_empty());
    let concerned = claims.insert(&first, &recorded(&first, 2));
    assert!(uids(&concerned).contains(&"later"), "{concerned:?}");
    assert!(lost_to(&claims, &later).is_empty());
}

#[test]
fn recording_says_since_when_and_keeps_what_is_recorded() {
    let original = claiming("shop", "a", 5, "/a");
    let mut claims = entered(&[&original]);
    let record = |claims: &mut Claims, identity: &IdentitySpec, history: &ClaimHistory, standing| {
        let recorded = claims.record(identity, history, standing, at(900))?;
        Some(
            recorded
                .into_iter()
                .map(|(claim, since)| (claim.value.into(), since.as_second()))
                .collect::<Vec<(String, _)>>(),
        )
    };
    let original_history = ClaimHistory::Original;
    let entry = |value: &str, since| Some(vec![(value.to_owned(), since)]);
    assert_eq!(record(&mut claims, &original, &original_history, Standing::Granted), entry("/a", 5));
    assert_eq!(record(&mut claims, &original, &original_history, Standing::NotGranted), Some(vec![]));
    assert_eq!(record(&mut claims, &original, &original_history, Standing::Unknown), None, "nothing was decided");

    let moved = claiming("shop", "a", 5, "/b");
    let history = recorded(&original, 5);
    claims.insert(&moved, &history);
    assert_eq!(record(&mut claims, &moved, &history, Standing::Granted), entry("/b", 900), "what it left is forgotten");
    assert_eq!(record(&mut claims, &moved, &history, Standing::Unknown), Some(vec![]));
    let history = recorded(&moved, 7);
    claims.insert(&moved, &history);
    assert_eq!(record(&mut claims, &moved, &history, Standing::Granted), entry("/b", 7));
    assert_eq!(record(&mut claims, &moved, &history, Standing::Unknown), entry("/b", 7), "its owner decided nothing");
}

// Two that are not recorded: were the loser recorded first, it would be the older one.
#[test]
fn a_claim_is_not_recorded_before_that_to_which_it_loses() {
    let (holder, loser) = (claiming("bank", "holder", 1, "/x"), claiming("shop", "loser", 2, "/x"));
    let mut claims = Claims::default();
    claims.insert(&holder, &ClaimHistory::Changed);
    claims.insert(&loser, &ClaimHistory::Changed);
    let record = |claims: &mut Claims, identity, now| {
        claims.record(identity, &ClaimHistory::Changed, Standing::Granted, at(now)).unwrap()
    };
    assert!(record(&mut claims, &loser, 900).is_empty());
    let since = record(&mut claims, &holder, 900);
    let concerned = claims.insert(&holder, &ClaimHistory::Recorded(since.clone()));
    assert_eq!(uids(&concerned), ["loser"], "it is looked at again");
    let later = record(&mut claims, &loser, 100);
    assert!(later.values().next() > since.values().next(), "whatever the clock says");
}

#[test]
fn the_work_of_one_change_does_not_grow_with_the_number_of_claims() {
    const MANY: i64 = 2_000;
    let by_pod = |n: i64| claiming("shop", &format!("{n:05}"), 1_000 + n, "/x/{podName}");
    let mut claims = Claims::default();
    let (mut most_concerned, mut most_visited) = (0, 0);
    let mut all = (0..MANY).rev().map(by_pod).collect::<Vec<_>>();
    // Also in the order in which each newcomer is the oldest.
    for identity in &all {
        let before = claims.visited();
        most_concerned = claims.insert(identity, &ClaimHistory::Original).len().max(most_concerned);
        most_visited = (claims.visited() - before).max(most_visited);
    }
    let elsewhere = claiming("bank", "elsewhere", 1, "/ns/bank/sa/a");
    let before = claims.visited();
    assert!(claims.insert(&elsewhere, &ClaimHistory::Original).is_empty());
    most_visited = (claims.visited() - before).max(most_visited);
    assert_eq!(
        claims.take_renamed().len(),
        all.len(),
        "those who lose to another are named once, however often it changed"
    );
    assert!(!claims.has_renamed());
    all.reverse();
    for identity in &all {
        assert!(claims.lost(identity).len() <= 1);
        let before = claims.visited();
        most_concerned = claims.remove(&identity.uid).len().max(most_concerned);
        most_visited = (claims.visited() - before).max(most_visited);
    }
    assert!(most_concerned <= RENAMED_AT_ONCE, "{most_concerned}");
    assert!(most_visited <= 20, "{most_visited}");
}
