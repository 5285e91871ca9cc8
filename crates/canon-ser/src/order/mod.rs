//! Key order: the one algorithm behind every canonical object and map.
//!
//! Entries are written to the output where they fall. While the keys of a container arrive in order, the only cost is
//! one comparison with the previous key. A container that turns out to be disordered knows where each of its entries
//! starts; when it ends, they are sorted (by eight bytes of key behind the common prefix, then by whole keys where
//! those tie) and copied into place, once.
//!
//! What is known of entries lives on one stack of fixed size that all open containers share. A container in order stops
//! recording when that is full, and if it becomes disordered later, it finds its entries by reading its own output
//! again. So ordered values never allocate here, however large they are. A disordered container that the fixed part
//! cannot hold moves to the heap, if there is one.

mod scratch;

use core::cmp::Ordering;
use core::ops::Range;

use crate::arrange;
use crate::buf::Buf;
use crate::error::{Code, Fail};

pub(crate) use crate::order::scratch::{
    INLINE, Scratch, ScratchOf, Slot, Spare, Usual, within_four_gib,
};
use crate::order::scratch::{Lost, NOT_ON_HEAP};

/// What a format must tell: how keys compare and how to find entries again.
pub(crate) trait KeyRules: Copy {
    /// Written between entries.
    const SEPARATOR: Option<u8>;
    /// From the entry's start to the first byte that counts in comparisons.
    const KEY_SKIP: usize;

    /// Compares two keys; `escaped` when any key of the container may hold escapes.
    fn compare(self, left: &[u8], right: &[u8], escaped: bool) -> Ordering;
    /// The rank of a key by its [`leading_eight`], where that is not the number itself.
    fn rank(self, leading_eight: u64) -> u64;
    /// A rank for keys of which some hold escapes, by what stands behind the `shared` bytes that all of them start with.
    /// Different ranks tell the order, equal ones nothing.
    fn rank_unescaped(self, key: &[u8], shared: usize) -> u64;
    /// The end of the key of the entry that starts at `start`.
    fn key_end(self, bytes: &[u8], start: usize) -> usize;
    /// Where the value that starts behind a key ends, and what follows it.
    fn entry_end(self, bytes: &[u8], key_end: usize) -> usize;
}

/// An entry as it is written: where it starts, where its key ends, and the [`KeyRules::rank`] of the key.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) start: usize,
    pub(crate) key_end: usize,
    pub(crate) rank: u64,
}

/// What an open object or map remembers of its entries.
///
/// Everything cold gets what it needs by value: so this stays in registers, and where keys are the names of fields,
/// their comparisons happen when the program is compiled.
pub(crate) struct Members {
    first: usize,
    /// The key before, and its rank.
    previous: Range<usize>,
    previous_rank: u64,
    base: usize,
    heap_base: usize,
    /// How many entries serde announced; 0 if it did not.
    announced: usize,
    count: usize,
    sorted: bool,
    /// Some key so far holds escapes: ranks tell nothing about it.
    escaped: bool,
}

impl Members {
    /// Opens a container whose first entry will start at `first`, counted from the first byte ever written.
    #[inline(always)]
    pub(crate) fn new(scratch: &Scratch, first: usize) -> Members {
        Members {
            first,
            previous: first..first,
            previous_rank: 0,
            base: scratch.len,
            heap_base: NOT_ON_HEAP,
            announced: 0,
            count: 0,
            sorted: true,
            escaped: false,
        }
    }

    /// The same with as many entries as serde announces, if it does.
    #[inline(always)]
    pub(crate) fn announce(self, entries: Option<usize>) -> Members {
        Members {
            announced: entries.unwrap_or(0),
            ..self
        }
    }

    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// What is to be remembered of a container that will not be arranged any more: where the last key stands and its
    /// rank, whether the keys so far are in order, and whether some hold escapes.
    #[cfg(feature = "std")]
    pub(crate) fn last_key(&self) -> (Range<usize>, u64, bool, bool) {
        let key = self.previous.clone();
        (key, self.previous_rank, self.sorted, self.escaped)
    }

    #[inline(always)]
    fn lost(&self, drained: usize) -> Lost {
        Lost {
            first: self.first - drained,
            base: self.base,
            heap_base: self.heap_base,
            announced: self.announced,
            count: self.count,
            escaped: self.escaped,
        }
    }

    /// Takes note of an entry that starts at `start` and whose key, just written, ends at `key_end`.
    #[inline]
    pub(crate) fn key<B: Buf, K: KeyRules>(
        &mut self,
        rules: K,
        out: &mut B,
        scratch: &mut Scratch,
        start: usize,
        key_end: usize,
        escaped: bool,
    ) -> Result<(), Fail> {
        let leading = leading_eight(out.bytes(), start + K::KEY_SKIP..key_end);
        self.ranked_key(
            rules,
            out,
            scratch,
            Entry {
                start,
                key_end,
                rank: rules.rank(leading),
            },
            escaped,
        )
    }

