//! Putting the entries of a disordered container in order: sort what is known of them, then copy each once.

use core::cmp::Ordering;
use core::ops::Range;

use crate::buf::Buf;
use crate::error::{Code, Fail};
use crate::order::{Entry, INLINE, KeyRules, Scratch, common_prefix, leading_eight};

/// Larger ones up to this many bytes are rearranged through the free end of the output, still larger ones
/// (in an output that grows) through the scratch.
const TAIL_MAX: usize = 4096;

/// Containers up to this many bytes are rearranged through a copy on the program's stack.
const SMALL_MAX: usize = 256;

/// Larger containers of few entries are rotated in place while that touches each byte about this often at most: it is
/// cheaper than memory that has never been touched.
const ROTATIONS_MAX: usize = 4;

/// A container in disorder: where its entries are on the stack, and whether some key holds escapes.
struct Unsorted {
    base: usize,
    count: usize,
    escaped: bool,
}

/// Sorts the entries of a container that ends where `out` ends; fails on equal keys.
#[inline(never)]
pub(crate) fn rearrange<B: Buf, K: KeyRules>(
    rules: K,
    out: &mut B,
    scratch: &mut Scratch,
    base: usize,
    count: usize,
    escaped: bool,
) -> Result<(), Fail> {
    if u32::try_from(count).is_err() {
        return Err(Fail::new(Code::TooLarge));
    }
    if let Some(entries) = scratch.inline(base, count) {
        let mut order = [0_u32; INLINE];
        let order = &mut order[..count];
        sort_few(rules, out.bytes(), entries, escaped, order)?;
        return permute::<B, K>(out, scratch, base, count, |nth| order[nth]);
    }
    let members = Unsorted {
        base,
        count,
        escaped,
    };
    // Taken out so that the rest of the scratch stays borrowable; `take` leaves an empty Vec and allocates nothing.
    let mut ranks = core::mem::take(&mut scratch.ranks);
    let result = sort_many(rules, out.bytes(), scratch, &members, &mut ranks)
        .and_then(|()| permute::<B, K>(out, scratch, base, count, |nth| ranks[nth] as u32));
    scratch.ranks = ranks;
    result
}

fn key_of<K: KeyRules>(bytes: &[u8], entry: Entry) -> &[u8] {
    &bytes[entry.start + K::KEY_SKIP..entry.key_end]
}

/// Insertion sort by rank, then by the whole key.
fn sort_few<K: KeyRules>(
    rules: K,
    bytes: &[u8],
    entries: &[Entry],
    escaped: bool,
    order: &mut [u32],
) -> Result<(), Fail> {
    for (index, entry) in (0_u32..).zip(entries) {
        let mut place = index as usize;
        while place > 0 {
            let before = &entries[order[place - 1] as usize];
            let mut compared = before.rank.cmp(&entry.rank);
            if escaped || compared == Ordering::Equal {
                compared = rules.compare(
                    key_of::<K>(bytes, *before),
                    key_of::<K>(bytes, *entry),
                    escaped,
                );
            }
            match compared {
                Ordering::Less => break,
                Ordering::Equal => return Err(Fail::new(Code::Duplicate)),
                Ordering::Greater => order[place] = order[place - 1],
            }
            place -= 1;
        }
        order[place] = index;
    }
    Ok(())
}

