//! What a WorkloadIdentity claims for itself alone (its ids and its DNS names), and how old each claim is. Precedence
//! between identities is that of their claims, not of their objects: an update must not take what another holds (R32).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::segment::{Placeholder, check_dns_label, check_path_segment};
use super::spec::IdentitySpec;

/// By how much the clock that sets `creationTimestamp` may differ from the leader's. An object's claims count as that much
/// younger than the object until the leader has recorded them: so a claim that was recorded a moment ago is never
/// displaced by an object that was created after it.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// The longest DNS name (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 253;

/// Stands in a claim for a part that differs between pods. No literal is equal to it.
pub(super) const ANY: &str = "*";

/// What kind of name is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClaimKind {
    /// The path of a SPIFFE ID. One identity holds it.
    Path,
    /// A DNS name. One namespace holds it.
    DnsName,
}

impl ClaimKind {
    pub(super) const fn separator(self) -> char {
        match self {
            Self::Path => '/',
            Self::DnsName => '.',
        }
    }
}

/// One claim of an identity: a path or DNS name with the namespace and the service account filled in, and `*` for each
/// segment or label that differs between pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimKey {
    /// What kind of name.
    pub kind: ClaimKind,
    /// Such as `/ns/shop/sa/orders`, `/pods/*` or `orders.shop.svc`.
    pub value: Box<str>,
}

impl ClaimKey {
    /// The segments or labels; `None` for one that differs between pods.
    pub(super) fn parts(&self) -> impl Iterator<Item = Option<&str>> {
        self.value.split(self.kind.separator()).map(|part| (part != ANY).then_some(part))
    }
}

/// Every claim of an identity.
pub fn claims_of(identity: &IdentitySpec) -> BTreeSet<ClaimKey> {
    let paths = of_template(identity, ClaimKind::Path, &identity.path.to_string());
    let names = identity.x509.dns_names.iter();
    paths
        .into_iter()
        .chain(names.flat_map(|name| of_template(identity, ClaimKind::DnsName, &name.to_string())))
        .collect()
}

/// The claim to which the path of a pod of `account` belongs.
pub(super) fn path_claim(identity: &IdentitySpec, account: &str) -> Option<ClaimKey> {
    of_account(identity, ClaimKind::Path, &identity.path.to_string(), Some(account))
}

/// The claim to which a DNS name of a pod of `account` belongs.
pub(super) fn name_claim(identity: &IdentitySpec, name: &str, account: &str) -> Option<ClaimKey> {
    of_account(identity, ClaimKind::DnsName, name, Some(account))
}

fn of_template(identity: &IdentitySpec, kind: ClaimKind, template: &str) -> BTreeSet<ClaimKey> {
    let accounts = &identity.selector.service_accounts;
    let per_account = template.split(kind.separator()).any(|part| part == Placeholder::ServiceAccount.to_string());
    if accounts.is_empty() || !per_account {
        return of_account(identity, kind, template, None).into_iter().collect();
    }
    accounts.iter().filter_map(|account| of_account(identity, kind, template, Some(account))).collect()
}

/// None where no pod of the account can render the template.
fn of_account(identity: &IdentitySpec, kind: ClaimKind, template: &str, account: Option<&str>) -> Option<ClaimKey> {
    let is = |part: &str, placeholder: Placeholder| {
        part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) == Some(placeholder.name())
    };
    let account = account.filter(|_| !identity.selector.service_accounts.is_empty());
    let check = match kind {
        ClaimKind::Path => check_path_segment,
        ClaimKind::DnsName => check_dns_label,
    };
    let mut value = String::with_capacity(template.len());
    for (index, part) in template.split(kind.separator()).enumerate() {
        if index > 0 {
            value.push(kind.separator());
        }
        let filled = if is(part, Placeholder::Namespace) {
            check(&identity.namespace).ok()?;
            &identity.namespace
        } else if is(part, Placeholder::ServiceAccount) {
            account.map_or(Ok(ANY), |account| check(account).map(|()| account)).ok()?
        } else if is(part, Placeholder::PodName) || is(part, Placeholder::Cluster) {
            ANY
        } else {
            part
        };
        value.push_str(filled);
    }
    let fits = kind != ClaimKind::DnsName || value.len() <= LONGEST_NAME;
    fits.then(|| ClaimKey { kind, value: value.into() })
}

/// What is known of the ages of an identity's claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimHistory {
    /// What the leader recorded: since when each claim is granted. A claim that is not in it is the youngest of all.
    Recorded(BTreeMap<ClaimKey, Timestamp>),
    /// Nothing is recorded yet, and the claims are those with which the object was created: they are as old as it is.
    Original,
    /// Nothing is recorded yet, and the claims may have changed since: they are the youngest of all.
    Changed,
}

