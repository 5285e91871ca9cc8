//! Timers of a shard.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::rig::{Behaviour, Numbers, Rig, Seen, one_shard};

#[test]
fn timers_fire_once_and_never_early_and_cancelled_ones_not_at_all() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    // By index: the deadline, and the earliest moment at which the timer may fire.
    let mut expected: HashMap<u64, (u64, Instant)> = rig.on_shard(|_, io| {
        let mut numbers = Numbers(5);
        let mut expected = HashMap::new();
        for index in 0..2_000 {
            let (now, delay_ms) = (Instant::now(), numbers.below(300) as u64);
            let deadline_ms = io.deadline_after(delay_ms);
            let earliest = now + Duration::from_millis(delay_ms);
            let key = io.set_timer(deadline_ms, index);
            match index % 4 {
                0 => {
                    assert_eq!(io.cancel_timer(key), Some(index));
                    assert_eq!(io.cancel_timer(key), None);
                    assert!(!io.reschedule_timer(key, 1));
                }
                1 => {
                    let more_ms = numbers.below(100) as u64;
                    assert!(io.reschedule_timer(key, deadline_ms + more_ms));
                    let earliest = earliest + Duration::from_millis(more_ms);
                    expected.insert(index, (deadline_ms + more_ms, earliest));
                }
                _ => {
                    expected.insert(index, (deadline_ms, earliest));
                }
            }
        }
        expected
    });
    let mut last_ms = 0;
    while !expected.is_empty() {
        let Seen::Timer(_, index, fired) = rig.next() else {
            panic!("only timers here")
        };
        let (deadline_ms, earliest) = expected
            .remove(&index)
            .expect("set, and neither fired nor cancelled");
        assert!(fired >= earliest, "{:?} early", earliest - fired);
        assert!(
            deadline_ms >= last_ms,
            "timers of earlier deadlines come first"
        );
        last_ms = deadline_ms;
    }
    let (fired, lateness) =
        rig.on_shard(|_, io| (io.stats().timers_fired, io.stats().timer_lateness.clone()));
    assert_eq!(fired, 1_500);
    assert_eq!(lateness.buckets().iter().sum::<u64>(), 1_500);
    assert!(lateness.max_us() >= lateness.last_us());
    assert_eq!(rig.seen_so_far(), []);
}

#[test]
fn a_sleeping_shard_sleeps_until_the_deadline_and_not_in_steps() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let before = rig.on_shard(|_, io| {
        io.set_timer(io.now_ms() + 400, 1);
        io.stats().waits
    });
    assert!(matches!(rig.next(), Seen::Timer(_, 1, _)));
    let waits = rig.on_shard(|_, io| io.stats().waits) - before;
    // The wheel names at most ten places to stop on the way to a deadline.
    assert!(waits <= 14, "{waits} waits for one timer");
}

#[test]
fn a_deadline_in_the_past_is_due_at_once() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let key = rig.on_shard(|_, io| io.set_timer(0, 9));
    let Seen::Timer(fired, 9, _) = rig.next() else {
        panic!("the timer fires")
    };
    assert_eq!(fired, key);
}
