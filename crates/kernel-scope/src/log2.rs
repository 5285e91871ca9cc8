/// Slots of a [`Log2Histogram`]: `RUNQ_SLOTS` of `bpf/runq.h`.
pub(crate) const SLOTS: usize = 28;

/// A histogram of times whose slots double: what a BPF program can afford to keep for each task.
///
/// Slot 0 counts times below a microsecond, slot n those from 2^(n-1) to below 2^n microseconds,
/// the last one (from 67 s on) all that are longer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log2Histogram {
    slots: [u64; SLOTS],
    longest_ns: u64,
}

impl Log2Histogram {
    pub(crate) fn new(slots: &[u32; SLOTS], longest_ns: u64) -> Self {
        Self {
            slots: slots.map(u64::from),
            longest_ns,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.slots.iter_mut().zip(other.slots) {
            *mine += theirs;
        }
        self.longest_ns = self.longest_ns.max(other.longest_ns);
    }

    /// Times counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.slots.iter().sum()
    }

    /// The longest time, exactly, in nanoseconds; 0 when there is none.
    #[must_use]
    pub fn longest_ns(&self) -> u64 {
        self.longest_ns
    }

    /// The slots that are not empty: the time in microseconds at which each begins, and its count.
    pub fn slots(&self) -> impl Iterator<Item = (u64, u64)> {
        let used = self.slots.iter().enumerate().filter(|(_, n)| **n > 0);
        used.map(|(slot, n)| (begin_of(slot), *n))
    }

    /// The time in nanoseconds that `q` (0 to 1) of all times do not exceed, as if the times of a
    /// slot were spread evenly over it; at most the longest. `None` when nothing was counted.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "an estimate inside of a slot"
    )]
    pub fn quantile_ns(&self, q: f64) -> Option<u64> {
        let rank = (self.count() as f64 * q).ceil().max(1.0);
        let mut below = 0.0;
        for (slot, count) in self.slots.iter().enumerate().filter(|(_, n)| **n > 0) {
            let count = *count as f64;
            if below + count >= rank {
                let (begin, end) = (begin_of(slot) * 1000, begin_of(slot + 1) * 1000);
                let end = end.min(self.longest_ns).max(begin);
                let inside = (rank - below) / count * (end - begin) as f64;
                return Some((begin + inside as u64).min(self.longest_ns));
            }
            below += count;
        }
        None
    }
}

/// In microseconds.
fn begin_of(slot: usize) -> u64 {
    match slot {
        0 => 0,
        _ => 1 << (slot - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::{Log2Histogram, SLOTS};

    #[test]
    fn quantiles_lie_in_the_slot_of_their_rank() {
        let mut slots = [0; SLOTS];
        (slots[0], slots[3], slots[11]) = (50, 49, 1);
        let histogram = Log2Histogram::new(&slots, 1_500_000);
        assert_eq!(
            (histogram.count(), histogram.longest_ns()),
            (100, 1_500_000)
        );
        assert_eq!(histogram.quantile_ns(0.5), Some(1000));
        let p99 = histogram.quantile_ns(0.99).expect("not empty");
        assert!((4_000..=8_000).contains(&p99), "{p99}");
        assert_eq!(histogram.quantile_ns(1.0), Some(1_500_000));
        assert_eq!(
            histogram.slots().collect::<Vec<_>>(),
            [(0, 50), (4, 49), (1024, 1)]
        );
        assert_eq!(Log2Histogram::default().quantile_ns(0.5), None);
    }

    #[test]
    fn the_last_slot_ends_with_the_longest_time() {
        let mut slots = [0; SLOTS];
        slots[SLOTS - 1] = 2;
        let mut histogram = Log2Histogram::new(&slots, 300_000_000_000);
        histogram.add(&Log2Histogram::new(&slots, 100_000_000_000));
        assert_eq!(histogram.count(), 4);
        assert_eq!(histogram.quantile_ns(1.0), Some(134_217_728_000));
        assert_eq!(histogram.longest_ns(), 300_000_000_000);
    }
}
