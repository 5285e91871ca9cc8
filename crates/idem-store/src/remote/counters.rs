//! What the thread of a shared store counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::stats::Stats;

#[derive(Default)]
pub(crate) struct Counters {
    /// Operations that were not answered yet.
    pub(crate) pending: AtomicU64,
    /// Operations that were sent.
    pub(crate) operations: AtomicU64,
    /// Bytes that were sent.
    pub(crate) bytes: AtomicU64,
    /// Operations that were sent together.
    pub(crate) batches: AtomicU64,
    pub(crate) reconnects: AtomicU64,
    /// Operations whose outcome stayed unknown.
    pub(crate) unavailable: AtomicU64,
}

impl Counters {
    pub(crate) fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            records: get(&self.operations),
            bytes_written: get(&self.bytes),
            batches: get(&self.batches),
            pending: get(&self.pending),
            reconnects: get(&self.reconnects),
            unavailable: get(&self.unavailable),
            ..Stats::default()
        }
    }
}
