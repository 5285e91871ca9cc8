//! The wheel that orders finely: the wheel buckets by tick, a heap orders what one tick holds.

use alloc::collections::BinaryHeap;
use core::cmp::{Ordering, Reverse};
use core::fmt;
use core::num::NonZeroU64;
use core::ops::ControlFlow;

use crate::buckets::Entry;
use crate::levels::Levels;
use crate::slab::{Key, READY};
use crate::ticks::{Round, Ticks};
use crate::wheel::Advance;

/// A timer wheel whose timers fire in the order of (deadline, priority, insertion).
///
/// It is [`Wheel`](crate::Wheel) with one more station: when the tick of a timer comes, the timer moves to a
/// heap, which holds the timers of that tick alone. A tick may be many units long; deadlines inside it are still
/// told apart, and a timer fires at its own deadline, not at the end of the tick.
///
/// The smallest priority fires first. A rescheduled timer keeps its priority and counts as inserted last.
///
/// ```
/// use std::num::NonZeroU64;
/// use timerwheel::OrderedWheel;
///
/// // Microseconds in ticks of a millisecond.
/// let mut wheel = OrderedWheel::with_tick(0, NonZeroU64::new(1_000).unwrap());
/// wheel.insert(2_500, 1, "second");
/// wheel.insert(2_500, 0, "first");
/// wheel.insert(2_501, 0, "fourth");
/// wheel.insert(2_500, 1, "third");
///
/// let mut fired = Vec::new();
/// assert!(!wheel.advance(2_500, 100, |_, value| fired.push(value)).more_due);
/// assert_eq!(fired, ["first", "second", "third"]);
/// assert_eq!(wheel.next_deadline(), Some(2_501));
/// ```
pub struct OrderedWheel<T, P = ()> {
    levels: Levels<Ranked<T, P>>,
    /// Timers whose tick has come, and a few dead turns.
    turns: BinaryHeap<Reverse<Turn<P>>>,
    /// The living among `turns`.
    ready: usize,
    sequence: u64,
    now: u64,
}

struct Ranked<T, P> {
    priority: P,
    sequence: u64,
    value: T,
}

struct Turn<P> {
    deadline: u64,
    priority: P,
    sequence: u64,
    entry: Entry,
}

impl<P: Ord> Ord for Turn<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.deadline, &self.priority, self.sequence).cmp(&(
            other.deadline,
            &other.priority,
            other.sequence,
        ))
    }
}

impl<P: Ord> PartialOrd for Turn<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P: Ord> PartialEq for Turn<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P: Ord> Eq for Turn<P> {}

impl<T, P: Ord + Copy> OrderedWheel<T, P> {
    /// An empty wheel whose clock reads `now`; a tick is one unit.
    pub fn new(now: u64) -> Self {
        Self::with_tick(now, NonZeroU64::MIN)
    }

    /// As [`new`](Self::new), with ticks of several units. It changes how often timers move between buckets, not
    /// when they fire.
    pub fn with_tick(now: u64, tick: NonZeroU64) -> Self {
        let ticks = Ticks::new(tick, Round::Down);
        OrderedWheel {
            levels: Levels::new(ticks.tick_at(now), ticks, 0),
            turns: BinaryHeap::new(),
            ready: 0,
            sequence: 0,
            now,
        }
    }

    /// Adds a timer. A deadline at or before [`now`](Self::now) fires in the next `advance`. O(1).
    ///
    /// # Panics
    ///
    /// When the wheel holds 2^28 timers already.
    pub fn insert(&mut self, deadline: u64, priority: P, value: T) -> Key {
        let sequence = self.next_sequence();
        self.levels.insert(
            deadline,
            Ranked {
                priority,
                sequence,
                value,
            },
        )
    }

    /// Takes a timer out; `None` when the key is stale. The value is freed or returned now, not later. O(1), and
    /// O(log n) in the timers of the present tick when it was one of them.
    pub fn cancel(&mut self, key: Key) -> Option<T> {
        let live = self.levels.remove(key)?;
        if live.is_in(READY) {
            self.bury_turn();
        }
        Some(live.value.value)
    }

    /// Moves a timer to another deadline under the same key; false when the key is stale. As cheap as
    /// [`cancel`](Self::cancel).
    pub fn reschedule(&mut self, key: Key, deadline: u64) -> bool {
        let sequence = self.next_sequence();
        let Some(live) = self.levels.slab.find_mut(key) else {
            return false;
        };
        live.value.sequence = sequence;
        let was_ready = live.is_in(READY);
        self.levels.reschedule(key, deadline);
        if was_ready {
            self.bury_turn();
        }
        true
    }

