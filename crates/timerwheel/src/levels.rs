//! The wheel proper: levels of slots over buckets and slab, counted in ticks.

mod digits;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use self::digits::Digits;
use crate::buckets::{Arena, Chunk, ENTRIES, Entry, Link, List};
use crate::slab::{IN_LOWEST, Key, Live, READY, Slab};
use crate::ticks::Ticks;

const DIGIT_BITS: u32 = 8;
const SLOTS: usize = 1 << DIGIT_BITS;
const WORDS: usize = SLOTS / 64;
/// So many timers are few.
const SMALL: usize = 4096;
const LEVELS: usize = 64_usize.div_ceil(DIGIT_BITS as usize);
/// The number that no slot has.
const NO_SLOT: u16 = u16::MAX;

/// Tells whether an entry that has come out of the lowest level is its timer's present one.
#[derive(Clone, Copy)]
pub(crate) struct IsDue {
    stamp: u32,
    ticks: Ticks,
    tick: u64,
}

impl IsDue {
    /// The stamp alone would do but for those that come round: see [`Live`].
    #[inline]
    pub(crate) fn of<T>(self, live: &Live<T>) -> bool {
        live.stamp() == self.stamp
            && live.is_in(IN_LOWEST)
            && self.ticks.tick_of(live.deadline) <= self.tick
    }
}

pub(crate) struct Levels<T> {
    pub(crate) slab: Slab<T>,
    pub(crate) ticks: Ticks,
    /// The buckets, level by level, as far up as one was ever used: of links on the lowest, where most hold a
    /// timer or none, and of chunks above.
    lists: Vec<List>,
    links: Arena<Link>,
    chunks: Arena<Chunk>,
    /// Per level the slots that hold entries.
    occupied: [Digits; LEVELS],
    /// Bit l is set when `occupied[l]` is not empty.
    levels: u32,
    /// Per slot of the lowest level, the timers alive in it.
    living: Box<[u32; SLOTS]>,
    /// Every entry is placed relative to this tick; nothing that waits is due before it.
    cursor: u64,
    /// A slot of level 1 or higher that the cursor has reached and whose entries are on their way down.
    cascading: u16,
    sweep: Sweep,
}

/// The search for dead entries, a chunk at a time.
struct Sweep {
    /// The slot whose entries are being looked through; `NO_SLOT` when the sweep rests.
    slot: u16,
    /// Its entries that were not looked at yet.
    rest: List,
}

impl<T> Levels<T> {
    pub(crate) fn new(cursor: u64, ticks: Ticks, capacity: usize) -> Self {
        Levels {
            slab: Slab::with_capacity(capacity),
            ticks,
            lists: Vec::new(),
            links: Arena::new(),
            chunks: Arena::new(),
            occupied: [Digits::NONE; LEVELS],
            levels: 0,
            living: Box::new([0; SLOTS]),
            cursor,
            cascading: NO_SLOT,
            sweep: Sweep {
                slot: NO_SLOT,
                rest: List::EMPTY,
            },
        }
    }

    #[inline]
    pub(crate) fn insert(&mut self, deadline: u64, value: T) -> Key {
        let (key, stamp) = self.slab.insert(deadline, value);
        self.place(self.ticks.tick_of(deadline), key.index(), stamp);
        key
    }

    #[inline]
    pub(crate) fn remove(&mut self, key: Key) -> Option<Live<T>> {
        let live = self.slab.remove_key(key)?;
        self.left_bucket(&live);
        self.bury();
        Some(live)
    }

    pub(crate) fn reschedule(&mut self, key: Key, deadline: u64) -> bool {
        let Some(live) = self.slab.find_mut(key) else {
            return false;
        };
        let tick = self.ticks.tick_of(deadline);
        let old = self.ticks.tick_of(live.deadline);
        live.deadline = deadline;
        if live.is_in(0) && tick >= old || live.is_in(IN_LOWEST) && tick == old {
            // Its entry surfaces in time, and is placed again then.
            return true;
        }
        if live.is_in(IN_LOWEST) {
            let digit = old.max(self.cursor) as u32 % SLOTS as u32;
            self.living[digit as usize % SLOTS] -= 1;
        }
        let stamp = live.restamp();
        self.place(tick, key.index(), stamp);
        self.bury();
        true
    }