/// Sorts by what a word holds of the bytes behind the prefix that all keys share, then by whole keys where those tie.
///
/// `ranks` become words of two parts: the upper bits of an entry's rank, and below them its index.
fn sort_many<K: KeyRules>(
    rules: K,
    bytes: &[u8],
    scratch: &Scratch,
    members: &Unsorted,
    ranks: &mut alloc::vec::Vec<u64>,
) -> Result<(), Fail> {
    let entries = || (members.base..members.base + members.count).map(|at| scratch.entry(at));
    let index_mask = (members.count as u64).next_power_of_two() - 1;
    let shared = match members.escaped {
        true => 0,
        false => shared_prefix::<K>(bytes, entries()),
    };
    ranks.clear();
    ranks.extend((0..).zip(entries()).map(|(index, entry)| {
        let rank = match shared {
            _ if members.escaped => 0,
            0 => entry.rank,
            _ => rules.rank(leading_eight(
                bytes,
                entry.start + K::KEY_SKIP + shared..entry.key_end,
            )),
        };
        rank & !index_mask | index
    }));
    ranks.sort_unstable();
    let key = |rank: u64| {
        key_of::<K>(
            bytes,
            scratch.entry(members.base + (rank & index_mask) as usize),
        )
    };
    let compare = |a: &u64, b: &u64| rules.compare(key(*a), key(*b), members.escaped);
    for ties in ranks
        .chunk_by_mut(|a, b| a & !index_mask == b & !index_mask)
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
    ranks.iter_mut().for_each(|rank| *rank &= index_mask);
    Ok(())
}

/// How many leading bytes all keys of the container have in common. No key is a beginning of another one followed by
/// zeros (JSON has none there, and no item of CBOR begins another), so that up to eight are told by the ranks.
fn shared_prefix<K: KeyRules>(bytes: &[u8], mut entries: impl Iterator<Item = Entry>) -> usize {
    let Some(first) = entries.next() else {
        return 0;
    };
    let rest = entries;
    let first_key = key_of::<K>(bytes, first);
    let mut shared = first_key.len();
    for entry in rest {
        let differing = first.rank ^ entry.rank;
        shared = match differing {
            0 => common_prefix(&first_key[..shared], key_of::<K>(bytes, entry)),
            _ => shared.min(differing.leading_zeros() as usize / 8),
        };
        if shared == 0 {
            break;
        }
    }
    shared
}

/// Moves the entries of the container, which ends where `out` ends, into order: `nth` gives their indices.
fn permute<B: Buf, K: KeyRules>(
    out: &mut B,
    scratch: &mut Scratch,
    base: usize,
    count: usize,
    nth: impl Fn(usize) -> u32 + Copy,
) -> Result<(), Fail> {
    // A prefix that is already in place stays.
    let placed = (0..count).take_while(|&at| nth(at) as usize == at).count();
    if placed == count {
        return Ok(());
    }
    let end = out.len();
    let separator = usize::from(K::SEPARATOR.is_some());
    let last = count as u32 - 1;
    // Where an entry stands; all but the last to arrive have their separator behind them.
    let range = |scratch: &Scratch, index: u32| -> Range<usize> {
        let at = base + index as usize;
        let stop = if index == last {
            end
        } else {
            scratch.entry(at + 1).start
        };
        scratch.entry(at).start..stop
    };
    let from = scratch.entry(base + placed).start;
    let size = end - from;
    if size <= SMALL_MAX {
        let mut copy = [0; SMALL_MAX];
        let copy = &mut copy[..size];
        let moved = &mut out.bytes_mut()[from..];
        copy_short(copy, moved);
        gather::<K>(copy, moved, (placed..count).map(nth), |index| {
            let Range { start, end: stop } = range(scratch, index);
            (start - from..stop - from, index == last)
        });
        return Ok(());
    }
    if out.room() > size && (size <= TAIL_MAX || !B::GROWS) {
        for index in (placed..count).map(nth) {
            out.repeat(range(scratch, index))?;
            if let (Some(byte), true) = (K::SEPARATOR, index == last) {
                out.push(byte)?;
            }
        }
        // The last separator is one too many and stays behind.
        out.bytes_mut().copy_within(end..end + size, from);
        out.truncate(end);
        return Ok(());
    }
    if count <= INLINE {
        let range = |index: u32| {
            let Range { start, end: stop } = range(scratch, index);
            start..if index == last {
                stop
            } else {
                stop - separator
            }
        };
        let moves = Moves {
            order: (placed..count).map(nth),
            range,
            separator,
        };
        if !B::GROWS || moves.cost() <= size.saturating_mul(ROTATIONS_MAX) {
            moves.rotate(out.bytes_mut(), from);
            return Ok(());
        }
    }
    let mut gathered = core::mem::take(&mut scratch.bytes);
    if gathered.len() < size {
        gathered.resize(size, 0);
    }
    gather::<K>(
        out.bytes(),
        &mut gathered[..size],
        (placed..count).map(nth),
        |index| (range(scratch, index), index == last),
    );
    out.bytes_mut()[from..].copy_from_slice(&gathered[..size]);
    scratch.bytes = gathered;
    Ok(())
}

