//! Which identities could render the same SPIFFE ID, and which of two keeps it. Each id has one owner (R32): the oldest
//! claim that is granted. [`Claims`] finds overlaps without comparing all with all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::segment::{Placeholder, Segment};
use super::spec::IdentitySpec;
use crate::id::TrustDomain;

/// Whether some pod could get the same id from both. Symmetric; errs only towards overlap, where a segment depends on
/// the pod's or the cluster's name.
pub fn overlaps(a: &IdentitySpec, b: &IdentitySpec) -> bool {
    let (shapes, others) = (shapes(a), shapes(b));
    a.trust_domain == b.trust_domain && shapes.iter().any(|shape| others.iter().any(|other| intersect(shape, other)))
}

/// Whether `a` keeps what both claim: it is older, or as old and of lower uid.
pub fn wins(a: &IdentitySpec, b: &IdentitySpec) -> bool {
    a.precedence() < b.precedence()
}

/// The granted claims of all namespaces, indexed by what they can render.
///
/// Only claims that [`admit`](super::admit) accepts belong here: what is not granted takes nothing from anybody.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    domains: BTreeMap<TrustDomain, Node>,
    claimants: BTreeMap<Arc<str>, (Claimant, BTreeSet<Shape>)>,
}

impl Claims {
    /// Enters a granted claim, in place of an earlier one of the same uid.
    pub fn insert(&mut self, identity: &IdentitySpec) {
        self.remove(&identity.uid);
        let uid: Arc<str> = identity.uid.as_str().into();
        let shapes = shapes(identity);
        let root = self.domains.entry(identity.trust_domain.clone()).or_default();
        for shape in &shapes {
            root.insert(shape, &uid);
        }
        self.claimants.insert(uid, (Claimant::of(identity), shapes));
    }

    /// Takes a claim out, if it is there.
    pub fn remove(&mut self, uid: &str) {
        let Some((claimant, shapes)) = self.claimants.remove(uid) else { return };
        let Some(root) = self.domains.get_mut(&claimant.trust_domain) else { return };
        for shape in &shapes {
            root.remove(shape, uid);
        }
        if root.is_empty() {
            self.domains.remove(&claimant.trust_domain);
        }
    }

    /// Every other claim that overlaps, the oldest first: those whose outcome may change with `identity`.
    pub fn overlapping(&self, identity: &IdentitySpec) -> Vec<&Claimant> {
        let mut uids = BTreeSet::new();
        if let Some(root) = self.domains.get(&identity.trust_domain) {
            for shape in shapes(identity) {
                root.find(&shape, &mut uids);
            }
        }
        let others = uids.into_iter().filter(|uid| ***uid != *identity.uid);
        let mut found: Vec<&Claimant> =
            others.filter_map(|uid| self.claimants.get(uid)).map(|(found, _)| found).collect();
        found.sort_by(|a, b| a.precedence().cmp(&b.precedence()));
        found
    }

    /// The oldest other claim that overlaps and takes precedence. Whether that one is in conflict itself does not
    /// matter: so taking an object away never takes an identity from another.
    pub fn conflicting(&self, identity: &IdentitySpec) -> Option<&Claimant> {
        let oldest = self.overlapping(identity).into_iter().next()?;
        (oldest.precedence() < identity.precedence()).then_some(oldest)
    }
}

/// Who claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The WorkloadIdentity's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its creationTimestamp.
    pub created: Timestamp,
    trust_domain: TrustDomain,
}

impl Claimant {
    fn of(identity: &IdentitySpec) -> Self {
        Self {
            namespace: identity.namespace.clone(),
            name: identity.name.clone(),
            uid: identity.uid.clone(),
            created: identity.created,
            trust_domain: identity.trust_domain.clone(),
        }
    }

    fn precedence(&self) -> (Timestamp, &str) {
        (self.created, &self.uid)
    }
}

/// What an identity can render for one service account: each segment a value, or `None` for any.
type Shape = Vec<Option<Box<str>>>;

fn shapes(identity: &IdentitySpec) -> BTreeSet<Shape> {
    let accounts = &identity.selector.service_accounts;
    if accounts.is_empty() || !identity.path.uses(Placeholder::ServiceAccount) {
        return BTreeSet::from([shape(identity, None)]);
    }
    accounts.iter().map(|account| shape(identity, Some(account))).collect()
}

fn shape(identity: &IdentitySpec, account: Option<&str>) -> Shape {
    let value = |segment: &Segment| match segment {
        Segment::Literal(literal) => Some(literal.clone()),
        Segment::Fact(Placeholder::Namespace) => Some(identity.namespace.as_str().into()),
        Segment::Fact(Placeholder::ServiceAccount) => account.map(Into::into),
        Segment::Fact(Placeholder::PodName | Placeholder::Cluster) => None,
    };
    identity.path.segments().iter().map(value).collect()
}

fn intersect(a: &Shape, b: &Shape) -> bool {
    let compatible = |(a, b): (&Option<Box<str>>, &Option<Box<str>>)| a.is_none() || b.is_none() || a == b;
    a.len() == b.len() && a.iter().zip(b).all(compatible)
}

/// A trie over shapes.
#[derive(Clone, Debug, Default)]
struct Node {
    children: BTreeMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    claims: BTreeSet<Arc<str>>,
}

impl Node {
    fn insert(&mut self, shape: &[Option<Box<str>>], uid: &Arc<str>) {
        match shape.split_first() {
            None => {
                self.claims.insert(Arc::clone(uid));
            }
            Some((Some(value), rest)) => self.children.entry(value.clone()).or_default().insert(rest, uid),
            Some((None, rest)) => self.any.get_or_insert_default().insert(rest, uid),
        }
    }

