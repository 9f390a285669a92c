//! One line of a json-file log: `{"log":"…\n","stream":"stdout","time":"…Z"}`.
//!
//! Owns the parser: a fast path for lines in exactly the form our shim (and dockerd) writes, which
//! copies the text without an intermediate tree, and serde for any other JSON object with these keys.
//! Must not read files or know about rotation.

use std::collections::BTreeMap;

use memchr::memchr2;
use serde::Deserialize;

/// The stream a line came from, with the number Docker's frame header gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stream {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// A parsed line; the text itself was appended to the caller's buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Where the text came from.
    pub stream: Stream,
    /// RFC 3339 time as written.
    pub time: Time<'a>,
    /// `attrs` of the log options `labels`, `env` and `tag`, sorted by key.
    pub attributes: Vec<(String, String)>,
}

/// The time of a line as text: borrowed on the fast path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Time<'a> {
    /// Lies in the block that was read.
    Borrowed(&'a [u8]),
    /// Was decoded by serde.
    Owned(String),
}

impl Time<'_> {
    /// The text.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Time::Borrowed(text) => text,
            Time::Owned(text) => text.as_bytes(),
        }
    }
}

/// Parses one line without its newline and appends its text to `text`.
/// `None` for a torn or foreign line; `text` is then as it was.
pub(super) fn parse<'a>(line: &'a [u8], text: &mut Vec<u8>) -> Option<Line<'a>> {
    let before = text.len();
    if let Some(parsed) = parse_own(line, text) {
        return Some(parsed);
    }
    text.truncate(before);
    parse_any(line, text)
}

fn parse_own<'a>(line: &'a [u8], text: &mut Vec<u8>) -> Option<Line<'a>> {
    let rest = line.strip_prefix(br#"{"log":""#)?;
    let rest = unescape(rest, text)?;
    let rest = rest.strip_prefix(br#","stream":"std"#)?;
    let (stream, rest) = if let Some(rest) = rest.strip_prefix(br#"out","time":""#) {
        (Stream::Stdout, rest)
    } else {
        (Stream::Stderr, rest.strip_prefix(br#"err","time":""#)?)
    };
    let time = rest.strip_suffix(br#""}"#)?;
    if time.iter().any(|byte| matches!(byte, b'"' | b'\\')) {
        return None;
    }
    Some(Line {
        stream,
        time: Time::Borrowed(time),
        attributes: Vec::new(),
    })
}

/// Appends the JSON string that `rest` begins in to `text`, and answers what follows its closing quote.
fn unescape<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let at = memchr2(b'"', b'\\', rest)?;
        text.extend_from_slice(&rest[..at]);
        if rest[at] == b'"' {
            return Some(&rest[at + 1..]);
        }
        let (&escape, after) = rest[at + 1..].split_first()?;
        rest = after;
        let byte = match escape {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            b'"' | b'\\' | b'/' => escape,
            b'u' => {
                rest = unescape_unicode(rest, text)?;
                continue;
            }
            _ => return None,
        };
        text.push(byte);
    }
}

fn unescape_unicode<'a>(rest: &'a [u8], text: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (unit, mut rest) = hex4(rest)?;
    let character = if (0xd800..0xdc00).contains(&unit) {
        let (low, after) = hex4(rest.strip_prefix(br"\u")?)?;
        rest = after;
        let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
        char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + low)?
    } else {
        char::from_u32(unit)?
    };
    text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Some(rest)
}

fn hex4(rest: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = rest.split_at_checked(4)?;
    let mut value = 0;
    for digit in digits {
        value = value * 16 + char::from(*digit).to_digit(16)?;
    }
    Some((value, rest))
}

