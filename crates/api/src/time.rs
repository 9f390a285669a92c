//! Times as Go writes them: RFC 3339 with nanoseconds, trailing zeros trimmed, and year 1 as "never".

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds from Go's zero time (0001-01-01T00:00:00Z) to the Unix epoch.
const ZERO_UNIX_SECONDS: i64 = -62_135_596_800;

/// A point in time in UTC, or Go's zero time ([`Time::ZERO`], the default).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Timestamp);

/// A time that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parsing time {0:?}")]
pub struct TimeError(String);

impl Time {
    /// Go's zero time: something that has not happened.
    pub const ZERO: Self = Self(Timestamp::constant(ZERO_UNIX_SECONDS, 0));

    /// From nanoseconds since the epoch.
    #[must_use]
    pub fn from_unix_nanos(nanos: i64) -> Self {
        Self(
            Timestamp::from_nanosecond(nanos.into())
                .expect("64 bits of nanoseconds are within jiff's range"),
        )
    }

    /// Nanoseconds since the epoch; Go's zero time and everything before 1678 as `i64::MIN`, everything after 2262 as
    /// `i64::MAX`.
    #[must_use]
    pub fn unix_nanos(self) -> i64 {
        let nanos = self.0.as_nanosecond();
        let beyond = if nanos < 0 { i64::MIN } else { i64::MAX };
        i64::try_from(nanos).unwrap_or(beyond)
    }

    /// Seconds since the epoch, rounded down as in Go.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        let seconds = self.0.as_second();
        if self.0.subsec_nanosecond() < 0 {
            seconds - 1
        } else {
            seconds
        }
    }

    /// Whether this is Go's zero time.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// With exactly nine digits of fraction, as log lines with `timestamps=1` carry it.
    #[must_use]
    pub fn fixed_nanos(self) -> String {
        format!("{:.9}", self.0)
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        text.parse()
            .map(Self)
            .map_err(|_| TimeError(text.to_owned()))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            return Ok(Self::ZERO);
        }
        text.parse().map_err(D::Error::custom)
    }
}

/// Reads a Go duration (`1h2m3.5s`, `-1.5h`, `300ms`) as nanoseconds; `None` when it is none or too long.
#[must_use]
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: i64 = 0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(unit_at);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        nanos = nanos.checked_add(scaled(number, unit_nanos(unit)?)?)?;
        rest = tail;
    }
    Some(if negative { -nanos } else { nanos })
}

fn unit_nanos(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `number` (digits with at most one point) times `unit`.
fn scaled(number: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut nanos = whole.checked_mul(unit)?;
    let mut scale = unit;
    for digit in fraction.chars() {
        scale /= 10;
        nanos = nanos.checked_add(i64::from(digit.to_digit(10)?) * scale)?;
    }
    Some(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        assert_eq!(Time::ZERO.to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(Time::default().unix_seconds(), ZERO_UNIX_SECONDS);
        let time = Time::from_unix_nanos(1_795_350_484_193_362_110);
        assert_eq!(time.to_string(), "2026-11-22T12:28:04.19336211Z");
        assert_eq!(time.fixed_nanos(), "2026-11-22T12:28:04.193362110Z");
        assert_eq!(Time::from_unix_nanos(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(
            "2026-11-22T13:28:04.5+01:00"
                .parse::<Time>()
                .unwrap()
                .to_string(),
            "2026-11-22T12:28:04.5Z"
        );
        assert_eq!(Time::from_unix_nanos(-1).unix_seconds(), -1);
        assert_eq!(Time::ZERO.unix_nanos(), i64::MIN);
        let late: Time = serde_json::from_str("\"2300-01-01T00:00:00Z\"").unwrap();
        assert_eq!(late.unix_nanos(), i64::MAX);
    }

    #[test]
    fn durations_are_gos() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("1h2m3.5s", Some(3_723_500_000_000)),
            ("-1.5h", Some(-5_400_000_000_000)),
            ("300ms", Some(300_000_000)),
            (".5s", Some(500_000_000)),
            ("1", None),
            ("", None),
            ("s", None),
            ("1d", None),
            ("9999999999h", None),
        ] {
            assert_eq!(parse_duration(text), nanos, "{text}");
        }
    }
}
