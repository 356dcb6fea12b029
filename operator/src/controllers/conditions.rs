//! Conditions as kstatus reads them: `Ready` is true when all is well; `Reconciling` and `Stalled` only when something is
//! going on or a person is needed.

use countersign_crds::condition::{READY, RECONCILING, STALLED};
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// How an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Which of the three it is.
    pub kind: HealthKind,
    /// Why.
    pub reason: Reason,
    /// A sentence for people.
    pub message: String,
}

/// Which of the three it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthKind {
    /// All is well.
    Ready,
    /// It is on its way, or waits for what may come by itself.
    Reconciling,
    /// It cannot go on without a person.
    Stalled,
}

impl Health {
    /// All is well.
    pub fn ready(reason: Reason, message: impl Into<String>) -> Self {
        Self { kind: HealthKind::Ready, reason, message: message.into() }
    }

    /// On its way.
    pub fn reconciling(reason: Reason, message: impl Into<String>) -> Self {
        Self { kind: HealthKind::Reconciling, reason, message: message.into() }
    }

    /// A person is needed.
    pub fn stalled(reason: Reason, message: impl Into<String>) -> Self {
        Self { kind: HealthKind::Stalled, reason, message: message.into() }
    }

    /// The three conditions; one whose status stays keeps its transition time.
    #[must_use]
    pub fn conditions(&self, generation: Option<i64>, old: &[Condition], now: Timestamp) -> Vec<Condition> {
        [(READY, HealthKind::Ready), (RECONCILING, HealthKind::Reconciling), (STALLED, HealthKind::Stalled)]
            .into_iter()
            .map(|(type_, kind)| self.condition(type_, kind, generation, old, now))
            .collect()
    }

    fn condition(
        &self,
        type_: &str,
        kind: HealthKind,
        generation: Option<i64>,
        old: &[Condition],
        now: Timestamp,
    ) -> Condition {
        let holds = self.kind == kind;
        let status = if holds { "True" } else { "False" };
        // An abnormal condition that does not hold has nothing to say; Ready says why it does not.
        let silent = !holds && kind != HealthKind::Ready;
        let reason = match kind {
            HealthKind::Reconciling if silent => Reason::NotReconciling,
            HealthKind::Stalled if silent => Reason::NotStalled,
            HealthKind::Ready | HealthKind::Reconciling | HealthKind::Stalled => self.reason,
        };
        let message = if silent { String::new() } else { self.message.clone() };
        condition(type_, (status, reason, message), generation, old, now)
    }
}

/// A condition with this status, reason and message, which ends with the code of a problem; one whose status stays keeps its transition time.
pub fn condition(
    type_: &str,
    (status, reason, message): (&str, Reason, String),
    generation: Option<i64>,
    old: &[Condition],
    now: Timestamp,
) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.name().to_owned(),
        message: if message.is_empty() { message } else { reason.with_code(&message) },
        observed_generation: generation,
        last_transition_time: since(type_, status, old, now),
    }
}

/// Since when a condition has this status: as long as it had it already, else from this whole second on.
fn since(type_: &str, status: &str, old: &[Condition], now: Timestamp) -> Time {
    let unchanged = old.iter().find(|old| old.type_ == type_ && old.status == status);
    let whole_second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    unchanged.map_or(Time(whole_second), |old| old.last_transition_time.clone())
}

#[cfg(test)]
mod tests {
    use super::Health;
    use countersign_reasons::Reason;
    use jiff::Timestamp;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn exactly_one_of_the_three_is_true() {
        for (health, truths, codes) in [
            (Health::ready(Reason::Signing, "a"), ["True", "False", "False"], 0),
            (Health::reconciling(Reason::AuthorityNotReady, "b"), ["False", "True", "False"], 2),
            (Health::stalled(Reason::Invalid, "c"), ["False", "False", "True"], 2),
        ] {
            let conditions = health.conditions(Some(2), &[], at(5));
            assert_eq!(conditions.iter().map(|one| one.status.as_str()).collect::<Vec<_>>(), truths);
            assert_eq!(conditions[0].reason, health.reason.name());
            let found: Vec<_> = conditions.iter().map(|one| one.message.as_str()).collect();
            assert_eq!(found.iter().filter(|message| message.contains("(CS")).count(), codes, "{found:?}");
            assert!(conditions.iter().all(|one| one.observed_generation == Some(2) && !one.reason.is_empty()));
        }
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let first = Health::ready(Reason::Signing, "a").conditions(Some(1), &[], at(5));
        let same = Health::ready(Reason::Polled, "b").conditions(Some(2), &first, at(9));
        assert_eq!(same[0].last_transition_time.0, at(5));
        let other = Health::stalled(Reason::Invalid, "c").conditions(Some(2), &same, at(9));
        assert_eq!(other.iter().map(|one| one.last_transition_time.0).collect::<Vec<_>>(), [at(9), at(5), at(9)]);
    }
}