    /// The value of a waiting timer.
    pub fn get(&self, key: Key) -> Option<&T> {
        Some(&self.levels.slab.find(key)?.value.value)
    }

    /// The value of a waiting timer, to change in place.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        Some(&mut self.levels.slab.find_mut(key)?.value.value)
    }

    /// The deadline of a waiting timer.
    pub fn deadline(&self, key: Key) -> Option<u64> {
        Some(self.levels.slab.find(key)?.deadline)
    }

    /// Whether the key's timer still waits.
    pub fn contains(&self, key: Key) -> bool {
        self.levels.slab.find(key).is_some()
    }

    /// Tells the time and fires what is due, at most `budget` units of work: firing a timer is one unit, moving
    /// one to a lower level or into the heap or clearing a cancelled one away is one.
    ///
    /// When the budget ends first, `more_due` is true and the next call goes on where this one stopped.
    pub fn advance(&mut self, now: u64, budget: usize, mut fire: impl FnMut(Key, T)) -> Advance {
        self.now = self.now.max(now);
        let (mut left, mut fired) = (budget, 0);
        while left > 0 {
            match self.step(&mut left) {
                ControlFlow::Continue(None) => {}
                ControlFlow::Continue(Some((key, value))) => {
                    fired += 1;
                    fire(key, value);
                }
                ControlFlow::Break(()) => {
                    let more_due = false;
                    return Advance { fired, more_due };
                }
            }
        }
        let tick = self.levels.ticks.tick_at(self.now);
        let ready = |turn: &Reverse<Turn<P>>| turn.0.deadline <= self.now;
        let more_due = self.turns.peek().is_some_and(ready)
            || self.levels.is_due(tick.max(self.levels.cursor()));
        Advance { fired, more_due }
    }

    /// Tells the time and takes out the one timer that is due first, or `None` when nothing is due.
    pub fn pop_due(&mut self, now: u64) -> Option<(Key, T)> {
        self.now = self.now.max(now);
        let mut left = usize::MAX;
        loop {
            match self.step(&mut left) {
                ControlFlow::Continue(None) => {}
                ControlFlow::Continue(due) => return due,
                ControlFlow::Break(()) => return None,
            }
        }
    }

    /// A time to call `advance` at: never later than the first deadline (one that has passed counts as now),
    /// `None` when nothing waits. O(1).
    ///
    /// Exact when the tick of the first deadline has come; before, the start of that tick when it is among the
    /// same 256 ticks as the time reached, else the start of a slot of a higher level.
    pub fn next_deadline(&self) -> Option<u64> {
        let tick = self.next_tick();
        let bucket = tick.map(|tick| self.levels.ticks.start_of(tick));
        let turn = self.turns.peek().map(|turn| turn.0.deadline);
        bucket.into_iter().chain(turn).min()
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

    /// All waiting timers, as key, deadline, priority and value, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Key, u64, P, &T)> {
        let mut from = 0;
        core::iter::from_fn(move || {
            let (index, key, live) = self.levels.slab.next_live(from)?;
            from = index + 1;
            let ranked = &live.value;
            Some((key, live.deadline, ranked.priority, &ranked.value))
        })
    }

    /// Drops all timers, makes their keys stale and keeps the memory and the clock. O(capacity).
    pub fn clear(&mut self) {
        self.levels.clear();
        self.turns.clear();
        self.ready = 0;
    }

    /// Returns unused memory to the allocator. O(capacity).
    pub fn shrink_to_fit(&mut self) {
        self.drop_dead_turns();
        self.levels.shrink_to_fit();
        self.turns.shrink_to_fit();
    }

    /// One timer, or some work on the way to one; `Break` when nothing is due.
    fn step(&mut self, left: &mut usize) -> ControlFlow<(), Option<(Key, T)>> {
        // What waits in the buckets of ticks that have begun comes into the heap before the heap is asked.
        let mut tick = self.levels.cursor();
        if self.turns.is_empty() {
            let now = self.levels.ticks.tick_at(self.now);
            tick = tick.max(self.next_tick().map_or(now, |next| next.min(now)));
        }
        *left = self.collect(tick, *left);
        if *left == 0 {
            return ControlFlow::Continue(None);
        }
        let Some(Reverse(turn)) = self.turns.peek() else {
            let now = self.levels.ticks.tick_at(self.now);
            return match self.next_tick() {
                Some(tick) if tick <= now => ControlFlow::Continue(None),
                _ => ControlFlow::Break(()),
            };
        };
        if turn.deadline > self.now {
            // It belongs to the present tick, and the buckets hold nothing else of that.
            return ControlFlow::Break(());
        }
        let (sequence, index) = (turn.sequence, turn.entry.index());
        self.turns.pop();
        self.ready -= 1;
        *left -= 1;
        let taken = self
            .levels
            .slab
            .remove_if(index, |live| live.value.sequence == sequence);
        self.drop_dead_top();
        self.levels.tidy();
        ControlFlow::Continue(taken.map(|(key, live)| (key, live.value.value)))
    }

    /// Brings the timers of the ticks up to `tick` into the heap; returns what is left of the budget.
    fn collect(&mut self, tick: u64, budget: usize) -> usize {
        self.levels.run(
            tick,
            budget,
            |slab, entry, is_due| {
                let live = slab
                    .live_mut(entry.index())
                    .filter(|live| is_due.of(live))?;
                live.set_place(READY);
                Some(Turn {
                    deadline: live.deadline,
                    priority: live.value.priority,
                    sequence: live.value.sequence,
                    entry,
                })
            },
            |turn| {
                self.turns.push(Reverse(turn));
                self.ready += 1;
                ControlFlow::Continue(())
            },
        )
    }

    /// As `next_deadline`, exact also for the first tick of the lowest level when it lies ahead: its timers come
    /// into the heap before their tick has begun.
    #[cfg(feature = "service")]
    pub(crate) fn look_ahead(&mut self) -> Option<u64> {
        // The wheel may be ahead of the time already; then new timers wait in the bucket where it stands.
        self.collect(self.levels.cursor(), usize::MAX);
        if self.turns.is_empty()
            && let Some(tick) = self.next_tick()
            && self.levels.is_exact(tick)
        {
            self.collect(tick, usize::MAX);
        }
        self.next_deadline()
    }

    fn next_tick(&self) -> Option<u64> {
        self.levels.next_tick()
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// After a ready timer left or moved: its turn is dead.
    fn bury_turn(&mut self) {
        self.ready -= 1;
        self.drop_dead_top();
        if self.turns.len() > 2 * self.ready + 64 {
            self.drop_dead_turns();
        }
    }

    /// The first turn is always a living one, so that `next_deadline` need not look further.
    fn drop_dead_top(&mut self) {
        while let Some(Reverse(turn)) = self.turns.peek()
            && !is_alive(&self.levels, turn)
        {
            self.turns.pop();
        }
    }

    fn drop_dead_turns(&mut self) {
        let levels = &self.levels;
        self.turns.retain(|Reverse(turn)| is_alive(levels, turn));
    }
}

