//! When a job fires.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::cron::{Cron, CronCursor, InvalidCron};
use crate::zone::{UnknownZone, Zone};

/// When a job fires. Fire times are Unix milliseconds, nominal: before jitter, and however late it was.
#[derive(Clone, PartialEq, Eq)]
pub struct Schedule {
    kind: Kind,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Cron(Box<(Cron, Zone)>),
    Every { period_ms: u64 },
    At { at_ms: u64 },
    After { delay_ms: u64 },
}

/// 2026-01-01, when [`Schedule::jitter_max`] begins to look.
const LOOKED_FROM_MS: u64 = 1_767_225_600_000;

impl Schedule {
    /// At the times of a [`Cron`] expression on the clocks of `zone`.
    #[must_use]
    pub fn cron(cron: Cron, zone: Zone) -> Self {
        let kind = Kind::Cron(Box::new((cron, zone)));
        Self { kind }
    }

    /// Every `period`, at its multiples since the Unix epoch: replicas agree on the fire times, and a restart does not shift
    /// them.
    ///
    /// # Errors
    ///
    /// When the period is not a whole number of milliseconds, or none.
    pub fn every(period: Duration) -> Result<Self, ScheduleError> {
        let period_ms = whole_ms(period).filter(|ms| *ms > 0);
        let period_ms = period_ms.ok_or_else(|| {
            ScheduleError::new("a period is a whole number of milliseconds, at least one")
        })?;
        let kind = Kind::Every { period_ms };
        Ok(Self { kind })
    }

    /// Once, at this time (Unix milliseconds). When it has passed already, the misfire policy says what happens.
    #[must_use]
    pub fn at_ms(at_ms: u64) -> Self {
        let kind = Kind::At { at_ms };
        Self { kind }
    }

    /// Once, so long after the job was added. Replicas do not agree on it: such a job cannot run once across them.
    #[must_use]
    pub fn after(delay: Duration) -> Self {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let kind = Kind::After { delay_ms };
        Self { kind }
    }

    /// The first fire time strictly after `after_ms`, for a job that was added at `added_ms`.
    #[must_use]
    pub fn next_after_ms(&self, after_ms: u64, added_ms: u64) -> Option<u64> {
        self.cursor(added_ms).next_after_ms(after_ms)
    }

    /// The longest jitter with which each firing starts before the next one can: the shortest time between two fire times. Of a
    /// cron expression the first hundred of 2026 are looked at. None when there are no two.
    #[must_use]
    pub fn jitter_max(&self) -> Option<Duration> {
        let mut cursor = self.cursor(0);
        let mut next = |ms: &u64| cursor.next_after_ms(*ms);
        let gap_ms = match &self.kind {
            Kind::Every { period_ms } => Some(*period_ms),
            Kind::At { .. } | Kind::After { .. } => None,
            Kind::Cron(_) => {
                let first = next(&LOOKED_FROM_MS);
                let times: Vec<u64> = std::iter::successors(first, next).take(100).collect();
                times.windows(2).map(|pair| pair[1] - pair[0]).min()
            }
        };
        gap_ms.map(Duration::from_millis)
    }

    /// Whether the fire times are the same wherever and whenever the job is added.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self.kind, Kind::After { .. })
    }

    /// Whether it fires once and never again.
    pub(crate) fn is_single(&self) -> bool {
        matches!(self.kind, Kind::At { .. } | Kind::After { .. })
    }

    pub(crate) fn cursor(&self, added_ms: u64) -> Cursor<'_> {
        match &self.kind {
            Kind::Cron(cron) => Cursor::Cron(cron.0.cursor(&cron.1)),
            Kind::Every { period_ms } => Cursor::Every(*period_ms),
            Kind::At { at_ms } => Cursor::Once(*at_ms),
            Kind::After { delay_ms } => Cursor::Once(added_ms.saturating_add(*delay_ms)),
        }
    }
}

/// Fire times of a schedule, one after the other.
pub(crate) enum Cursor<'a> {
    Cron(CronCursor<'a>),
    Every(u64),
    Once(u64),
}

impl Cursor<'_> {
    /// The first fire time strictly after `after_ms`.
    pub(crate) fn next_after_ms(&mut self, after_ms: u64) -> Option<u64> {
        match self {
            Self::Cron(cursor) => cursor.next_after_ms(after_ms),
            Self::Every(period_ms) => (after_ms / *period_ms)
                .checked_add(1)?
                .checked_mul(*period_ms),
            Self::Once(at_ms) => (*at_ms > after_ms).then_some(*at_ms),
        }
    }
}

fn whole_ms(period: Duration) -> Option<u64> {
    let is_whole = period.subsec_nanos().is_multiple_of(1_000_000);
    let ms = u64::try_from(period.as_millis()).ok()?;
    is_whole.then_some(ms)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Cron(cron) => write!(f, "cron {} {}", cron.0, cron.1),
            Kind::Every { period_ms } => write!(f, "every {:?}", Duration::from_millis(*period_ms)),
            Kind::At { at_ms } => write!(f, "at {}", FireTime(*at_ms)),
            Kind::After { delay_ms } => write!(f, "after {:?}", Duration::from_millis(*delay_ms)),
        }
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({self})")
    }
}

/// Unix milliseconds that read as RFC 3339 UTC with milliseconds: `2026-12-01T03:00:00.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FireTime(pub u64);

impl FireTime {
    /// How many characters it takes.
    pub(crate) const CHARS: usize = 24;

    /// Reads RFC 3339 with any offset; what is finer than a millisecond is cut off.
    ///
    /// # Errors
    ///
    /// When the text is no RFC 3339 time, or one before 1970.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let time: Result<Timestamp, _> = text.parse();
        let ms = time
            .ok()
            .and_then(|time| u64::try_from(time.as_millisecond()).ok());
        ms.map(Self).ok_or_else(|| {
            ScheduleError::new("a time is RFC 3339, from 1970 on: 2026-12-01T03:00:00Z")
        })
    }
}

impl fmt::Display for FireTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = i64::try_from(self.0)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok());
        match time {
            Some(time) => write!(f, "{time:.3}"),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// A schedule that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleError(String);

impl ScheduleError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScheduleError {}

impl From<InvalidCron> for ScheduleError {
    fn from(error: InvalidCron) -> Self {
        Self(error.to_string())
    }
}

impl From<UnknownZone> for ScheduleError {
    fn from(error: UnknownZone) -> Self {
        Self(error.to_string())
    }
}
