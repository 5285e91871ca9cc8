//! Tokens: their bits and text, and that no id is given twice.

mod leases;
mod shape;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
pub(crate) mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use idem_store::token::Clock;

/// A clock that the test sets; a pause moves it on.
#[derive(Clone)]
struct TestClock(Arc<AtomicU64>);

impl TestClock {
    fn at(now_ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(now_ms)))
    }

    fn set(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn pause(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}
