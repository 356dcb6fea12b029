//! Which notices become events: those that are news, within what their pod and its namespace may have. In parts, each with a
//! lock of its own, since streams of all pods ask.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{PodEvent, PodRef, Urgency};
use countersign_runtime::rate::{Bucket, Rate};

const PARTS: usize = 16;

/// How many pods' last notices each part remembers, so that a reconnecting agent does not repeat them; and how many budgets.
const REMEMBERED: usize = 20_000 / PARTS;

/// Of one pod: a notice for each of its sessions and some to spare.
const POD: Rate = Rate { each: Duration::from_secs(15), burst: 40 };

/// Of one pod, about a token that may have been stolen: apart from the others, which whoever has stolen it could use up.
const SUSPICIONS_OF_A_POD: Rate = Rate { each: Duration::from_secs(30), burst: 6 };

/// Of one namespace, of each urgency.
const NAMESPACE: Rate = Rate { each: Duration::from_millis(500), burst: 60 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Publish,
    Known,
    TooMany,
}

/// What was told of pods, and how much.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    hasher: RandomState,
    parts: [Mutex<Pods>; PARTS],
    namespaces: Mutex<HashMap<String, PerUrgency>>,
}

#[derive(Debug, Default)]
struct Pods {
    /// By pod, session and subject.
    last: HashMap<(String, String, Subject), PodEvent>,
    budgets: HashMap<String, PerUrgency>,
}

/// Of what a notice speaks that is told once, until it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Identity,
    TooManyIdentities,
    Agent,
    /// Whether its agent has the newest bundle.
    Bundle,
}

#[derive(Debug)]
struct PerUrgency {
    suspicions: Bucket,
    ordinary: Bucket,
}

impl Budgets {
    pub(super) fn admit(&self, pod: &PodRef, session: &str, notice: &PodEvent, now: Instant) -> Verdict {
        let part = usize::try_from(self.hasher.hash_one(&pod.uid)).unwrap_or_default() % PARTS;
        let Some(part) = self.parts.get(part) else { return Verdict::TooMany };
        let mut pods = part.lock();
        if !pods.is_news(pod, session, notice) {
            return Verdict::Known;
        }
        let urgency = notice.urgency();
        if !pods.takes(pod, urgency, now) || !self.namespace_takes(&pod.namespace, urgency, now) {
            return Verdict::TooMany;
        }
        pods.remember(pod, session, notice);
        Verdict::Publish
    }

    fn namespace_takes(&self, namespace: &str, urgency: Urgency, now: Instant) -> bool {
        let mut namespaces = self.namespaces.lock();
        make_room(&mut namespaces, REMEMBERED * PARTS, now);
        let fresh = || PerUrgency { suspicions: Bucket::new(NAMESPACE), ordinary: Bucket::new(NAMESPACE) };
        namespaces.entry(namespace.to_owned()).or_insert_with(fresh).take(urgency, now)
    }
}

impl Pods {
    fn is_news(&self, pod: &PodRef, session: &str, notice: &PodEvent) -> bool {
        let last = key(pod, session, notice).and_then(|key| self.last.get(&key));
        match notice {
            PodEvent::NoIdentity(_) | PodEvent::TooManyIdentities(_) | PodEvent::BundleNotAcknowledged(_) => {
                last != Some(notice)
            }
            // Only worth telling after the opposite was told.
            PodEvent::Identity(_) => matches!(last, Some(PodEvent::NoIdentity(_))),
            PodEvent::Outdated(_) => last.is_none(),
            PodEvent::Superseded(_) | PodEvent::SeveralAddresses(_) | PodEvent::Renewed(_) => true,
        }
    }

    fn takes(&mut self, pod: &PodRef, urgency: Urgency, now: Instant) -> bool {
        make_room(&mut self.budgets, REMEMBERED, now);
        let fresh = || PerUrgency { suspicions: Bucket::new(SUSPICIONS_OF_A_POD), ordinary: Bucket::new(POD) };
        self.budgets.entry(pod.uid.clone()).or_insert_with(fresh).take(urgency, now)
    }

    fn remember(&mut self, pod: &PodRef, session: &str, notice: &PodEvent) {
        let Some(key) = key(pod, session, notice) else { return };
        if self.last.len() >= REMEMBERED {
            self.last.clear();
        }
        self.last.insert(key, notice.clone());
    }
}

/// Under which a notice is remembered; `None`: it is told whenever it comes.
fn key(pod: &PodRef, session: &str, notice: &PodEvent) -> Option<(String, String, Subject)> {
    let (session, subject) = match notice {
        PodEvent::NoIdentity(_) | PodEvent::Identity(_) => (session, Subject::Identity),
        PodEvent::TooManyIdentities(_) => (session, Subject::TooManyIdentities),
        // A pod has one agent.
        PodEvent::Outdated(_) => ("", Subject::Agent),
        PodEvent::BundleNotAcknowledged(_) => (session, Subject::Bundle),
        PodEvent::Superseded(_) | PodEvent::SeveralAddresses(_) | PodEvent::Renewed(_) => return None,
    };
    Some((pod.uid.clone(), session.to_owned(), subject))
}

impl PerUrgency {
    fn take(&mut self, urgency: Urgency, now: Instant) -> bool {
        let bucket = match urgency {
            Urgency::Suspicion => &mut self.suspicions,
            Urgency::Ordinary => &mut self.ordinary,
        };
        bucket.take(now).is_ok()
    }
}

