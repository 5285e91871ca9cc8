//! Time zones, as stretches of constant offset.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A time zone of the IANA database, as the system has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The zone of this name, `Europe/Berlin` for instance.
    ///
    /// # Errors
    ///
    /// When the system's database does not know it, or there is none (feature `bundled-zones`).
    pub fn named(name: &str) -> Result<Self, UnknownZone> {
        TimeZone::get(name)
            .map(Self)
            .map_err(|error| UnknownZone(error.to_string()))
    }

    /// The stretch of constant offset that holds this second.
    pub(crate) fn segment(&self, second: i64) -> Option<Segment> {
        let at = |second| Timestamp::from_second(second).ok();
        let here = at(second)?;
        // A transition at this very second begins the segment.
        let start = self.0.preceding(at(second + 1)?).next();
        let start = start.map(|transition| transition.timestamp().as_second());
        let end = self.0.following(here).next();
        let end = end.map(|transition| transition.timestamp().as_second());
        let offset_at = |at| i64::from(self.0.to_offset(at).seconds());
        let offset = offset_at(here);
        Some(Segment {
            start: start.unwrap_or(i64::MIN),
            end: end.unwrap_or(i64::MAX),
            offset,
            offset_before: match start.and_then(|start| at(start - 1)) {
                Some(before) => offset_at(before),
                None => offset,
            },
        })
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::UTC
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zone").field(&self.to_string()).finish()
    }
}

/// The zone database does not know the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownZone(String);

impl fmt::Display for UnknownZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no such time zone: {}", self.0)
    }
}

impl std::error::Error for UnknownZone {}

/// A stretch of time in which a zone's offset is the same. Unix seconds; offsets in seconds east of UTC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Its first second.
    pub(crate) start: i64,
    /// The first second behind it.
    pub(crate) end: i64,
    pub(crate) offset: i64,
    /// The offset of the stretch before it; the same when there is none.
    pub(crate) offset_before: i64,
}

impl Segment {
    pub(crate) fn contains(&self, second: i64) -> bool {
        (self.start..self.end).contains(&second)
    }
}
