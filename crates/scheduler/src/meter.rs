//! Counts for the `metrics` facade. Trace ids never become labels.

use circuit::Transition;
use metrics::{Counter, Histogram, counter, histogram};

use crate::history::Outcome;

/// A job's counters. Most jobs have one or two outcomes, so only those have one.
#[derive(Default)]
pub(crate) struct JobMeter {
    firings: Vec<(Outcome, Counter)>,
}

impl JobMeter {
    pub(crate) fn count(&mut self, job: &str, outcome: Outcome, count: u64) {
        let known = self.firings.iter().find(|(known, _)| *known == outcome);
        if let Some((_, firings)) = known {
            return firings.increment(count);
        }
        let firings = counter!(
            "mainstay_scheduler_firings_total",
            "job" => job.to_owned(),
            "outcome" => outcome.name(),
        );
        firings.increment(count);
        self.firings.reserve_exact(1);
        self.firings.push((outcome, firings));
    }
}

/// What all jobs share.
pub(crate) struct Meter {
    lateness_s: Histogram,
    run_s: Histogram,
    pub(crate) lateness: Lateness,
}

/// How late first tries began: from the nominal time, so jitter and waiting for a worker are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    buckets: [u64; Self::BUCKETS],
    sum_ms: u64,
}

impl Lateness {
    /// The last bucket holds whatever is later than 12 days.
    const BUCKETS: usize = 32;

    /// Counts of firings; number `i` is of those less than 2^`i` milliseconds late that no lower one holds, and the last one
    /// of all the rest.
    #[must_use]
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// The sum of it all, in milliseconds.
    #[must_use]
    pub fn sum_ms(&self) -> u64 {
        self.sum_ms
    }

    /// Firings whose first try began.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    fn record(&mut self, late_ms: u64) {
        let bits = (u64::BITS - late_ms.leading_zeros()) as usize;
        self.buckets[bits.min(Self::BUCKETS - 1)] += 1;
        self.sum_ms = self.sum_ms.saturating_add(late_ms);
    }
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            lateness_s: histogram!("mainstay_scheduler_lateness_seconds"),
            run_s: histogram!("mainstay_scheduler_run_seconds"),
            lateness: Lateness::default(),
        }
    }

    /// From the nominal time to the first try.
    pub(crate) fn began(&mut self, late_ms: u64) {
        self.lateness_s.record(late_ms as f64 / 1e3);
        self.lateness.record(late_ms);
    }

    /// A try's time.
    pub(crate) fn ended(&self, took_ms: u64) {
        self.run_s.record(took_ms as f64 / 1e3);
    }
}

pub(crate) fn breaker_changed(job: &str, change: &Transition) {
    let to = change.to.name();
    counter!("mainstay_scheduler_breaker_changes_total", "job" => job.to_owned(), "to" => to)
        .increment(1);
    tracing::warn!(
        job,
        from = ?change.from,
        to = ?change.to,
        reason = ?change.reason,
        trace_id = change.trace.map(tracing::field::display),
        "the breaker changed its state"
    );
}

#[cfg(test)]
mod tests {
    use super::Lateness;

    #[test]
    fn buckets_hold_what_they_say() {
        let mut lateness = Lateness::default();
        for late_ms in [0, 1, 2, 3, 4, 1_023, 1_024, u64::MAX] {
            lateness.record(late_ms);
        }
        let filled = lateness
            .buckets()
            .iter()
            .enumerate()
            .filter(|(_, n)| **n > 0);
        let filled: Vec<(usize, u64)> = filled.map(|(bits, n)| (bits, *n)).collect();
        let expected = [(0, 1), (1, 1), (2, 2), (3, 1), (10, 1), (11, 1), (31, 1)];
        assert_eq!(filled, expected);
        assert_eq!((lateness.count(), lateness.sum_ms()), (8, u64::MAX));
    }
}
