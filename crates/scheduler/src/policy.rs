//! What happens when things do not go by the clock.

use std::time::Duration;

use circuit::{Config as BreakerConfig, FailureRate, Jitter, Policy};

/// What happens to firings that were missed: their time passed by more than the grace while nothing could fire them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Misfire {
    /// None of them runs.
    Skip,
    /// The last of them runs.
    #[default]
    Once,
    /// The last of them run, at most this many, one after the other (but with [`Overlap::Allow`]).
    All(u32),
}

impl Misfire {
    /// How many of the last missed firings run.
    pub(crate) fn keeps(self) -> usize {
        match self {
            Self::Skip => 0,
            Self::Once => 1,
            Self::All(count) => count as usize,
        }
    }
}

/// What happens to a firing while an earlier one of the same job still runs in this process.
///
/// That is for firings in time. Missed ones that run, and those that run again because they were in doubt, wait for what
/// runs, whatever the policy but [`Allow`](Self::Allow).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Both run.
    Allow,
    /// The new one does not run.
    #[default]
    Skip,
    /// The new one waits, behind at most this many others.
    Queue(u32),
    /// The earlier one is asked to stop ([`CancelToken`](crate::CancelToken)); the new one starts when it has ended. Where
    /// the earlier one has not begun, the new one takes its place among those that wait for a worker.
    CancelPrevious,
}

/// How a failed firing is tried again. All tries are one firing: one claim, one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries altogether; 1 is no retry.
    pub attempts: u32,
    /// The longest delay before the second try; it doubles from try to try.
    pub base: Duration,
    /// The longest delay.
    pub cap: Duration,
}

impl Retry {
    /// One try.
    pub const NONE: Self = Self {
        attempts: 1,
        base: Duration::ZERO,
        cap: Duration::ZERO,
    };

    pub(crate) fn policy(&self) -> Policy {
        Policy {
            base_ms: ms_u32(self.base),
            cap_ms: ms_u32(self.cap),
            jitter: Jitter::Equal,
            first_window_ms: 0,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::NONE
    }
}

/// When a job is left alone for a time: a breaker on its tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// Failures in a row that open it: errors, panics, timeouts, and runs longer than `slow`.
    pub failures: u32,
    /// How long nothing runs then.
    pub open: Duration,
    /// Afterwards one run probes. When it has not reported for so long, another may.
    pub half_open: Duration,
    /// A run that takes longer counts as a failure.
    pub slow: Option<Duration>,
}

impl Default for BreakerRules {
    /// 3 failures, 300 s open, 60 s half-open, and any duration.
    fn default() -> Self {
        Self {
            failures: 3,
            open: Duration::from_secs(300),
            half_open: Duration::from_secs(60),
            slow: None,
        }
    }
}

impl BreakerRules {
    pub(crate) fn config(&self) -> BreakerConfig {
        let mut config = BreakerConfig::essay();
        config.failure_rate = FailureRate::Off;
        config.consecutive_failures = self.failures.max(1);
        config.open_ms = ms(self.open);
        config.open_max_ms = config.open_ms;
        config.probes_max = 1;
        config.successes_to_close = 1;
        config.probe_timeout_ms = ms(self.half_open);
        config
    }
}

/// What happens to a firing whose declared run was cut off: its runner died, and nobody knows how far it came.
///
/// A claim that the store took, and whose answer was lost for longer than the store's timeout, looks the same although nothing ran:
/// with [`Skip`](Self::Skip) such a firing never runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InDoubt {
    /// It does not run again; it is reported.
    #[default]
    Skip,
    /// It runs again, and may so have run twice.
    Rerun,
    /// It waits until somebody says what happened.
    Ask,
}

/// What happens when the queue of firings that wait for a worker is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// The new firing is refused.
    #[default]
    RejectNew,
    /// The oldest firing in the queue makes place.
    DropOldest,
}

pub(crate) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn ms_u32(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
