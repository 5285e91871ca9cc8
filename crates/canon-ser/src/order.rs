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

use crate::buf::Buf;
use crate::error::{Code, Fail};

/// Entry ranges that are kept without allocating.
const INLINE: usize = 32;

/// Containers up to this many bytes are rearranged through the free end of the output, larger ones
/// (in an output that grows) through the scratch.
const TAIL_MAX: usize = 4096;

/// What a format must tell: how keys compare and how to find entries again.
pub(crate) trait KeyRules: Copy {
    /// Written between entries.
    const SEPARATOR: Option<u8>;
    /// From the entry's start to the first byte that counts in comparisons.
    const KEY_SKIP: usize;

    /// Compares two keys; `escaped` when any key of the container may hold escapes.
    fn compare(self, left: &[u8], right: &[u8], escaped: bool) -> Ordering;
    /// The first eight bytes as a number that sorts like the bytes do.
    fn rank(self, key: &[u8]) -> u64;
    /// Calls `found` for each entry of a container between `from` and the end of `bytes`.
    fn entries(self, bytes: &[u8], from: usize, found: &mut dyn FnMut(Entry));
}

/// Where an entry starts and where its key ends; it ends where the next one starts.
#[derive(Clone, Copy, Default)]
pub(crate) struct Entry {
    pub(crate) start: usize,
    pub(crate) key_end: usize,
}

/// The reusable memory of an encoder.
pub(crate) struct Scratch {
    entries: [Entry; INLINE],
    entries_len: usize,
    more_entries: Vec<Entry>,
    ranks: Vec<(u64, u32)>,
    bytes: Vec<u8>,
}

