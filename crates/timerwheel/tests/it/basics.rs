//! One test per promise of the documentation.

use timerwheel::Wheel;

fn drain<T>(wheel: &mut Wheel<T>, now: u64) -> Vec<T> {
    let mut fired = Vec::new();
    while let Some((_, value)) = wheel.pop_due(now) {
        fired.push(value);
    }
    fired
}

/// The first test that was written: whatever the distance, nothing fires a tick early, or late.
#[test]
fn never_early_at_any_distance() {
    for start in [0, 1, 63, 64, 4_095, 1 << 35, u64::MAX - 70] {
        for bit in 0..64 {
            for offset in [-1i64, 0, 1] {
                let distance = (1u64 << bit).wrapping_add_signed(offset);
                let Some(deadline) = u64::checked_add(start, distance) else {
                    continue;
                };
                if distance == 0 {
                    continue;
                }
                let mut wheel = Wheel::new(start);
                wheel.insert(deadline, ());
                assert_eq!(drain(&mut wheel, deadline - 1), [], "{start} {deadline}");
                assert_eq!(drain(&mut wheel, deadline), [()], "{start} {deadline}");
            }
        }
    }
}

#[test]
fn never_early_when_stepped_from_hint_to_hint() {
    let mut wheel = Wheel::new(5);
    for deadline in (6..300_000).step_by(997) {
        wheel.insert(deadline, deadline);
    }
    let mut fired = 0;
    while let Some(now) = wheel.next_deadline() {
        let before = wheel.now();
        assert!(now >= before);
        for value in drain(&mut wheel, now) {
            assert_eq!(value, now);
            fired += 1;
        }
    }
    assert_eq!(fired, (6..300_000).step_by(997).count());
}

#[test]
fn the_last_tick_of_all_is_a_deadline() {
    let mut wheel = Wheel::new(0);
    wheel.insert(u64::MAX, "end");
    assert!(drain(&mut wheel, u64::MAX - 1).is_empty());
    wheel.insert(u64::MAX, "end too");
    assert_eq!(drain(&mut wheel, u64::MAX), ["end", "end too"]);
    wheel.insert(u64::MAX, "late");
    wheel.insert(0, "very late");
    assert_eq!(wheel.next_deadline(), Some(u64::MAX));
    assert_eq!(drain(&mut wheel, u64::MAX), ["late", "very late"]);
}

#[test]
fn a_passed_deadline_fires_in_the_next_advance() {
    let mut wheel = Wheel::new(1_000);
    wheel.insert(3, "past");
    wheel.insert(1_000, "now");
    assert_eq!(wheel.next_deadline(), Some(1_000));
    assert_eq!(drain(&mut wheel, 0), ["past", "now"]);
    assert_eq!(wheel.now(), 1_000);
}

#[test]
fn time_never_goes_backwards() {
    let mut wheel = Wheel::new(100);
    wheel.insert(110, ());
    assert_eq!(drain(&mut wheel, 105), []);
    assert_eq!(drain(&mut wheel, 7), []);
    assert_eq!(wheel.now(), 105);
    assert_eq!(drain(&mut wheel, 110), [()]);
}

#[test]
fn a_stale_key_never_touches_a_later_timer() {
    let mut wheel = Wheel::new(0);
    let first = wheel.insert(10, "first");
    assert_eq!(wheel.cancel(first), Some("first"));
    let second = wheel.insert(10, "second");
    assert_ne!(first, second);
    assert_eq!(wheel.cancel(first), None);
    assert!(!wheel.reschedule(first, 99));
    assert_eq!(wheel.get(first), None);
    assert!(!wheel.contains(first));
    assert_eq!(wheel.deadline(second), Some(10));
    assert_eq!(wheel.cancel(second), Some("second"));
}

#[test]
fn keys_stay_stale_when_memory_was_given_back() {
    let mut wheel = Wheel::new(0);
    let old: Vec<_> = (0..10_000).map(|n| wheel.insert(n, n)).collect();
    wheel.clear();
    wheel.shrink_to_fit();
    for n in 0..10_000 {
        wheel.insert(n, n);
    }
    for key in old {
        assert_eq!(wheel.cancel(key), None);
    }
    assert_eq!(wheel.len(), 10_000);
}

#[test]
fn a_cascade_goes_on_where_the_budget_ended() {
    let mut wheel = Wheel::new(0);
    for value in 0..100 {
        wheel.insert(1_000, value);
    }
    let mut fired = Vec::new();
    // Three of a hundred timers move down, then new ones arrive for the same tick and for earlier ones.
    assert!(
        wheel
            .advance(1_000, 3, |_, value| fired.push(value))
            .more_due
    );
    wheel.insert(1_000, 100);
    wheel.insert(7, 101);
    wheel.insert(999, 102);
    // The slot of tick 1,000 starts at 768, and it is still being worked on.
    assert_eq!(wheel.next_deadline(), Some(768));
    while wheel
        .advance(1_000, 3, |_, value| fired.push(value))
        .more_due
    {}
    // A timer that was late at its insertion counts as due when the wheel has got so far.
    assert_eq!(fired[..2], [101, 102]);
    fired.sort_unstable();
    assert!(fired.into_iter().eq(0..103));
}