    fn remove(&mut self, shape: &[Option<Box<str>>], uid: &str) {
        match shape.split_first() {
            None => {
                self.claims.remove(uid);
            }
            Some((Some(value), rest)) => {
                let Some(child) = self.children.get_mut(value) else { return };
                child.remove(rest, uid);
                if child.is_empty() {
                    self.children.remove(value);
                }
            }
            Some((None, rest)) => {
                let Some(child) = &mut self.any else { return };
                child.remove(rest, uid);
                if child.is_empty() {
                    self.any = None;
                }
            }
        }
    }

    fn find<'a>(&'a self, shape: &[Option<Box<str>>], found: &mut BTreeSet<&'a Arc<str>>) {
        let Some((first, rest)) = shape.split_first() else {
            found.extend(&self.claims);
            return;
        };
        if let Some(any) = &self.any {
            any.find(rest, found);
        }
        match first {
            Some(value) => {
                if let Some(child) = self.children.get(value) {
                    child.find(rest, found);
                }
            }
            None => self.children.values().for_each(|child| child.find(rest, found)),
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.claims.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::PathTemplate;
    use super::super::fixtures::identity;
    use super::*;

    fn claiming(namespace: &str, accounts: &[&str], path: &str) -> IdentitySpec {
        let mut identity = identity(namespace, accounts.first().unwrap_or(&"labelled"));
        identity.selector.service_accounts = accounts.iter().map(|&account| account.into()).collect();
        identity.path = PathTemplate::parse(path).unwrap();
        identity
    }

    fn names(found: &[&Claimant]) -> Vec<String> {
        found.iter().map(|claimant| claimant.uid.clone()).collect()
    }

    // R32
    #[test]
    fn overlap_is_that_both_could_render_the_same_id() {
        let default = "/ns/{namespace}/sa/{serviceAccount}";
        for (a, b, expected) in [
            (claiming("shop", &["a"], default), claiming("shop", &["a"], default), true),
            (claiming("shop", &["a"], default), claiming("shop", &["b"], default), false),
            (claiming("shop", &["a", "b"], default), claiming("shop", &["b", "c"], default), true),
            (claiming("shop", &["a"], default), claiming("bank", &["a"], default), false),
            (claiming("shop", &["a"], default), claiming("bank", &["x"], "/ns/shop/sa/a"), true),
            (claiming("shop", &["a"], default), claiming("bank", &["x"], "/ns/shop/sa/b"), false),
            (claiming("shop", &["a"], default), claiming("shop", &[], default), true),
            (claiming("shop", &["a"], "/{namespace}/{podName}"), claiming("shop", &["b"], "/{namespace}/web"), true),
            (claiming("shop", &["a"], "/{namespace}/{podName}"), claiming("bank", &["a"], "/{namespace}/web"), false),
            (
                claiming("shop", &["a"], "/x/{serviceAccount}/{serviceAccount}"),
                claiming("shop", &["b"], "/x/a/b"),
                false,
            ),
            (claiming("shop", &["a"], "/{cluster}/a"), claiming("bank", &["a"], "/prod/a"), true),
            (claiming("shop", &["a"], "/a"), claiming("shop", &["a"], "/a/a"), false),
        ] {
            assert_eq!(
                overlaps(&a, &b),
                expected,
                "{} of {} and {} of {}",
                a.path,
                a.full_name(),
                b.path,
                b.full_name()
            );
            assert_eq!(overlaps(&b, &a), expected);
        }
    }

    #[test]
    fn trust_domains_do_not_overlap() {
        let (a, mut b) = (identity("shop", "a"), identity("shop", "a"));
        b.trust_domain = "other.org".parse().unwrap();
        assert!(!overlaps(&a, &b));
        let mut claims = Claims::default();
        claims.insert(&a);
        assert!(claims.overlapping(&IdentitySpec { uid: "other".into(), ..b }).is_empty());
    }

    #[test]
    fn the_oldest_wins_then_the_lower_uid() {
        let old = identity("shop", "a");
        let young = IdentitySpec { created: Timestamp::from_second(2_000).unwrap(), uid: "a".into(), ..old.clone() };
        let twin = IdentitySpec { uid: "uid-zzz".into(), ..old.clone() };
        assert!(wins(&old, &young) && !wins(&young, &old));
        assert!(wins(&old, &twin) && !wins(&twin, &old));
        assert!(!wins(&old, &old));

        let mut claims = Claims::default();
        [&old, &young, &twin].into_iter().for_each(|identity| claims.insert(identity));
        assert_eq!(claims.conflicting(&old), None);
        assert_eq!(claims.conflicting(&young).map(|found| &found.uid), Some(&old.uid));
        assert_eq!(claims.conflicting(&twin).map(|found| &found.uid), Some(&old.uid));
        assert_eq!(names(&claims.overlapping(&old)), ["uid-zzz", "a"]);
    }

    #[test]
    fn a_claim_replaced_or_taken_out_no_longer_counts() {
        let holder = identity("shop", "a");
        let other = IdentitySpec { uid: "zzz".into(), ..holder.clone() };
        let mut claims = Claims::default();
        claims.insert(&holder);
        assert!(claims.conflicting(&other).is_some());
        claims.insert(&IdentitySpec { path: PathTemplate::parse("/elsewhere").unwrap(), ..holder.clone() });
        assert_eq!(claims.conflicting(&other), None);
        claims.insert(&holder);
        claims.insert(&IdentitySpec {
            uid: "by-pod".into(),
            path: PathTemplate::parse("/{podName}").unwrap(),
            ..holder.clone()
        });
        claims.remove(&holder.uid);
        claims.remove("by-pod");
        assert_eq!(claims.conflicting(&other), None);
        assert!(claims.domains.is_empty() && claims.claimants.is_empty());
    }
}
