//! The search for the next firing.
//!
//! Between two changes of the clocks local time is elapsed time plus a constant, so the search goes through the
//! zone's segments of constant offset: within one it looks for the next local time that matches, by bits. At the start of a
//! segment lies the gap or the overlap, and only fixed-time jobs look at it.

use croner::errors::CronError;
use croner::time::Weekday;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;

use super::Cron;
use crate::zone::{Segment, Zone};

/// Weekdays repeat every 400 years: what has not matched by then never does.
const MONTHS_SEARCHED: u32 = 400 * 12 + 1;

/// No clocks were ever set by more seconds than these; places that crossed the date line set theirs by a day.
const CHANGE_MAX: i64 = 2 * 86_400;

pub(super) fn bits_of(text: &str, parsed: &croner::Cron) -> Result<Cron, CronError> {
    let pattern = &parsed.pattern;
    let mut cron = Cron {
        text: text.into(),
        seconds: 0,
        minutes: 0,
        hours: 0,
        months: 0,
        days: [[0; 7]; 4],
        is_interval: pattern.minutes.from_wildcard || pattern.hours.from_wildcard,
    };
    for value in 0..60 {
        cron.seconds |= u64::from(pattern.second_match(value)?) << value;
        cron.minutes |= u64::from(pattern.minute_match(value)?) << value;
    }
    for hour in 0..24 {
        cron.hours |= u32::from(pattern.hour_match(hour)?) << hour;
    }
    for month in 1..=12 {
        cron.months |= u16::from(pattern.month_match(month)?) << month;
    }
    for (length, by_first) in (28..).zip(&mut cron.days) {
        let (year, month) = month_of_length(length);
        for (first, days) in (0..).zip(by_first) {
            for day in 1..=length {
                let weekday = WEEKDAYS[(first + day as usize - 1) % 7];
                let matches = pattern.day_match(year, month, day, weekday)?;
                *days |= u32::from(matches) << day;
            }
        }
    }
    Ok(cron)
}

const WEEKDAYS: [Weekday; 7] = [
    Weekday::Monday,
    Weekday::Tuesday,
    Weekday::Wednesday,
    Weekday::Thursday,
    Weekday::Friday,
    Weekday::Saturday,
    Weekday::Sunday,
];

/// Some month of this length: a day's match depends on nothing else but the weekdays.
fn month_of_length(days: u32) -> (i32, u32) {
    match days {
        28 => (2023, 2),
        29 => (2024, 2),
        30 => (2024, 4),
        _ => (2024, 1),
    }
}

impl Cron {
    pub(super) fn search_after_ms(
        &self,
        after_ms: u64,
        zone: &Zone,
        known: &mut Option<Segment>,
    ) -> Option<u64> {
        let mut from = i64::try_from(after_ms / 1_000).ok()? + 1;
        loop {
            let segment = match known {
                Some(segment) if segment.contains(from) => *segment,
                _ => *known.insert(zone.segment(from)?),
            };
            let second = self.first_in(&segment, from)?;
            if second < segment.end {
                return u64::try_from(second).ok()?.checked_mul(1_000);
            }
            // Local times from here to that one do not match, so the segments between need no look. Only a change that
            // comes soon could bring back local times before `from`.
            let comes_soon = segment.end - from < CHANGE_MAX;
            from = match comes_soon {
                true => segment.end,
                false => segment.end.max(second - CHANGE_MAX),
            };
        }
    }

    /// The first firing at or after `from` by the clocks of the segment, which may have ended by then; none when no time
    /// will ever match.
    fn first_in(&self, segment: &Segment, from: i64) -> Option<i64> {
        let mut local = from + segment.offset;
        if !self.is_interval {
            let old_local = segment.start.saturating_add(segment.offset_before);
            let is_gap = segment.offset > segment.offset_before;
            if from == segment.start && is_gap && self.next_local(old_local)? < local {
                return Some(from);
            }
            // In an overlap, the local times up to here have been before.
            local = local.max(old_local);
        }
        Some(self.next_local(local)? - segment.offset)
    }

    /// The first match at or after a local time, both in seconds since 1970-01-01 00:00 local time.
    pub(super) fn next_local(&self, from: i64) -> Option<i64> {
        let from = Timestamp::from_second(from).ok()?;
        let from = Offset::UTC.to_datetime(from);
        let date = from.date();
        let time = [from.hour(), from.minute(), from.second()].map(|part| part.cast_unsigned());
        let later_today = match self.matches(date) {
            true => self.time_from(time).map(|time| (date, time)),
            false => None,
        };
        let (date, [hour, minute, second]) = match later_today {
            Some(found) => found,
            None => (self.date_after(date)?, self.time_from([0; 3])?),
        };
        let [hour, minute, second] = [hour, minute, second].map(u8::cast_signed);
        let local = date.at(hour, minute, second, 0);
        Some(Offset::UTC.to_timestamp(local).ok()?.as_second())
    }

    fn matches(&self, date: Date) -> bool {
        let day = self.days_of(date.year(), date.month());
        day >> date.day() & 1 == 1
    }

    /// The first matching date after this one.
    fn date_after(&self, date: Date) -> Option<Date> {
        let (mut year, mut month) = (date.year(), date.month());
        let mut after = date.day();
        for _ in 0..MONTHS_SEARCHED {
            // Bit `after` and those below it are past; there is a bit 31 at most.
            let days = self.days_of(year, month) & (u32::MAX << after << 1);
            if days != 0 {
                let day = days.trailing_zeros() as i8;
                return Date::new(year, month, day).ok();
            }
            after = 0;
            month += 1;
            if month > 12 {
                month = 1;
                year += 1;
            }
            if year > 9_999 {
                return None;
            }
        }
        None
    }

    /// The days of a month that match, as bits.
    fn days_of(&self, year: i16, month: i8) -> u32 {
        if self.months >> month & 1 == 0 {
            return 0;
        }
        let first = Date::constant(year, month, 1);
        let length = first.days_in_month().cast_unsigned() as usize - 28;
        let weekday = first.weekday().to_monday_zero_offset().cast_unsigned();
        self.days[length][usize::from(weekday)]
    }

    /// The first matching time of day at or after this one.
    fn time_from(&self, [hour, minute, second]: [u8; 3]) -> Option<[u8; 3]> {
        let first_second = self.seconds.trailing_zeros() as u8;
        let first_minute = self.minutes.trailing_zeros() as u8;
        if self.hours >> hour & 1 == 1 {
            if self.minutes >> minute & 1 == 1
                && let Some(second) = bit_from(self.seconds, second)
            {
                return Some([hour, minute, second]);
            }
            if let Some(minute) = bit_from(self.minutes, minute + 1) {
                return Some([hour, minute, first_second]);
            }
        }
        let hour = bit_from(self.hours.into(), hour + 1)?;
        Some([hour, first_minute, first_second])
    }
}

/// The lowest set bit at or above `from` (below 64).
fn bit_from(bits: u64, from: u8) -> Option<u8> {
    let left = bits & (u64::MAX << from);
    (left != 0).then(|| left.trailing_zeros() as u8)
}
