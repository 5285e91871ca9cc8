//! Putting the entries of a disordered container in order: sort what is known of them, then copy each once.

use core::cmp::Ordering;

use crate::buf::Buf;
use crate::error::{Code, Fail};
use crate::order::{INLINE, KeyRules, Slot, Spare, common_prefix, leading_eight, within_four_gib};

/// Containers of up to this many entries are sorted by insertion.
const FEW: usize = 20;

/// From so many entries on, counting bytes is faster than comparing ranks,
const MANY: usize = 200;

/// if no more bytes than these differ.
const DIGITS_MAX: usize = 3;

/// What moves, up to this many bytes, goes through a copy on the program's stack.
const SMALL_MAX: usize = 256;

/// An entry of up to this many bytes is held in registers while it changes places.
const LAST_MAX: usize = 32;

/// The same for what is so small that the size of the copy matters.
const TINY_MAX: usize = 64;

/// Copies up to this many bytes are made by stores of fixed size, which may run past the end.
const SHORT_MAX: usize = 64;

/// How often entries that tie are ranked anew, by eight more bytes each time, before whole keys are compared.
const TIE_ROUNDS: u32 = 8;

/// Larger containers of few entries are rotated in place while that touches each byte about this often at most: it is
/// cheaper than memory that has never been touched.
const ROTATIONS_MAX: usize = 4;

/// Sorts the entries of a container whose first one starts at `first`, and which ends where `out` ends; fails on equal
/// keys.
#[inline(always)]
pub(crate) fn rearrange<B: Buf, K: KeyRules>(
    rules: K,
    out: &mut B,
    slots: &mut [Slot],
    mut spare: Spare<'_>,
    first: usize,
    escaped: bool,
) -> Result<(), Fail> {
    let body = &out.bytes()[first..];
    within_four_gib(body.len() + 1)?;
    let order = Order {
        rules,
        body,
        // The last entry has no separator behind it: what copies it adds one.
        end: body.len() + usize::from(K::SEPARATOR.is_some()),
        escaped,
    };
    let (in_place, only_last) = if slots.len() <= FEW && !escaped {
        order.sort_few(slots)?
    } else {
        (order.sort_many(slots, &mut spare)?, false)
    };
    let Some(moving) = slots.get(in_place..).filter(|moving| !moving.is_empty()) else {
        return Ok(());
    };
    let origin = match in_place.checked_sub(1) {
        Some(last) => slots[last].start() + slots[last].len(),
        None => 0,
    };
    let moves = Moves {
        slots: moving,
        origin,
        separator: K::SEPARATOR,
    };
    let from = first + origin;
    let size = out.len() - from;
    if only_last && moves.bring_last(&mut out.memory_mut()[from..], size) {
        return Ok(());
    }
    if size <= TINY_MAX {
        moves.through_stack::<{ TINY_MAX + SHORT_MAX }>(&mut out.memory_mut()[from..], size);
        return Ok(());
    }
    permute(out, moves, spare, from);
    Ok(())
}

/// Makes ranks of what stands behind the prefix that all keys share.
///
/// No key is a beginning of another one followed by zeros (JSON has none there, and no item of CBOR begins another), so
/// that up to eight bytes are told by the ranks.
fn rank_behind_prefix<K: KeyRules>(rules: K, body: &[u8], slots: &mut [Slot]) {
    let key = |slot: &Slot| {
        let start = slot.start();
        start + K::KEY_SKIP..start + slot.len()
    };
    let Some((&first, rest)) = slots.split_first() else {
        return;
    };
    let differing = rest
        .iter()
        .fold(0, |bits, slot| bits | (first.rank ^ slot.rank));
    let shared = match differing {
        0 => {
            let first = &body[key(&first)];
            let common = |shared, slot| common_prefix(&first[..shared], &body[key(slot)]);
            rest.iter().fold(first.len(), common)
        }
        _ => differing.leading_zeros() as usize / 8,
    };
    if shared > 0 {
        for slot in slots {
            let key = key(slot);
            slot.rank = rules.rank(leading_eight(body, key.start + shared..key.end));
        }
    }
}