/// Sequence numbers are never used twice, so they tell a timer's turn from those before it was rescheduled.
fn is_alive<T, P>(levels: &Levels<Ranked<T, P>>, turn: &Turn<P>) -> bool {
    levels
        .slab
        .live(turn.entry.index())
        .is_some_and(|live| live.is_in(READY) && live.value.sequence == turn.sequence)
}

impl<T, P: Ord + Copy> fmt::Debug for OrderedWheel<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderedWheel")
            .field("now", &self.now)
            .field("len", &self.len())
            .field("next_deadline", &self.next_deadline())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "service"))]
mod tests {
    use super::*;

    #[test]
    fn looking_ahead_is_exact_and_misses_no_earlier_timer() {
        let mut wheel = OrderedWheel::with_tick(0, NonZeroU64::new(1_000).expect("not zero"));
        wheel.insert(200_500, (), "late");
        assert_eq!(wheel.next_deadline(), Some(200_000));
        assert_eq!(wheel.look_ahead(), Some(200_500));
        let early = wheel.insert(7, (), "early");
        assert_eq!(wheel.look_ahead(), Some(7));
        assert_eq!(wheel.pop_due(6), None);
        wheel.cancel(early);
        assert_eq!(wheel.look_ahead(), Some(200_500));
        wheel.insert(199_999, (), "between");
        assert_eq!(wheel.pop_due(199_998), None);
        assert_eq!(wheel.look_ahead(), Some(199_999));
        assert_eq!(
            wheel.pop_due(199_999).map(|(_, name)| name),
            Some("between")
        );
        assert_eq!(wheel.pop_due(200_500).map(|(_, name)| name), Some("late"));
        assert_eq!(wheel.look_ahead(), None);
    }
}
