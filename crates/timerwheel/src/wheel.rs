//! The wheel: eleven levels of 64 slots, each a doubly linked list of slab nodes.

use alloc::boxed::Box;
use core::fmt;

use crate::slab::{Key, NONE, Slab};

const DIGIT_BITS: u32 = 6;
const SLOTS_PER_LEVEL: usize = 1 << DIGIT_BITS;
/// Eleven digits of six bits cover all 64.
const LEVELS: usize = 11;
const SLOTS: usize = LEVELS * SLOTS_PER_LEVEL;

/// A list of timers in the order of their insertion.
#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

const EMPTY: List = List {
    head: NONE,
    tail: NONE,
};

/// What one call of [`Wheel::advance`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "`more_due` says whether the budget ended before the work did"]
pub struct Advance {
    /// Timers that fired.
    pub fired: usize,
    /// The budget ended with work left: call again, after other work if you like.
    pub more_due: bool,
}

/// A hierarchical timer wheel: values of type `T` that fall due at a tick.
///
/// A tick is whatever the caller counts in (milliseconds, say), from any origin. Every `u64` is a valid
/// deadline. A timer never fires before its deadline: it fires in the first call of [`advance`](Self::advance)
/// or [`pop_due`](Self::pop_due) whose `now` has reached it.
///
/// Timers fire in the order of their deadlines, those of one deadline in the order of their insertion. A
/// deadline that has passed at insertion counts as due at once; the place of a rescheduled timer among those
/// of the same deadline is not specified.
///
/// # Memory
///
/// 24 bytes a timer plus `Option<T>`, in chunks of 4,096 timers that are reused but returned to the allocator
/// only by [`shrink_to_fit`](Self::shrink_to_fit), plus 6 KiB for the wheel itself.
///
/// # Example
///
/// ```
/// let mut wheel = timerwheel::Wheel::new(0);
/// let key = wheel.insert(10, "a");
/// wheel.insert(20, "b");
/// assert!(wheel.reschedule(key, 30));
///
/// let mut fired = Vec::new();
/// let advance = wheel.advance(25, 100, |_key, value| fired.push(value));
/// assert_eq!(fired, ["b"]);
/// assert!(!advance.more_due);
/// assert_eq!(wheel.next_deadline(), Some(30));
/// ```
pub struct Wheel<T> {
    slab: Slab<T>,
    lists: Box<[List; SLOTS]>,
    /// Bit s of `occupied[level]` is set when the slot's list is not empty.
    occupied: [u64; LEVELS],
    /// Bit l is set when `occupied[l]` is not zero.
    levels: u32,
    /// Every timer is placed relative to this tick; nothing that waits is due before it.
    cursor: u64,
    /// The latest time that the caller told; `cursor <= now`.
    now: u64,
    /// A slot of level 1 or higher that the cursor has reached and whose timers are on their way down.
    cascading: Option<u16>,
}

/// The outcome of one unit of work.
enum Step<T> {
    Fired(Key, T),
    Moved,
    Idle,
}

impl<T> Wheel<T> {
    /// An empty wheel whose clock reads `now` ticks.
    pub fn new(now: u64) -> Self {
        Self::with_capacity(now, 0)
    }

    /// As [`new`](Self::new), with memory for `capacity` timers taken at once.
    pub fn with_capacity(now: u64, capacity: usize) -> Self {
        Wheel {
            slab: Slab::with_capacity(capacity),
            lists: Box::new([EMPTY; SLOTS]),
            occupied: [0; LEVELS],
            levels: 0,
            cursor: now,
            now,
            cascading: None,
        }
    }

    /// Adds a timer. A deadline at or before [`now`](Self::now) fires in the next `advance`. O(1).
    ///
    /// # Panics
    ///
    /// When the wheel holds 2^32 - 1 timers already.
    pub fn insert(&mut self, deadline: u64, value: T) -> Key {
        let (index, key) = self.slab.insert(deadline, value);
        let slot = self.slot_of(deadline);
        self.link(index, slot);
        key
    }

    /// Takes a timer out; `None` when the key is stale. The value is freed or returned now, not later. O(1).
    pub fn cancel(&mut self, key: Key) -> Option<T> {
        let index = self.slab.find(key)?;
        self.unlink(index);
        Some(self.slab.remove(index).1)
    }

    /// Moves a timer to another deadline under the same key; false when the key is stale. O(1).
    ///
    /// A timer pushed back within the same slot, as an idle timeout is on each arrival, costs one store.
    pub fn reschedule(&mut self, key: Key, deadline: u64) -> bool {
        let Some(index) = self.slab.find(key) else {
            return false;
        };
        let slot = self.slot_of(deadline);
        let node = self.slab.node_mut(index);
        node.deadline = deadline;
        if node.slot != slot {
            self.unlink(index);
            self.link(index, slot);
        }
        true
    }

