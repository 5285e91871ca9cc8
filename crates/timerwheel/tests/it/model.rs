//! The wheel beside a sorted map, over random histories.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use proptest::prelude::*;
use timerwheel::{Key, Wheel};

#[derive(Clone, Debug)]
enum Op {
    Insert(u64),
    Cancel(usize),
    Reschedule(usize, u64),
    Advance { by: u64, budget: usize },
    PopDue { by: u64 },
    Backwards,
    Clear,
    Shrink,
}

/// Distances that matter: tiny, around digit borders, anywhere, beyond the end of time.
fn distance() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0u64..200,
        3 => (0u32..64, 0u64..3).prop_map(|(bit, n)| (1u64 << bit).wrapping_sub(1).wrapping_add(n)),
        2 => 0u64..10_000_000,
        1 => any::<u64>(),
        1 => Just(u64::MAX),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => distance().prop_map(Op::Insert),
        4 => any::<usize>().prop_map(Op::Cancel),
        4 => (any::<usize>(), distance()).prop_map(|(n, d)| Op::Reschedule(n, d)),
        6 => (0u64..5_000, 0usize..20).prop_map(|(by, budget)| Op::Advance { by, budget }),
        2 => (distance(), 0usize..200).prop_map(|(by, budget)| Op::Advance { by: by >> 2, budget }),
        3 => (0u64..500).prop_map(|by| Op::PopDue { by }),
        1 => Just(Op::Backwards),
        1 => prop_oneof![Just(Op::Clear), Just(Op::Shrink)],
    ]
}

/// The wheel, and the same timers in a sorted map.
struct Pair {
    wheel: Wheel<u64>,
    /// Timers by id.
    model: BTreeMap<u64, (u64, Key)>,
    /// Every key that was ever made, with its timer's id.
    keys: Vec<(Key, u64)>,
    now: u64,
    tick: u64,
    id_next: u64,
    /// Nothing was left to do at `now`.
    settled: bool,
}

impl Pair {
    fn new(now: u64, tick: u64) -> Self {
        let length = NonZeroU64::new(tick).expect("not zero");
        Pair {
            wheel: Wheel::with_tick(now, length),
            tick,
            model: BTreeMap::new(),
            keys: Vec::new(),
            now,
            id_next: 0,
            settled: true,
        }
    }

    /// A deadline near now: usually ahead, now and then behind.
    fn deadline(&self, distance: u64) -> u64 {
        if distance % 11 == 10 {
            self.now.saturating_sub(distance)
        } else {
            self.now.saturating_add(distance)
        }
    }

    /// A deadline counts as rounded up to a whole tick, or to the end of time.
    fn due(&self, deadline: u64) -> u64 {
        deadline.div_ceil(self.tick).saturating_mul(self.tick)
    }

    fn first_due(&self) -> Option<u64> {
        let deadlines = self.model.values().map(|(deadline, _)| *deadline);
        deadlines.map(|deadline| self.due(deadline)).min()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Insert(distance) => {
                let deadline = self.deadline(distance);
                let key = self.wheel.insert(deadline, self.id_next);
                self.model.insert(self.id_next, (deadline, key));
                self.keys.push((key, self.id_next));
                self.id_next += 1;
            }
            Op::Cancel(n) if !self.keys.is_empty() => {
                let (key, id) = self.keys[n % self.keys.len()];
                let expected = self.model.remove(&id).map(|_| id);
                assert_eq!(self.wheel.cancel(key), expected);
            }
            Op::Reschedule(n, distance) if !self.keys.is_empty() => {
                let (key, id) = self.keys[n % self.keys.len()];
                let deadline = self.deadline(distance);
                let expected = self.model.get_mut(&id).map(|timer| timer.0 = deadline);
                assert_eq!(self.wheel.reschedule(key, deadline), expected.is_some());
            }
            Op::Cancel(_) | Op::Reschedule(..) => {}
            Op::Advance { by, budget } => self.advance(by, budget),
            Op::PopDue { by } => {
                self.now = self.now.saturating_add(by);
                while let Some((key, id)) = self.wheel.pop_due(self.now) {
                    self.fired(key, id);
                }
                self.assert_nothing_due();
                self.settled = true;
            }
            Op::Backwards => {
                let _ = self.wheel.advance(self.now / 2, 0, |_, _| ());
            }
            Op::Clear => {
                self.wheel.clear();
                self.model.clear();
            }
            Op::Shrink => self.wheel.shrink_to_fit(),
        }
    }

    fn advance(&mut self, by: u64, budget: usize) {
        self.now = self.now.saturating_add(by);
        let mut fired = Vec::new();
        let advance = self
            .wheel
            .advance(self.now, budget, |key, id| fired.push((key, id)));
        assert_eq!(advance.fired, fired.len());
        self.settled = !advance.more_due;
        assert!(fired.len() <= budget);
        for (key, id) in fired {
            self.fired(key, id);
        }
        if !advance.more_due {
            self.assert_nothing_due();
        }
    }

    fn fired(&mut self, key: Key, id: u64) {
        let (deadline, expected) = self.model.remove(&id).expect("fired once, not cancelled");
        let due = self.due(deadline);
        assert!(due <= self.now, "early: {due} at {}", self.now);
        assert_eq!(key, expected);
    }

    fn assert_nothing_due(&self) {
        let first = self.first_due();
        assert!(first.is_none_or(|deadline| deadline > self.now), "late");
    }

    fn check(&self) {
        assert_eq!(self.wheel.len(), self.model.len());
        assert_eq!(self.wheel.is_empty(), self.model.is_empty());
        assert_eq!(self.wheel.now(), self.now);
        match (self.wheel.next_deadline(), self.first_due()) {
            (None, None) => {}
            (Some(hint), Some(first)) => {
                assert!(hint <= first.max(self.now), "{hint} {first}");
                let lowest = |time: u64| (time / self.tick) >> 8;
                if self.settled && first > self.now && lowest(first) == lowest(self.now) {
                    assert_eq!(hint, first);
                }
                if self.settled && self.tick == 1 {
                    assert!(hint >= self.now);
                }
            }
            other => panic!("{other:?}"),
        }
        for (key, id) in self.keys.iter().rev().take(20) {
            let expected = self.model.get(id);
            assert_eq!(self.wheel.contains(*key), expected.is_some());
            assert_eq!(self.wheel.get(*key), expected.map(|_| id));
            assert_eq!(self.wheel.deadline(*key), expected.map(|(d, _)| *d));
        }
    }

    fn check_iter(&self) {
        let seen: BTreeMap<u64, (u64, Key)> = self
            .wheel
            .iter()
            .map(|(key, d, id)| (*id, (d, key)))
            .collect();
        assert_eq!(seen, self.model);
    }
}

