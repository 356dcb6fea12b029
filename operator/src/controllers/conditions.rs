//! Conditions as kstatus reads them: `Ready` is true when all is well; `Reconciling` and `Stalled` only when something is
//! going on or a person is needed.

use countersign_crds::condition::{READY, RECONCILING, STALLED};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// How an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Which of the three it is.
    pub kind: HealthKind,
    /// CamelCase.
    pub reason: String,
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
    pub fn ready(reason: &str, message: impl Into<String>) -> Self {
        Self { kind: HealthKind::Ready, reason: reason.to_owned(), message: message.into() }
    }

    /// On its way.
    pub fn reconciling(reason: &str, message: impl Into<String>) -> Self {
        Self { kind: HealthKind::Reconciling, reason: reason.to_owned(), message: message.into() }
    }

    /// A person is needed.
    pub fn stalled(reason: &str, message: impl Into<String>) -> Self {
        Self { kind: HealthKind::Stalled, reason: reason.to_owned(), message: message.into() }
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
        let reason = if silent { format!("Not{type_}") } else { self.reason.clone() };
        let message = if silent { String::new() } else { self.message.clone() };
        condition(type_, (status, &reason, message), generation, old, now)
    }
}

/// A condition with this status, reason and message; one whose status stays keeps its transition time.
pub fn condition(
    type_: &str,
    (status, reason, message): (&str, &str, String),
    generation: Option<i64>,
    old: &[Condition],
    now: Timestamp,
) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
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
    use jiff::Timestamp;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn exactly_one_of_the_three_is_true() {
        for (health, truths) in [
            (Health::ready("A", "a"), ["True", "False", "False"]),
            (Health::reconciling("B", "b"), ["False", "True", "False"]),
            (Health::stalled("C", "c"), ["False", "False", "True"]),
        ] {
            let conditions = health.conditions(Some(2), &[], at(5));
            assert_eq!(conditions.iter().map(|one| one.status.as_str()).collect::<Vec<_>>(), truths);
            assert_eq!(conditions[0].reason, health.reason);
            assert!(conditions.iter().all(|one| one.observed_generation == Some(2) && !one.reason.is_empty()));
        }
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let first = Health::ready("A", "a").conditions(Some(1), &[], at(5));
        let same = Health::ready("B", "b").conditions(Some(2), &first, at(9));
        assert_eq!(same[0].last_transition_time.0, at(5));
        let other = Health::stalled("C", "c").conditions(Some(2), &same, at(9));
        assert_eq!(other.iter().map(|one| one.last_transition_time.0).collect::<Vec<_>>(), [at(9), at(5), at(9)]);
    }
}