    /// The value of a waiting timer.
    pub fn get(&self, key: Key) -> Option<&T> {
        self.slab.value(self.slab.find(key)?)
    }

    /// The value of a waiting timer, to change in place.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let index = self.slab.find(key)?;
        self.slab.value_mut(index)
    }

    /// The deadline of a waiting timer, as it was given.
    pub fn deadline(&self, key: Key) -> Option<u64> {
        Some(self.slab.node(self.slab.find(key)?).deadline)
    }

    /// Whether the key's timer still waits.
    pub fn contains(&self, key: Key) -> bool {
        self.slab.find(key).is_some()
    }

    /// Tells the time and fires what is due, at most `budget` units of work: firing a timer is one unit,
    /// moving one to a lower level is one.
    ///
    /// When the budget ends first, `more_due` is true and the next call goes on where this one stopped. A
    /// `now` before an earlier one is ignored. `fire` gets the key, stale by then, and the value.
    pub fn advance(&mut self, now: u64, budget: usize, mut fire: impl FnMut(Key, T)) -> Advance {
        self.now = self.now.max(now);
        let mut fired = 0;
        for _ in 0..budget {
            match self.step() {
                Step::Fired(key, value) => {
                    fired += 1;
                    fire(key, value);
                }
                Step::Moved => {}
                Step::Idle => {
                    return Advance {
                        fired,
                        more_due: false,
                    };
                }
            }
        }
        let more_due = self.next_due().is_some();
        Advance { fired, more_due }
    }

    /// Tells the time and takes out the one timer that is due first, or `None` when nothing is due.
    ///
    /// For callers whose reaction needs the wheel itself:
    ///
    /// ```
    /// let mut wheel = timerwheel::Wheel::new(0);
    /// wheel.insert(10, 3);
    /// let mut beats = 0;
    /// while let Some((_key, left)) = wheel.pop_due(10) {
    ///     beats += 1;
    ///     if left > 1 {
    ///         wheel.insert(10, left - 1);
    ///     }
    /// }
    /// assert_eq!(beats, 3);
    /// ```
    ///
    /// The work of a call is not bounded, as `advance` is, but over the life of a timer it is: at most ten
    /// moves and one firing.
    pub fn pop_due(&mut self, now: u64) -> Option<(Key, T)> {
        self.now = self.now.max(now);
        loop {
            match self.step() {
                Step::Fired(key, value) => return Some((key, value)),
                Step::Moved => {}
                Step::Idle => return None,
            }
        }
    }

    /// A time to call `advance` at: never later than the first deadline (a deadline that has passed counts as
    /// now), `None` when nothing waits. O(1).
    ///
    /// Exact when the first deadline lies in the same 64 ticks, counted from a multiple of 64, as the time that
    /// the wheel has reached. Else it is the start of a slot of a higher level: `advance` then moves the slot's
    /// timers down, and the next answer is closer. At most ten such answers precede a timer.
    pub fn next_deadline(&self) -> Option<u64> {
        if self.is_cascading() {
            return Some(self.cursor);
        }
        self.first_slot().map(|(_, start)| start)
    }

    /// Timers that wait.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether no timer waits.
    pub fn is_empty(&self) -> bool {
        self.slab.len() == 0
    }

    /// The latest time that the wheel was told.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// All waiting timers, as key, deadline and value, in no particular order.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter {
            wheel: self,
            from: Some(0),
            left: self.len(),
        }
    }

    /// Drops all timers, makes their keys stale and keeps the memory and the clock. O(capacity).
    pub fn clear(&mut self) {
        let mut from = Some(0);
        while let Some(index) = from.and_then(|f| self.slab.next_live(f).map(|(index, ..)| index)) {
            self.unlink(index);
            drop(self.slab.remove(index));
            from = index.checked_add(1);
        }
    }

    /// Returns unused memory to the allocator: the chunks behind the last one that holds a timer. O(capacity).
    ///
    /// Timers do not move, so one timer in the last chunk keeps all chunks before it.
    pub fn shrink_to_fit(&mut self) {
        self.slab.shrink_to_fit();
    }

    /// Does one unit of due work.
    fn step(&mut self) -> Step<T> {
        let Some((slot, start)) = self.next_due() else {
            return Step::Idle;
        };
        debug_assert!(start >= self.cursor && start <= self.now);
        self.cursor = start;
        let index = self.lists[usize::from(slot)].head;
        self.unlink(index);
        if level_of(slot) == 0 {
            let (key, value) = self.slab.remove(index);
            return Step::Fired(key, value);
        }
        self.cascading = Some(slot);
        let lower = lower_slot(self.cursor, self.slab.node(index).deadline);
        debug_assert!(level_of(lower) < level_of(slot));
        self.link(index, lower);
        Step::Moved
    }

    /// The slot to work on and the tick at which it starts; `None`, and the cursor at `now`, when nothing is
    /// due.
    fn next_due(&mut self) -> Option<(u16, u64)> {
        if let Some(slot) = self.cascading {
            if self.is_cascading() {
                return Some((slot, self.cursor));
            }
            self.cascading = None;
        }
        let due = self.first_slot().filter(|(_, start)| *start <= self.now);
        if due.is_none() {
            // No slot starts at or before `now`, so every timer is still in its right slot as seen from there.
            self.cursor = self.now;
        }
        due
    }

    /// The first slot that holds a timer and the tick at which it starts, when no cascade is under way.
    fn first_slot(&self) -> Option<(u16, u64)> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros();
        let digit = self.occupied[level as usize].trailing_zeros();
        let shift = level * DIGIT_BITS;
        // Digits above this one are those of the cursor, digits below are zero.
        let above = self.cursor.checked_shr(shift + DIGIT_BITS).unwrap_or(0);
        let above = above.checked_shl(shift + DIGIT_BITS).unwrap_or(0);
        let start = above | (u64::from(digit) << shift);
        Some(((level << DIGIT_BITS | digit) as u16, start))
    }

    fn is_cascading(&self) -> bool {
        self.cascading
            .is_some_and(|slot| self.lists[usize::from(slot)].head != NONE)
    }

    /// Where a timer belongs now. A timer that falls into the slot whose timers are moving down queues up
    /// behind them, so that the order of insertion holds.
    fn slot_of(&self, deadline: u64) -> u16 {
        let slot = lower_slot(self.cursor, deadline);
        match self.cascading {
            Some(cascading) if level_of(slot) < level_of(cascading) && self.is_cascading() => {
                cascading
            }
            _ => slot,
        }
    }

    fn link(&mut self, index: u32, slot: u16) {
        let list = &mut self.lists[usize::from(slot)];
        let tail = core::mem::replace(&mut list.tail, index);
        if tail == NONE {
            list.head = index;
            let level = level_of(slot);
            self.occupied[level as usize] |= 1 << (usize::from(slot) % SLOTS_PER_LEVEL);
            self.levels |= 1 << level;
        } else {
            self.slab.node_mut(tail).next = index;
        }
        let node = self.slab.node_mut(index);
        node.prev = tail;
        node.next = NONE;
        node.slot = slot;
    }

    fn unlink(&mut self, index: u32) {
        let node = self.slab.node(index);
        let (prev, next, slot) = (node.prev, node.next, node.slot);
        let list = &mut self.lists[usize::from(slot)];
        if prev == NONE {
            list.head = next;
        } else {
            self.slab.node_mut(prev).next = next;
        }
        if next == NONE {
            list.tail = prev;
        } else {
            self.slab.node_mut(next).prev = prev;
        }
        if list.head == NONE {
            let level = level_of(slot);
            let occupied = &mut self.occupied[level as usize];
            *occupied &= !(1 << (usize::from(slot) % SLOTS_PER_LEVEL));
            if *occupied == 0 {
                self.levels &= !(1 << level);
            }
        }
    }
}

