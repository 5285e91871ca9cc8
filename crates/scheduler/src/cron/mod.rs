//! Cron expressions: what they match, and when they fire next.
//!
//! croner reads the expression. What it found is kept as bits, so that the search below asks a few words instead of
//! walking through time, and follows this crate's rules where clocks change (see [`Cron`]).

mod search;

use std::fmt;
use std::str::FromStr;

use croner::parser::{CronParser, Year};

use crate::zone::Zone;

/// A cron expression: five fields (minute, hour, day of month, month, day of week), or six with seconds in front.
///
/// | | |
/// |---|---|
/// | `*` `a-b` `a,b` `*/n` `a-b/n` | in every field |
/// | `JAN`-`DEC`, `SUN`-`SAT` | names, in any case; 0 and 7 are Sunday |
/// | `L` | last day of the month; `5L`: its last Friday |
/// | `15W`, `LW` | the weekday (Monday to Friday) nearest to the 15th; the month's last weekday |
/// | `MON#2` | the second Monday |
/// | `@yearly` `@annually` `@monthly` `@weekly` `@daily` `@midnight` `@hourly` | |
///
/// When both days are restricted, one of them has to match (`+` in front of the day of week: both).
///
/// # Where clocks change
///
/// The rules are those of Vixie's cron, to the second:
///
/// - **Interval jobs**, whose minute or hour is written with `*`, follow elapsed time. Local times that are skipped do
///   not fire; local times that come twice fire twice.
/// - **Fixed-time jobs**, all others, fire once for each local time. What falls into the gap fires once, at the
///   moment right after it; what comes twice fires the first time.
///
/// `30 2 * * *` in Berlin fires at 03:00 on the day when clocks go from 02:00 to 03:00, and at the first of the two
/// 02:30 in autumn. `*/30 * * * *` fires every 30 minutes through both nights. A list or a range is fixed times, also
/// when it names every hour: write `*` for intervals.
///
/// ```
/// use scheduler::{Cron, Zone};
///
/// let cron: Cron = "30 2 * * MON-FRI".parse()?;
/// let berlin = Zone::named("Europe/Berlin")?;
/// let sunday_noon_ms = 1_711_882_800_000; // 2024-03-31T11:00:00Z
/// assert_eq!(cron.next_after_ms(sunday_noon_ms, &berlin), Some(1_711_931_400_000)); // Monday, 00:30 UTC
/// # Ok::<(), scheduler::ScheduleError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cron {
    text: Box<str>,
    seconds: u64,
    minutes: u64,
    hours: u32,
    months: u16,
    /// Bit d is set when day d matches, by the month's length (from 28) and the weekday of its first day (from Monday).
    days: [[u32; 7]; 4],
    is_interval: bool,
}

impl Cron {
    /// The first firing strictly after `after_ms` (Unix milliseconds) on the clocks of `zone`. None when there is none
    /// before the year 9999.
    #[must_use]
    pub fn next_after_ms(&self, after_ms: u64, zone: &Zone) -> Option<u64> {
        self.cursor(zone).next_after_ms(after_ms)
    }

    /// As [`next_after_ms`](Self::next_after_ms) for calls in a row: remembers until when the zone's offset holds.
    #[must_use]
    pub fn cursor<'a>(&'a self, zone: &'a Zone) -> CronCursor<'a> {
        CronCursor {
            cron: self,
            zone,
            segment: None,
        }
    }

    /// Whether the job follows elapsed time where clocks change: its minute or hour is written with `*`.
    #[must_use]
    pub fn is_interval(&self) -> bool {
        self.is_interval
    }
}

/// Firings of a [`Cron`], one after the other. Made by [`Cron::cursor`].
#[derive(Clone, Debug)]
pub struct CronCursor<'a> {
    cron: &'a Cron,
    zone: &'a Zone,
    segment: Option<crate::zone::Segment>,
}

impl CronCursor<'_> {
    /// As [`Cron::next_after_ms`].
    pub fn next_after_ms(&mut self, after_ms: u64) -> Option<u64> {
        self.cron
            .search_after_ms(after_ms, self.zone, &mut self.segment)
    }
}

impl FromStr for Cron {
    type Err = InvalidCron;

    fn from_str(text: &str) -> Result<Self, InvalidCron> {
        let text = text.trim();
        let spelled = match text.to_ascii_lowercase().as_str() {
            "@midnight" => "@daily",
            _ => text,
        };
        // croner takes it for nothing, and a field of nothing for one that matches nothing.
        let has_gap = |field: &str| field.split(',').any(str::is_empty);
        if spelled.split_whitespace().any(has_gap) {
            return Err(InvalidCron("a list has an empty entry".to_owned()));
        }
        let parser = CronParser::builder().year(Year::Disallowed).build();
        let parsed = parser
            .parse(spelled)
            .map_err(|error| InvalidCron(error.to_string()))?;
        let cron =
            search::bits_of(text, &parsed).map_err(|error| InvalidCron(error.to_string()))?;
        if cron.next_local(0).is_none() {
            return Err(InvalidCron("no day ever matches it".to_owned()));
        }
        Ok(cron)
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cron").field(&self.text).finish()
    }
}

/// A text that is no cron expression, or one that never fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidCron(String);

impl fmt::Display for InvalidCron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a cron expression of five or six fields: {}", self.0)
    }
}

impl std::error::Error for InvalidCron {}