/// The same where ranks tell nothing yet.
fn rank_unescaped<K: KeyRules>(rules: K, body: &[u8], slots: &mut [Slot]) {
    let key = |slot: &Slot| {
        let start = slot.start();
        &body[start + K::KEY_SKIP..start + slot.len()]
    };
    let Some((first, rest)) = slots.split_first() else {
        return;
    };
    let first = key(first);
    let common = |shared, slot| common_prefix(&first[..shared], key(slot));
    let shared = rest.iter().fold(first.len(), common);
    for slot in slots {
        slot.rank = rules.rank_unescaped(key(slot), shared);
    }
}

/// Sorts by rank. Where few bytes of the ranks differ, by those, from the last to the first.
fn sort_by_rank(slots: &mut [Slot], spare: &mut Spare<'_>) {
    let first = slots.first().map_or(0, |slot| slot.rank);
    let differing = slots
        .iter()
        .fold(0, |bits, slot| bits | (first ^ slot.rank));
    let digits = || {
        (0..u64::BITS)
            .step_by(8)
            .filter(|at| (differing >> at) & 0xff != 0)
    };
    if slots.len() < MANY || digits().count() > DIGITS_MAX {
        return slots.sort_unstable_by_key(|slot| slot.rank);
    }
    let Some(other) = spare.slots(slots) else {
        return slots.sort_unstable_by_key(|slot| slot.rank);
    };
    let (mut from, mut to) = (&mut *slots, other);
    for at in digits() {
        let digit = |slot: &Slot| (slot.rank >> at) as u8 as usize;
        let mut places = [0_u32; 256];
        from.iter().for_each(|slot| places[digit(slot)] += 1);
        let mut next = 0;
        for place in &mut places {
            next += core::mem::replace(place, next);
        }
        for slot in &*from {
            let place = &mut places[digit(slot)];
            to[*place as usize] = *slot;
            *place += 1;
        }
        (from, to) = (to, from);
    }
    if digits().count() % 2 == 1 {
        to.copy_from_slice(from);
    }
}

/// How the entries of a container compare.
struct Order<'b, K> {
    rules: K,
    /// The entries, from the first on.
    body: &'b [u8],
    /// Where the last of them ends, with a separator.
    end: usize,
    /// Some key holds escapes: the ranks of open containers tell nothing.
    escaped: bool,
}