#[test]
fn the_budget_bounds_firings_and_moves_together() {
    let mut wheel = Wheel::new(0);
    for n in 0..1_000 {
        wheel.insert(4_096 + n, n);
    }
    let (mut calls, mut fired) = (0, 0);
    loop {
        let advance = wheel.advance(1 << 20, 7, |_, _| ());
        assert!(advance.fired <= 7);
        fired += advance.fired;
        calls += 1;
        if !advance.more_due {
            break;
        }
    }
    assert_eq!(fired, 1_000);
    // Two moves (level 2 to 1 to 0) and one firing at most.
    assert!(calls <= 3_000 / 7 + 1, "{calls}");
    let mut wheel = Wheel::new(0);
    wheel.insert(1, ());
    assert!(wheel.advance(1, 0, |_, _| ()).more_due);
    assert_eq!(wheel.len(), 1);
}

#[test]
fn a_budget_that_ends_with_the_work_leaves_the_next_deadline_exact() {
    let mut wheel = Wheel::new(0);
    wheel.insert(1, ());
    let advance = wheel.advance(1_000, 1, |_, ()| ());
    assert!(!advance.more_due);
    wheel.insert(1_001, ());
    assert_eq!(wheel.next_deadline(), Some(1_001));
}

#[test]
fn a_callback_that_panics_leaves_a_working_wheel() {
    // On the lowest level, and on those above it.
    for start in [0, 300, 70_000] {
        let mut wheel = Wheel::new(0);
        for n in 0..5 {
            wheel.insert(start + n, n);
        }
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wheel.advance(start + 10, 100, |_, n| assert_ne!(n, 2, "on purpose"))
        }));
        assert!(caught.is_err());
        assert_eq!(wheel.next_deadline(), Some(start + 3));
        wheel.insert(start + 3, 5);
        assert_eq!(drain(&mut wheel, start + 10), [3, 5, 4]);
        assert!(wheel.is_empty());
    }
}

#[test]
fn iter_shows_what_waits() {
    let mut wheel = Wheel::new(0);
    let keys: Vec<_> = (0..9_000u64).map(|n| wheel.insert(n * 3, n)).collect();
    for key in keys.iter().skip(1).step_by(2) {
        wheel.cancel(*key);
    }
    let mut seen: Vec<_> = wheel.iter().collect();
    assert_eq!(wheel.iter().len(), 4_500);
    seen.sort_by_key(|(_, deadline, _)| *deadline);
    for ((key, deadline, value), n) in seen.into_iter().zip((0..9_000u64).step_by(2)) {
        assert_eq!((key, deadline, *value), (keys[n as usize], n * 3, n));
    }
}

#[test]
fn values_are_freed_at_once() {
    let value = std::rc::Rc::new(());
    let mut wheel = Wheel::new(0);
    let key = wheel.insert(10, value.clone());
    wheel.insert(20, value.clone());
    wheel.insert(30, value.clone());
    wheel.cancel(key);
    assert_eq!(std::rc::Rc::strong_count(&value), 3);
    drain(&mut wheel, 20);
    assert_eq!(std::rc::Rc::strong_count(&value), 2);
    wheel.clear();
    assert_eq!(std::rc::Rc::strong_count(&value), 1);
    assert!(wheel.is_empty());
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn timers_beyond_the_first_chunk_never_move() {
    let mut wheel = Wheel::new(0);
    let keys: Vec<_> = (0..10_000u64).map(|n| wheel.insert(n, n)).collect();
    let address = |wheel: &Wheel<u64>, n: usize| wheel.get(keys[n]).map(std::ptr::from_ref);
    let before: Vec<_> = (4_096..10_000).map(|n| address(&wheel, n)).collect();
    for n in 0..50_000 {
        wheel.insert(n, n);
    }
    let after: Vec<_> = (4_096..10_000).map(|n| address(&wheel, n)).collect();
    assert_eq!(before, after);
}

#[test]
fn capacity_is_taken_at_once_and_used() {
    let mut wheel = Wheel::with_capacity(7, 9_000);
    assert_eq!((wheel.now(), wheel.len()), (7, 0));
    let keys: Vec<_> = (0..9_000u64).map(|n| wheel.insert(n, n)).collect();
    let first = wheel.get(keys[0]).map(std::ptr::from_ref);
    for n in 0..9_000 {
        wheel.insert(n, n);
    }
    // Even the first chunk stays where it is.
    assert_eq!(wheel.get(keys[0]).map(std::ptr::from_ref), first);
    assert_eq!(wheel.len(), 18_000);
    drain(&mut wheel, u64::MAX);
    wheel.shrink_to_fit();
    assert!(wheel.is_empty());
}

#[test]
fn a_key_is_eight_bytes_and_a_wheel_is_send() {
    fn is_send<T: Send + Sync>() {}
    is_send::<Wheel<u64>>();
    assert_eq!(size_of::<timerwheel::Key>(), 8);
    assert_eq!(size_of::<Option<timerwheel::Key>>(), 8);
}
