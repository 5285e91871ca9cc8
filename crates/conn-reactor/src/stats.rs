//! What a shard counts.

/// Counters of one shard since it started; plain numbers, copied by whoever wants to publish them.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Connections accepted.
    pub accepts: u64,
    /// `accept4` calls that failed, other than "nothing there".
    pub accept_errors: u64,
    /// Times accepting paused because descriptors or memory had run out, or the listener was broken.
    pub accept_pauses: u64,
    /// Own connects started.
    pub connects: u64,
    /// Own connects that failed.
    pub connect_errors: u64,
    /// `recv` calls.
    pub reads: u64,
    /// `send` calls.
    pub writes: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// `write` calls refused because the queue was full.
    pub writes_refused: u64,
    /// Changes of the poller's interest list (`epoll_ctl`): one per connection in its whole life, and two per pause of
    /// its reading in which input came.
    pub interest_changes: u64,
    /// Changes that were asked for while another one of the same connection had not reached the kernel yet, and became
    /// one with it. Closes count as changes here.
    pub interest_merged: u64,
    /// Changes, merged or not, that came to nothing the kernel must be told: it had that interest already, or the
    /// connection was closed, which takes it off the list.
    pub interest_elided: u64,
    /// Waits for events (`epoll_pwait`).
    pub waits: u64,
    /// Events fetched.
    pub events: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Connections closed.
    pub closes: u64,
    /// Uses of a token whose connection was gone, events included.
    pub stale_tokens: u64,
    /// Messages delivered.
    pub messages: u64,
    /// Timers fired, the reactor's own not counted.
    pub timers_fired: u64,
    /// How late timers were called.
    pub timer_lateness: Lateness,
}

impl Stats {
    /// Bytes received and sent.
    #[inline(always)]
    pub(crate) fn bytes_moved(&self) -> u64 {
        self.bytes_in.wrapping_add(self.bytes_out)
    }
}

/// How late timers fired, in microseconds: the last, the worst, and a histogram by powers of two.
#[derive(Clone, Debug, Default)]
pub struct Lateness {
    last_us: u64,
    max_us: u64,
    sum_us: u64,
    buckets: [u64; Self::BUCKETS],
}

impl Lateness {
    const BUCKETS: usize = 32;

    pub(crate) fn record(&mut self, late_us: u64) {
        self.last_us = late_us;
        self.max_us = self.max_us.max(late_us);
        self.sum_us = self.sum_us.saturating_add(late_us);
        let bucket = (u64::BITS - late_us.leading_zeros()) as usize;
        self.buckets[bucket.min(Self::BUCKETS - 1)] += 1;
    }

    /// The lateness of the latest timer, in microseconds.
    #[must_use]
    pub fn last_us(&self) -> u64 {
        self.last_us
    }

    /// The worst lateness so far, in microseconds.
    #[must_use]
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The sum of all of them, in microseconds.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Timers by lateness: entry 0 counts those under 1 us, entry `n` those from 2^(n-1) up to below 2^n us, the
    /// last one everything from 2^30 us up.
    #[must_use]
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_goes_into_the_bucket_of_its_power_of_two() {
        let mut lateness = Lateness::default();
        for late_us in [0, 1, 2, 3, 4, u64::MAX] {
            lateness.record(late_us);
        }
        assert_eq!(lateness.buckets()[..4], [1, 1, 2, 1]);
        assert_eq!(lateness.buckets()[31], 1);
        assert_eq!(
            (lateness.last_us(), lateness.max_us()),
            (u64::MAX, u64::MAX)
        );
    }
}
