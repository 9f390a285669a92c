//! Query strings by dockerd's rules: Go's form decoding, its booleans, its words for bad numbers.

use crate::time::Time;

/// The decoded pairs of a query string, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not a number where one must be. dockerd answers these with status 500.
    #[error("strconv.{function}: parsing {text:?}: {problem}")]
    Number {
        /// Go's function, which is part of the text.
        function: &'static str,
        /// What was given.
        text: String,
        /// `invalid syntax` or `value out of range`.
        problem: &'static str,
    },
    /// A percent sign that is none; status 400.
    #[error("invalid URL escape {0:?}")]
    Escape(String),
    /// A semicolon where `&` is meant; status 400.
    #[error("invalid semicolon separator in query")]
    Semicolon,
    /// A terminal's size that is none; status 400.
    #[error("invalid resize {side} {text:?}: {problem}")]
    Resize {
        /// `height` or `width`.
        side: &'static str,
        /// What was given.
        text: String,
        /// `invalid syntax` or `value out of range`.
        problem: &'static str,
    },
}

const SYNTAX: &str = "invalid syntax";
const RANGE: &str = "value out of range";

impl Query {
    /// Decodes what stands after the question mark.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(name, true), unescape(value, true))
        });
        Self(pairs.collect())
    }

    /// Looks for what [`Query::parse`] took as it was and Go's `url.ParseQuery` does not.
    ///
    /// # Errors
    /// Go's text about the first one.
    pub fn check(text: &str) -> Result<(), QueryError> {
        for pair in text.split('&') {
            if pair.contains(';') {
                return Err(QueryError::Semicolon);
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            for part in [name, value] {
                if let Some(broken) = broken_escape(part) {
                    return Err(QueryError::Escape(broken.to_owned()));
                }
            }
        }
        Ok(())
    }

    /// The first value of that name; empty when there is none, as in Go.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// All values of that name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether the name is there, with or without a value.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// dockerd's booleans: empty, `0`, `no`, `false` and `none` are false, everything else is true.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        let value = self.get(name).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// As [`Query::flag`], but with another default when the name is not there.
    #[must_use]
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        if self.contains(name) {
            self.flag(name)
        } else {
            default
        }
    }

    /// A number, or `None` when there is no value.
    ///
    /// # Errors
    /// Go's text when it is no number.
    pub fn number(&self, name: &str) -> Result<Option<i64>, QueryError> {
        match self.get(name) {
            "" => Ok(None),
            text => integer(text)
                .map(Some)
                .map_err(|problem| QueryError::Number {
                    function: "Atoi",
                    text: text.to_owned(),
                    problem,
                }),
        }
    }

    /// A side of a terminal.
    ///
    /// # Errors
    /// dockerd's text when it is no number of 32 bits. The kernel's sides have 16: as dockerd, the upper half is lost.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what dockerd and runc do with a side that is too long"
    )]
    pub fn terminal_side(&self, name: &str, side: &'static str) -> Result<u16, QueryError> {
        let text = self.get(name);
        let refused = |problem| QueryError::Resize {
            side,
            text: text.to_owned(),
            problem,
        };
        let wide = u32::try_from(integer(text).map_err(refused)?).map_err(|_| refused(RANGE))?;
        Ok(wide as u16)
    }

    /// A point in time, `seconds[.fraction]`, or `None` when there is no value.
    ///
    /// # Errors
    /// Go's text when it is none.
    pub fn time(&self, name: &str) -> Result<Option<Time>, QueryError> {
        match self.get(name) {
            "" => Ok(None),
            text => unix_time(text).map(Some),
        }
    }
}

/// Go's `strconv.ParseInt` in base ten.
fn integer(text: &str) -> Result<i64, &'static str> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SYNTAX);
    }
    text.parse().map_err(|_| RANGE)
}

/// Digits of a fraction that count: nanoseconds.
const FRACTION_DIGITS: usize = 9;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Reads `seconds[.fraction]` as the wire has it.
///
/// # Errors
/// Go's text when it is no such thing.
pub fn unix_time(text: &str) -> Result<Time, QueryError> {
    let parse = |part: &str| {
        integer(part).map_err(|problem| QueryError::Number {
            function: "ParseInt",
            text: part.to_owned(),
            problem,
        })
    };
    let (seconds, fraction) = match text.split_once('.') {
        Some((seconds, fraction)) => (parse(seconds)?, fraction),
        None => (parse(text)?, "0"),
    };
    parse(fraction)?;
    let nanos = format!("{fraction:0<FRACTION_DIGITS$}");
    let nanos = parse(nanos.get(..FRACTION_DIGITS).unwrap_or(&nanos))?;
    Ok(Time::from_unix_nanos(
        seconds
            .saturating_mul(NANOS_PER_SECOND)
            .saturating_add(nanos),
    ))
}