/// Fills `to` with entries in order. `entry` tells where one stands, and whether it lacks its separator.
#[inline]
fn gather<K: KeyRules>(
    bytes: &[u8],
    to: &mut [u8],
    order: impl Iterator<Item = u32>,
    entry: impl Fn(u32) -> (Range<usize>, bool),
) {
    let mut at = 0;
    for index in order {
        let (range, bare) = entry(index);
        // The separator of the entry that comes last is one too many.
        let len = range.len().min(to.len() - at);
        copy_short(&mut to[at..at + len], &bytes[range][..len]);
        at += len;
        if let (Some(separator), true, Some(place)) = (K::SEPARATOR, bare, to.get_mut(at)) {
            *place = separator;
            at += 1;
        }
    }
}

/// Copies between slices of one length, in steps of fixed size: for short ones, cheaper than the call of `memcpy`.
#[inline]
fn copy_short(to: &mut [u8], from: &[u8]) {
    if from.len() > SMALL_MAX {
        return to.copy_from_slice(from);
    }
    if !copy_by::<16>(to, from) && !copy_by::<8>(to, from) && !copy_by::<4>(to, from) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
    }
}

/// The last step overlaps the one before; false if not even one fits.
#[inline]
fn copy_by<const STEP: usize>(to: &mut [u8], from: &[u8]) -> bool {
    let (Some(last), Some(end)) = (from.last_chunk::<STEP>(), to.last_chunk_mut::<STEP>()) else {
        return false;
    };
    *end = *last;
    let steps = to.as_chunks_mut::<STEP>().0.iter_mut();
    for (to, from) in steps.zip(from.as_chunks::<STEP>().0) {
        *to = *from;
    }
    true
}

/// Moving a few entries in place: each to its place by rotation, with no memory beside it.
struct Moves<O, R> {
    /// The indices of the entries that move, in order.
    order: O,
    /// Where an entry stands, without a separator.
    range: R,
    separator: usize,
}

impl<O: Iterator<Item = u32> + Clone, R: Fn(u32) -> Range<usize>> Moves<O, R> {
    /// The entries in order, each with the bytes of those that stood before it and are placed after it: at its turn
    /// they are what stands between its place and itself.
    fn steps(&self) -> impl Iterator<Item = (Range<usize>, usize)> {
        self.order.clone().enumerate().map(|(nth, index)| {
            let between = self
                .order
                .clone()
                .skip(nth + 1)
                .filter(|&later| later < index);
            let shift = between
                .map(|later| (self.range)(later).len() + self.separator)
                .sum();
            ((self.range)(index), shift)
        })
    }

    /// Bytes that the rotations touch.
    fn cost(&self) -> usize {
        let touched =
            |(entry, shift): (Range<usize>, usize)| if shift > 0 { entry.len() + shift } else { 0 };
        self.steps().map(touched).fold(0, usize::saturating_add)
    }

    fn rotate(&self, bytes: &mut [u8], mut place: usize) {
        for (entry, shift) in self.steps() {
            let end = place + shift + entry.len();
            if shift > 0 {
                bytes[place..end].rotate_right(entry.len());
            }
            place += entry.len();
            if shift > 0 {
                // "a,b,C" is now "Ca,b,": the separator moves from the end to behind C.
                bytes[place..end].rotate_right(self.separator);
            }
            place += self.separator;
        }
    }
}
