//! What a closed breaker knows of its callee, and whether that is bad enough to open.

use crate::adaptive::{Baseline, percent};
use crate::breaker::Reason;
use crate::config::{Config, FailureRate};
use crate::trace::{RecentFailures, TraceId};
use crate::window::{Counts, Window};

pub(crate) struct Watch {
    window: Window,
    failures_in_row: u32,
    baseline: Baseline,
    failed_traces: RecentFailures,
    fleet: Option<Fleet>,
}

/// What others measured.
#[derive(Clone, Copy)]
struct Fleet {
    rate: f32,
    until_ms: u64,
}

/// How a call ended.
#[derive(Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
    pub(crate) trace: Option<TraceId>,
}

impl Watch {
    pub(crate) fn new(config: &Config) -> Self {
        Watch {
            window: Window::new(config.lookback),
            failures_in_row: 0,
            baseline: Baseline::default(),
            failed_traces: RecentFailures::new(),
            fleet: None,
        }
    }

    /// Counts a call; the reason to open, if there is one now.
    pub(crate) fn record(&mut self, config: &Config, ended: Ended, now_ms: u64) -> Option<Reason> {
        let again = config.failures_once_per_trace
            && ended.failed
            && ended
                .trace
                .is_some_and(|trace| self.failed_traces.seen(trace));
        if again {
            return None;
        }
        self.window.push(ended.failed, ended.slow, now_ms);
        if let FailureRate::Adaptive(rules) = &config.failure_rate {
            self.baseline.push(rules, ended.failed, now_ms);
        }
        self.failures_in_row = if ended.failed {
            self.failures_in_row.saturating_add(1)
        } else {
            0
        };
        self.judge(config, now_ms)
    }

    fn judge(&mut self, config: &Config, now_ms: u64) -> Option<Reason> {
        let limit = config.consecutive_failures;
        if limit > 0 && self.failures_in_row >= limit {
            return Some(Reason::ConsecutiveFailures);
        }
        let counts = self.window.counts(now_ms);
        if self.rate_exceeds(config, counts, now_ms) {
            return Some(Reason::FailureRate);
        }
        let slow_rate = u64::from(config.slow_rate_percent);
        let enough = slow_rate > 0 && counts.calls >= config.calls_min;
        let slow = enough && u64::from(counts.slow) * 100 >= slow_rate * u64::from(counts.calls);
        slow.then_some(Reason::SlowCallRate)
    }

    fn rate_exceeds(&self, config: &Config, counts: Counts, now_ms: u64) -> bool {
        let missing = config.calls_min.saturating_sub(counts.calls);
        if missing > 0 {
            // Too few calls of our own: what the others saw stands in for the missing ones.
            let Some(fleet) = self.fleet.filter(|fleet| now_ms < fleet.until_ms) else {
                return false;
            };
            let failures = counts.failures as f32 + missing as f32 * fleet.rate;
            return self
                .threshold(config)
                .is_some_and(|threshold| failures >= threshold * config.calls_min as f32);
        }
        match config.failure_rate {
            FailureRate::Off => false,
            // In integers, so that 50% of 10 is exactly 5.
            FailureRate::Percent(rate) => {
                u64::from(counts.failures) * 100 >= u64::from(rate) * u64::from(counts.calls)
            }
            FailureRate::Adaptive(_) => self
                .threshold(config)
                .is_some_and(|threshold| counts.failure_rate() >= threshold),
        }
    }

    pub(crate) fn threshold(&self, config: &Config) -> Option<f32> {
        match &config.failure_rate {
            FailureRate::Off => None,
            FailureRate::Percent(rate) => Some(percent(*rate)),
            FailureRate::Adaptive(rules) => Some(self.baseline.threshold(rules)),
        }
    }

    pub(crate) fn counts(&mut self, now_ms: u64) -> Counts {
        self.window.counts(now_ms)
    }

    pub(crate) fn set_fleet(&mut self, rate: f32, until_ms: u64) {
        let rate = if rate.is_nan() {
            0.0
        } else {
            rate.clamp(0.0, 1.0)
        };
        self.fleet = Some(Fleet { rate, until_ms });
    }

    /// Forgets the calls, not what is normal for the callee.
    pub(crate) fn clear(&mut self) {
        self.window.clear();
        self.failures_in_row = 0;
        self.baseline.discard_sample();
        self.failed_traces.clear();
    }
}
