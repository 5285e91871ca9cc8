//! A threshold that follows what is normal for this callee, and does not follow an outage.
//!
//! The error rate itself, smoothed, is no threshold: an outage lifts it as fast as the rate, and the breaker never
//! opens (`cargo run -p mainstay-circuit --example incident` shows it). So the threshold is the smoothed rate
//! *plus a margin*, and a sample lifts the smoothed rate by no more than the threshold allows.

/// How an adaptive threshold learns. Rates are shares of failed calls.
///
/// Once in `sample_ms` the share of failures since the last sample moves two averages by `learn_permille` of
/// the difference: the baseline, and the mean deviation from it. The threshold is the baseline plus
/// `deviations` times the mean deviation, but at least `margin_min_percent` and at most
/// `margin_max_percent` above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Adaptive {
    /// Time between two samples, 1 or more.
    pub sample_ms: u64,
    /// Weight of a new sample in thousandths, 1 to 1,000: 1,000 minus the forgetting factor. 20 forgets half
    /// of what was in 34 samples.
    pub learn_permille: u16,
    /// Mean deviations between baseline and threshold, before the margin is clamped.
    pub deviations: u8,
    /// The smallest margin: what noise may do to a callee that never fails.
    pub margin_min_percent: u8,
    /// The largest margin: what an unsteady callee may do at most.
    pub margin_max_percent: u8,
    /// The threshold until `samples_min` samples are known.
    pub start_percent: u8,
    /// Samples before the threshold adapts, 1 or more. Until then the averages are plain means.
    pub samples_min: u16,
}

impl Default for Adaptive {
    /// A sample a second, half forgotten in 34 of them, 4 deviations within 10% to 40%; 50% for the first 30.
    fn default() -> Self {
        Adaptive {
            sample_ms: 1_000,
            learn_permille: 20,
            deviations: 4,
            margin_min_percent: 10,
            margin_max_percent: 40,
            start_percent: 50,
            samples_min: 30,
        }
    }
}

impl Adaptive {
    pub(crate) fn sane(mut self) -> Self {
        self.sample_ms = self.sample_ms.max(1);
        self.learn_permille = self.learn_permille.clamp(1, 1_000);
        self.margin_max_percent = self.margin_max_percent.min(100);
        self.margin_min_percent = self.margin_min_percent.min(self.margin_max_percent);
        self.start_percent = self.start_percent.clamp(1, 100);
        self.samples_min = self.samples_min.max(1);
        self
    }
}

/// What an [`Adaptive`] threshold has learned.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Baseline {
    rate: f32,
    deviation: f32,
    samples: u32,
    /// The sample that is being counted.
    since_ms: u64,
    calls: u32,
    failures: u32,
}

impl Baseline {
    /// Counts a call of the closed breaker, and learns when a sample is complete. O(1).
    pub(crate) fn push(&mut self, rules: &Adaptive, failed: bool, now_ms: u64) {
        if now_ms >= self.since_ms.saturating_add(rules.sample_ms) {
            self.learn(rules);
            self.since_ms = now_ms;
        }
        self.calls = self.calls.saturating_add(1);
        self.failures = self.failures.saturating_add(failed.into());
    }

    fn learn(&mut self, rules: &Adaptive) {
        if self.calls == 0 {
            return;
        }
        // What is over the threshold is an outage on its way, not what is normal.
        let sample = (self.failures as f32 / self.calls as f32).min(self.threshold(rules));
        (self.calls, self.failures) = (0, 0);
        self.samples = self.samples.saturating_add(1);
        let weight = (f32::from(rules.learn_permille) / 1_000.0).max(1.0 / self.samples as f32);
        let distance = sample - self.rate;
        self.rate += weight * distance;
        // The first samples have nothing to deviate from.
        if self.samples > 1 {
            self.deviation += weight * (distance.abs() - self.deviation);
        }
    }

    /// The share of failures that opens the breaker, 0 to 1.
    pub(crate) fn threshold(&self, rules: &Adaptive) -> f32 {
        if self.samples < rules.samples_min.into() {
            return percent(rules.start_percent);
        }
        let margin = (f32::from(rules.deviations) * self.deviation).clamp(
            percent(rules.margin_min_percent),
            percent(rules.margin_max_percent),
        );
        (self.rate + margin).min(1.0)
    }

    /// Forgets the sample that was being counted; what was learned stays.
    pub(crate) fn discard_sample(&mut self) {
        (self.calls, self.failures) = (0, 0);
    }
}

pub(crate) fn percent(percent: u8) -> f32 {
    f32::from(percent) / 100.0
}