    /// Does up to `budget` units of work for the time until `tick` and returns what is left of the budget.
    ///
    /// `take` gets the index of each entry whose tick has come, out of its bucket by then, and a question: whether
    /// the entry is the timer's present one. What it makes of a living timer goes to `give`, which can end the run.
    #[inline]
    pub(crate) fn run<D>(
        &mut self,
        tick: u64,
        mut budget: usize,
        mut take: impl FnMut(&mut Slab<T>, Entry, IsDue) -> Option<D>,
        mut give: impl FnMut(D) -> ControlFlow<()>,
    ) -> usize {
        while budget > 0 {
            if self.cascading != NO_SLOT {
                budget -= self.cascade(self.cascading, budget);
                continue;
            }
            let due = self.first_slot().filter(|(_, start)| *start <= tick);
            let Some((slot, start)) = due else {
                // No slot starts at or before `tick`: every entry is in its right slot as seen from there.
                self.cursor = self.cursor.max(tick);
                break;
            };
            self.cursor = start;
            if level_of(slot) > 0 {
                self.cascading = slot;
            } else if self
                .fire(slot, &mut budget, &mut take, &mut give)
                .is_break()
            {
                break;
            }
        }
        budget
    }

    /// Hands the timers of a slot of the lowest level out.
    #[inline(always)]
    fn fire<D>(
        &mut self,
        slot: u16,
        budget: &mut usize,
        mut take: impl FnMut(&mut Slab<T>, Entry, IsDue) -> Option<D>,
        mut give: impl FnMut(D) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if slot == self.sweep.slot {
            self.end_sweep_of_slot();
        }
        let at = usize::from(slot) % SLOTS;
        while *budget > 0 {
            let list = &mut self.lists[at];
            let entry = self.links.pop(list);
            let is_last = list.is_empty();
            if is_last {
                self.vacate(slot);
            }
            let Some(entry) = entry else { break };
            *budget -= 1;
            let is_due = IsDue {
                stamp: entry.stamp(),
                ticks: self.ticks,
                tick: self.cursor,
            };
            if let Some(due) = take(&mut self.slab, entry, is_due) {
                self.living[at] -= 1;
                give(due)?;
            }
            if is_last {
                break;
            }
        }
        ControlFlow::Continue(())
    }

    /// Forgets the dead entries when no timer lives.
    #[inline]
    pub(crate) fn tidy(&mut self) {
        if self.slab.len() == 0 && self.levels != 0 {
            self.reset();
        }
    }

    /// Whether anything is due at `tick`. If not, the cursor goes there.
    #[inline]
    pub(crate) fn is_due(&mut self, tick: u64) -> bool {
        if self.cascading != NO_SLOT {
            return true;
        }
        let due = self.first_slot().is_some_and(|(_, start)| start <= tick);
        if !due {
            self.cursor = self.cursor.max(tick);
        }
        due
    }

    /// Never later than the first tick that is due; exact within the lowest level.
    #[inline]
    pub(crate) fn next_tick(&self) -> Option<u64> {
        if self.slab.len() == 0 {
            return None;
        }
        if self.cascading != NO_SLOT {
            return Some(self.cursor);
        }
        let mut from = 0;
        while let Some(digit) = self.occupied[0].first_from(from) {
            if self.living[digit as usize % SLOTS] > 0 {
                return Some(self.cursor & !(SLOTS as u64 - 1) | u64::from(digit));
            }
            from = digit + 1;
        }
        self.first_slot_in(self.levels & !1).map(|(_, start)| start)
    }

