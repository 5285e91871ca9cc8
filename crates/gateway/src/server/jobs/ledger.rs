//! What a gateway remembers of its firings: which ran, which were cut off, how far each job came.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use idem_store::Store;
use scheduler::{Claim, Claimed, FiringId, Once, OnceError, Outcome, StoreOnce, Unsettled};

/// Remembers in a store of this gateway's own. A firing that a drain cuts off stays in doubt, as if the process had died
/// inside it, so that the next start goes by the job's `in_doubt`.
pub(super) struct Ledger {
    once: StoreOnce,
    is_stopping: AtomicBool,
}

impl Ledger {
    /// `retain_ms`: how long a device's answer replays.
    pub(super) fn new(store: Store, retain_ms: u64) -> Self {
        Self {
            once: StoreOnce::new(store).retain_ms(retain_ms),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// What is cancelled from now on is cut off.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Relaxed);
    }
}

impl Once for Ledger {
    fn claim(&self, id: &FiringId) -> Result<Claimed, OnceError> {
        self.once.claim(id)
    }

    fn renew(&self, claim: &Claim) -> Result<(), OnceError> {
        self.once.renew(claim)
    }

    fn settle(&self, claim: Claim, outcome: Outcome) {
        if outcome == Outcome::Cancelled && self.is_stopping.load(Relaxed) {
            return drop(claim);
        }
        self.once.settle(claim, outcome);
    }

    fn extend(&self, claim: &Claim) {
        self.once.extend(claim);
    }

    fn period_ms(&self) -> u64 {
        self.once.period_ms()
    }

    fn unsettled(&self) -> Result<Vec<Unsettled>, OnceError> {
        if self.is_stopping.load(Relaxed) {
            // Those that were just cut off are the next start's.
            return Ok(Vec::new());
        }
        self.once.unsettled()
    }

    fn remember(&self, job: &str, shard: u32, fire_ms: u64) -> Result<(), OnceError> {
        self.once.remember(job, shard, fire_ms)
    }

    fn remember_first(&self, job: &str, shard: u32, fire_ms: u64) -> Result<(), OnceError> {
        self.once.remember_first(job, shard, fire_ms)
    }

    fn recall(&self, job: &str, shard: u32) -> Result<Option<u64>, OnceError> {
        self.once.recall(job, shard)
    }

    fn flush(&self) {
        self.once.flush();
    }
}
