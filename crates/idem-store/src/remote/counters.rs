//! What the thread of a shared store counts.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::stats::Stats;

#[derive(Default)]
pub(crate) struct Counters {
    /// Operations that were not answered yet.
    pending: AtomicU64,
    /// Calls of `wait` that have not ended.
    waiters: AtomicU32,
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

    pub(crate) fn asked(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn answered(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether there was room for one more waiter.
    pub(crate) fn wait_begins(&self, max: u32) -> bool {
        let below = |waiters| (waiters < max).then_some(waiters + 1);
        let order = Ordering::Relaxed;
        self.waiters.fetch_update(order, order, below).is_ok()
    }

    pub(crate) fn wait_ends(&self) {
        self.waiters.fetch_sub(1, Ordering::Relaxed);
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
            waiters: self.waiters.load(Ordering::Relaxed).into(),
            reconnects: get(&self.reconnects),
            unavailable: get(&self.unavailable),
            ..Stats::default()
        }
    }
}
