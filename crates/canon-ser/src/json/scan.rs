//! Finding the end of a string: sixteen bytes at a time, as two words.

const LOW: u64 = 0x0101_0101_0101_0101;
pub(crate) const HIGH: u64 = 0x8080_8080_8080_8080;

/// A bit set in the lowest flagged byte of each word that holds a control character, a quote or a backslash.
///
/// Only flagged bytes borrow from the next one, so that bytes above a flagged one may be flagged wrongly; the lowest flag
/// is always right.
#[inline(always)]
pub(crate) fn special_bits(word: u64) -> u64 {
    let control = word.wrapping_sub(LOW * 0x20);
    let quote = (word ^ (LOW * b'"' as u64)).wrapping_sub(LOW);
    let backslash = (word ^ (LOW * b'\\' as u64)).wrapping_sub(LOW);
    (control | quote | backslash) & !word & HIGH
}

/// Bytes of a [`Block`].
pub(crate) const BLOCK: usize = 16;

/// Sixteen bytes of text, up to the first that cannot stand in a string as itself.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    clean: usize,
    /// Its two words, the first byte the lowest, without what follows the clean bytes.
    words: [u64; 2],
}

impl Block {
    /// How many bytes stand for themselves.
    #[inline(always)]
    pub(crate) fn clean(self) -> usize {
        self.clean
    }

    #[inline(always)]
    pub(crate) fn is_ascii(self) -> bool {
        (self.words[0] | self.words[1]) & HIGH == 0
    }

    /// The first eight clean bytes, zero-padded, as a number that sorts as they do.
    #[inline(always)]
    pub(crate) fn leading(self) -> u64 {
        self.words[0].swap_bytes()
    }
}

/// The block at `from`; past the end of the text there are zeros, which no string may hold as themselves.
#[inline(always)]
pub(crate) fn block(text: &[u8], from: usize) -> Block {
    let rest = text.get(from..).unwrap_or(&[]);
    match rest.first_chunk::<BLOCK>() {
        Some(bytes) => block_of(bytes),
        None => last_block(rest),
    }
}

#[cold]
fn last_block(rest: &[u8]) -> Block {
    let mut bytes = [0; BLOCK];
    bytes[..rest.len()].copy_from_slice(rest);
    block_of(&bytes)
}

#[inline(always)]
fn block_of(bytes: &[u8; BLOCK]) -> Block {
    let ([first, second], _) = bytes.as_chunks::<8>() else {
        return Block {
            clean: 0,
            words: [0; 2],
        };
    };
    let (first, second) = (u64::from_le_bytes(*first), u64::from_le_bytes(*second));
    let (a, b) = (special_bits(first), special_bits(second));
    if a != 0 {
        // All bits below the flagged byte.
        let below = (a ^ (a - 1)) >> 8;
        return Block {
            clean: a.trailing_zeros() as usize / 8,
            words: [first & below, 0],
        };
    }
    let below = if b == 0 { !0 } else { (b ^ (b - 1)) >> 8 };
    Block {
        clean: 8 + b.trailing_zeros() as usize / 8,
        words: [first, second & below],
    }
}

/// Goes on from `at` to the first byte that cannot stand in a string as itself: where it is, and whether all before it
/// (`ascii` says so of what was before `at`) are ASCII.
pub(crate) fn string_part(text: &[u8], at: usize, ascii: bool) -> (usize, bool) {
    let (mut at, mut ascii) = (at, ascii);
    loop {
        let block = block(text, at);
        at += block.clean();
        ascii &= block.is_ascii();
        if block.clean() < BLOCK {
            return (at, ascii);
        }
    }
}
