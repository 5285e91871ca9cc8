//! Which digits of a level have entries.

use super::WORDS;

/// A set of digits, 0 to 255.
#[derive(Clone, Copy)]
pub(super) struct Digits {
    words: [u64; WORDS],
    /// Bit w is set when `words[w]` is not zero.
    summary: u32,
}

impl Digits {
    pub(super) const NONE: Digits = Digits {
        words: [0; WORDS],
        summary: 0,
    };

    #[inline]
    pub(super) fn set(&mut self, digit: u32) {
        let word = digit as usize / 64 % WORDS;
        self.words[word] |= 1 << (digit % 64);
        self.summary |= 1 << word;
    }

    #[inline]
    pub(super) fn clear(&mut self, digit: u32) {
        let word = digit as usize / 64 % WORDS;
        self.words[word] &= !(1 << (digit % 64));
        if self.words[word] == 0 {
            self.summary &= !(1 << word);
        }
    }

    /// The first digit, when there is one.
    #[inline]
    pub(super) fn first(&self) -> u32 {
        let word = self.summary.trailing_zeros();
        word * 64 + self.words[word as usize % WORDS].trailing_zeros()
    }

    pub(super) fn first_from(&self, digit: u32) -> Option<u32> {
        let from = digit as usize / 64;
        let mut mask = u64::MAX << (digit % 64);
        for (at, word) in self.words.iter().enumerate().skip(from) {
            if word & mask != 0 {
                return Some(at as u32 * 64 + (word & mask).trailing_zeros());
            }
            mask = u64::MAX;
        }
        None
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.summary == 0
    }
}
