//! The wheel as its users see it.

use core::fmt;
use core::num::NonZeroU64;
use core::ops::ControlFlow;

use crate::buckets::Entry;
use crate::levels::{IsDue, Levels};
use crate::slab::{Key, Slab};
use crate::ticks::{Round, Ticks};

/// What one call of [`Wheel::advance`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "`more_due` says whether the budget ended before the work did"]
pub struct Advance {
    /// Timers that fired.
    pub fired: usize,
    /// The budget ended with work left: call again, after other work if you like.
    pub more_due: bool,
}

/// A hierarchical timer wheel: values of type `T` that fall due at a deadline.
///
/// Deadlines count in whatever unit the caller likes (milliseconds, say), from any origin. Every `u64` is a
/// valid deadline. A timer never fires before its deadline: it fires in the first call of
/// [`advance`](Self::advance) or [`pop_due`](Self::pop_due) whose `now` has reached it.
///
/// Timers fire in the order of their deadlines. The order within one tick is not specified:
/// [`OrderedWheel`](crate::OrderedWheel) is for those who need it. A deadline that has passed at insertion
/// counts as due at once.
///
/// # Ticks
///
/// A tick is one unit unless [`with_tick`](Self::with_tick) says otherwise. With longer ticks a deadline counts
/// as rounded up to a whole number of ticks.
///
/// # Memory
///
/// 16 bytes a timer plus `T` in the slab and 8.3 bytes in a bucket, or up to 22 when many timers are cancelled:
/// their entries are cleared away when they outnumber the waiting ones by half, in a wheel of up to 4,096 timers when they
/// are half as many. All of it lies in blocks that are
/// reused, and returned to the allocator only by [`shrink_to_fit`](Self::shrink_to_fit). The wheel itself takes
/// 1 KiB, and 2 KiB for every level of 256 slots up to the highest that was ever used.
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
    levels: Levels<T>,
    /// The latest time that the caller told.
    now: u64,
}

impl<T> Wheel<T> {
    /// An empty wheel whose clock reads `now`; a tick is one unit.
    pub fn new(now: u64) -> Self {
        Self::with_tick_and_capacity(now, NonZeroU64::MIN, 0)
    }

    /// As [`new`](Self::new), with memory for `capacity` timers taken at once.
    pub fn with_capacity(now: u64, capacity: usize) -> Self {
        Self::with_tick_and_capacity(now, NonZeroU64::MIN, capacity)
    }

    /// As [`new`](Self::new), with ticks of several units: fewer wake-ups, at the price of up to a tick's delay.
    ///
    /// ```
    /// use std::num::NonZeroU64;
    ///
    /// // Nanoseconds, in ticks of about a millisecond. Powers of two are the fastest.
    /// let mut wheel = timerwheel::Wheel::with_tick(0, NonZeroU64::new(1 << 20).unwrap());
    /// wheel.insert(3_000_000, "a");
    /// wheel.insert(3_000_001, "b");
    /// assert_eq!(wheel.next_deadline(), Some(3 << 20));
    /// assert!(wheel.pop_due((3 << 20) - 1).is_none());
    /// ```
    pub fn with_tick(now: u64, tick: NonZeroU64) -> Self {
        Self::with_tick_and_capacity(now, tick, 0)
    }

    fn with_tick_and_capacity(now: u64, tick: NonZeroU64, capacity: usize) -> Self {
        let ticks = Ticks::new(tick, Round::Up);
        Wheel {
            levels: Levels::new(ticks.tick_at(now), ticks, capacity),
            now,
        }
    }

    /// Adds a timer. A deadline at or before [`now`](Self::now) fires in the next `advance`. O(1).
    ///
    /// # Panics
    ///
    /// When the wheel holds 2^28 timers already.
    pub fn insert(&mut self, deadline: u64, value: T) -> Key {
        self.levels.insert(deadline, value)
    }

    /// Takes a timer out; `None` when the key is stale. The value is freed or returned now, not later. O(1).
    pub fn cancel(&mut self, key: Key) -> Option<T> {
        Some(self.levels.remove(key)?.value)
    }

    /// Moves a timer to another deadline under the same key; false when the key is stale. O(1).
    ///
    /// A timer pushed back, as an idle timeout is on each arrival, costs one store.
    pub fn reschedule(&mut self, key: Key, deadline: u64) -> bool {
        self.levels.reschedule(key, deadline)
    }

