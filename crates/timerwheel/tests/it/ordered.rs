//! The ordered wheel beside a sorted list.

use std::num::NonZeroU64;

use proptest::prelude::*;
use timerwheel::{Key, OrderedWheel};

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, u8),
    Cancel(usize),
    Reschedule(usize, u64),
    Advance { by: u64, budget: usize },
    PopDue { by: u64 },
    Shrink,
}

fn op() -> impl Strategy<Value = Op> {
    let distance = || prop_oneof![4 => 0u64..60, 3 => 0u64..10_000, 1 => any::<u64>()];
    prop_oneof![
        8 => (distance(), 0u8..3).prop_map(|(d, p)| Op::Insert(d, p)),
        3 => any::<usize>().prop_map(Op::Cancel),
        3 => (any::<usize>(), distance()).prop_map(|(n, d)| Op::Reschedule(n, d)),
        6 => (0u64..40, 0usize..20).prop_map(|(by, budget)| Op::Advance { by, budget }),
        1 => (distance(), 0usize..200).prop_map(|(by, budget)| Op::Advance { by: by >> 2, budget }),
        2 => (0u64..50).prop_map(|by| Op::PopDue { by }),
        1 => Just(Op::Shrink),
    ]
}

/// (deadline, priority, sequence, key)
type Row = (u64, u8, u64, Key);

fn expect_first(model: &mut Vec<Row>, now: u64, key: Key, sequence: u64) {
    model.sort_unstable_by_key(|row| (row.0, row.1, row.2));
    let first = model.remove(0);
    assert!(first.0 <= now, "early");
    assert_eq!((first.3, first.2), (key, sequence), "out of order");
}

proptest! {
    #[test]
    fn fires_by_deadline_priority_and_insertion(
        start in prop_oneof![Just(0u64), any::<u64>()],
        tick in prop_oneof![Just(1u64), 1u64..40, Just(1u64 << 20), any::<u64>()],
        ops in prop::collection::vec(op(), 0..200),
    ) {
        let tick = NonZeroU64::new(tick).unwrap_or(NonZeroU64::MIN);
        let mut wheel = OrderedWheel::with_tick(start, tick);
        let mut model: Vec<Row> = Vec::new();
        let mut keys: Vec<Key> = Vec::new();
        let (mut now, mut sequence) = (start, 0);
        for op in ops {
            match op {
                Op::Insert(distance, priority) => {
                    sequence += 1;
                    let deadline = now.saturating_add(distance);
                    let key = wheel.insert(deadline, priority, sequence);
                    model.push((deadline, priority, sequence, key));
                    keys.push(key);
                }
                Op::Cancel(n) if !keys.is_empty() => {
                    let key = keys[n % keys.len()];
                    let at = model.iter().position(|row| row.3 == key);
                    let expected = at.map(|at| model.remove(at).2);
                    prop_assert_eq!(wheel.cancel(key).is_some(), expected.is_some());
                }
                Op::Reschedule(n, distance) if !keys.is_empty() => {
                    let key = keys[n % keys.len()];
                    sequence += 1;
                    let deadline = now.saturating_add(distance);
                    let row = model.iter_mut().find(|row| row.3 == key);
                    prop_assert_eq!(wheel.reschedule(key, deadline), row.is_some());
                    if let Some(row) = row {
                        (row.0, row.2) = (deadline, sequence);
                        *wheel.get_mut(key).expect("waits") = sequence;
                    }
                }
                Op::Cancel(_) | Op::Reschedule(..) => {}
                Op::Advance { by, budget } => {
                    now = now.saturating_add(by);
                    let mut fired = Vec::new();
                    let advance = wheel.advance(now, budget, |key, n| fired.push((key, n)));
                    prop_assert!(fired.len() <= budget && fired.len() == advance.fired);
                    for (key, n) in fired {
                        expect_first(&mut model, now, key, n);
                    }
                    if !advance.more_due {
                        prop_assert!(model.iter().all(|row| row.0 > now), "late");
                    }
                }
                Op::PopDue { by } => {
                    now = now.saturating_add(by);
                    while let Some((key, n)) = wheel.pop_due(now) {
                        expect_first(&mut model, now, key, n);
                    }
                    prop_assert!(model.iter().all(|row| row.0 > now), "late");
                }
                Op::Shrink => wheel.shrink_to_fit(),
            }
            prop_assert_eq!(wheel.len(), model.len());
            prop_assert_eq!(wheel.iter().count(), model.len());
            let first = model.iter().map(|row| row.0).min();
            match (wheel.next_deadline(), first) {
                (Some(hint), Some(first)) => prop_assert!(hint <= first.max(now)),
                (hint, first) => prop_assert_eq!(hint.is_some(), first.is_some()),
            }
        }
        while let Some((key, n)) = wheel.pop_due(u64::MAX) {
            expect_first(&mut model, u64::MAX, key, n);
        }
        prop_assert!(model.is_empty());
    }
}

#[test]
fn cancelled_turns_do_not_pile_up() {
    let mut wheel = OrderedWheel::with_tick(0, NonZeroU64::new(1 << 30).expect("not zero"));
    let mut keys: Vec<Key> = (0..1_000).map(|n| wheel.insert(n + 10, 0, n)).collect();
    assert!(!wheel.advance(1, usize::MAX, |_, _| ()).more_due);
    // All of them are ready by now; each is replaced many times, and the rest stays in order.
    for round in 0..100_000 {
        let at = round % 1_000;
        wheel.cancel(keys[at]).expect("waits");
        keys[at] = wheel.insert(at as u64 + 10, 0, at as u64);
        assert!(!wheel.advance(1, usize::MAX, |_, _| ()).more_due);
    }
    let mut fired = Vec::new();
    assert!(
        !wheel
            .advance(2_000, usize::MAX, |_, n| fired.push(n))
            .more_due
    );
    assert!(fired.into_iter().eq(0..1_000));
}