/// The slot of a deadline as seen from `cursor`; a deadline that has passed belongs to the cursor's tick.
fn lower_slot(cursor: u64, deadline: u64) -> u16 {
    let due = deadline.max(cursor);
    let level = ((due ^ cursor) | 1).ilog2() / DIGIT_BITS;
    let digit = (due >> (level * DIGIT_BITS)) % SLOTS_PER_LEVEL as u64;
    (u64::from(level << DIGIT_BITS) | digit) as u16
}

fn level_of(slot: u16) -> u32 {
    u32::from(slot) >> DIGIT_BITS
}

impl<T: fmt::Debug> fmt::Debug for Wheel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel")
            .field("now", &self.now)
            .field("len", &self.len())
            .field("next_deadline", &self.next_deadline())
            .finish_non_exhaustive()
    }
}

impl<'a, T> IntoIterator for &'a Wheel<T> {
    type Item = (Key, u64, &'a T);
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// The waiting timers of a wheel: key, deadline and value. Made by [`Wheel::iter`].
pub struct Iter<'a, T> {
    wheel: &'a Wheel<T>,
    from: Option<u32>,
    left: usize,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = (Key, u64, &'a T);

    fn next(&mut self) -> Option<Self::Item> {
        let (index, key, node, value) = self.wheel.slab.next_live(self.from?)?;
        self.from = index.checked_add(1);
        self.left -= 1;
        Some((key, node.deadline, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T> ExactSizeIterator for Iter<'_, T> {}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("left", &self.left).finish()
    }
}
