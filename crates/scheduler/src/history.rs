//! What became of firings.

use std::fmt;
use std::sync::Arc;

use circuit::TraceId;

/// What became of a firing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It ran, and said so.
    Succeeded,
    /// Its last try failed.
    Failed,
    /// Its last try panicked.
    Panicked,
    /// Its last try took too long.
    TimedOut,
    /// It was asked to stop.
    Cancelled,
    /// Its time passed while nothing could fire it, and the misfire policy does not run it.
    Misfired,
    /// An earlier firing still ran, and the overlap policy does not run it.
    Overlapped,
    /// The job's breaker was open.
    BreakerOpen,
    /// Too many firings waited for a worker.
    QueueFull,
    /// Another process settled it, or somebody by hand. As long as another only has it in hand, it has no outcome here.
    Elsewhere,
    /// A process died while it ran it, nobody knows how far it came, and it does not run again. Or a claim's answer was lost, which
    /// looks the same (see [`InDoubt`](crate::InDoubt)); or it waits for an answer, and too many younger ones do.
    InDoubt,
    /// The store did not answer: whether another process runs it is not known, so it did not run here.
    Unclaimed,
    /// The scheduler stopped before it began.
    Dropped,
}

impl Outcome {
    /// All of them, in the order of [`index`](Self::index).
    pub const ALL: [Self; 13] = [
        Self::Succeeded,
        Self::Failed,
        Self::Panicked,
        Self::TimedOut,
        Self::Cancelled,
        Self::Misfired,
        Self::Overlapped,
        Self::BreakerOpen,
        Self::QueueFull,
        Self::Elsewhere,
        Self::InDoubt,
        Self::Unclaimed,
        Self::Dropped,
    ];

    /// Its place in [`ALL`](Self::ALL).
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// A word for logs and labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed-out",
            Self::Cancelled => "cancelled",
            Self::Misfired => "misfired",
            Self::Overlapped => "overlapped",
            Self::BreakerOpen => "breaker-open",
            Self::QueueFull => "queue-full",
            Self::Elsewhere => "elsewhere",
            Self::InDoubt => "in-doubt",
            Self::Unclaimed => "unclaimed",
            Self::Dropped => "dropped",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One firing in a job's history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The nominal time, Unix milliseconds.
    pub fire_ms: u64,
    /// When its first try began, Unix milliseconds; none when none did.
    pub began_ms: Option<u64>,
    /// When it was settled, Unix milliseconds.
    pub ended_ms: u64,
    /// Tries that were made.
    pub attempts: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// The trace of its tries.
    pub trace: Option<TraceId>,
    /// What the last try said, or why nothing ran.
    pub error: Option<Arc<str>>,
}

/// How many firings had which outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Outcome::ALL.len()]);

impl Counts {
    /// Firings with this outcome.
    #[must_use]
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome.index()]
    }

    pub(crate) fn add(&mut self, outcome: Outcome, count: u64) {
        self.0[outcome.index()] += count;
    }
}
