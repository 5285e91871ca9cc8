//! The doubles whose printed forms numbers.mjs hashes too. Shared by the tests and by the example `conformance`.

/// Draws doubles, the same in every run: of four draws two are bit patterns (those that are NaN or infinite are left
/// out), one is 44 bits over 4096, one a neighbour of digit * 10^power.
pub(crate) struct Doubles {
    state: u64,
    nth: u64,
}

impl Doubles {
    pub(crate) fn new() -> Doubles {
        Doubles {
            state: 0x9e37_79b9_7f4a_7c15,
            nth: 0,
        }
    }

    /// The finite ones of the first `count` draws.
    pub(crate) fn take_draws(mut self, count: u64) -> impl Iterator<Item = f64> {
        (0..count)
            .map(move |_| self.draw())
            .filter(|value| value.is_finite())
    }

    fn draw(&mut self) -> f64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let bits = self.state;
        let nth = self.nth % 4;
        self.nth += 1;
        match nth {
            0 | 1 => f64::from_bits(bits),
            2 => (bits >> 20) as f64 / 4096.0,
            _ => {
                let (high, low) = ((bits >> 32) as u32, bits as u32);
                let text = format!("{}e{}", 1 + low % 9, (high % 633) as i32 - 324);
                let near: f64 = text.parse().expect("digit, e, power");
                f64::from_bits((near.to_bits() + u64::from((low >> 8) % 3)).wrapping_sub(1))
            }
        }
    }
}
