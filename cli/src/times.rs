//! Times and spans as people read them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// `2026-11-27T12:00:00Z`: whole seconds.
pub(crate) fn moment(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// `in 42m`, `3h 10m ago`, `now`.
pub(crate) fn relative(at: Timestamp, now: Timestamp) -> String {
    let span = at.duration_since(now);
    match span.as_secs() {
        0 => "now".to_owned(),
        1.. => format!("in {}", self::span(span)),
        _ => format!("{} ago", self::span(span)),
    }
}

/// `2026-11-27T12:00:00Z (in 42m)`.
pub(crate) fn moment_and_relative(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", moment(at), relative(at, now))
}

/// The two largest units of a span, whichever its sign: `2d 3h`, `42m`, `5s`.
pub(crate) fn span(span: SignedDuration) -> String {
    let mut rest = span.as_secs().unsigned_abs();
    let mut parts = Vec::new();
    for (unit, length) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if rest >= length {
            parts.push(format!("{}{unit}", rest / length));
            rest %= length;
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// As [`span`], of what has no sign.
pub(crate) fn length(length: Duration) -> String {
    span(SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX))
}

/// How long ago, without the word; what is to come has no age.
pub(crate) fn age(at: Timestamp, now: Timestamp) -> String {
    span(now.duration_since(at).max(SignedDuration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: i64) -> String {
        span(SignedDuration::from_secs(seconds))
    }

    #[test]
    fn a_span_has_its_two_largest_units() {
        for (seconds, expected) in
            [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3600, "1h"), (3605, "1h"), (90_061, "1d 1h"), (-120, "2m")]
        {
            assert_eq!(text(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn a_moment_is_said_from_now() {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let at = |seconds| now + SignedDuration::from_secs(seconds);
        assert_eq!(relative(at(60), now), "in 1m");
        assert_eq!(relative(at(-7200), now), "2h ago");
        assert_eq!(relative(now, now), "now");
        assert_eq!((age(at(-90), now), age(at(90), now)), ("1m 30s".to_owned(), "0s".to_owned()));
    }
}
