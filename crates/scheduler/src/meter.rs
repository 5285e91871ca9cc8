//! Counts for the `metrics` facade. Trace ids never become labels.

use circuit::{State, Transition};
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
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            lateness_s: histogram!("mainstay_scheduler_lateness_seconds"),
            run_s: histogram!("mainstay_scheduler_run_seconds"),
        }
    }

    /// From the nominal time to the first try.
    pub(crate) fn began(&self, late_ms: u64) {
        self.lateness_s.record(late_ms as f64 / 1e3);
    }

    /// A try's time.
    pub(crate) fn ended(&self, took_ms: u64) {
        self.run_s.record(took_ms as f64 / 1e3);
    }
}

pub(crate) fn breaker_changed(job: &str, change: &Transition) {
    let to = match change.to {
        State::Closed | State::ForcedClosed => "closed",
        State::Open | State::ForcedOpen => "open",
        State::HalfOpen => "half-open",
    };
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
