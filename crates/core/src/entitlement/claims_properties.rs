//! Whatever two namespaces, the owner of the trust domain and the leader do, one after the other.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::collection::{btree_set, vec};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;
use proptest::test_runner::TestCaseError;

use super::fixtures::identity;
use super::{ClaimHistory, ClaimKey, ClaimKind, Claims, IdentitySpec, NameTemplate, PathTemplate, Standing, claims_of};

/// Whether some pod could have the same name from both.
pub(super) fn overlap(a: &ClaimKey, b: &ClaimKey) -> bool {
    let (a_parts, b_parts): (Vec<_>, Vec<_>) = (a.parts().collect(), b.parts().collect());
    let compatible = |(a, b): (&Option<&str>, &Option<&str>)| a.is_none() || b.is_none() || a == b;
    a.kind == b.kind && a_parts.len() == b_parts.len() && a_parts.iter().zip(&b_parts).all(compatible)
}

const PATHS: [&str; 6] = [
    "/svc/pay",
    "/svc/{serviceAccount}",
    "/svc/{podName}",
    "/{podName}/pay",
    "/ns/{namespace}",
    "/{cluster}/{podName}",
];
const NAMES: [&str; 3] = ["pay.example.org", "{serviceAccount}.example.org", "{podName}.example.org"];
const ACCOUNTS: [&str; 3] = ["pay", "cart", "web"];

#[derive(Clone, Debug)]
struct Written {
    path: usize,
    accounts: BTreeSet<usize>,
    names: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum Step {
    Create {
        bank: bool,
        written: Written,
    },
    Edit {
        which: usize,
        written: Written,
    },
    /// Something that is no claim.
    Touch {
        which: usize,
    },
    Delete {
        which: usize,
    },
    /// The owner of the trust domain grants these paths to a namespace, or its labels do.
    Grant {
        bank: bool,
        paths: BTreeSet<usize>,
    },
    /// The TrustDomain is deleted, or applied again.
    Domain {
        there: bool,
    },
    /// A leader looks at every object, by a clock that is so far off, beginning somewhere.
    Record {
        skew: i64,
        first: usize,
    },
}

#[derive(Clone, Debug)]
struct Object {
    spec: IdentitySpec,
    path: usize,
    generation: u32,
    recorded: Option<BTreeMap<ClaimKey, Timestamp>>,
}

impl Object {
    fn history(&self) -> ClaimHistory {
        match (&self.recorded, self.generation) {
            (Some(recorded), _) => ClaimHistory::Recorded(recorded.clone()),
            (None, 1) => ClaimHistory::Original,
            (None, _) => ClaimHistory::Changed,
        }
    }
}

struct World {
    objects: Vec<Object>,
    granted: [BTreeSet<usize>; 2],
    domain: bool,
    now: i64,
    made: u32,
    claims: Claims,
}

impl World {
    fn new() -> Self {
        let granted = [(0..PATHS.len()).collect(), (0..PATHS.len()).collect()];
        Self { objects: Vec::new(), granted, domain: true, now: 100_000, made: 0, claims: Claims::default() }
    }

    fn standing(&self, object: &Object) -> Standing {
        let granted = &self.granted[usize::from(object.spec.namespace == "bank")];
        match (self.domain, granted.contains(&object.path)) {
            (false, _) => Standing::Unknown,
            (true, true) => Standing::Granted,
            (true, false) => Standing::NotGranted,
        }
    }

    /// As the index does; the answer is who is concerned.
    fn enter(&mut self, index: usize) -> Vec<String> {
        let object = &self.objects[index];
        let concerned = match self.standing(object) {
            Standing::Granted => self.claims.insert(&object.spec, &object.history()),
            Standing::NotGranted | Standing::Unknown => self.claims.remove(&object.spec.uid),
        };
        let uid = object.spec.uid.clone();
        concerned.iter().map(|claimant| claimant.uid.clone()).chain([uid]).collect()
    }

    fn write(&mut self, index: usize, written: &Written) {
        let object = &mut self.objects[index];
        object.path = written.path;
        object.spec.path = PathTemplate::parse(PATHS[written.path]).unwrap();
        object.spec.selector.service_accounts = written.accounts.iter().map(|&n| ACCOUNTS[n].into()).collect();
        object.spec.x509.dns_names = written.names.iter().map(|&n| NameTemplate::parse(NAMES[n]).unwrap()).collect();
        object.generation += 1;
    }

