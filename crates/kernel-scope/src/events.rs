use ebpf_ring::{Counters, DropReason, RingStats};

/// Where every event of a tool went. Exact once the tool has finished:
///
/// ```text
/// seen = delivered + discarded + pending + dropped
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Events {
    /// Events that reached the tool's user.
    pub delivered: u64,
    /// Events that the program began to write and gave up.
    pub discarded: u64,
    /// Events that are on their way.
    pub pending: u64,
    /// What the programs counted, all CPUs together.
    pub counters: Counters,
}

impl Events {
    /// Events that happened.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.counters.seen()
    }

    /// Events that were lost, all reasons together.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.counters.dropped()
    }

    /// Events that were lost for `reason`.
    #[must_use]
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.counters.dropped_for(reason)
    }

    /// Whether the equation above holds.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let found = [self.delivered, self.discarded, self.pending, self.dropped()];
        found.iter().fold(0u64, |sum, n| sum.wrapping_add(*n)) == self.seen()
    }

    pub(crate) fn of_ring(stats: &RingStats) -> Self {
        Self {
            delivered: stats.delivered,
            discarded: stats.discarded,
            pending: stats.pending,
            counters: stats.counters().unwrap_or_default(),
        }
    }
}
