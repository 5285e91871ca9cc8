//! The one error type of tokens: opaque, with predicates.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Why there is no token.
///
/// Opaque: ask the predicates. `Display` is a sentence that says what to do.
#[derive(Clone, Debug)]
pub struct TokenError {
    kind: Kind,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Behind { by_ms: u64 },
    OutOfTime,
    Worker(u64),
    NoWorker { first: u16, last: u16 },
    LeaseLost { worker: u16 },
    Lease(&'static str),
    Damaged(String),
    Text(&'static str),
    Memo,
    Options(&'static str),
}

impl TokenError {
    /// The clock is behind the last id, or behind what an earlier process had reserved, by more
    /// than the policy waits for; [`behind_ms`](Self::behind_ms) says how far. Set the clock right,
    /// or wait.
    #[must_use]
    pub fn is_clock_behind(&self) -> bool {
        matches!(self.kind, Kind::Behind { .. })
    }

    /// How far the clock is behind, in milliseconds.
    #[must_use]
    pub fn behind_ms(&self) -> Option<u64> {
        match self.kind {
            Kind::Behind { by_ms } => Some(by_ms),
            _ => None,
        }
    }

    /// The clock is before the epoch or more than 2^41 ms (69 years) after it.
    #[must_use]
    pub fn is_out_of_time(&self) -> bool {
        self.kind == Kind::OutOfTime
    }

    /// Every worker id of the range is leased by another.
    #[must_use]
    pub fn is_no_worker(&self) -> bool {
        matches!(self.kind, Kind::NoWorker { .. })
    }

    /// The lease of the worker id passed to another. No id was given twice; lease anew.
    #[must_use]
    pub fn is_lease_lost(&self) -> bool {
        matches!(self.kind, Kind::LeaseLost { .. })
    }

    /// The lease could not be read or written (a disk or a store failed).
    #[must_use]
    pub fn is_lease_failed(&self) -> bool {
        matches!(self.kind, Kind::Lease(_))
    }

    /// A worker's file holds no readable clock floor: do not reuse that worker id.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        matches!(self.kind, Kind::Damaged(_))
    }

    /// The text is not a token.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        matches!(self.kind, Kind::Text(_) | Kind::Memo)
    }

    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, source: None }
    }

    pub(crate) fn io(what: &'static str, source: io::Error) -> Self {
        Self::caused(what, source)
    }

    pub(crate) fn caused(
        what: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind: Kind::Lease(what),
            source: Some(Arc::new(source)),
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Behind { by_ms } => write!(
                f,
                "the clock is {by_ms} ms behind an id that may exist: set it right, or allow to wait that long"
            )?,
            Kind::OutOfTime => f.write_str(
                "the clock is outside the 69 years after the epoch: set the clock or the epoch right",
            )?,
            Kind::Worker(worker) => {
                write!(f, "there is no worker {worker}: worker ids are 0 to 1023")?;
            }
            Kind::NoWorker { first, last } => write!(
                f,
                "every worker id from {first} to {last} is leased: end a process or widen the range"
            )?,
            Kind::LeaseLost { worker } => write!(
                f,
                "the lease of worker {worker} passed to another: lease a worker id anew"
            )?,
            Kind::Lease(what) => write!(f, "could not {what}")?,
            Kind::Damaged(file) => write!(
                f,
                "{file} holds no readable clock floor: keep its worker id out of the range from now on"
            )?,
            Kind::Text(why) => write!(f, "this is not a token: {why}")?,
            Kind::Memo => f.write_str(
                "the memo of this key starts with no token: it was claimed by other means",
            )?,
            Kind::Options(what) => write!(f, "the options do not fit: {what}")?,
        }
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TokenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
