/// Eight buckets to an octave: a value is told from its neighbours to 1/8, a quantile to 1/16.
const STEPS_LOG2: u32 = 3;
const STEPS: u64 = 1 << STEPS_LOG2;

/// A log-linear histogram of `u64` values in constant relative resolution: quantiles are right to
/// 6.25%, values below 16 exactly. It grows with the largest value, to 4 KB at most.
///
/// ```
/// let mut steps = kernel_scope::Histogram::default();
/// for ns in [100, 200, 300, 400, 10_000] {
///     steps.record(ns);
/// }
/// assert_eq!(steps.count(), 5);
/// let p50 = steps.quantile(0.5).unwrap();
/// assert!(p50.abs_diff(300) <= 300 / 16);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    /// Counts one value. O(1).
    pub fn record(&mut self, value: u64) {
        let bucket = bucket_of(value);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// Values counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest value; 0 when there is none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The buckets that are not empty: the smallest value of each, and its count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let used = self.buckets.iter().enumerate().filter(|(_, n)| **n > 0);
        used.map(|(bucket, n)| (bounds_of(bucket).0, *n))
    }

    /// The value that `q` (0 to 1) of all values do not exceed: its bucket's middle, at most
    /// [`max`](Self::max). `None` when nothing was counted. O(buckets).
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "the rank is clamped to 1..=count, and counts beyond 2^53 do not occur"
        )]
        let rank = ((self.count as f64 * q).ceil() as u64).clamp(1, self.count);
        let mut below = 0;
        let found = self.buckets.iter().position(|n| {
            below += n;
            below >= rank
        });
        let (low, width) = bounds_of(found.expect("the ranks of all buckets add up to count"));
        Some((low + (width - 1) / 2).min(self.max))
    }
}

/// Values below 8 have a bucket each; above, the bits after the leading one choose it.
fn bucket_of(value: u64) -> usize {
    let index = if value < STEPS {
        value
    } else {
        let shift = value.ilog2() - STEPS_LOG2;
        u64::from(shift + 1) * STEPS + (value >> shift) - STEPS
    };
    usize::try_from(index).expect("at most 496")
}

/// The smallest value of a bucket, and how many values fall into it.
fn bounds_of(bucket: usize) -> (u64, u64) {
    let (octave, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    match octave {
        0 => (step, 1),
        _ => ((STEPS + step) << (octave - 1), 1 << (octave - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Histogram, bounds_of, bucket_of};

    #[test]
    fn every_value_lies_in_its_bucket() {
        let edges = (0..64)
            .map(|bit| 1u64 << bit)
            .flat_map(|n| [n - 1, n, n + 1, n + n / 3]);
        for value in edges.chain(0..1000).chain([u64::MAX]) {
            let (low, width) = bounds_of(bucket_of(value));
            assert!(
                low <= value && value - low < width,
                "{value} in {low}+{width}"
            );
            assert!(
                value < 16 && width == 1 || width <= low / 8,
                "{value} in {low}+{width}"
            );
        }
        assert_eq!(bucket_of(u64::MAX), 495);
    }

    #[test]
    fn quantiles_are_close_to_the_sorted_values() {
        let mut histogram = Histogram::default();
        let mut values: Vec<u64> = (0..5000u64).map(|n| n * n % 7919 * 13 + 1).collect();
        values.iter().for_each(|value| histogram.record(*value));
        values.sort_unstable();
        for (q, index) in [
            (0.0, 0),
            (0.5, 2499),
            (0.99, 4949),
            (0.999, 4994),
            (1.0, 4999),
        ] {
            let (found, exact) = (histogram.quantile(q).expect("not empty"), values[index]);
            assert!(
                found.abs_diff(exact) <= exact / 16 + 1,
                "{q}: {found} for {exact}"
            );
        }
        assert_eq!((histogram.count(), histogram.max()), (5000, values[4999]));
        assert_eq!(histogram.buckets().map(|(_, n)| n).sum::<u64>(), 5000);
        assert!(histogram.buckets().is_sorted());
    }

    #[test]
    fn an_empty_histogram_has_no_quantile() {
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