    /// The value of a waiting timer.
    pub fn get(&self, key: Key) -> Option<&T> {
        Some(&self.levels.slab.find(key)?.value)
    }

    /// The value of a waiting timer, to change in place.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        Some(&mut self.levels.slab.find_mut(key)?.value)
    }

    /// The deadline of a waiting timer, as it was given.
    pub fn deadline(&self, key: Key) -> Option<u64> {
        Some(self.levels.slab.find(key)?.deadline)
    }

    /// Whether the key's timer still waits.
    pub fn contains(&self, key: Key) -> bool {
        self.levels.slab.find(key).is_some()
    }

    /// Tells the time and fires what is due, at most `budget` units of work: firing a timer is one unit, moving
    /// one to a lower level or clearing a cancelled one away is one.
    ///
    /// When the budget ends first, `more_due` is true and the next call goes on where this one stopped. A
    /// `now` before an earlier one is ignored. `fire` gets the key, stale by then, and the value.
    pub fn advance(&mut self, now: u64, budget: usize, mut fire: impl FnMut(Key, T)) -> Advance {
        self.now = self.now.max(now);
        let tick = self.levels.ticks.tick_at(self.now);
        let mut fired = 0;
        let left = self.levels.run(
            tick,
            budget,
            |slab, entry, is_due| remove_due(slab, entry, is_due),
            |(key, _, value)| {
                fired += 1;
                fire(key, value);
                ControlFlow::Continue(())
            },
        );
        self.levels.tidy();
        let more_due = left == 0 && self.levels.is_due(tick);
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
    /// The work of a call is not bounded, as `advance` is, but over the life of a timer it is: at most seven
    /// moves and one firing.
    pub fn pop_due(&mut self, now: u64) -> Option<(Key, T)> {
        let (key, _, value) = self.pop_due_with_deadline(now)?;
        Some((key, value))
    }

    /// As [`pop_due`](Self::pop_due), with the deadline that the timer was given last: `now` less it is how late it fires.
    ///
    /// ```
    /// let mut wheel = timerwheel::Wheel::new(0);
    /// let key = wheel.insert(10, "a");
    /// wheel.reschedule(key, 20);
    /// assert_eq!(wheel.pop_due_with_deadline(23), Some((key, 20, "a")));
    /// ```
    pub fn pop_due_with_deadline(&mut self, now: u64) -> Option<(Key, u64, T)> {
        self.now = self.now.max(now);
        let tick = self.levels.ticks.tick_at(self.now);
        let mut due = None;
        self.levels.run(
            tick,
            usize::MAX,
            |slab, entry, is_due| remove_due(slab, entry, is_due),
            |taken| {
                due = Some(taken);
                ControlFlow::Break(())
            },
        );
        self.levels.tidy();
        due
    }

    /// A time to call `advance` at: never later than the first deadline (one that has passed counts as now),
    /// `None` when nothing waits. O(1).
    ///
    /// Exact when the first deadline lies in the same 256 ticks, counted from a multiple of 256, as the time that
    /// the wheel has reached. Else it is the start of a slot of a higher level: `advance` then moves the slot's
    /// timers down, and the next answer is closer. At most seven such answers precede a timer.
    pub fn next_deadline(&self) -> Option<u64> {
        let tick = self.levels.next_tick()?;
        Some(self.levels.ticks.start_of(tick))
    }

    /// Timers that wait.
    pub fn len(&self) -> usize {
        self.levels.slab.len()
    }

    /// Whether no timer waits.
    pub fn is_empty(&self) -> bool {
        self.levels.slab.len() == 0
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
        self.levels.clear();
    }

    /// Returns unused memory to the allocator. O(capacity).
    ///
    /// Values do not move, so the memory before the last chunk with a timer stays.
    pub fn shrink_to_fit(&mut self) {
        self.levels.shrink_to_fit();
    }
}

#[inline(always)]
fn remove_due<T>(slab: &mut Slab<T>, entry: Entry, is_due: IsDue) -> Option<(Key, u64, T)> {
    let (key, live) = slab.remove_if(entry.index(), |live| is_due.of(live))?;
    Some((key, live.deadline, live.value))
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
        let (index, key, live) = self.wheel.levels.slab.next_live(self.from?)?;
        self.from = index.checked_add(1);
        self.left -= 1;
        Some((key, live.deadline, &live.value))
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
