//! What a connection's edges said and nothing was done about yet, and what its caller wants: one byte.

use crate::platform::{Event, SHORT_READ_IS_LAST};

/// A set of facts about a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Flags(u8);

impl Flags {
    /// An edge said readable and no read has said "nothing left" since.
    pub(crate) const READABLE: Self = Self(1 << 0);
    /// An edge said writable and nothing was done about it yet.
    pub(crate) const WRITABLE: Self = Self(1 << 1);
    /// The peer finished or failed or sent urgent data: a short read is not the last one.
    pub(crate) const TO_THE_END: Self = Self(1 << 2);
    /// The token stands in the ready list.
    pub(crate) const QUEUED: Self = Self(1 << 3);
    /// The caller wants no input now.
    pub(crate) const PAUSED: Self = Self(1 << 4);
    /// Input kept from before shall be presented again although nothing new came.
    pub(crate) const PRESENT_CARRY: Self = Self(1 << 5);
    /// The write queue went above the low mark; `drained` is due when it comes back.
    pub(crate) const ABOVE_LOW: Self = Self(1 << 6);
    /// The token stands in the list of changed interests.
    pub(crate) const CHANGED: Self = Self(1 << 7);
    /// There is something to present, or to read first.
    pub(crate) const INPUT: Self = Self(Self::READABLE.0 | Self::PRESENT_CARRY.0);

    /// Notes an edge. What it says stays true until [`after_read`](Self::after_read) or a write has used it up: the
    /// kernel will not say it again.
    #[inline(always)]
    pub(crate) fn note(&mut self, event: Event) {
        if event.readable {
            self.set(Self::READABLE);
        }
        if event.writable {
            self.set(Self::WRITABLE);
        }
        if event.to_the_end {
            self.set(Self::TO_THE_END);
        }
    }

    /// Notes that a read of at most `room` bytes brought `count`: whether another read may bring more.
    #[inline(always)]
    pub(crate) fn after_read(&mut self, count: usize, room: usize) {
        if SHORT_READ_IS_LAST && count < room && !self.has(Self::TO_THE_END) {
            self.clear(Self::READABLE);
        }
    }

    /// Whether any of them is set.
    #[inline]
    pub(crate) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    #[inline]
    pub(crate) fn set(&mut self, flag: Self) {
        self.0 |= flag.0;
    }

    #[inline]
    pub(crate) fn clear(&mut self, flag: Self) {
        self.0 &= !flag.0;
    }

    /// Clears a flag and says whether it was set.
    #[inline]
    pub(crate) fn take(&mut self, flag: Self) -> bool {
        let had = self.has(flag);
        self.clear(flag);
        had
    }
}

#[cfg(test)]
mod tests;
