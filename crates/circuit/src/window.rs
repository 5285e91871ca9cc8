//! What a breaker looks back on: the last n calls, or those of the last n milliseconds. Running counts make
//! every operation O(1) at any size.

use alloc::boxed::Box;
use alloc::vec;

/// How far a [`Breaker`](crate::Breaker) looks back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lookback {
    /// The last so many calls, 1 to 65,536; two bits of memory each.
    Calls(u32),
    /// The calls of the last `span_ms`, counted in `buckets` parts of it: the oldest part leaves as a whole, so
    /// the window holds between `span_ms - span_ms / buckets` and `span_ms`. 12 bytes of memory a bucket.
    Time {
        /// Length of the window, at least 1 ms for each bucket.
        span_ms: u64,
        /// Parts of the window, 1 to 1,024.
        buckets: u32,
    },
}

/// Calls, and how many of them failed or were slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counts {
    /// Calls that ended.
    pub calls: u32,
    /// Those that failed.
    pub failures: u32,
    /// Those that took [`slow_call_ms`](crate::Config::slow_call_ms) or longer.
    pub slow: u32,
}

impl Counts {
    /// The share of failures, 0 to 1; 0 without calls.
    #[must_use]
    pub fn failure_rate(&self) -> f32 {
        self.failures as f32 / self.calls.max(1) as f32
    }

    pub(crate) fn add(&mut self, failed: bool, slow: bool) {
        self.calls = self.calls.saturating_add(1);
        self.failures = self.failures.saturating_add(failed.into());
        self.slow = self.slow.saturating_add(slow.into());
    }

    fn take(&mut self, other: Counts) {
        self.calls = self.calls.saturating_sub(other.calls);
        self.failures = self.failures.saturating_sub(other.failures);
        self.slow = self.slow.saturating_sub(other.slow);
    }
}

pub(crate) enum Window {
    Calls(CallWindow),
    Time(TimeWindow),
}

impl Window {
    pub(crate) fn new(lookback: Lookback) -> Self {
        match lookback {
            Lookback::Calls(size) => Self::Calls(CallWindow::new(size)),
            Lookback::Time { span_ms, buckets } => Self::Time(TimeWindow::new(span_ms, buckets)),
        }
    }

    pub(crate) fn push(&mut self, failed: bool, slow: bool, now_ms: u64) {
        match self {
            Self::Calls(window) => window.push(failed, slow),
            Self::Time(window) => window.push(failed, slow, now_ms),
        }
    }

    /// What the window holds at `now_ms`.
    pub(crate) fn counts(&mut self, now_ms: u64) -> Counts {
        match self {
            Self::Calls(window) => window.counts,
            Self::Time(window) => window.counts(now_ms),
        }
    }

    pub(crate) fn clear(&mut self) {
        match self {
            Self::Calls(window) => window.clear(),
            Self::Time(window) => window.clear(),
        }
    }
}

/// The last n calls, a bit each for failed and for slow.
pub(crate) struct CallWindow {
    failed: Box<[u64]>,
    slow: Box<[u64]>,
    size: u32,
    /// Where the next outcome goes.
    next: u32,
    counts: Counts,
}

impl CallWindow {
    fn new(size: u32) -> Self {
        let size = size.clamp(1, 1 << 16);
        let words = size.div_ceil(64) as usize;
        CallWindow {
            failed: vec![0; words].into(),
            slow: vec![0; words].into(),
            size,
            next: 0,
            counts: Counts::default(),
        }
    }

    fn push(&mut self, failed: bool, slow: bool) {
        let (word, bit) = ((self.next / 64) as usize, 1 << (self.next % 64));
        let old = Counts {
            calls: u32::from(self.counts.calls == self.size),
            failures: u32::from(self.failed[word] & bit != 0),
            slow: u32::from(self.slow[word] & bit != 0),
        };
        if old.calls == 1 {
            self.counts.take(old);
        }
        self.counts.add(failed, slow);
        set(&mut self.failed[word], bit, failed);
        set(&mut self.slow[word], bit, slow);
        self.next += 1;
        if self.next == self.size {
            self.next = 0;
        }
    }

    /// Forgets all outcomes; stale bits are overwritten before they are read.
    fn clear(&mut self) {
        self.next = 0;
        self.counts = Counts::default();
    }
}

fn set(word: &mut u64, bit: u64, on: bool) {
    if on {
        *word |= bit;
    } else {
        *word &= !bit;
    }
}

/// A ring of counts, one for each part of a span of time.
pub(crate) struct TimeWindow {
    ring: Box<[Counts]>,
    bucket_ms: u64,
    /// The part of time (`now_ms / bucket_ms`) that is counted now; parts are counted from 0 of the clock.
    part: u64,
    total: Counts,
}

impl TimeWindow {
    pub(crate) fn new(span_ms: u64, buckets: u32) -> Self {
        let buckets = buckets.clamp(1, 1 << 10);
        TimeWindow {
            ring: vec![Counts::default(); buckets as usize].into(),
            bucket_ms: (span_ms / u64::from(buckets)).max(1),
            part: 0,
            total: Counts::default(),
        }
    }

    pub(crate) fn push(&mut self, failed: bool, slow: bool, now_ms: u64) {
        self.turn(now_ms);
        self.current().add(failed, slow);
        self.total.add(failed, slow);
    }

    pub(crate) fn counts(&mut self, now_ms: u64) -> Counts {
        self.turn(now_ms);
        self.total
    }

    /// Drops the parts that are too old now. A clock that goes back counts into the newest part.
    fn turn(&mut self, now_ms: u64) {
        let part = now_ms / self.bucket_ms;
        if part <= self.part {
            return;
        }
        if part - self.part >= self.ring.len() as u64 {
            self.clear();
            self.part = part;
            return;
        }
        while self.part < part {
            self.part += 1;
            let old = core::mem::take(self.current());
            self.total.take(old);
        }
    }

    fn current(&mut self) -> &mut Counts {
        let index = self.part % self.ring.len() as u64;
        &mut self.ring[index as usize]
    }

    pub(crate) fn clear(&mut self) {
        self.ring.fill(Counts::default());
        self.total = Counts::default();
    }
}