proptest! {
    #[test]
    fn behaves_as_a_sorted_map(
        start in prop_oneof![Just(0u64), 0u64..100_000, any::<u64>(), Just(u64::MAX - 5_000)],
        tick in prop_oneof![3 => Just(1u64), 1 => 1u64..2_000, 1 => (0u32..64).prop_map(|bit| 1 << bit), 1 => 1u64..],
        ops in prop::collection::vec(op(), 0..400),
    ) {
        let mut pair = Pair::new(start, tick);
        for op in ops {
            pair.apply(op);
            pair.check();
        }
        pair.check_iter();
        // At the end of time everything has fired.
        pair.advance(u64::MAX, usize::MAX);
        assert!(pair.wheel.is_empty());
    }

    #[test]
    fn fires_in_order_of_deadlines(
        start in prop_oneof![Just(0u64), any::<u64>()],
        distances in prop::collection::vec(prop_oneof![1u64..50, 1u64..100_000, any::<u64>()], 1..200),
        steps in prop::collection::vec((0u64..20_000, 0usize..50), 0..100),
    ) {
        let mut wheel = Wheel::new(start);
        let mut expected = Vec::new();
        for (n, distance) in distances.iter().enumerate() {
            let deadline = start.saturating_add(*distance);
            expected.push((deadline, n));
            wheel.insert(deadline, (deadline, n));
        }
        expected.sort_unstable();
        let mut fired = Vec::new();
        let mut now = start;
        for (by, budget) in steps {
            now = now.saturating_add(by);
            let _ = wheel.advance(now, budget, |_, value| fired.push(value));
        }
        let _ = wheel.advance(u64::MAX, usize::MAX, |_, value| fired.push(value));
        prop_assert!(fired.is_sorted_by_key(|(deadline, _)| *deadline));
        fired.sort_unstable();
        prop_assert_eq!(fired, expected);
    }
}

/// Timers that mostly come and go without firing, so that the buckets fill with dead entries.
#[test]
fn dead_entries_are_swept_and_the_living_stay() {
    let mut random = 7_u64;
    let mut next = move |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % below
    };
    for (waiting, reach) in [(10, 200), (300, 100_000), (5_000, 1 << 40)] {
        let mut pair = Pair::new(1 << 20, 1);
        for _ in 0..waiting {
            pair.apply(Op::Insert(next(reach)));
        }
        for round in 0..20_000 {
            let newest = pair.keys.len();
            let recent = newest - 1 - next(waiting.min(newest as u64)) as usize;
            match next(10) {
                0..5 => {
                    pair.apply(Op::Cancel(recent));
                    pair.apply(Op::Insert(next(reach)));
                }
                5..9 => pair.apply(Op::Reschedule(recent, next(reach))),
                _ => pair.apply(Op::Advance {
                    by: next(3),
                    budget: 2,
                }),
            }
            if round % 1_000 == 0 {
                pair.check();
            }
        }
        pair.check_iter();
        pair.advance(u64::MAX, usize::MAX);
        assert!(pair.wheel.is_empty());
    }
}
