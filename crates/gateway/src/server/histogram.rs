//! A histogram that any thread may record into.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts by bit length, in the unit of the caller: bucket `i` holds the values below `2^i` that
/// no lower bucket holds. `conn-reactor` and `idem-store` count in the same buckets.
pub(crate) struct Histogram {
    buckets: [AtomicU64; Self::BUCKETS],
    sum: AtomicU64,
}

/// A copy of a histogram at one moment.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    buckets: Vec<u64>,
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; Self::BUCKETS],
            sum: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// The last bound but one is 2^24: 16 seconds in microseconds, 4 hours in milliseconds.
    const BUCKETS: usize = 26;

    pub(crate) fn record(&self, value: u64) {
        let bucket = u64::BITS - value.leading_zeros();
        let bucket = (bucket as usize).min(Self::BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            buckets: self
                .buckets
                .iter()
                .map(|bucket| bucket.load(Relaxed))
                .collect(),
            sum: self.sum.load(Relaxed),
        }
    }
}

impl Counts {
    /// Takes over counts made elsewhere with the same bounds.
    pub(crate) fn new(buckets: Vec<u64>, sum: u64) -> Self {
        Self { buckets, sum }
    }

    pub(crate) fn total(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    /// Largest value and count of each bucket; the last bound is infinite.
    pub(crate) fn bounded(&self) -> impl Iterator<Item = (f64, u64)> {
        let last = self.buckets.len().saturating_sub(1);
        self.buckets.iter().enumerate().map(move |(i, count)| {
            (
                if i == last {
                    f64::INFINITY
                } else {
                    2_f64.powi(i as i32) - 1.0
                },
                *count,
            )
        })
    }

    /// What was counted since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = earlier.buckets.iter().chain(std::iter::repeat(&0));
        Self {
            buckets: self
                .buckets
                .iter()
                .zip(before)
                .map(|(now, then)| now - then)
                .collect(),
            sum: self.sum - earlier.sum,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.buckets
            .resize(self.buckets.len().max(other.buckets.len()), 0);
        self.buckets
            .iter_mut()
            .zip(&other.buckets)
            .for_each(|(sum, count)| *sum += count);
        self.sum += other.sum;
    }

    /// The value below which the share `quantile` of the values lies, interpolated inside its
    /// bucket; `None` when nothing was counted.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        let total = self.total();
        let rank = (total as f64 * quantile).max(1.0);
        let mut below = 0.0;
        for (i, &count) in self
            .buckets
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            let share = (rank - below) / count as f64;
            if share <= 1.0 {
                let upper = 2_f64.powi(i as i32) - 1.0;
                let lower = upper / 2.0;
                return Some(lower + (upper - lower) * share);
            }
            below += count as f64;
        }
        None
    }
}

impl From<&idem_store::Histogram> for Counts {
    fn from(histogram: &idem_store::Histogram) -> Self {
        let buckets = histogram.buckets().map(|(_, count)| count).collect();
        Self {
            buckets,
            sum: histogram.sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_quantiles() {
        let histogram = Histogram::default();
        for value in [0, 1, 2, 3, 4, 5, 1_000, u64::MAX] {
            histogram.record(value);
        }
        let counts = histogram.counts();
        assert_eq!(counts.buckets[..4], [1, 1, 2, 2]);
        assert_eq!(counts.total(), 8);
        assert_eq!(*counts.buckets.last().unwrap(), 1);
        let median = counts.quantile(0.5).unwrap();
        assert!((1.5..=3.0).contains(&median), "{median}");
        assert_eq!(counts.since(&counts).quantile(0.5), None);
    }
}