    /// Takes the step; the answer is whom the claims named as concerned.
    fn take(&mut self, step: &Step) -> BTreeSet<String> {
        self.now += 1;
        let at = |which: usize, world: &Self| (!world.objects.is_empty()).then(|| which % world.objects.len());
        let mut concerned = BTreeSet::new();
        let all = 0..self.objects.len();
        match step {
            Step::Create { bank, written } => {
                self.made += 1;
                let mut spec = identity(if *bank { "bank" } else { "shop" }, "a");
                // Neither uids nor clocks say who came first.
                spec.uid = format!("{:03}", (self.made * 37) % 101);
                spec.name.clone_from(&spec.uid);
                spec.created = Timestamp::from_second(self.now).unwrap();
                self.objects.push(Object { spec, path: 0, generation: 0, recorded: None });
                self.write(self.objects.len() - 1, written);
                concerned.extend(self.enter(self.objects.len() - 1));
            }
            Step::Edit { which, written } => {
                if let Some(index) = at(*which, self) {
                    self.write(index, written);
                    concerned.extend(self.enter(index));
                }
            }
            Step::Touch { which } => {
                if let Some(index) = at(*which, self) {
                    self.objects[index].generation += 1;
                    concerned.extend(self.enter(index));
                }
            }
            Step::Delete { which } => {
                if let Some(index) = at(*which, self) {
                    let gone = self.objects.remove(index);
                    concerned.extend(self.claims.remove(&gone.spec.uid).iter().map(|claimant| claimant.uid.clone()));
                }
            }
            Step::Grant { bank, paths } => {
                self.granted[usize::from(*bank)].clone_from(paths);
                concerned.extend(all.flat_map(|index| self.enter(index)).collect::<Vec<_>>());
            }
            Step::Domain { there } => {
                self.domain = *there;
                concerned.extend(all.flat_map(|index| self.enter(index)).collect::<Vec<_>>());
            }
            Step::Record { skew, first } => {
                for index in all.clone().map(|n| (n + first) % all.len()) {
                    let object = &self.objects[index];
                    let standing = self.standing(object);
                    let now = Timestamp::from_second(self.now + skew).unwrap();
                    let recorded = self.claims.record(&object.spec, &object.history(), standing, now);
                    self.objects[index].recorded = recorded;
                    concerned.extend(self.enter(index));
                }
            }
        }
        concerned
    }

    fn granted(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|object| self.standing(object) == Standing::Granted)
    }

    /// Every claim that is granted, and to whom it is lost, as found by comparing all with all.
    fn outcomes(&self) -> BTreeMap<(String, ClaimKey), Option<String>> {
        let since = |object: &Object, claim: &ClaimKey| {
            (object.history().since(claim, object.spec.created), object.spec.created, object.spec.uid.clone())
        };
        let owner = |object: &Object, kind| match kind {
            ClaimKind::Path => object.spec.uid.clone(),
            ClaimKind::DnsName => object.spec.namespace.clone(),
        };
        let all: Vec<_> = self
            .granted()
            .flat_map(|object| claims_of(&object.spec).into_iter().map(move |claim| (object, claim)))
            .collect();
        let lost_to = |object: &Object, claim: &ClaimKey| {
            let same = |other: &Object| owner(other, claim.kind) == owner(object, claim.kind);
            let own = all.iter().filter(|(other, theirs)| same(other) && theirs == claim);
            let own = own.map(|(other, _)| since(other, claim)).min().unwrap();
            let others = all.iter().filter(|(other, theirs)| !same(other) && overlap(claim, theirs));
            others.map(|(other, theirs)| since(other, theirs)).filter(|other| *other < own).min().map(|(_, _, uid)| uid)
        };
        all.iter().map(|(object, claim)| ((object.spec.uid.clone(), claim.clone()), lost_to(object, claim))).collect()
    }

    /// The same as the claims say it.
    fn said(&self) -> BTreeMap<(String, ClaimKey), Option<String>> {
        let of = |object: &Object| {
            let lost = self.claims.lost(&object.spec);
            let holder = |claim: &ClaimKey| lost.iter().find(|lost| lost.claim == *claim).map(|lost| lost.name.clone());
            let uid = object.spec.uid.clone();
            claims_of(&object.spec)
                .into_iter()
                .map(move |claim| ((uid.clone(), claim.clone()), holder(&claim)))
                .collect::<Vec<_>>()
        };
        self.granted().flat_map(of).collect()
    }
}