/// Forgets budgets that are whole, and all of them where that is not enough: a new one is whole.
fn make_room(budgets: &mut HashMap<String, PerUrgency>, most: usize, now: Instant) {
    if budgets.len() >= most {
        budgets.retain(|_, one| !(one.suspicions.is_full(now) && one.ordinary.is_full(now)));
        if budgets.len() >= most {
            budgets.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Budgets, NAMESPACE, POD, PodEvent, PodRef, REMEMBERED, SUSPICIONS_OF_A_POD, Verdict};
    use tokio::time::Instant;

    fn pod(uid: &str) -> PodRef {
        PodRef { namespace: "n".to_owned(), name: "p".to_owned(), uid: uid.to_owned() }
    }

    fn none(why: &str) -> PodEvent {
        PodEvent::NoIdentity(why.to_owned())
    }

    fn displaced() -> PodEvent {
        PodEvent::Superseded(String::new())
    }

    fn told(budgets: &Budgets, pod: &PodRef, notices: impl Iterator<Item = PodEvent>, now: Instant) -> usize {
        notices.filter(|notice| budgets.admit(pod, "", notice, now) == Verdict::Publish).count()
    }

    #[test]
    fn a_reason_is_told_once_until_it_changes() {
        let (budgets, now) = (Budgets::default(), Instant::now());
        assert_eq!(budgets.admit(&pod("a"), "", &none("x"), now), Verdict::Publish);
        assert_eq!(budgets.admit(&pod("a"), "", &none("x"), now), Verdict::Known);
        assert_eq!(budgets.admit(&pod("a"), "", &none("y"), now), Verdict::Publish);
        assert_eq!(budgets.admit(&pod("b"), "", &none("y"), now), Verdict::Publish);
        assert_eq!(budgets.admit(&pod("a"), "app", &none("y"), now), Verdict::Publish);
    }

    #[test]
    fn an_identity_is_news_only_after_there_was_none() {
        let (budgets, now) = (Budgets::default(), Instant::now());
        let identity = PodEvent::Identity("spiffe://a/b".to_owned());
        assert_eq!(budgets.admit(&pod("a"), "", &identity, now), Verdict::Known);
        budgets.admit(&pod("a"), "", &none("x"), now);
        assert_eq!(budgets.admit(&pod("a"), "", &identity, now), Verdict::Publish);
        assert_eq!(budgets.admit(&pod("a"), "", &identity, now), Verdict::Known);
    }

    // An agent that reconnects, as after every roll-out of the operator, is not news again.
    #[test]
    fn an_outdated_agent_is_told_of_once_a_pod_beside_whatever_else_is() {
        let (budgets, now) = (Budgets::default(), Instant::now());
        let outdated = |why: &str| PodEvent::Outdated(why.to_owned());
        assert_eq!(budgets.admit(&pod("a"), "", &none("x"), now), Verdict::Publish);
        assert_eq!(budgets.admit(&pod("a"), "", &outdated("old"), now), Verdict::Publish);
        assert_eq!(budgets.admit(&pod("a"), "app", &outdated("old"), now), Verdict::Known);
        assert_eq!(budgets.admit(&pod("a"), "", &none("x"), now), Verdict::Known);
        assert_eq!(budgets.admit(&pod("b"), "", &outdated("old"), now), Verdict::Publish);
    }

    #[test]
    fn a_pod_uses_up_its_own_budget_and_one_about_its_token_is_apart() {
        let (budgets, now) = (Budgets::default(), Instant::now());
        let reasons = || (0..1000).map(|number| none(&number.to_string()));
        assert_eq!(told(&budgets, &pod("a"), reasons(), now), usize::try_from(POD.burst).unwrap());
        let most = usize::try_from(SUSPICIONS_OF_A_POD.burst).unwrap();
        assert_eq!(told(&budgets, &pod("a"), (0..1000).map(|_| displaced()), now), most);
        assert_eq!(told(&budgets, &pod("b"), [displaced(), none("x")].into_iter(), now), 2);
        let later = now + SUSPICIONS_OF_A_POD.each;
        assert_eq!(told(&budgets, &pod("a"), (0..10).map(|_| displaced()), later), 1);
        let other = PodRef { namespace: "other".to_owned(), ..pod("c") };
        assert_eq!(told(&budgets, &other, reasons(), now), usize::try_from(POD.burst).unwrap());
    }

    // A reason that could not be told is told when there is room for it.
    #[test]
    fn beyond_its_namespaces_budget_a_pods_notice_is_put_off_and_not_forgotten() {
        let (budgets, now) = (Budgets::default(), Instant::now());
        let pods = (0..1000).filter(|uid| told(&budgets, &pod(&uid.to_string()), [none("x")].into_iter(), now) == 1);
        assert_eq!(pods.count(), usize::try_from(NAMESPACE.burst).unwrap());
        assert_eq!(budgets.admit(&pod("late"), "", &none("x"), now), Verdict::TooMany);
        assert_eq!(budgets.admit(&pod("late"), "", &none("x"), now + NAMESPACE.each), Verdict::Publish);
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let (budgets, now) = (Budgets::default(), Instant::now());
        for number in 0..4 * REMEMBERED * super::PARTS {
            let pod = PodRef { namespace: number.to_string(), ..pod(&number.to_string()) };
            for notice in [none("x"), PodEvent::Outdated(String::new())] {
                budgets.admit(&pod, "", &notice, now);
            }
        }
        for part in &budgets.parts {
            let part = part.lock();
            assert!(part.last.len() <= REMEMBERED && part.budgets.len() <= REMEMBERED);
        }
        assert!(budgets.namespaces.lock().len() <= REMEMBERED * super::PARTS);
    }
}
