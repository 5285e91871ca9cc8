//! Many callers at once.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use idem_store::{Begun, Options, Store, Waited};

use super::{DAY, Rig, error, fresh, replayed, request};

pub(crate) fn of_64_callers_with_one_key_exactly_one_is_fresh(rig: &dyn Rig) {
    const CALLERS: usize = 64;
    const ROUNDS: u8 = 10;
    // On a shared store callers come from several processes, here: handles.
    let handles = if rig.is_shared() { 4 } else { 1 };
    let stores: Vec<Store> = (0..handles).map(|_| rig.open()).collect();
    let effects = AtomicU64::new(0);
    let start = Barrier::new(CALLERS);
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let store = &stores[caller % stores.len()];
            let (effects, start) = (&effects, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    assert_eq!(once(rig, store, &[round], effects), [round; 4]);
                }
            });
        }
    });
    assert_eq!(effects.into_inner(), u64::from(ROUNDS));
    assert!(stores.iter().all(|store| store.stats().waiters == 0));
}

/// The outcome of a key, whoever does the effect.
fn once(rig: &dyn Rig, store: &Store, key: &[u8], effects: &AtomicU64) -> Vec<u8> {
    loop {
        match store.begin(&request(rig, key).declare(b"")).wait().unwrap() {
            Begun::Fresh(permit) => {
                effects.fetch_add(1, Ordering::Relaxed);
                let completed = store.complete(permit, &[key[0]; 4], DAY, rig.now());
                completed.wait().unwrap();
            }
            Begun::Replay(stored) => return stored.into_outcome(),
            Begun::InFlight { .. } => {
                assert_eq!(store.wait(key, 60_000).wait().unwrap(), Waited::Ended);
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn waiters_wake_when_the_holder_ends(rig: &dyn Rig) {
    let store = rig.open();
    assert_eq!(store.wait(b"k", 60_000).wait().unwrap(), Waited::Ended);
    let permit = fresh(&store, request(rig, b"k"));
    let waiting: Vec<_> = (0..8).map(|_| store.wait(b"k", 60_000)).collect();
    assert_eq!(store.stats().waiters, 8);
    let completed = store.complete(permit, b"x", DAY, rig.now());
    completed.wait().unwrap();
    for waited in waiting {
        assert_eq!(waited.wait().unwrap(), Waited::Ended);
    }
    assert_eq!(store.stats().waiters, 0);
    let permit = fresh(&store, request(rig, b"other").declare(b""));
    let waited = store.wait(b"other", 60_000);
    drop(permit);
    assert_eq!(waited.wait().unwrap(), Waited::Ended);
}

pub(crate) fn a_wait_times_out_and_waiters_are_limited(rig: &dyn Rig) {
    let store = rig.open_with(Options::new().waiters_max(1));
    let _permit = fresh(&store, request(rig, b"k"));
    assert_eq!(store.wait(b"k", 1).wait().unwrap(), Waited::TimedOut);
    let _first = store.wait(b"k", 60_000);
    assert!(error(store.wait(b"k", 60_000).wait()).is_busy());
}

pub(crate) fn unresolved_keys_come_in_pages(rig: &dyn Rig) {
    let store = rig.open();
    let mut tokens = Vec::new();
    let mut held = Vec::new();
    for key in 0..10u8 {
        let permit = fresh(&store, request(rig, &[key]).declare(&[key; 3]));
        tokens.push(permit.token());
        if key % 2 == 0 {
            held.push(permit);
        }
    }
    let _plain = fresh(&store, request(rig, b"plain"));
    let gone = fresh(&store, request(rig, b"gone").declare(b""));
    let completed = store.complete(gone, b"x", DAY, rig.now());
    completed.wait().unwrap();
    let mut found = Vec::new();
    loop {
        let after = found
            .last()
            .map_or(0, |last: &idem_store::Unresolved| last.token);
        let page = store.unresolved(after, 4).wait().unwrap();
        let is_last = page.len() < 4;
        found.extend(page);
        if is_last {
            break;
        }
    }
    tokens.sort_unstable();
    let listed: Vec<u64> = found.iter().map(|unresolved| unresolved.token).collect();
    assert_eq!(listed, tokens);
    for unresolved in &found {
        let key = unresolved.key[0];
        assert_eq!(unresolved.memo, [key; 3]);
        assert_eq!(unresolved.held, key % 2 == 0);
    }
}

pub(crate) fn thousands_in_flight_from_one_thread(rig: &dyn Rig) {
    let store = rig.open();
    let keys: Vec<_> = (0..3_000u32).map(u32::to_be_bytes).collect();
    let begun: Vec<_> = keys
        .iter()
        .map(|key| store.begin(&request(rig, key).declare(b"memo")))
        .collect();
    let mut last = 0;
    let mut completed = Vec::new();
    for (begun, key) in begun.into_iter().zip(&keys) {
        let permit = begun.wait().unwrap().into_fresh().expect("a new key");
        last = last.max(permit.token());
        completed.push(store.complete(permit, key, DAY, rig.now()));
    }
    for completed in completed {
        completed.wait().unwrap();
    }
    for key in keys.iter().step_by(100) {
        assert_eq!(replayed(&store, request(rig, key)).outcome(), key);
    }
    assert!(last > 0 && store.stats().pending == 0);
}