fn written() -> impl Strategy<Value = Written> {
    (0..PATHS.len(), btree_set(0..ACCOUNTS.len(), 0..3), btree_set(0..NAMES.len(), 0..3))
        .prop_map(|(path, accounts, names)| Written { path, accounts, names })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), written()).prop_map(|(bank, written)| Step::Create { bank, written }),
        4 => (0_usize..9, written()).prop_map(|(which, written)| Step::Edit { which, written }),
        1 => (0_usize..9).prop_map(|which| Step::Touch { which }),
        1 => (0_usize..9).prop_map(|which| Step::Delete { which }),
        2 => (any::<bool>(), btree_set(0..PATHS.len(), 0..PATHS.len())).prop_map(|(bank, paths)| Step::Grant { bank, paths }),
        1 => any::<bool>().prop_map(|there| Step::Domain { there }),
        5 => (select(vec![-30_i64, -1, 0, 1, 30]), 0_usize..9).prop_map(|(skew, first)| Step::Record { skew, first }),
    ]
}

/// Whether what is recorded of an object is what the leader would record now: it has looked since the last change.
fn is_looked_at(world: &World, object: &Object) -> bool {
    let granted = world.standing(object) != Standing::NotGranted;
    match &object.recorded {
        Some(recorded) => {
            let claims = claims_of(&object.spec);
            recorded.keys().all(|claim| granted && claims.contains(claim))
        }
        None => granted,
    }
}

/// What is granted, recorded and held, while nobody has a claim that has ended and whose end is not recorded yet.
fn held(world: &World) -> BTreeSet<(String, ClaimKey)> {
    if !world.objects.iter().all(|object| is_looked_at(world, object)) {
        return BTreeSet::new();
    }
    let said = world.said();
    let recorded = |uid: &str, claim: &ClaimKey| {
        let object = world.objects.iter().find(|object| object.spec.uid == uid);
        object.and_then(|object| object.recorded.as_ref()).is_some_and(|recorded| recorded.contains_key(claim))
    };
    said.into_iter().filter(|((uid, claim), lost)| lost.is_none() && recorded(uid, claim)).map(|(key, _)| key).collect()
}

fn check(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut world = World::new();
    // What was held stays held until its owner or the trust domain's takes it away.
    let mut holds = BTreeSet::new();
    for step in steps {
        let before = world.said();
        let concerned = world.take(step);
        let said = world.said();

        prop_assert_eq!(&said, &world.outcomes(), "as if everything were judged anew, after {:?}", step);

        let claimed: Vec<_> = said.iter().filter(|(_, lost)| lost.is_none()).map(|(key, _)| key).collect();
        let namespace =
            |uid: &str| world.objects.iter().find(|object| object.spec.uid == uid).unwrap().spec.namespace.clone();
        for (index, (uid, claim)) in claimed.iter().enumerate() {
            for (other, theirs) in claimed.iter().skip(index + 1) {
                let apart = uid != other && (claim.kind == ClaimKind::Path || namespace(uid) != namespace(other));
                prop_assert!(!(apart && overlap(claim, theirs)), "{} has two holders after {:?}", claim.value, step);
            }
        }

        let renamed: BTreeSet<_> = world.claims.take_renamed().iter().map(|claimant| claimant.uid.clone()).collect();
        for (key, lost) in &said {
            let changed = before.get(key).is_some_and(|before| before != lost);
            let flipped = before.get(key).is_some_and(|before| before.is_none() != lost.is_none());
            prop_assert!(!flipped || concerned.contains(&key.0), "{key:?} flipped unnoticed by {step:?}");
            prop_assert!(!changed || concerned.contains(&key.0) || renamed.contains(&key.0), "{key:?} by {step:?}");
        }

        let still_granted = |key: &(String, ClaimKey)| {
            let object = world.objects.iter().find(|object| object.spec.uid == key.0);
            object.is_some_and(|object| {
                world.standing(object) != Standing::NotGranted && claims_of(&object.spec).contains(&key.1)
            })
        };
        holds.retain(still_granted);
        if world.domain {
            let lost: Vec<_> = holds.iter().filter(|key| said.get(*key) != Some(&None)).collect();
            prop_assert!(lost.is_empty(), "{step:?} took {lost:?}");
        }
        holds.extend(held(&world));
    }
    Ok(())
}

proptest! {
    // R32
    #[test]
    fn nobody_takes_what_another_holds_and_each_name_has_one_holder(steps in vec(step(), 1..40)) {
        check(&steps)?;
    }
}
