//! Who made a call: the trace id that goes through every decision.

use core::fmt;
use core::num::NonZeroU128;
use core::str::FromStr;

/// A W3C trace id: 16 bytes that are not all zero (Trace Context, section 3.2.2.3).
///
/// ```
/// use circuit::TraceId;
///
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let trace = TraceId::from_traceparent(header).expect("a valid header");
/// assert_eq!(trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
/// assert_eq!("4bf92f3577b34da6a3ce929d0e0e4736".parse(), Ok(trace));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// The trace of these bytes; none for all zeros, which the standard calls invalid.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        match NonZeroU128::new(u128::from_be_bytes(bytes)) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// Its bytes, as they stand in the header.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }

    /// The trace id of a `traceparent` header: `version-traceid-parentid-flags`. Later versions may append
    /// fields; version `ff` is invalid.
    #[must_use]
    pub fn from_traceparent(header: &str) -> Option<Self> {
        let mut fields = header.trim().split('-');
        let version = fields.next()?;
        let trace = fields.next()?;
        let (parent, flags) = (fields.next()?, fields.next()?);
        let sane = hex(version, 2) && version != "ff" && hex(parent, 16) && hex(flags, 2);
        let closed = version != "00" || fields.next().is_none();
        let known_parent = parent.bytes().any(|digit| digit != b'0');
        (sane && closed && known_parent).then(|| trace.parse().ok())?
    }
}

fn hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
}

/// The text is not 32 lowercase hexadecimal digits that are not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTraceId(());

impl fmt::Display for InvalidTraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a trace id is 32 lowercase hexadecimal digits, not all zero")
    }
}

impl core::error::Error for InvalidTraceId {}

impl FromStr for TraceId {
    type Err = InvalidTraceId;

    fn from_str(text: &str) -> Result<Self, InvalidTraceId> {
        if !hex(text, 32) {
            return Err(InvalidTraceId(()));
        }
        let id = u128::from_str_radix(text, 16).map_err(|_| InvalidTraceId(()))?;
        NonZeroU128::new(id).map(Self).ok_or(InvalidTraceId(()))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The traces that failed last: a small ring, so that looking one up costs the same at any window size.
pub(crate) struct RecentFailures {
    traces: [Option<TraceId>; Self::KEPT],
    next: usize,
}

impl RecentFailures {
    pub(crate) const KEPT: usize = 16;

    pub(crate) const fn new() -> Self {
        Self {
            traces: [None; Self::KEPT],
            next: 0,
        }
    }

    /// Remembers the trace; whether it is among the last ones already.
    pub(crate) fn seen(&mut self, trace: TraceId) -> bool {
        if self.traces.contains(&Some(trace)) {
            return true;
        }
        self.traces[self.next] = Some(trace);
        self.next = (self.next + 1) % Self::KEPT;
        false
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}
