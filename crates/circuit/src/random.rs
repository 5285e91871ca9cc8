//! Random numbers for those who have no generator of their own.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014): the same numbers from
/// the same seed. Good enough to spread clients over time, and no secret to anybody.
///
/// ```
/// use circuit::{Backoff, Jitter, Policy, SplitMix64};
///
/// let policy = Policy { base_ms: 100, cap_ms: 1_000, jitter: Jitter::Full, first_window_ms: 0 };
/// let mut random = SplitMix64::new(7); // in earnest: a seed from the system
/// let wait_ms = Backoff::new().next_delay_ms(&policy, random.next_u64());
/// assert!(wait_ms <= 100);
/// ```
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator that begins at `seed`; any will do.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::SplitMix64;

    /// The first numbers from the seed 1234567, as the authors' C program prints them.
    #[test]
    fn the_numbers_are_those_of_the_paper() {
        let mut random = SplitMix64::new(1_234_567);
        let first: [u64; 3] = core::array::from_fn(|_| random.next_u64());
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }
}
