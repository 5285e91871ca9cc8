use ebpf_ring::{CounterSource as _, Counters, DropReason, MapCounters, RingStats};

use crate::error::ScopeError;

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
        self.unaccounted() == 0
    }

    /// By how much the left side of the equation above exceeds the right one: events of which
    /// nothing is known. Negative where more were found than seen.
    #[must_use]
    pub fn unaccounted(&self) -> i64 {
        let found = [self.delivered, self.discarded, self.pending, self.dropped()];
        let left = found
            .iter()
            .fold(self.seen(), |left, n| left.wrapping_sub(*n));
        left.cast_signed()
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

/// What a program counted in one shard, all CPUs together.
pub(crate) fn total(counts: &MapCounters) -> Result<Counters, ScopeError> {
    let per_cpu = counts.per_cpu();
    let per_cpu = per_cpu.map_err(|e| ScopeError::bpf("reading the counter map", e.into()))?;
    Ok(per_cpu.into_iter().sum())
}
