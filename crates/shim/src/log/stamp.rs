//! The time of a log line, formatted once per read.

use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of the longest form, `2026-11-22T12:32:54.840191212Z`.
const LENGTH_MAX: usize = 30;

/// A moment as Go's `time.RFC3339Nano` prints it in UTC: trailing zeros of the fraction are left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    text: [u8; LENGTH_MAX],
    length: usize,
}

impl Stamp {
    /// This moment.
    pub(crate) fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self::new(since.as_secs(), since.subsec_nanos())
    }

    /// The moment `seconds` and `nanoseconds` after the epoch; years after 9999 are shown as 9999.
    pub(crate) fn new(seconds: u64, nanoseconds: u32) -> Self {
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
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
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
