//! Deadlines in the caller's units, slots in ticks.

use core::num::NonZeroU64;

/// How a deadline within a tick counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// As the tick's end: for who fires whole ticks.
    Up,
    /// As the tick's start: for who looks closer then.
    Down,
}

/// The length of a tick.
#[derive(Clone, Copy)]
pub(crate) struct Ticks {
    length: NonZeroU64,
    /// The binary logarithm of `length`, or `NO_SHIFT`.
    shift: u32,
    round: Round,
}

const NO_SHIFT: u32 = 64;

impl Ticks {
    pub(crate) fn new(length: NonZeroU64, round: Round) -> Self {
        let shift = match length.is_power_of_two() {
            true => length.trailing_zeros(),
            false => NO_SHIFT,
        };
        Ticks {
            length,
            shift,
            round,
        }
    }

    /// The tick at which a deadline is due.
    #[inline]
    pub(crate) fn tick_of(self, deadline: u64) -> u64 {
        if self.shift == 0 {
            return deadline;
        }
        self.tick_of_long(deadline)
    }

    fn tick_of_long(self, deadline: u64) -> u64 {
        let tick = self.floor(deadline);
        match self.round {
            Round::Up if self.start_of(tick) < deadline => tick + 1,
            _ => tick,
        }
    }

    /// The last tick that has come at `now`. At the end of time the last tick of all has come, whole or not.
    #[inline]
    pub(crate) fn tick_at(self, now: u64) -> u64 {
        if now == u64::MAX {
            self.tick_of(now)
        } else {
            self.floor(now)
        }
    }

    /// When a tick starts; the end of time for a tick that starts after it.
    #[inline]
    pub(crate) fn start_of(self, tick: u64) -> u64 {
        tick.saturating_mul(self.length.get())
    }

    fn floor(self, time: u64) -> u64 {
        if self.shift < NO_SHIFT {
            time >> self.shift
        } else {
            time / self.length
        }
    }
}
