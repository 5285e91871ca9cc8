//! Backoff: delays between tries that grow and differ between clients.
//!
//! The kinds of jitter and their names are those of Marc Brooker, "Exponential Backoff And Jitter" (AWS
//! Architecture Blog, 2015).

/// How a [`Policy`] spreads the delays of clients that failed together.
///
/// With `e = min(cap, base * 2^n)` for the n-th try, counted from 0:
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Jitter {
    /// Exactly `e`: clients that fail together come back together.
    None,
    /// Anything from 0 to `e`: the least load for the server.
    #[default]
    Full,
    /// `e / 2` plus anything from 0 to `e / 2`: never very short.
    Equal,
    /// Anything from `base` to three times the last delay, at most `cap`.
    Decorrelated,
}

/// What all clients' [`Backoff`] states share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// The first delay, before jitter.
    pub base_ms: u32,
    /// The longest delay.
    pub cap_ms: u32,
    /// How delays are spread.
    pub jitter: Jitter,
    /// When not 0, the first delay is anything from 0 to this, and the second is the first of the row above:
    /// for a million clients that lose one server at once, whose very first tries would be the storm.
    pub first_window_ms: u32,
}

/// The backoff state of one client: 8 bytes.
///
/// ```
/// use circuit::{Backoff, Jitter, Policy};
///
/// let policy = Policy { base_ms: 100, cap_ms: 1_000, jitter: Jitter::None, first_window_ms: 0 };
/// let mut backoff = Backoff::new();
/// let delays: Vec<u64> = (0..5).map(|_| backoff.next_delay_ms(&policy, 0)).collect();
/// assert_eq!(delays, [100, 200, 400, 800, 1_000]);
/// backoff.reset();
/// assert_eq!(backoff.next_delay_ms(&policy, 0), 100);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Backoff {
    tries: u16,
    /// The next delay is `last_ms`: a slot that the server assigned.
    slotted: bool,
    last_ms: u32,
}

impl Backoff {
    /// A client that has not failed yet.
    pub const fn new() -> Self {
        Backoff {
            tries: 0,
            slotted: false,
            last_ms: 0,
        }
    }

    /// A client whose first delay is `slot_ms`: the place in the queue that the server assigned while it was still
    /// there. The first window does not apply then; the delays after it are as ever.
    ///
    /// ```
    /// use circuit::{Backoff, Jitter, Policy};
    ///
    /// let policy = Policy { base_ms: 100, cap_ms: 1_000, jitter: Jitter::None, first_window_ms: 5_000 };
    /// let mut backoff = Backoff::in_slot(17_320);
    /// assert_eq!(backoff.next_delay_ms(&policy, 0), 17_320);
    /// assert_eq!(backoff.next_delay_ms(&policy, 0), 100);
    /// ```
    pub const fn in_slot(slot_ms: u32) -> Self {
        Backoff {
            tries: 0,
            slotted: true,
            last_ms: slot_ms,
        }
    }

    /// The time to wait before the next try. `random` must be uniform over all `u64`; a new one each time.
    pub fn next_delay_ms(&mut self, policy: &Policy, random: u64) -> u64 {
        let first_is_apart = self.slotted || policy.first_window_ms > 0;
        let delay_ms = match u32::from(self.tries).checked_sub(first_is_apart.into()) {
            None if self.slotted => self.last_ms,
            None => uniform(0, policy.first_window_ms, random),
            Some(n) => self.delay_of(n, policy, random),
        };
        self.tries = self.tries.saturating_add(1);
        delay_ms.into()
    }

    fn delay_of(&mut self, n: u32, policy: &Policy, random: u64) -> u32 {
        let doubled = u64::from(policy.base_ms) << n.min(32);
        let cap_ms = policy.cap_ms;
        let exponential = u32::try_from(doubled).map_or(cap_ms, |ms| ms.min(cap_ms));
        match policy.jitter {
            Jitter::None => exponential,
            Jitter::Full => uniform(0, exponential, random),
            Jitter::Equal => uniform(exponential - exponential / 2, exponential, random),
            Jitter::Decorrelated => {
                let base_ms = policy.base_ms.min(cap_ms);
                let last_ms = if n == 0 { base_ms } else { self.last_ms };
                let high = last_ms.saturating_mul(3).max(base_ms);
                self.last_ms = uniform(base_ms, high, random).min(cap_ms);
                self.last_ms
            }
        }
    }

    /// Delays handed out since the last reset; stays at 65,535.
    pub const fn tries(&self) -> u32 {
        self.tries as u32
    }

    /// Call it after a success: the next delay is the first one again.
    pub fn reset(&mut self) {
        *self = Self::new();
    }
}

/// A number from `low` to `high`, both included, by multiplication (Lemire, "Fast random integer generation in
/// an interval", 2019); the bias is below 2^-32.
fn uniform(low: u32, high: u32, random: u64) -> u32 {
    let span = u128::from(high - low) + 1;
    low + ((u128::from(random) * span) >> 64) as u32
}