/// How the grants stand to an identity's claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All of them are granted.
    Granted,
    /// They are not granted.
    NotGranted,
    /// It cannot be said: there is no TrustDomain of that name. Its owner has decided nothing.
    Unknown,
}

/// The age of a claim that is not recorded: the youngest of all.
pub(super) const UNRECORDED: Timestamp = Timestamp::MAX;

impl ClaimHistory {
    /// Since when the claim counts.
    pub(super) fn since(&self, claim: &ClaimKey, created: Timestamp) -> Timestamp {
        match self {
            Self::Recorded(recorded) => recorded.get(claim).copied().unwrap_or(UNRECORDED),
            Self::Original => not_before(created),
            Self::Changed => UNRECORDED,
        }
    }

    /// What stays recorded while nothing can be said of the grants: whatever is still claimed.
    pub(super) fn kept(&self, claims: &BTreeSet<ClaimKey>) -> Option<BTreeMap<ClaimKey, Timestamp>> {
        let Self::Recorded(recorded) = self else { return None };
        let claimed = |(claim, since): (&ClaimKey, &Timestamp)| claims.contains(claim).then(|| (claim.clone(), *since));
        Some(recorded.iter().filter_map(claimed).collect())
    }
}

/// The latest time, by the leader's clock, at which an object with this `creationTimestamp` was created.
pub(super) fn not_before(created: Timestamp) -> Timestamp {
    created.checked_add(CLOCK_TOLERANCE).unwrap_or(UNRECORDED)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::identity;
    use super::super::{NameTemplate, PathTemplate};
    use super::*;

    fn values(accounts: &[&str], path: &str, names: &[&str]) -> Vec<String> {
        let mut identity = identity("shop", "x");
        identity.selector.service_accounts = accounts.iter().map(|&account| account.into()).collect();
        identity.path = PathTemplate::parse(path).unwrap();
        identity.x509.dns_names = names.iter().map(|name| NameTemplate::parse(name).unwrap()).collect();
        claims_of(&identity).into_iter().map(|claim| claim.value.into()).collect()
    }

    #[test]
    fn a_claim_is_what_can_be_rendered_for_each_account() {
        let default = "/ns/{namespace}/sa/{serviceAccount}";
        assert_eq!(values(&["a", "b"], default, &[]), ["/ns/shop/sa/a", "/ns/shop/sa/b"]);
        assert_eq!(values(&[], default, &[]), ["/ns/shop/sa/*"]);
        assert_eq!(values(&["a", "b"], "/{cluster}/{podName}", &["api.{namespace}.svc"]), ["/*/*", "api.shop.svc"]);
        assert_eq!(values(&["a"], "/x", &["{serviceAccount}.{podName}.svc"]), ["/x", "a.*.svc"]);
    }

    // A name that no pod can have is not kept from those who can.
    #[test]
    fn what_cannot_be_rendered_is_not_claimed() {
        assert_eq!(values(&["a.b", "c"], "/x", &["{serviceAccount}.svc"]), ["/x", "c.svc"]);
        let long = ["{serviceAccount}", &"a".repeat(60), &"b".repeat(60), &"c".repeat(60), &"d".repeat(50)].join(".");
        assert_eq!(values(&["short", &"e".repeat(63)], "/x", &[&long]).len(), 2);
    }

    #[test]
    fn the_claim_of_a_pod_is_among_those_of_its_identity() {
        let mut both = identity("shop", "a");
        both.selector.service_accounts.push("b".into());
        let mut labelled = both.clone();
        labelled.selector.service_accounts.clear();
        for identity in [both, labelled] {
            assert!(claims_of(&identity).contains(&path_claim(&identity, "b").unwrap()));
        }
    }

    #[test]
    fn what_is_not_recorded_is_the_youngest_unless_it_is_as_old_as_its_object() {
        let claim = ClaimKey { kind: ClaimKind::Path, value: "/a".into() };
        let at = |second| Timestamp::from_second(second).unwrap();
        let recorded = ClaimHistory::Recorded([(claim.clone(), at(7))].into());
        assert_eq!(recorded.since(&claim, at(1)), at(7));
        assert_eq!(recorded.since(&ClaimKey { value: "/b".into(), ..claim }, at(1)), UNRECORDED);
        assert_eq!(ClaimHistory::Recorded(BTreeMap::new()).since(&claim, at(1)), UNRECORDED);
        assert_eq!(ClaimHistory::Changed.since(&claim, at(1)), UNRECORDED);
        assert_eq!(ClaimHistory::Original.since(&claim, at(1)), at(61));
    }
}