impl<K: KeyRules> Order<'_, K> {
    fn key(&self, start: usize) -> &[u8] {
        &self.body[start + K::KEY_SKIP..self.rules.key_end(self.body, start)]
    }

    #[cold]
    #[inline(never)]
    fn compare(&self, left: Slot, right: Slot) -> Ordering {
        let (left, right) = (self.key(left.start()), self.key(right.start()));
        self.rules.compare(left, right, self.escaped)
    }

    /// Insertion sort by rank, then by the whole key. Fills in the lengths of entries, and returns how many at the
    /// start are in place already, and whether only the last one was not.
    #[inline(always)]
    fn sort_few(&self, slots: &mut [Slot]) -> Result<(usize, bool), Fail> {
        let mut in_place = slots.len();
        let mut only_last = false;
        for index in 0..slots.len() {
            let end = slots.get(index + 1).map_or(self.end, |next| next.start());
            let slot = slots[index].ending_at(end);
            let mut place = index;
            while let Some(&before) = slots[..place].last() {
                if before.rank < slot.rank {
                    break;
                }
                if before.rank == slot.rank {
                    match self.compare(before, slot) {
                        Ordering::Less => break,
                        Ordering::Equal => return Err(Fail::new(Code::Duplicate)),
                        Ordering::Greater => {}
                    }
                }
                slots[place] = before;
                place -= 1;
            }
            slots[place] = slot;
            if place != index {
                only_last = in_place == slots.len() && index + 1 == slots.len();
                in_place = in_place.min(place);
            }
        }
        Ok((in_place, only_last))
    }

    /// The same for any number of entries, without the second answer.
    #[inline(never)]
    fn sort_many(&self, slots: &mut [Slot], spare: &mut Spare<'_>) -> Result<usize, Fail> {
        if self.escaped {
            rank_unescaped(self.rules, self.body, slots);
        } else {
            rank_behind_prefix(self.rules, self.body, slots);
        }
        let mut end = self.end;
        for slot in slots.iter_mut().rev() {
            *slot = slot.ending_at(end);
            end = slot.start();
        }
        sort_by_rank(slots, spare);
        if !slots.is_sorted_by(|left, right| left.rank < right.rank) {
            slots
                .chunk_by_mut(|left, right| left.rank == right.rank)
                .filter(|ties| ties.len() > 1)
                .try_for_each(|ties| self.sort_ties(ties, TIE_ROUNDS))?;
        }
        let mut at = 0;
        let in_place = slots.iter().take_while(|slot| {
            let stays = slot.start() == at;
            at += slot.len();
            stays
        });
        Ok(in_place.count())
    }

    /// Sorts entries of one rank: by what stands behind the prefix that these keys share, if there are many, and so on
    /// with those that tie again.
    fn sort_ties(&self, ties: &mut [Slot], rounds: u32) -> Result<(), Fail> {
        if ties.len() <= FEW || rounds == 0 {
            return self.sort_by_key(ties);
        }
        let key = |slot: &Slot| {
            let end = self.rules.key_end(self.body, slot.start());
            &self.body[slot.start() + K::KEY_SKIP..end]
        };
        let Some((first, rest)) = ties.split_first() else {
            return Ok(());
        };
        let first = key(first);
        let common = |shared, slot| common_prefix(&first[..shared], key(slot));
        let shared = rest.iter().fold(first.len(), common);
        for slot in &mut *ties {
            let key = key(slot);
            slot.rank = match self.escaped {
                true => self.rules.rank_unescaped(key, shared),
                false => self.rules.rank(leading_eight(key, shared..key.len())),
            };
        }
        ties.sort_unstable_by_key(|slot| slot.rank);
        ties.chunk_by_mut(|left, right| left.rank == right.rank)
            .filter(|ties| ties.len() > 1)
            .try_for_each(|ties| self.sort_ties(ties, rounds - 1))
    }

    /// Sorts entries by their whole keys. The rank has told all it can: in its place is then where the key ends, so that
    /// each key is searched for its end only once.
    fn sort_by_key(&self, ties: &mut [Slot]) -> Result<(), Fail> {
        for slot in &mut *ties {
            slot.rank = self.rules.key_end(self.body, slot.start()) as u64;
        }
        let key = |slot: &Slot| &self.body[slot.start() + K::KEY_SKIP..slot.rank as usize];
        let compare =
            |left: &Slot, right: &Slot| self.rules.compare(key(left), key(right), self.escaped);
        ties.sort_unstable_by(compare);
        if ties.is_sorted_by(|left, right| compare(left, right) == Ordering::Less) {
            Ok(())
        } else {
            Err(Fail::new(Code::Duplicate))
        }
    }
}

/// Moves entries that stand from `from` to the end of `out` into order.
#[inline(never)]
fn permute<B: Buf>(out: &mut B, moves: Moves<'_>, mut spare: Spare<'_>, from: usize) {
    let end = out.len();
    let size = end - from;
    let few = moves.slots.len() <= INLINE;
    if size <= SMALL_MAX {
        moves.through_stack::<{ SMALL_MAX + SHORT_MAX }>(&mut out.memory_mut()[from..], size);
    } else if !B::GROWS && out.memory().len() - end > size {
        let (used, free) = out.memory_mut().split_at_mut(end);
        let used = &mut used[from..];
        free[..size].copy_from_slice(used);
        if let Some(separator) = moves.separator {
            free[size] = separator;
        }
        moves.gather(free, used);
    } else if few && (!B::GROWS || moves.rotations() <= size.saturating_mul(ROTATIONS_MAX)) {
        moves.rotate(&mut out.bytes_mut()[from..]);
    } else if let Some(copy) = spare.copy(&out.bytes()[from..], moves.separator) {
        moves.gather(copy, &mut out.memory_mut()[from..]);
    } else {
        moves.rotate(&mut out.bytes_mut()[from..]);
    }
}

/// The entries that are not in place, in order.
struct Moves<'s> {
    slots: &'s [Slot],
    /// Where the first of them goes, and the one that stands there now starts.
    origin: usize,
    separator: Option<u8>,
}