/// The first percent sign without two hexadecimal digits behind it, and up to two characters of what is there instead.
#[must_use]
pub fn broken_escape(text: &str) -> Option<&str> {
    let is_digit = |byte: &u8| byte.is_ascii_hexdigit();
    let signs = text.match_indices('%').map(|(at, _)| &text[at..]);
    let mut broken = signs.filter(|rest| {
        let digits = rest.as_bytes().get(1..3);
        !digits.is_some_and(|digits| digits.iter().all(is_digit))
    });
    let rest = broken.next()?;
    let end = rest.char_indices().nth(3).map_or(rest.len(), |(at, _)| at);
    Some(&rest[..end])
}

/// Undoes percent-encoding, and `+` for a space in queries. What is not valid stays as it is.
#[must_use]
pub fn unescape(text: &str, plus_is_space: bool) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = |offset: usize| {
            bytes
                .get(at + offset)
                .and_then(|digit| char::from(*digit).to_digit(16))
        };
        match (byte, hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("two hex digits are a byte"));
                at += 3;
                continue;
            }
            (b'+', ..) if plus_is_space => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from dockerd 28.5.2.
    #[test]
    fn a_broken_query_is_named_in_gos_words() {
        for (query, wanted) in [
            ("", None),
            ("a=%41&%42=c+d&&=", None),
            ("%zz", Some("invalid URL escape \"%zz\"")),
            ("a=%", Some("invalid URL escape \"%\"")),
            ("a=1&b=%4", Some("invalid URL escape \"%4\"")),
            ("a=%41%4x%zz", Some("invalid URL escape \"%4x\"")),
            ("a=b;c", Some("invalid semicolon separator in query")),
        ] {
            let said = Query::check(query).err().map(|error| error.to_string());
            assert_eq!(said.as_deref(), wanted, "{query}");
        }
    }

    #[test]
    fn booleans_are_dockerds() {
        let query = Query::parse("a=1&b=0&c=False&d=none&e=&f&g=yes&h=+no+&i=2");
        let flags: Vec<bool> = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "absent"]
            .iter()
            .map(|name| query.flag(name))
            .collect();
        assert_eq!(
            flags,
            [
                true, false, false, false, false, false, true, false, true, false
            ]
        );
        assert!(query.flag_or("absent", true));
        assert!(!query.flag_or("b", true));
    }

    #[test]
    fn names_and_values_are_unescaped() {
        let query = Query::parse("filters=%7B%22a%22%3A1%7D&x=a+b%20c%zz&x=2");
        assert_eq!(query.get("filters"), r#"{"a":1}"#);
        assert_eq!(query.all("x").collect::<Vec<_>>(), ["a b c%zz", "2"]);
    }

    /// Texts as dockerd 28.5.2 answered them.
    #[test]
    fn bad_numbers_have_gos_words() {
        let query =
            Query::parse("t=x&big=99999999999999999999&h=-1&since=x&w=99999999999&wide=70000");
        let number = |name| query.number(name).unwrap_err().to_string();
        assert_eq!(number("t"), r#"strconv.Atoi: parsing "x": invalid syntax"#);
        assert_eq!(
            number("big"),
            r#"strconv.Atoi: parsing "99999999999999999999": value out of range"#
        );
        let side = |name, side| query.terminal_side(name, side).unwrap_err().to_string();
        assert_eq!(
            side("h", "height"),
            r#"invalid resize height "-1": value out of range"#
        );
        assert_eq!(
            side("none", "width"),
            r#"invalid resize width "": invalid syntax"#
        );
        assert_eq!(
            side("w", "width"),
            r#"invalid resize width "99999999999": value out of range"#
        );
        assert_eq!(query.terminal_side("wide", "width"), Ok(4464));
        let time = query.time("since").unwrap_err().to_string();
        assert_eq!(time, r#"strconv.ParseInt: parsing "x": invalid syntax"#);
        assert_eq!(query.number("absent"), Ok(None));
    }

    #[test]
    fn times_have_up_to_nine_digits() {
        for (text, nanos) in [
            ("0", 0),
            ("1795350484", 1_795_350_484_000_000_000),
            ("1.5", 1_500_000_000),
            ("1.000000001", 1_000_000_001),
            ("1.0000000019", 1_000_000_001),
        ] {
            assert_eq!(unix_time(text).unwrap().unix_nanos(), nanos, "{text}");
        }
    }
}
