//! Spans of time as people write them in a manifest: `24h`, `1h30m`, `90s`.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A span of whole seconds, written as Go writes durations: hours, minutes and seconds, each once and in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime(Duration);

/// Why a text is no [`Lifetime`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a duration: write hours, minutes and seconds in this order, such as `24h`, `1h30m` or `90s`")]
pub struct LifetimeError {
    text: String,
}

/// What [`Lifetime::from_str`] accepts, for the API server. The lengths keep the sum far from overflow.
const PATTERN: &str = "^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$";
const LONGEST_TEXT: usize = 20;
/// What [`PATTERN`] can say in hours, minutes and seconds.
const LONGEST: Duration = Duration::from_secs(999_999 * 3600 + 59 * 60 + 59);

impl Lifetime {
    /// A span of `hours`.
    #[must_use]
    pub const fn from_hours(hours: u32) -> Self {
        Self(Duration::from_secs(hours as u64 * 3600))
    }

    /// A span of `minutes`.
    #[must_use]
    pub const fn from_minutes(minutes: u32) -> Self {
        Self(Duration::from_secs(minutes as u64 * 60))
    }

    /// A span of `seconds`.
    #[must_use]
    pub const fn from_seconds(seconds: u32) -> Self {
        Self(Duration::from_secs(seconds as u64))
    }

    /// The span.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Lifetime> for Duration {
    fn from(lifetime: Lifetime) -> Self {
        lifetime.0
    }
}

impl From<Duration> for Lifetime {
    /// Drops what is less than a second. What is longer than can be written (114 years) is the longest that can: a peer's refresh
    /// hint is any number, and the API server refuses a status that the schema does not allow.
    fn from(span: Duration) -> Self {
        Self(Duration::from_secs(span.min(LONGEST).as_secs()))
    }
}

impl FromStr for Lifetime {
    type Err = LifetimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || LifetimeError { text: text.chars().take(LONGEST_TEXT * 2).collect() };
        if text.is_empty() || text.len() > LONGEST_TEXT {
            return Err(error());
        }
        let (mut rest, mut seconds) = (text, 0_u64);
        for (unit, length, digits) in [('h', 3600, 6), ('m', 60, 7), ('s', 1, 9)] {
            let Some((number, after)) = rest.split_once(unit) else { continue };
            if number.is_empty() || number.len() > digits || !number.bytes().all(|b| b.is_ascii_digit()) {
                return Err(error());
            }
            let number: u64 = number.parse().map_err(|_| error())?;
            seconds += number * length;
            rest = after;
        }
        if rest.is_empty() { Ok(Self(Duration::from_secs(seconds))) } else { Err(error()) }
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_secs();
        if total == 0 {
            return f.write_str("0s");
        }
        for (number, unit) in [(total / 3600, 'h'), (total / 60 % 60, 'm'), (total % 60, 's')] {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Lifetime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lifetime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Lifetime {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Lifetime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 2, "maxLength": LONGEST_TEXT, "pattern": PATTERN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hours_minutes_and_seconds() {
        for (text, seconds) in
            [("24h", 86_400), ("1h30m", 5_400), ("90s", 90), ("1h1s", 3_601), ("0s", 0), ("90m", 5_400)]
        {
            assert_eq!(text.parse::<Lifetime>().unwrap().duration(), Duration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn refuses_what_the_schema_refuses() {
        for text in ["", "h", "1", "1d", "-1h", "+1h", "1.5h", "1m1h", "1h1h", "1h 1m", "1000000h", "1ms", "1h\n"] {
            assert!(text.parse::<Lifetime>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn any_span_can_be_written_and_read() {
        for (seconds, text) in [
            (0, "0s"),
            (LONGEST.as_secs(), "999999h59m59s"),
            (LONGEST.as_secs() + 1, "999999h59m59s"),
            (u64::MAX, "999999h59m59s"),
        ] {
            let written = Lifetime::from(Duration::from_secs(seconds));
            assert_eq!(written.to_string(), text);
            assert_eq!(text.parse(), Ok(written));
        }
    }

    #[test]
    fn is_written_as_a_person_would() {
        for text in ["24h", "1h30m", "1m30s", "0s", "10s"] {
            assert_eq!(text.parse::<Lifetime>().unwrap().to_string(), text);
        }
        assert_eq!("90m".parse::<Lifetime>().unwrap().to_string(), "1h30m");
    }
}