impl Moves<'_> {
    /// The last entry goes to the front of the `size` bytes that `to` starts with, if all is so short that it fits a few
    /// registers: what was just written is slow to read, and a copy of it would have to be read once more.
    #[inline(always)]
    fn bring_last(&self, to: &mut [u8], size: usize) -> bool {
        let separator = usize::from(self.separator.is_some());
        let len = self.slots[0].len() - separator;
        let shift = size - len;
        if len > LAST_MAX || shift > TINY_MAX {
            return false;
        }
        let block = to.first_chunk::<TINY_MAX>().copied();
        let last = to
            .get(shift..)
            .and_then(|last| last.first_chunk::<LAST_MAX>().copied());
        let behind = len + separator;
        let (Some(block), Some(last)) = (block, last) else {
            return false;
        };
        if behind + TINY_MAX > to.len() {
            return false;
        }
        to[..LAST_MAX].copy_from_slice(&last);
        if let Some(separator) = self.separator {
            to[len] = separator;
        }
        to[behind..][..TINY_MAX].copy_from_slice(&block);
        true
    }

    /// `to` starts with the `size` bytes to be put in order.
    #[inline]
    fn through_stack<const N: usize>(&self, to: &mut [u8], size: usize) {
        let mut copy = match to.first_chunk::<N>() {
            Some(all) => *all,
            None => {
                let mut copy = [0; N];
                copy[..size].copy_from_slice(&to[..size]);
                copy
            }
        };
        if let Some(separator) = self.separator {
            copy[size] = separator;
        }
        self.gather(&copy, to);
    }

    /// Fills `to` with the entries, from a copy of them as they stood, with a separator behind the last.
    #[inline]
    fn gather(&self, copy: &[u8], to: &mut [u8]) {
        let Some((last, rest)) = self.slots.split_last() else {
            return;
        };
        let from = |slot: &Slot| &copy[slot.start() - self.origin..];
        let mut at = 0;
        for slot in rest {
            copy_overlapping(&mut to[at..], from(slot), slot.len());
            at += slot.len();
        }
        let len = last.len() - usize::from(self.separator.is_some());
        copy_overlapping(&mut to[at..], from(last), len);
    }

    /// The entries in order: how long each is without its separator, and how many bytes of entries that are placed
    /// after it stood before it. At its turn they are what stands between its place and itself.
    fn steps(&self) -> impl Iterator<Item = (usize, usize)> {
        let separator = usize::from(self.separator.is_some());
        self.slots.iter().enumerate().map(move |(nth, slot)| {
            let between = self.slots[nth + 1..]
                .iter()
                .filter(|later| later.start() < slot.start());
            let shift = between.map(|later| later.len()).sum();
            (slot.len() - separator, shift)
        })
    }

    /// Bytes that [`Moves::rotate`] touches.
    fn rotations(&self) -> usize {
        let touched = |(len, shift): (usize, usize)| if shift > 0 { len + shift } else { 0 };
        self.steps().map(touched).fold(0, usize::saturating_add)
    }

    /// Moves each entry to its place by rotation, with no memory beside it.
    fn rotate(&self, bytes: &mut [u8]) {
        let separator = usize::from(self.separator.is_some());
        let mut place = 0;
        for (len, shift) in self.steps() {
            let end = place + shift + len;
            if shift > 0 {
                bytes[place..end].rotate_right(len);
            }
            place += len;
            if shift > 0 {
                // "a,b,C" is now "Ca,b,": the separator moves from the end to behind C.
                bytes[place..end].rotate_right(separator);
            }
            place += separator;
        }
    }
}

/// Copies `len` bytes. What follows them in `to` is overwritten where that is cheaper.
#[inline(always)]
fn copy_overlapping(to: &mut [u8], from: &[u8], len: usize) {
    if len > SHORT_MAX {
        return to[..len].copy_from_slice(&from[..len]);
    }
    let done = if len <= SHORT_MAX / 2 {
        copy_chunk::<{ SHORT_MAX / 2 }>(to, from)
    } else {
        copy_chunk::<SHORT_MAX>(to, from)
    };
    if !done {
        to[..len].copy_from_slice(&from[..len]);
    }
}

/// False if there is no room for that.
#[inline(always)]
fn copy_chunk<const N: usize>(to: &mut [u8], from: &[u8]) -> bool {
    match (to.first_chunk_mut::<N>(), from.first_chunk::<N>()) {
        (Some(to), Some(from)) => {
            *to = *from;
            true
        }
        _ => false,
    }
}
