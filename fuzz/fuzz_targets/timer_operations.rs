//! Random operations on a wheel and on a sorted map: the same timers fire, none early, none lost.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use timerwheel::{Key, Wheel};

/// One step: what to do, with which timer, and how far.
type Step = (u8, u16, u64);

fuzz_target!(|input: (u64, Vec<Step>)| {
    let (start, steps) = input;
    let mut wheel = Wheel::new(start);
    let mut now = start;
    // Timer number to its deadline: what waits.
    let mut model: BTreeMap<u64, u64> = BTreeMap::new();
    let mut keys: Vec<Key> = Vec::new();
    for (action, which, amount) in steps {
        // Short distances are common, the whole range is possible.
        let distance = amount >> (which % 64);
        let number = u64::from(which) % (keys.len() as u64).max(1);
        match action % 4 {
            0 => {
                let deadline = now.saturating_add(distance);
                model.insert(keys.len() as u64, deadline);
                keys.push(wheel.insert(deadline, keys.len() as u64));
            }
            1 if !keys.is_empty() => {
                assert_eq!(
                    wheel.cancel(keys[number as usize]),
                    model.remove(&number).map(|_| number)
                );
            }
            2 if !keys.is_empty() => {
                let deadline = now.saturating_add(distance);
                let waits = model.get_mut(&number).map(|old| *old = deadline).is_some();
                assert_eq!(wheel.reschedule(keys[number as usize], deadline), waits);
            }
            _ => {
                now = now.saturating_add(distance);
                while wheel
                    .advance(now, usize::from(which).max(1), |_, number| {
                        let deadline = model
                            .remove(&number)
                            .expect("a timer fires once, and only when it waits");
                        assert!(deadline <= now, "a timer fired early");
                    })
                    .more_due
                {}
                assert!(
                    model.values().all(|deadline| *deadline > now),
                    "a due timer did not fire"
                );
            }
        }
        assert_eq!(wheel.len(), model.len());
        let first = model.values().min().copied();
        match (wheel.next_deadline(), first) {
            (Some(told), Some(first)) => assert!(told <= first.max(now), "a wake-up came too late"),
            (told, first) => assert_eq!(told.is_none(), first.is_none()),
        }
    }
});
