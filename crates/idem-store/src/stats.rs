//! Counters that a metrics page reads.

/// Counts in buckets of powers of two: bucket `i` counts values below `2^i` and at least
/// `2^(i-1)`; the last one everything above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; Self::BUCKETS],
    sum: u64,
    count: u64,
    max: u64,
}

impl Histogram {
    /// How many buckets there are.
    pub const BUCKETS: usize = 24;

    /// Upper bound (exclusive) and count of each bucket; the last bound is `u64::MAX`.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().enumerate().map(|(i, &count)| {
            let last = i + 1 == Self::BUCKETS;
            (if last { u64::MAX } else { 1 << i }, count)
        })
    }

    /// How many values were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    pub(crate) fn record(&mut self, value: u64) {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        self.buckets[bits.min(Self::BUCKETS - 1)] += 1;
        self.sum += value;
        self.count += 1;
        self.max = self.max.max(value);
    }
}

/// A snapshot of a store's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys with a holder.
    pub keys_in_flight: u64,
    /// Keys whose effect was declared and that nobody holds.
    pub keys_in_doubt: u64,
    /// Keys with an outcome, those past their retention included until they are swept.
    pub keys_stored: u64,
    /// Records appended since the store was opened.
    pub records: u64,
    /// Bytes written since the store was opened.
    pub bytes_written: u64,
    /// Segment files that are part of the log.
    pub segments: u64,
    /// Disk space of the segments.
    pub segment_bytes: u64,
    /// Bytes of records that are still needed.
    pub live_bytes: u64,
    /// Batches written.
    pub batches: u64,
    /// Syncs of the log.
    pub syncs: u64,
    /// Duration of the last sync.
    pub sync_us_last: u64,
    /// Durations of syncs in microseconds.
    pub sync_us: Histogram,
    /// Records per batch.
    pub batch_records: Histogram,
    /// Segments dropped because nothing in them was needed any more.
    pub segments_dropped: u64,
    /// Records copied forward so that their segment could be dropped.
    pub records_carried: u64,
    /// Their bytes.
    pub bytes_carried: u64,
    /// Whether opening used an index snapshot instead of reading the whole log.
    pub opened_from_index: bool,
    /// Index snapshots written since the store was opened: they make opening fast.
    pub index_snapshots: u64,
    /// Memory of the index: what the keys with an outcome take.
    pub index_bytes: u64,
    /// Memory of the cache of outcomes.
    pub cache_bytes: u64,
    /// How often an outcome was found there.
    pub cache_hits: u64,
    /// How often an outcome was read from the log.
    pub cache_misses: u64,
    /// Calls of `wait` that are pending.
    pub waiters: u64,
    /// Operations that a shared store's server has not answered yet.
    pub pending: u64,
    /// How often the connection to a shared store's server was made again.
    pub reconnects: u64,
    /// Operations whose outcome stayed unknown because a shared store's server did not answer.
    pub unavailable: u64,
    /// The disk is full: new keys are refused.
    pub disk_full: bool,
    /// Too many files are open to make the next segment: new keys are refused.
    pub no_descriptors: bool,
    /// An old segment could not be read back: it keeps its disk space, and what ended in it its
    /// memory. The oldest one is tried again every minute; `verify` tells what is wrong.
    pub upkeep_failed: bool,
    /// A write or sync failed: everything is refused.
    pub poisoned: bool,
}