impl Scratch {
    pub(crate) const fn new() -> Scratch {
        Scratch {
            entries: [Entry {
                start: 0,
                key_end: 0,
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

    fn entry(&self, at: usize) -> Entry {
        if at < INLINE {
            self.entries[at]
        } else {
            self.more_entries[at - INLINE]
        }
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
        self.entries_len = len;
        self.more_entries.truncate(len.saturating_sub(INLINE));
    }
}

/// What an open object or map remembers of its entries.
pub(crate) struct Members {
    first: usize,
    previous: Range<usize>,
    base: usize,
    recorded: usize,
    count: usize,
    sorted: bool,
    escaped: bool,
}

impl Members {
    /// Opens a container whose first entry will start at `first`.
    #[inline]
    pub(crate) fn new(scratch: &Scratch, first: usize) -> Members {
        Members {
            first,
            previous: first..first,
            base: scratch.entries_len,
            recorded: 0,
            count: 0,
            sorted: true,
            escaped: false,
        }
    }

    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Takes note of an entry whose key has just been written: from `start` to the end of `out` minus `after_key` bytes.
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
        let key = start + K::KEY_SKIP..key_end;
        self.escaped |= escaped;
        let entry = Entry { start, key_end };
        if self.sorted && self.count > 0 {
            let bytes = out.bytes();
            match rules.compare(
                &bytes[self.previous.clone()],
                &bytes[key.clone()],
                self.escaped,
            ) {
                Ordering::Less => {}
                Ordering::Equal => return Err(Fail::new(Code::Duplicate)),
                Ordering::Greater => self.turn_disordered(rules, out, scratch, start),
            }
        }
        self.previous = key;
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
        if self.recorded < self.count {
            let mut from = self.first;
            if self.recorded > 0 {
                from = scratch.entry(self.base + self.recorded - 1).start;
                self.recorded -= 1;
                scratch.truncate(self.base + self.recorded);
            }
            let end = upto - usize::from(K::SEPARATOR.is_some());
            rules.entries(&out.bytes()[..end], from, &mut |entry| {
                scratch.push(entry);
                self.recorded += 1;
            });
        }
        debug_assert_eq!(self.recorded, self.count, "every entry so far is recorded");
    }

    /// Closes the container: afterwards its entries stand in order, without duplicates.
    #[inline]
    pub(crate) fn finish<B: Buf, K: KeyRules>(
        &self,
        rules: K,
        out: &mut B,
        scratch: &mut Scratch,
    ) -> Result<(), Fail> {
        if !self.sorted {
            self.rearrange(rules, out, scratch)?;
        }
        scratch.truncate(self.base);
        Ok(())
    }

    #[inline(never)]
    fn rearrange<B: Buf, K: KeyRules>(
        &self,
        rules: K,
        out: &mut B,
        scratch: &mut Scratch,
    ) -> Result<(), Fail> {
        let count = self.count;
        if u32::try_from(count).is_err() {
            return Err(Fail::new(Code::TooLarge));
        }
        // Both are taken out so that the rest of the scratch stays borrowable; `take` leaves an empty Vec, no allocation.
        let mut large = core::mem::take(&mut scratch.ranks);
        let mut small = [(0_u64, 0_u32); INLINE];
        let ranks: &mut [(u64, u32)] = if count <= INLINE {
            &mut small[..count]
        } else {
            large.clear();
            large.resize(count, (0, 0));
            &mut large
        };
        let sorted = sort(rules, out.bytes(), scratch, self, ranks);
        let result = sorted.and_then(|()| permute::<B, K>(out, scratch, self.base, ranks));
        scratch.ranks = large;
        result
    }
}

fn key_at<'b, K: KeyRules>(bytes: &'b [u8], scratch: &Scratch, at: usize) -> &'b [u8] {
    let entry = scratch.entry(at);
    &bytes[entry.start + K::KEY_SKIP..entry.key_end]
}

/// Fills `ranks` with the entries in key order; fails on equal keys.
fn sort<K: KeyRules>(
    rules: K,
    bytes: &[u8],
    scratch: &Scratch,
    members: &Members,
    ranks: &mut [(u64, u32)],
) -> Result<(), Fail> {
    let key = |index: u32| key_at::<K>(bytes, scratch, members.base + index as usize);
    let shared = if members.escaped {
        0
    } else {
        shared_prefix::<K>(bytes, scratch, members)
    };
    for (index, slot) in (0_u32..).zip(ranks.iter_mut()) {
        let rank = if members.escaped {
            0
        } else {
            rules.rank(&key(index)[shared..])
        };
        *slot = (rank, index);
    }
    ranks.sort_unstable_by_key(|&(rank, _)| rank);
    let compare =
        |a: &(u64, u32), b: &(u64, u32)| rules.compare(key(a.1), key(b.1), members.escaped);
    for ties in ranks
        .chunk_by_mut(|a, b| a.0 == b.0)
        .filter(|ties| ties.len() > 1)
    {
        ties.sort_unstable_by(compare);
        if ties
            .windows(2)
            .any(|pair| compare(&pair[0], &pair[1]) == Ordering::Equal)
        {
            return Err(Fail::new(Code::Duplicate));
        }
    }
    Ok(())
}

/// How many leading bytes all keys of the container have in common.
fn shared_prefix<K: KeyRules>(bytes: &[u8], scratch: &Scratch, members: &Members) -> usize {
    let first = key_at::<K>(bytes, scratch, members.base);
    (1..members.count).fold(first.len(), |shared, index| {
        let key = key_at::<K>(bytes, scratch, members.base + index);
        if key.len() >= shared && key[..shared] == first[..shared] {
            return shared;
        }
        common_prefix(&first[..shared], key)
    })
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

/// The first eight bytes of `key`, zero-padded, as a big-endian number.
#[inline]
pub(crate) fn leading_eight(key: &[u8]) -> u64 {
    if let Some(first) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let rank = key
        .iter()
        .fold(0, |rank, &byte| (rank << 8) | u64::from(byte));
    // An empty key shifts by 64, which checked_shl turns into the zero it must be.
    rank.checked_shl(64 - 8 * key.len() as u32).unwrap_or(0)
}

/// Moves the entries of the container, which ends where `out` ends, into the order of `ranks`.
fn permute<B: Buf, K: KeyRules>(
    out: &mut B,
    scratch: &mut Scratch,
    base: usize,
    ranks: &[(u64, u32)],
) -> Result<(), Fail> {
    // A prefix that is already in place stays.
    let placed = (0_u32..)
        .zip(ranks)
        .take_while(|(index, rank)| *index == rank.1)
        .count();
    if placed == ranks.len() {
        return Ok(());
    }
    let end = out.len();
    let separator = usize::from(K::SEPARATOR.is_some());
    let range = |scratch: &Scratch, index: u32| -> Range<usize> {
        let at = base + index as usize;
        let is_last = index as usize + 1 == ranks.len();
        let stop = if is_last {
            end
        } else {
            scratch.entry(at + 1).start - separator
        };
        scratch.entry(at).start..stop
    };
    let from = scratch.entry(base + placed).start;
    let size = end - from;
    let moving = &ranks[placed..];
    if out.room() >= size && (size <= TAIL_MAX || !B::GROWS) {
        for (nth, &(_, index)) in moving.iter().enumerate() {
            if let (Some(byte), true) = (K::SEPARATOR, nth > 0) {
                out.push(byte)?;
            }
            out.repeat(range(scratch, index))?;
        }
        out.bytes_mut().copy_within(end..end + size, from);
        out.truncate(end);
        return Ok(());
    }
    if out.room() < size && ranks.len() <= INLINE {
        rotate::<K>(out.bytes_mut(), moving, |index| range(scratch, index), from);
        return Ok(());
    }
    let mut gathered = core::mem::take(&mut scratch.bytes);
    gathered.clear();
    gathered.reserve(size);
    for (nth, &(_, index)) in moving.iter().enumerate() {
        if let (Some(byte), true) = (K::SEPARATOR, nth > 0) {
            gathered.push(byte);
        }
        gathered.extend_from_slice(&out.bytes()[range(scratch, index)]);
    }
    out.bytes_mut()[from..].copy_from_slice(&gathered);
    scratch.bytes = gathered;
    Ok(())
}

/// The same for a few entries in a full fixed buffer: moves each to its place by rotation, with no memory beside it.
fn rotate<K: KeyRules>(
    bytes: &mut [u8],
    moving: &[(u64, u32)],
    range: impl Fn(u32) -> Range<usize>,
    mut place: usize,
) {
    let separator = usize::from(K::SEPARATOR.is_some());
    for (nth, &(_, index)) in moving.iter().enumerate() {
        let entry = range(index);
        // Entries that stood before this one and are not yet placed still stand between `place` and this one.
        let between = moving[nth + 1..].iter().filter(|later| later.1 < index);
        let shift: usize = between.map(|later| range(later.1).len() + separator).sum();
        let end = place + shift + entry.len();
        bytes[place..end].rotate_right(entry.len());
        place += entry.len();
        if shift > 0 {
            // "a,b,C" is now "Ca,b,": the separator moves from the end to behind C.
            bytes[place..end].rotate_right(separator);
        }
        place += separator;
    }
}