#[derive(Deserialize)]
struct Any {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

fn parse_any<'a>(line: &[u8], text: &mut Vec<u8>) -> Option<Line<'a>> {
    let any: Any = serde_json::from_slice(line).ok()?;
    let stream = match any.stream.as_str() {
        "stderr" => Stream::Stderr,
        _ => Stream::Stdout,
    };
    text.extend_from_slice(any.log.as_bytes());
    Some(Line {
        stream,
        time: Time::Owned(any.time),
        attributes: any.attrs.into_iter().collect(),
    })
}

/// Nanoseconds since 1970 of an RFC 3339 time; the form `YYYY-MM-DDThh:mm:ss[.digits]Z` without a parser's cost.
pub(super) fn nanoseconds(time: &[u8]) -> Option<i64> {
    fast_nanoseconds(time).or_else(|| {
        let timestamp: jiff::Timestamp = std::str::from_utf8(time).ok()?.parse().ok()?;
        i64::try_from(timestamp.as_nanosecond()).ok()
    })
}

fn fast_nanoseconds(time: &[u8]) -> Option<i64> {
    let body = time.strip_suffix(b"Z")?;
    let (seconds, fraction) = body.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| seconds[at] != byte) {
        return None;
    }
    let year = number(&seconds[..4])?;
    let month = number(&seconds[5..7]).filter(|month| (1..=12).contains(month))?;
    let day = number(&seconds[8..10])?;
    let clock = number(&seconds[11..13])? * 3600
        + number(&seconds[14..16])? * 60
        + number(&seconds[17..19])?;
    let mut nanoseconds = 0;
    if let Some(digits) = fraction.strip_prefix(b".") {
        if digits.is_empty() || digits.len() > 9 {
            return None;
        }
        nanoseconds = number(digits)?;
        for _ in digits.len()..9 {
            nanoseconds *= 10;
        }
    } else if !fraction.is_empty() {
        return None;
    }
    let total = days_from_civil(year, month, day) * 86_400 + clock;
    total.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0_i64, |value, digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + i64::from(digit - b'0'))
    })
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar; years count from March, so that the leap day is last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Appends `time` with exactly nine digits of a second, as `logs --timestamps` shows it.
pub(super) fn append_fixed_time(time: &[u8], out: &mut Vec<u8>) {
    let Some(body) = time.strip_suffix(b"Z") else {
        out.extend_from_slice(time);
        return;
    };
    out.extend_from_slice(body);
    let digits = match body.iter().position(|byte| *byte == b'.') {
        Some(point) => body.len() - point - 1,
        None => {
            out.push(b'.');
            0
        }
    };
    out.extend(std::iter::repeat_n(b'0', 9_usize.saturating_sub(digits)));
    out.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(line: &str) -> Option<(Stream, String)> {
        let mut text = Vec::new();
        let parsed = parse(line.as_bytes(), &mut text)?;
        Some((parsed.stream, String::from_utf8(text).unwrap()))
    }

    /// Lines as dockerd 28.5.2 wrote them, beside the text its API answered.
    #[test]
    fn lines_of_dockerd() {
        let table = [
            (
                r#"{"log":"two\n","stream":"stderr","time":"2026-11-22T12:34:56.568422171Z"}"#,
                (Stream::Stderr, "two\n"),
            ),
            (
                r#"{"log":"a\u003cb\u003e\u0026\u2028\ufffd\n","stream":"stdout","time":"2026-11-22T12:34:56.572116973Z"}"#,
                (Stream::Stdout, "a<b>&\u{2028}\u{fffd}\n"),
            ),
            (
                r#"{"log":"tail","stream":"stdout","time":"2026-11-22T12:34:56.628223495Z"}"#,
                (Stream::Stdout, "tail"),
            ),
            (
                r#"{"log":"q\"b\\t\t\u001b[0m\ud83d\ude00","stream":"stdout","attrs":{"tag":"x"},"time":"2026-11-22T12:34:56Z"}"#,
                (Stream::Stdout, "q\"b\\t\t\u{1b}[0m😀"),
            ),
        ];
        for (line, (stream, text)) in table {
            assert_eq!(text_of(line), Some((stream, text.to_owned())), "{line}");
        }
    }

    #[test]
    fn fast_path_takes_what_the_shim_writes() {
        let line =
            br#"{"log":"\ud83d\ude00 \u001b\n","stream":"stderr","time":"2026-11-22T12:34:56.5Z"}"#;
        assert!(parse_own(line, &mut Vec::new()).is_some());
    }

    #[test]
    fn torn_and_foreign_lines_leave_no_text() {
        let mut text = b"kept".to_vec();
        for line in [
            r#"{"log":"half a li"#,
            r#"{"log":"x\n","stream":"stdout","time":"2026-"#,
            "",
            "\0\0\0\0",
            r#"{"log":"\ud83d","stream":"stdout","time":"2026-11-22T12:34:56Z"}"#,
        ] {
            assert_eq!(parse(line.as_bytes(), &mut text), None, "{line}");
        }
        assert_eq!(text, b"kept");
    }

    #[test]
    fn times() {
        let table: [(&str, Option<i64>, &str); 6] = [
            (
                "1970-01-01T00:00:00Z",
                Some(0),
                "1970-01-01T00:00:00.000000000Z",
            ),
            (
                "1970-01-01T00:00:01.5Z",
                Some(1_500_000_000),
                "1970-01-01T00:00:01.500000000Z",
            ),
            (
                "2024-02-29T23:59:59.123456789Z",
                Some(1_709_251_199_123_456_789),
                "2024-02-29T23:59:59.123456789Z",
            ),
            (
                "2000-03-01T00:00:00Z",
                Some(951_868_800_000_000_000),
                "2000-03-01T00:00:00.000000000Z",
            ),
            (
                "1970-01-01T01:00:00+01:00",
                Some(0),
                "1970-01-01T01:00:00+01:00",
            ),
            ("yesterday", None, "yesterday"),
        ];
        for (time, expected, fixed) in table {
            assert_eq!(nanoseconds(time.as_bytes()), expected, "{time}");
            let mut out = Vec::new();
            append_fixed_time(time.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), fixed);
        }
    }
}
