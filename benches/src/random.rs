//! Numbers that are the same in every run.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014), from its seed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Any number.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Puts the values into any order.
    pub fn shuffle(&mut self, values: &mut [u32]) {
        for at in (1..values.len()).rev() {
            values.swap(at, self.below(at as u64 + 1) as usize);
        }
    }

    /// Normally distributed, of mean 0 and deviation 1: the sum of twelve uniform numbers, less its mean (Irwin-Hall).
    pub fn normal(&mut self) -> f64 {
        let sum: f64 = (0..12)
            .map(|_| self.next_u64() as f64 / u64::MAX as f64)
            .sum();
        sum - 6.0
    }
}
