//! Key order: the one algorithm behind every canonical object and map.
//!
//! Entries are written to the output where they fall. While the keys of a container arrive in order, the only cost is
//! one comparison with the previous key. A container that turns out to be disordered knows the range of each of its
//! entries; when it ends, the ranges are sorted (by eight bytes of key behind the common prefix, then by whole keys
//! where those tie) and the entries are copied into place, once.
//!
//! Ranges live on one stack that all open containers share. A container in order writes to the fixed part of that stack
//! only; when that is full it stops recording, and if it becomes disordered later, it finds its ranges by reading its
//! own output again. So ordered values never allocate here, however large they are.

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::Range;

use crate::arrange;
use crate::buf::Buf;
use crate::error::{Code, Fail};

/// Entry ranges that are kept without allocating.
pub(crate) const INLINE: usize = 32;

/// Memory is set aside for this many announced entries at most; what is announced need not be true.
const ANNOUNCED_MAX: usize = 1 << 16;

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
    /// Calls `found` with the start and the end of the key of each entry between `from` and the end of `bytes`.
    fn entries(self, bytes: &[u8], from: usize, found: &mut dyn FnMut(usize, usize));
}

/// Where an entry starts and where its key ends; it ends where the next one starts.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) start: usize,
    pub(crate) key_end: usize,
    /// [`KeyRules::rank`] of the key.
    pub(crate) rank: u64,
}

/// The reusable memory of an encoder.
pub(crate) struct Scratch {
    entries: [Entry; INLINE],
    entries_len: usize,
    more_entries: Vec<Entry>,
    pub(crate) ranks: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

impl Scratch {
    pub(crate) const fn new() -> Scratch {
        Scratch {
            entries: [Entry {
                start: 0,
                key_end: 0,
                rank: 0,
            }; INLINE],
            entries_len: 0,
            more_entries: Vec::new(),
            ranks: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Forgets what an earlier failure left behind.
    pub(crate) fn reset(&mut self) {
        self.truncate(0);
    }

    /// The entries from `base` on, if all of them are in the fixed part of the stack.
    #[inline]
    pub(crate) fn inline(&self, base: usize, count: usize) -> Option<&[Entry]> {
        self.entries.get(base..)?.get(..count)
    }

    #[inline]
    pub(crate) fn entry(&self, at: usize) -> Entry {
        if at < INLINE {
            self.entries[at]
        } else {
            self.more_entries[at - INLINE]
        }
    }

    /// Makes room for that many more entries.
    fn reserve(&mut self, entries: usize) {
        let inline = INLINE.saturating_sub(self.entries_len);
        self.more_entries.reserve(entries.saturating_sub(inline));
    }

    #[inline]
    fn push(&mut self, entry: Entry) {
        if self.entries_len < INLINE {
            self.entries[self.entries_len] = entry;
        } else {
            self.more_entries.push(entry);
        }
        self.entries_len += 1;
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        if self.entries_len > INLINE {
            self.more_entries.truncate(len.saturating_sub(INLINE));
        }
        self.entries_len = len;
    }
}

/// What an open object or map remembers of its entries.
pub(crate) struct Members {
    first: usize,
    /// The key before, and its rank.
    previous: Range<usize>,
    previous_rank: u64,
    pub(crate) base: usize,
    /// How many entries serde announced; 0 if it did not.
    announced: usize,
    recorded: usize,
    pub(crate) count: usize,
    sorted: bool,
    /// Some key so far holds escapes: ranks tell nothing about it.
    pub(crate) escaped: bool,
}

impl Members {
    /// Opens a container whose first entry will start at `first`.
    #[inline(always)]
    pub(crate) fn new(scratch: &Scratch, first: usize) -> Members {
        Members {
            first,
            previous: first..first,
            previous_rank: 0,
            base: scratch.entries_len,
            announced: 0,
            recorded: 0,
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

    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Takes note of an entry that starts at `start` and whose key, just written, ends at `key_end`.
    #[inline]
    pub(crate) fn key<B: Buf, K: KeyRules>(
        &mut self,
        rules: K,
        out: &B,
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
        out: &B,
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
                let bytes = out.bytes();
                let previous = &bytes[self.previous.clone()];
                order = rules.compare(previous, &bytes[key.clone()], self.escaped);
            }
            match order {
                Ordering::Less => {}
                Ordering::Equal => return Err(Fail::new(Code::Duplicate)),
                Ordering::Greater => self.turn_disordered(rules, out, scratch, start),
            }
        }
        self.previous = key;
        self.previous_rank = rank;
        if !self.sorted || (self.recorded == self.count && scratch.entries_len < INLINE) {
            scratch.push(entry);
            self.recorded += 1;
        }
        self.count += 1;
        Ok(())
    }

    /// The moment a container loses its order: from here on every entry's range is on the stack.
    #[cold]
    fn turn_disordered<B: Buf, K: KeyRules>(
        &mut self,
        rules: K,
        out: &B,
        scratch: &mut Scratch,
        upto: usize,
    ) {
        self.sorted = false;
        let missing = self.announced.saturating_sub(self.recorded);
        scratch.reserve(missing.min(ANNOUNCED_MAX));
        if self.recorded < self.count {
            let mut from = self.first;
            if self.recorded > 0 {
                from = scratch.entry(self.base + self.recorded - 1).start;
                self.recorded -= 1;
                scratch.truncate(self.base + self.recorded);
            }
            let end = upto - usize::from(K::SEPARATOR.is_some());
            let bytes = &out.bytes()[..end];
            rules.entries(bytes, from, &mut |start, key_end| {
                let rank = rules.rank(leading_eight(bytes, start + K::KEY_SKIP..key_end));
                scratch.push(Entry {
                    start,
                    key_end,
                    rank,
                });
                self.recorded += 1;
            });
        }
        debug_assert_eq!(self.recorded, self.count, "every entry so far is recorded");
    }

    /// Closes the container: afterwards its entries stand in order, without duplicates.
    ///
    /// Inlined, and passing on plain numbers, so that what an open container knows can live in registers: copying a
    /// struct whose fields were just written stalls the processor for longer than the rest of a small value takes.
    #[inline(always)]
    pub(crate) fn finish<B: Buf, K: KeyRules>(
        &self,
        rules: K,
        out: &mut B,
        scratch: &mut Scratch,
    ) -> Result<(), Fail> {
        if !self.sorted {
            arrange::rearrange(rules, out, scratch, self.base, self.count, self.escaped)?;
        }
        scratch.truncate(self.base);
        Ok(())
    }
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
