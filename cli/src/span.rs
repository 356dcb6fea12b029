//! Times as people read them: how far from now, in the two largest units.

use std::time::Duration;

use jiff::Timestamp;

/// `in 3h 12m`, `5m ago`, `now`.
pub(crate) fn relative(at: Timestamp, now: Timestamp) -> String {
    let distance = at.duration_since(now);
    match (distance.unsigned_abs().as_secs(), distance.is_negative()) {
        (0, _) => "now".to_owned(),
        (_, false) => format!("in {}", span(distance.unsigned_abs())),
        (_, true) => format!("{} ago", span(distance.unsigned_abs())),
    }
}

/// How long ago, without the word.
pub(crate) fn age(at: Timestamp, now: Timestamp) -> String {
    let distance = now.duration_since(at);
    if distance.is_negative() { "0s".to_owned() } else { span(distance.unsigned_abs()) }
}

/// `3h 12m`, `45s`.
pub(crate) fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let units = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds % 60, "s")];
    let shown: Vec<String> = units
        .iter()
        .skip_while(|(number, _)| *number == 0)
        .take(2)
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    if shown.is_empty() { "0s".to_owned() } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::{age, relative, span};

    #[test]
    fn the_two_largest_units_are_shown() {
        for (seconds, text) in [(0, "0s"), (45, "45s"), (60, "1m"), (11_520, "3h 12m"), (86_400 * 3 + 59, "3d")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn what_is_to_come_is_not_what_has_been() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(relative(at(90), at(0)), "in 1m 30s");
        assert_eq!(relative(at(0), at(90)), "1m 30s ago");
        assert_eq!(relative(at(5), at(5)), "now");
        assert_eq!((age(at(0), at(90)), age(at(90), at(0))), ("1m 30s".to_owned(), "0s".to_owned()));
    }
}
