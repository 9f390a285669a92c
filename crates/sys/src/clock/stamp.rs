//! A moment as text.

use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of the longest form, `2026-11-22T12:32:54.840191212Z`.
const LENGTH_MAX: usize = 30;

/// A moment as Go's `time.RFC3339Nano` prints it in UTC: trailing zeros of the fraction are left out.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    text: [u8; LENGTH_MAX],
    length: usize,
}

impl Stamp {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self::new(since.as_secs(), since.subsec_nanos())
    }

    /// The moment `seconds` and `nanoseconds` after the epoch; years after 9999 are shown as 9999.
    #[must_use]
    pub fn new(seconds: u64, nanoseconds: u32) -> Self {
        const DAY: u64 = 86_400;
        let (year, month, day) = date(seconds / DAY);
        let of_day = seconds % DAY;
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        digits(&mut text[0..4], year.min(9999));
        digits(&mut text[5..7], month);
        digits(&mut text[8..10], day);
        digits(&mut text[11..13], of_day / 3600);
        digits(&mut text[14..16], of_day / 60 % 60);
        digits(&mut text[17..19], of_day % 60);
        digits(&mut text[20..29], u64::from(nanoseconds));
        let mut end = 29;
        while text[end - 1] == b'0' {
            end -= 1;
        }
        if text[end - 1] == b'.' {
            end -= 1;
        }
        text[end] = b'Z';
        Self {
            text,
            length: end + 1,
        }
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

fn digits(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).expect("a digit is below 10");
        value /= 10;
    }
}

/// Year, month and day of the `days`-th day after the epoch, in the proleptic Gregorian calendar:
/// years are counted from March, so that the leap day is a year's last day.
fn date(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097; // days in 400 years
    let shifted = days + 719_468; // from 0000-03-01
    let era = shifted / ERA;
    let of_era = shifted % ERA;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_go_s_rfc3339nano() {
        let check = |seconds, nanoseconds, expected: &str| {
            let stamp = Stamp::new(seconds, nanoseconds);
            assert_eq!(String::from_utf8_lossy(stamp.as_bytes()), expected);
        };
        // date -u -d @N +%FT%TZ
        check(0, 0, "1970-01-01T00:00:00Z");
        check(1_795_350_896, 0, "2026-11-22T12:34:56Z");
        check(951_782_399, 999_999_999, "2000-02-28T23:59:59.999999999Z");
        check(951_868_799, 120_000_000, "2000-02-29T23:59:59.12Z");
        check(1_709_164_800, 1, "2024-02-29T00:00:00.000000001Z");
        check(4_107_542_400, 0, "2100-03-01T00:00:00Z");
        check(1_795_350_774, 54_023_850, "2026-11-22T12:32:54.05402385Z");
    }
}
