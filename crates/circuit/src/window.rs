//! The outcomes of the last n calls, a bit each, with a running count: O(1) at any size.

use alloc::boxed::Box;
use alloc::vec;

pub(crate) struct Window {
    failed: Box<[u64]>,
    size: u32,
    /// Where the next outcome goes.
    next: u32,
    calls: u32,
    failures: u32,
}

impl Window {
    pub(crate) fn new(size: u32) -> Self {
        Window {
            failed: vec![0; size.div_ceil(64) as usize].into(),
            size,
            next: 0,
            calls: 0,
            failures: 0,
        }
    }

    pub(crate) fn push(&mut self, failed: bool) {
        let word = &mut self.failed[(self.next / 64) as usize];
        let bit = 1 << (self.next % 64);
        if self.calls == self.size {
            self.failures -= u32::from(*word & bit != 0);
        } else {
            self.calls += 1;
        }
        if failed {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        self.failures += u32::from(failed);
        self.next = if self.next + 1 == self.size {
            0
        } else {
            self.next + 1
        };
    }

    pub(crate) fn calls(&self) -> u32 {
        self.calls
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Forgets all outcomes; stale bits are overwritten before they are read.
    pub(crate) fn clear(&mut self) {
        self.next = 0;
        self.calls = 0;
        self.failures = 0;
    }
}
