//! A histogram that any thread may record into, and counts taken from one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts in buckets that are at most a quarter of their value wide: four to each doubling.
pub(crate) struct Histogram {
    buckets: [AtomicU64; Self::BUCKETS],
    sum: AtomicU64,
}

/// A copy of a histogram at one moment, ours or another crate's.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    /// The largest value of each bucket and how many values it holds, from small to large.
    buckets: Vec<(u64, u64)>,
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
    /// The last bound but one is 2^25 - 1: 33 seconds in microseconds, 9 hours in milliseconds.
    const BUCKETS: usize = 24 * 4 + 1;

    pub(crate) fn record(&self, value: u64) {
        self.buckets[Self::bucket_of(value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    fn bucket_of(value: u64) -> usize {
        let octave = value.max(4).ilog2() as usize;
        // The two bits below the highest one; small values are buckets of their own.
        let quarter = (value >> (octave - 2)) as usize & 3;
        ((octave - 1) * 4 * usize::from(value >= 4) + quarter).min(Self::BUCKETS - 1)
    }

    fn largest_of(bucket: usize) -> u64 {
        match bucket {
            0..4 => bucket as u64,
            _ if bucket == Self::BUCKETS - 1 => u64::MAX,
            _ => ((5 + bucket as u64 % 4) << (bucket / 4 - 1)) - 1,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed));
        Counts {
            buckets: (0..).map(Self::largest_of).zip(counts).collect(),
            sum: self.sum.load(Relaxed),
        }
    }
}

impl Counts {
    /// Takes over counts by bit length: bucket `i` holds the values below `2^i` that no lower one
    /// holds.
    pub(crate) fn by_bit_length(counts: &[u64], sum: u64) -> Self {
        let largest = (0..).map(|bits| (1_u64 << bits) - 1);
        Self {
            buckets: largest.zip(counts.iter().copied()).collect(),
            sum,
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    /// Largest value and count of each doubling; the last bound is infinite.
    pub(crate) fn doublings(&self) -> Vec<(f64, u64)> {
        let mut doublings = Vec::new();
        let mut count = 0;
        for (largest, in_bucket) in &self.buckets {
            count += in_bucket;
            if largest.wrapping_add(1).is_power_of_two() {
                doublings.push((*largest as f64, count));
                count = 0;
            }
        }
        doublings.push((f64::INFINITY, count));
        doublings
    }

    /// What was counted since `earlier`, a copy of the same histogram.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = earlier.buckets.iter().map(|(_, count)| *count);
        let before = before.chain(std::iter::repeat(0));
        let fresh = self.buckets.iter().zip(before);
        Self {
            buckets: fresh
                .map(|(&(largest, now), then)| (largest, now.saturating_sub(then)))
                .collect(),
            sum: self.sum.wrapping_sub(earlier.sum),
        }
    }

    /// Adds the counts of another histogram with the same buckets.
    pub(crate) fn add(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            let sums = self.buckets.iter_mut().zip(&other.buckets);
            sums.for_each(|((_, sum), (_, count))| *sum += count);
        }
        self.sum += other.sum;
    }

    /// The value below which the share `quantile` of the values lies, interpolated inside its
    /// bucket; `None` when nothing was counted.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        let rank = (self.total() as f64 * quantile).max(1.0);
        let mut below = 0.0;
        let mut lower = 0.0;
        for &(largest, count) in &self.buckets {
            if count > 0 && below + count as f64 >= rank {
                let share = (rank - below) / count as f64;
                let width = if largest == u64::MAX {
                    0.0
                } else {
                    largest as f64 - lower
                };
                return Some(lower + width * share);
            }
            below += count as f64;
            lower = largest as f64;
        }
        None
    }
}

impl From<&idem_store::Histogram> for Counts {
    fn from(histogram: &idem_store::Histogram) -> Self {
        let counts: Vec<_> = histogram.buckets().map(|(_, count)| count).collect();
        Self::by_bit_length(&counts, histogram.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_the_bucket_that_bounds_it() {
        let edges = (0..26).flat_map(|bits| {
            let power = 1_u64 << bits;
            [
                power - 1,
                power,
                power + 1,
                power + power / 4,
                power + power / 2,
            ]
        });
        for value in edges {
            let bucket = Histogram::bucket_of(value);
            assert!(value <= Histogram::largest_of(bucket), "{value}");
            assert!(
                bucket == 0 || value > Histogram::largest_of(bucket - 1),
                "{value}"
            );
        }
        assert_eq!(Histogram::bucket_of(u64::MAX), Histogram::BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_within_a_quarter() {
        let histogram = Histogram::default();
        (1..=1_000).for_each(|value| histogram.record(value));
        let counts = histogram.counts();
        for (quantile, wanted) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let found = counts.quantile(quantile).unwrap();
            assert!((found / wanted - 1.0).abs() < 0.25, "{quantile}: {found}");
        }
        assert_eq!(counts.since(&counts).quantile(0.5), None);
        assert_eq!(counts.total(), 1_000);
        let mut twice = Counts::default();
        twice.add(&counts);
        twice.add(&counts);
        assert_eq!(twice.total(), 2_000);
    }

    #[test]
    fn doublings_hold_every_value_once() {
        let histogram = Histogram::default();
        for value in [0, 1, 2, 3, 4, 7, 8, u64::MAX] {
            histogram.record(value);
        }
        let doublings = histogram.counts().doublings();
        let counts: Vec<_> = doublings.iter().take(5).copied().collect();
        assert_eq!(counts, [(0.0, 1), (1.0, 1), (3.0, 2), (7.0, 2), (15.0, 1)]);
        assert_eq!(doublings.last(), Some(&(f64::INFINITY, 1)));
        let theirs = Counts::by_bit_length(&[1, 1, 2], 8);
        assert_eq!(
            theirs.doublings(),
            [(0.0, 1), (1.0, 1), (3.0, 2), (f64::INFINITY, 0)]
        );
    }
}
