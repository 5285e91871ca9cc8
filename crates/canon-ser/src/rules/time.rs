//! Points in time: read from numbers or RFC 3339, written as RFC 3339 in UTC.

use alloc::format;
use alloc::string::String;

use crate::rules::decimal::Decimal;

const DAY_SECONDS: i64 = 86_400;

/// Years 0000 to 9999 are what RFC 3339 can write.
const SECONDS: core::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// Seconds since 1970-01-01T00:00:00Z without leap seconds, and the digits of a fraction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    fraction: String,
}

impl Time {
    /// `number * 10^shift` seconds: shift 0 for seconds, -3 for milliseconds.
    pub(crate) fn of_epoch(number: Decimal, shift: i32) -> Option<Time> {
        let (seconds, fraction) = number.floor(shift)?;
        SECONDS
            .contains(&seconds)
            .then_some(Time { seconds, fraction })
    }

    /// Reads RFC 3339 (section 5.6). Leap seconds (`:60`) are refused: epochs have no place for them.
    pub(crate) fn parse(text: &str) -> Option<Time> {
        let (date, rest) = text.split_at_checked(10)?;
        let rest = rest.strip_prefix(['T', 't', ' '])?;
        let (time, rest) = rest.split_at_checked(8)?;
        let [year, month, day] = numbers(date, b'-', [4, 2, 2])?;
        let [hour, minute, second] = numbers(time, b':', [2, 2, 2])?;
        let valid = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
        if !valid || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let (fraction, zone) = match rest.strip_prefix('.') {
            Some(rest) => {
                let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                if digits == 0 {
                    return None;
                }
                rest.split_at(digits)
            }
            None => ("", rest),
        };
        let local = days_from_civil(year, month, day) * DAY_SECONDS;
        let seconds = local + hour * 3600 + minute * 60 + second - offset(zone)?;
        let fraction = fraction.trim_end_matches('0').into();
        SECONDS
            .contains(&seconds)
            .then_some(Time { seconds, fraction })
    }

    /// The one spelling: UTC with `Z`, a fraction only if there is one, and as short as it can be.
    pub(crate) fn canonical(&self) -> String {
        let (year, month, day) = civil_from_days(self.seconds.div_euclid(DAY_SECONDS));
        let second = self.seconds.rem_euclid(DAY_SECONDS);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let point = if self.fraction.is_empty() { "" } else { "." };
        let fraction = &self.fraction;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{point}{fraction}Z")
    }

    /// Milliseconds since the epoch; none if there is a finer fraction.
    pub(crate) fn epoch_ms(&self) -> Option<i64> {
        if self.fraction.len() > 3 {
            return None;
        }
        Some(self.floor_ms())
    }

    /// The same without what is finer.
    pub(crate) fn floor_ms(&self) -> i64 {
        let digits = self.fraction.bytes().chain(*b"000").take(3);
        let ms = digits.fold(0, |ms, digit| 10 * ms + i64::from(digit - b'0'));
        self.seconds * 1000 + ms
    }
}

/// Three numbers of these widths with separators between them.
fn numbers(text: &str, separator: u8, widths: [usize; 3]) -> Option<[i64; 3]> {
    let mut found = [0; 3];
    let mut at = 0;
    for (number, width) in found.iter_mut().zip(widths) {
        if at > 0 {
            (text.as_bytes().get(at) == Some(&separator)).then_some(())?;
            at += 1;
        }
        let digits = text.get(at..at + width)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then_some(())?;
        *number = digits.parse().ok()?;
        at += width;
    }
    (at == text.len()).then_some(found)
}

/// Seconds east of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let [hours, minutes, _] = numbers(&format!("{rest}:00"), b':', [2, 2, 2])?;
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years are counted from March, so that the leap day is the
/// last of its year; 400 years have 146,097 days.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::{Time, civil_from_days, days_from_civil, days_in};

    #[test]
    fn every_day_of_the_calendar() {
        let mut days = days_from_civil(0, 1, 1);
        for year in 0..=9999 {
            for month in 1..=12 {
                for day in 1..=days_in(year, month) {
                    assert_eq!(days_from_civil(year, month, day), days);
                    assert_eq!(civil_from_days(days), (year, month, day));
                    days += 1;
                }
            }
        }
        assert_eq!(days_from_civil(1970, 1, 1), 0);
    }

    #[test]
    fn one_spelling_for_one_time() {
        for (text, expected) in [
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("2026-01-01t01:30:00.500+01:30", "2026-01-01T00:00:00.5Z"),
            ("2025-12-31 19:00:00.000-05:00", "2026-01-01T00:00:00Z"),
            (
                "2000-02-29T23:59:59.000000001z",
                "2000-02-29T23:59:59.000000001Z",
            ),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        ] {
            let time = Time::parse(text).map(|time| time.canonical());
            assert_eq!(time.as_deref(), Some(expected), "{text}");
        }
        for text in [
            "",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2016-12-31T23:59:60Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00+24:00",
            "0000-01-01T00:00:00+01:00",
            "2026-01-01T00:00:00Zx",
            "2026-1-01T00:00:000Z",
        ] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }
}