    /// Whether `next_tick` is the tick of a timer and not the start of a slot.
    #[cfg(feature = "service")]
    pub(crate) fn is_exact(&self, tick: u64) -> bool {
        self.cascading == NO_SLOT && (tick ^ self.cursor) < SLOTS as u64
    }

    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        let mut from = 0;
        while let Some((index, ..)) = self.slab.next_live(from) {
            drop(self.slab.remove_index(index));
            from = index + 1;
        }
        self.reset();
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        // Every dead entry must go: the slab forgets the stamps of the nodes that it gives back.
        let mut all = Vec::with_capacity(self.slab.len());
        let mut from = 0;
        while let Some((index, _, live)) = self.slab.next_live(from) {
            if !live.is_in(READY) {
                all.push((live.deadline, index));
            }
            from = index + 1;
        }
        self.reset();
        self.links = Arena::new();
        self.chunks = Arena::new();
        self.lists = Vec::new();
        self.slab.shrink_to_fit();
        for (deadline, index) in all {
            if let Some(live) = self.slab.live_mut(index) {
                let stamp = live.restamp();
                self.place(self.ticks.tick_of(deadline), index, stamp);
            }
        }
    }

    /// Puts a timer's entry where it belongs as seen from the cursor.
    #[inline]
    fn place(&mut self, tick: u64, index: u32, stamp: u32) {
        let due = tick.max(self.cursor);
        if (due ^ self.cursor) < SLOTS as u64
            && let Some(live) = self.slab.live_mut(index)
        {
            live.set_place(IN_LOWEST);
        }
        self.push(due, Entry::new(due, index, stamp));
    }

    /// Puts an entry in the slot of its tick.
    #[inline]
    fn push(&mut self, due: u64, entry: Entry) {
        let slot = slot_of(self.cursor, due);
        let level = level_of(slot);
        if level > 0 {
            self.push_upper(level, digit_of(slot), entry);
        } else {
            self.push_lowest(digit_of(slot), entry);
        }
    }

    #[inline]
    fn push_upper(&mut self, level: u32, digit: u32, entry: Entry) {
        let at = (level << DIGIT_BITS | digit) as usize;
        if at >= self.lists.len() {
            self.grow(at);
        }
        let list = &mut self.lists[at];
        if list.is_empty() {
            self.occupied[level as usize % LEVELS].set(digit);
            self.levels |= 1 << level;
        }
        self.chunks.push(list, entry);
    }

    #[inline]
    fn push_lowest(&mut self, digit: u32, entry: Entry) {
        let at = digit as usize % SLOTS;
        if at >= self.lists.len() {
            self.grow(at);
        }
        let list = &mut self.lists[at];
        if list.is_empty() {
            self.occupied[0].set(digit);
            self.levels |= 1;
        }
        self.living[at] += 1;
        self.links.push(list, entry);
    }

    #[cold]
    fn grow(&mut self, at: usize) {
        self.lists.resize(at / SLOTS * SLOTS + SLOTS, List::EMPTY);
    }

    /// Marks a slot as empty.
    #[inline]
    fn vacate(&mut self, slot: u16) {
        let level = level_of(slot);
        let occupied = &mut self.occupied[level as usize];
        occupied.clear(digit_of(slot));
        if occupied.is_empty() {
            self.levels &= !(1 << level);
        }
        if self.cascading == slot {
            self.cascading = NO_SLOT;
        }
    }

    /// Moves up to a chunk's entries of a slot that the cursor has reached to lower levels; says how many.
    fn cascade(&mut self, slot: u16, budget: usize) -> usize {
        if slot == self.sweep.slot {
            self.end_sweep_of_slot();
        }
        let list = &mut self.lists[usize::from(slot)];
        if list.is_empty() {
            self.vacate(slot);
            return 0;
        }
        let chunk = self.chunks.pop_chunk(list, budget);
        if list.is_empty() {
            self.vacate(slot);
        }
        match level_of(slot) {
            2 => self.cascade_from_second(chunk.entries()),
            _ => self.settle(chunk.entries()),
        }
        chunk.entries().len()
    }

    /// Moves entries one level down, or two, by the bits that they know: no timer is touched on the way.
    fn cascade_from_second(&mut self, entries: &[Entry]) {
        for entry in entries {
            let digit = (entry.when() >> DIGIT_BITS) as u32 % SLOTS as u32;
            if digit == 0 {
                // The cursor stands at the slot's start, so all lower digits of it are zero.
                self.settle(core::slice::from_ref(entry));
            } else {
                self.push_upper(1, digit, *entry);
            }
        }
    }

    /// Places up to a chunk's entries by their timers' deadlines, which may have moved, and drops the dead.
    ///
    /// Most go to the lowest level. Reading their timers here, many at once, brings them into the cache before
    /// they fire one by one.
    fn settle(&mut self, entries: &[Entry]) {
        const DEAD: u16 = u16::MAX;
        const HIGHER: u16 = DEAD - 1;
        let mut digits = [DEAD; ENTRIES];
        for (entry, digit) in entries.iter().zip(&mut digits) {
            if let Some(live) = self.slab.live_mut(entry.index())
                && live.stamp() == entry.stamp()
                && !live.is_in(IN_LOWEST)
            {
                let due = self.ticks.tick_of(live.deadline).max(self.cursor);
                *digit = if (due ^ self.cursor) < SLOTS as u64 {
                    live.set_place(IN_LOWEST);
                    due as u16 % SLOTS as u16
                } else {
                    HIGHER
                };
            }
        }
        for (entry, digit) in entries.iter().zip(digits) {
            match digit {
                DEAD => {}
                HIGHER => self.settle_higher(*entry),
                digit => self.push_lowest(u32::from(digit), *entry),
            }
        }
    }

    fn settle_higher(&mut self, entry: Entry) {
        if let Some(live) = self.slab.live(entry.index()) {
            let tick = self.ticks.tick_of(live.deadline);
            self.push(tick, Entry::new(tick, entry.index(), entry.stamp()));
        }
    }

    /// A timer has left the slab or moved: its entry counts no longer.
    #[inline]
    fn left_bucket(&mut self, live: &Live<T>) {
        if live.is_in(IN_LOWEST) {
            let tick = self.ticks.tick_of(live.deadline).max(self.cursor);
            let digit = tick as u32 % SLOTS as u32;
            self.living[digit as usize % SLOTS] -= 1;
        }
    }

    /// After an entry died: begins or goes on to sweep when the dead are many.
    #[inline]
    fn bury(&mut self) {
        if self.slab.len() == 0 {
            self.reset();
        } else if self.wants_sweep() {
            self.sweep_chunk();
        }
    }

    #[inline]
    fn wants_sweep(&self) -> bool {
        let living = self.slab.len();
        let entries = self.links.entries() + self.chunks.entries();
        // A small wheel is all in the cache: there a look is cheap, and half-empty chunks are what it is made of.
        let dead_max = match living <= SMALL {
            true => living / 2,
            false => living + living / 2,
        };
        self.sweep.slot != NO_SLOT || entries > living + dead_max + 64
    }

    /// Looks at the timers of one chunk of entries and keeps those that live.
    fn sweep_chunk(&mut self) {
        if self.sweep.rest.is_empty() {
            self.end_sweep_of_slot();
            let from = match self.sweep.slot {
                NO_SLOT => 0,
                slot => slot + 1,
            };
            self.sweep.slot = self.occupied_from(from);
            if self.sweep.slot == NO_SLOT {
                return;
            }
            let list = &mut self.lists[usize::from(self.sweep.slot)];
            self.sweep.rest = core::mem::replace(list, List::EMPTY);
        }
        let slot = self.sweep.slot;
        let list = &mut self.lists[usize::from(slot)];
        let rest = &mut self.sweep.rest;
        if level_of(slot) == 0 {
            for _ in 0..ENTRIES {
                let Some(entry) = self.links.pop(rest) else {
                    break;
                };
                if self.slab.is_live(entry) {
                    self.links.push(list, entry);
                }
            }
        } else {
            let chunk = self.chunks.pop_chunk(rest, ENTRIES);
            // In two loops, so that the reads of many timers overlap.
            let mut keep = [false; ENTRIES];
            for (entry, keep) in chunk.entries().iter().zip(&mut keep) {
                *keep = self.slab.is_live(*entry);
            }
            for (entry, keep) in chunk.entries().iter().zip(keep) {
                if keep {
                    self.chunks.push(list, *entry);
                }
            }
        }
        if rest.is_empty() && list.is_empty() {
            self.vacate(slot);
        }
    }

    /// Gives a slot under the sweep the entries back that were not looked at.
    fn end_sweep_of_slot(&mut self) {
        if let Some(list) = self.lists.get_mut(usize::from(self.sweep.slot)) {
            let rest = core::mem::replace(&mut self.sweep.rest, List::EMPTY);
            if level_of(self.sweep.slot) == 0 {
                self.links.join(list, rest);
            } else {
                self.chunks.join(list, rest);
            }
        }
    }

    /// The first slot from `slot` on that holds entries.
    fn occupied_from(&self, slot: u16) -> u16 {
        let mut digit = digit_of(slot);
        for level in level_of(slot)..LEVELS as u32 {
            if let Some(digit) = self.occupied[level as usize].first_from(digit) {
                return (level << DIGIT_BITS | digit) as u16;
            }
            digit = 0;
        }
        NO_SLOT
    }

    /// Forgets all entries; no timer may wait in a bucket.
    fn reset(&mut self) {
        let mut slot = self.occupied_from(0);
        while slot != NO_SLOT {
            self.lists[usize::from(slot)] = List::EMPTY;
            if level_of(slot) == 0 {
                self.living[usize::from(slot)] = 0;
            }
            slot = self.occupied_from(slot + 1);
        }
        self.occupied = [Digits::NONE; LEVELS];
        self.levels = 0;
        self.cascading = NO_SLOT;
        self.sweep.slot = NO_SLOT;
        self.sweep.rest = List::EMPTY;
        self.links.reset();
        self.chunks.reset();
    }

    /// The first slot that holds entries and the tick at which it starts, when no cascade is under way.
    #[inline]
    fn first_slot(&self) -> Option<(u16, u64)> {
        self.first_slot_in(self.levels)
    }

    #[inline]
    fn first_slot_in(&self, levels: u32) -> Option<(u16, u64)> {
        if levels == 0 {
            return None;
        }
        let level = levels.trailing_zeros();
        let digit = self.occupied[level as usize % LEVELS].first();
        let shift = level * DIGIT_BITS;
        // Digits above this one are those of the cursor, digits below are zero.
        let above = self.cursor.checked_shr(shift + DIGIT_BITS).unwrap_or(0);
        let above = above.checked_shl(shift + DIGIT_BITS).unwrap_or(0);
        let start = above | (u64::from(digit) << shift);
        Some(((level << DIGIT_BITS | digit) as u16, start))
    }
}

/// The slot of a tick at or after the cursor: on the level of the highest digit in which they differ.
#[inline]
fn slot_of(cursor: u64, due: u64) -> u16 {
    let level = ((due ^ cursor) | 1).ilog2() / DIGIT_BITS;
    let digit = (due >> (level * DIGIT_BITS)) % SLOTS as u64;
    (u64::from(level << DIGIT_BITS) | digit) as u16
}

#[inline]
fn level_of(slot: u16) -> u32 {
    u32::from(slot) >> DIGIT_BITS
}

#[inline]
fn digit_of(slot: u16) -> u32 {
    u32::from(slot) % SLOTS as u32
}
