//! When a breaker opens, for how long, and what closes it.

use crate::adaptive::Adaptive;
use crate::window::Lookback;

/// The share of failures that opens a [`Breaker`](crate::Breaker).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureRate {
    /// The rate opens nothing.
    Off,
    /// This many percent, 1 to 100.
    Percent(u8),
    /// What is unusual for this callee.
    Adaptive(Adaptive),
}

/// The rules of a [`Breaker`](crate::Breaker).
///
/// Start from a preset and change what you need:
///
/// ```
/// use circuit::{Config, Lookback};
///
/// let mut config = Config::essay();
/// config.lookback = Lookback::Time { span_ms: 30_000, buckets: 30 };
/// config.slow_call_ms = 2_000;
/// config.slow_rate_percent = 80;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The calls that the rates look back on.
    pub lookback: Lookback,
    /// Calls that the window must hold before a rate counts.
    pub calls_min: u32,
    /// The share of failures in the window that opens the breaker.
    pub failure_rate: FailureRate,
    /// A call that takes this long is slow, whatever came of it.
    pub slow_call_ms: u64,
    /// The share of slow calls in the window that opens the breaker, in percent; 0 turns the rule off.
    pub slow_rate_percent: u8,
    /// Failures in a row that open the breaker; 0 turns the rule off.
    pub consecutive_failures: u32,
    /// Count several failures of one trace once, so that the retries of one request do not open the breaker
    /// for all others. The last 16 traces that failed are remembered.
    pub failures_once_per_trace: bool,
    /// How long the breaker stays open before it lets probes through.
    pub open_ms: u64,
    /// A failed probe doubles the open time, up to this; equal to `open_ms`: it stays the same.
    pub open_max_ms: u64,
    /// Probes that one half-open period lets through; a probe whose permit is dropped does not count.
    pub probes_max: u32,
    /// Probes that must succeed to close the breaker; more than `probes_max` counts as `probes_max`.
    pub successes_to_close: u32,
    /// When all probes are out and none has reported for this long, new ones go; what the others report later counts
    /// all the same.
    pub probe_timeout_ms: u64,
}

impl Config {
    /// The last 10 calls, 50% failures, open for 60 s, at most 5 probes, 3 successes close.
    pub const fn essay() -> Self {
        Config {
            lookback: Lookback::Calls(10),
            calls_min: 10,
            failure_rate: FailureRate::Percent(50),
            slow_call_ms: u64::MAX,
            slow_rate_percent: 0,
            consecutive_failures: 0,
            failures_once_per_trace: false,
            open_ms: 60_000,
            open_max_ms: 60_000,
            probes_max: 5,
            successes_to_close: 3,
            probe_timeout_ms: 60_000,
        }
    }

    /// The calls of the last 10 s, an adaptive threshold, open for 5 s to 60 s, 3 probes, 2 successes close.
    pub fn adaptive() -> Self {
        Config {
            lookback: Lookback::Time {
                span_ms: 10_000,
                buckets: 10,
            },
            calls_min: 20,
            failure_rate: FailureRate::Adaptive(Adaptive::default()),
            open_ms: 5_000,
            probes_max: 3,
            successes_to_close: 2,
            ..Self::essay()
        }
    }

    /// Brings numbers that make no sense into their ranges.
    pub(crate) fn sane(mut self) -> Self {
        self.calls_min = self.calls_min.max(1);
        if let Lookback::Calls(calls) = self.lookback {
            self.calls_min = self.calls_min.min(calls.clamp(1, 1 << 16));
        }
        self.failure_rate = match self.failure_rate {
            FailureRate::Percent(0) => FailureRate::Off,
            FailureRate::Adaptive(rules) => FailureRate::Adaptive(rules.sane()),
            other => other,
        };
        self.open_max_ms = self.open_max_ms.max(self.open_ms);
        self.probes_max = self.probes_max.max(1);
        self.successes_to_close = self.successes_to_close.clamp(1, self.probes_max);
        self
    }
}
