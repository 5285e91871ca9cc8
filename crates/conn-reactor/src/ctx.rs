//! What goes along with a connection: into logs, spans, and whatever else its bytes set going.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use crate::Token;

/// The context of a connection; from [`Io::ctx`](crate::Io::ctx), within each callback. The caller's own part of it is
/// the connection's state, [`Io::state`](crate::Io::state).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ctx {
    /// The connection.
    pub token: Token,
    /// Names this connection among all of all processes.
    pub trace_id: TraceId,
    /// When the connection is closed whatever it does, on the clock of [`Io::now_ms`](crate::Io::now_ms): what
    /// [`Io::set_deadline`](crate::Io::set_deadline) was given. Work for it beyond that is for nobody.
    pub deadline_ms: Option<u64>,
}

/// A random 128-bit number, written as 32 hexadecimal digits: the form of a trace id of OpenTelemetry and W3C Trace
/// Context. Never 0, which means "none" there.
///
/// It is a keyed hash of the token (the key is random, one per shard), so it costs an idle connection no memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(u128);

impl TraceId {
    pub(crate) fn new(key: &RandomState, token: Token) -> Self {
        let half = |which: u8| u128::from(key.hash_one((token.as_u64(), which)));
        Self((half(0) << 64 | half(1)).max(1))
    }

    /// The number.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

#[cfg(feature = "tracing")]
impl Ctx {
    /// A span named `connection` with the fields `trace_id`, `token` and, if there is one, `deadline_ms`. Its level is
    /// debug: below that it costs one comparison.
    #[must_use]
    pub fn span(&self) -> tracing::Span {
        tracing::debug_span!(
            "connection",
            trace_id = %self.trace_id,
            token = self.token.as_u64(),
            deadline_ms = self.deadline_ms,
        )
    }
}