    /// The same for a key whose rank is known. Where it comes from memory that was not just written, this is faster.
    #[inline(always)]
    pub(crate) fn ranked_key<B: Buf, K: KeyRules>(
        &mut self,
        rules: K,
        out: &mut B,
        scratch: &mut Scratch,
        entry: Entry,
        escaped: bool,
    ) -> Result<(), Fail> {
        let Entry {
            start,
            key_end,
            rank,
        } = entry;
        let key = start + K::KEY_SKIP..key_end;
        self.escaped |= escaped;
        if self.sorted && self.count > 0 {
            let mut order = self.previous_rank.cmp(&rank);
            if self.escaped || order == Ordering::Equal {
                order =
                    compare_written(rules, out, self.previous.clone(), key.clone(), self.escaped);
            }
            match order {
                Ordering::Less => {}
                Ordering::Equal => return Err(Fail::new(Code::Duplicate)),
                Ordering::Greater if B::DRAINS && !out.hold()? => {}
                Ordering::Greater => {
                    if self.base + self.count > scratch.fixed.len() {
                        let before = start - usize::from(K::SEPARATOR.is_some());
                        let lost = self.lost(out.drained());
                        self.heap_base = scratch.turn_disordered(rules, out, before, lost)?;
                    }
                    self.sorted = false;
                }
            }
        }
        if B::DRAINS {
            out.keep_key(key.clone());
        }
        self.previous = key;
        self.previous_rank = rank;
        let slot = Slot::new(rank, start + out.drained() - self.first, key_end - start);
        let at = self.base + self.count;
        match scratch.fixed.get_mut(at) {
            Some(free) if self.heap_base == NOT_ON_HEAP => {
                *free = slot;
                scratch.len = at + 1;
            }
            _ if self.sorted => {}
            #[cfg(feature = "alloc")]
            _ if self.heap_base != NOT_ON_HEAP => scratch.push_on_heap(slot),
            _ => self.heap_base = scratch.spill(self.lost(0), slot)?,
        }
        self.count += 1;
        Ok(())
    }

    /// Closes the container: afterwards its entries stand in order, without duplicates.
    #[inline(always)]
    pub(crate) fn finish<B: Buf, K: KeyRules>(
        &self,
        rules: K,
        out: &mut B,
        scratch: &mut Scratch,
    ) -> Result<(), Fail> {
        if !self.sorted {
            let lost = self.lost(out.drained());
            finish_disordered(rules, out, scratch, lost)?;
        }
        scratch.len = self.base;
        Ok(())
    }
}

#[inline(never)]
fn compare_written<B: Buf, K: KeyRules>(
    rules: K,
    out: &B,
    left: Range<usize>,
    right: Range<usize>,
    escaped: bool,
) -> Ordering {
    let bytes = out.bytes();
    let left = if B::DRAINS {
        out.kept_key()
    } else {
        &bytes[left]
    };
    rules.compare(left, &bytes[right], escaped)
}

#[inline(never)]
fn finish_disordered<B: Buf, K: KeyRules>(
    rules: K,
    out: &mut B,
    scratch: &mut Scratch,
    lost: Lost,
) -> Result<(), Fail> {
    let (slots, spare) = scratch.parts(lost);
    arrange::rearrange(rules, out, slots, spare, lost.first, lost.escaped)?;
    scratch.leave_heap(lost);
    Ok(())
}

/// Length of the common prefix, eight bytes at a time.
#[inline]
pub(crate) fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    let len = left.len().min(right.len());
    let (left, right) = (&left[..len], &right[..len]);
    let mut at = 0;
    for (a, b) in left.as_chunks::<8>().0.iter().zip(right.as_chunks::<8>().0) {
        let differing = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differing != 0 {
            return at + differing.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while at < len && left[at] == right[at] {
        at += 1;
    }
    at
}

/// The first eight bytes of a key, zero-padded, as a number that sorts as they do.
#[inline]
pub(crate) fn leading_eight(bytes: &[u8], key: Range<usize>) -> u64 {
    let len = key.len();
    if len >= 8 {
        return bytes[key]
            .first_chunk::<8>()
            .map_or(0, |first| u64::from_be_bytes(*first));
    }
    // The eight bytes that end with the key, with those before it shifted out.
    if let Some(last) = bytes[..key.end].last_chunk::<8>() {
        let word = u64::from_be_bytes(*last);
        return word.checked_shl(64 - 8 * len as u32).unwrap_or(0);
    }
    let word = bytes[key]
        .iter()
        .fold(0, |word, &byte| (word << 8) | u64::from(byte));
    u64::checked_shl(word, 64 - 8 * len as u32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{common_prefix, leading_eight};

    #[test]
    fn ranks_are_the_same_wherever_the_key_stands() {
        let text = b"\x01\xff{\"abcdefghijklmnop\xc3\xa9\x00\x7f";
        for start in 0..text.len() {
            for end in start..=text.len() {
                let key = &text[start..end];
                let mut padded = [0; 8];
                let len = key.len().min(8);
                padded[..len].copy_from_slice(&key[..len]);
                let expected = u64::from_be_bytes(padded);
                assert_eq!(leading_eight(text, start..end), expected, "{start}..{end}");
            }
        }
    }

    #[test]
    fn common_prefixes_of_every_length() {
        let text = [b'x'; 40];
        for len in 0..40 {
            let mut other = text;
            other[len] = b'y';
            for end in len..40 {
                assert_eq!(common_prefix(&text, &other[..end]), len);
            }
        }
    }
}
