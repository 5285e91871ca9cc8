//! When a breaker opens, for how long, and what closes it.

/// The rules of a [`Breaker`](crate::Breaker).
///
/// Start from a preset and change what you need:
///
/// ```
/// let mut config = circuit::Config::essay();
/// config.open_ms = 5_000;
/// config.consecutive_failures = 3;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Calls that the failure rate looks back on, 1 to 65,536; one bit of memory each.
    pub window_calls: u32,
    /// Calls that the window must hold before the failure rate counts.
    pub calls_min: u32,
    /// The share of failures in the window that opens the breaker, in percent; 0 turns the rule off.
    pub failure_rate_percent: u8,
    /// Failures in a row that open the breaker; 0 turns the rule off.
    pub consecutive_failures: u32,
    /// How long the breaker stays open before it lets probes through.
    pub open_ms: u64,
    /// A failed probe doubles the open time, up to this; equal to `open_ms`: it stays the same.
    pub open_max_ms: u64,
    /// Probes that one half-open period lets through; a probe whose permit is dropped does not count.
    pub probes_max: u32,
    /// Probes that must succeed to close the breaker; more than `probes_max` counts as `probes_max`.
    pub successes_to_close: u32,
    /// When all probes are out and none has reported for this long, they are given up and new ones go.
    pub probe_timeout_ms: u64,
}

impl Config {
    /// The last 10 calls, 50% failures, open for 60 s, at most 5 probes, 3 successes close.
    pub const fn essay() -> Self {
        Config {
            window_calls: 10,
            calls_min: 10,
            failure_rate_percent: 50,
            consecutive_failures: 0,
            open_ms: 60_000,
            open_max_ms: 60_000,
            probes_max: 5,
            successes_to_close: 3,
            probe_timeout_ms: 60_000,
        }
    }

    /// Brings numbers that make no sense into their ranges.
    pub(crate) fn sane(mut self) -> Self {
        self.window_calls = self.window_calls.clamp(1, 1 << 16);
        self.calls_min = self.calls_min.clamp(1, self.window_calls);
        self.open_max_ms = self.open_max_ms.max(self.open_ms);
        self.probes_max = self.probes_max.max(1);
        self.successes_to_close = self.successes_to_close.clamp(1, self.probes_max);
        self
    }
}
