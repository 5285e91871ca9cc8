//! Failing disks and other processes: typed errors, and never a false acknowledgement.

use idem_store::{
    Begin, Begun, Completion, Durability, Error, Fingerprint, Lookup, Options, Permit, Store,
    verify_on,
};

use crate::disk::Disk;

const NOW: u64 = 1_700_000_000_000;

fn options() -> Options {
    Options::new()
        .segment_bytes_max(64 << 10)
        .outcome_bytes_max(4 << 10)
        .batch_bytes_max(16 << 10)
}

fn begin(store: &Store, key: &[u8]) -> Completion<Begun> {
    let begin = Begin::new(key, Fingerprint([1; 32]), 1_000, NOW);
    store.begin(&begin.declare(b"memo"))
}

fn now<T: std::fmt::Debug>(completion: Completion<T>) -> Result<T, Error> {
    completion.try_now().expect("the answer is there")
}

#[test]
fn a_failed_sync_poisons_and_fails_every_waiter() {
    let disk = Disk::new(3);
    let store = Store::open_on(disk.mount(), options()).unwrap();
    let kept = begin(&store, b"kept");
    store.drive();
    let permit = now(kept).unwrap().into_fresh().unwrap();
    let waits = store.wait(b"kept", 60_000);

    let batch: Vec<_> = (0..10u8).map(|key| begin(&store, &[key])).collect();
    let done = store.complete(permit, b"x", 1_000, NOW);
    disk.fail_sync_in(0);
    store.drive();
    for completion in batch {
        assert!(now(completion).unwrap_err().is_poisoned());
    }
    assert!(now(done).unwrap_err().is_poisoned());
    // The holder had ended before the sync failed; what became of the key is for the next begin.
    now(waits).unwrap();
    // The next sync would succeed, but nothing is tried again.
    assert!(now(begin(&store, b"later")).unwrap_err().is_poisoned());
    assert!(now(store.get(b"kept", NOW)).unwrap_err().is_poisoned());
    assert!(now(store.forget(b"kept")).unwrap_err().is_poisoned());
    assert!(now(store.flush()).unwrap_err().is_poisoned());
    assert!(now(store.unresolved(0, 9)).unwrap_err().is_poisoned());
    assert!(store.stats().poisoned);
    let error = store.close().unwrap_err();
    assert!(
        error.is_poisoned() && error.to_string().contains("simulated I/O error"),
        "{error}"
    );
    Store::open_on(disk.mount(), options()).expect("a new start finds out what is on the disk");
}

/// A process that dies anywhere while it goes on to the next segment leaves names and bytes that are
/// only in the cache; the next process must make them durable before it promises anything.
#[test]
fn what_a_dying_process_left_in_the_cache_is_made_durable() {
    let fill = |store: &Store, keys: std::ops::Range<u8>| {
        for key in keys {
            let begun = begin(store, &[key]);
            store.drive();
            let Ok(Ok(begun)) = begun.try_now() else {
                return;
            };
            let permit = begun.into_fresh().unwrap();
            let done = store.complete(permit, &[key; 4_000], 1_000, NOW);
            store.drive();
            drop(done);
        }
    };
    for calls in 0..80 {
        let disk = Disk::new(calls);
        let store = Store::open_on(disk.mount(), options()).unwrap();
        fill(&store, 0..12);
        disk.die_in(calls);
        fill(&store, 12..24);
        drop(store);
        disk.kill();
        let store = Store::open_on(disk.mount(), options()).unwrap();
        let begun = begin(&store, b"promised");
        store.drive();
        let permit = now(begun).unwrap().into_fresh().unwrap();
        disk.crash();
        drop((permit, store));
        let store = Store::open_on(disk.mount(), options()).unwrap();
        let unresolved = store.unresolved(0, 100).wait().unwrap();
        let kept = unresolved.iter().any(|doubt| doubt.key == b"promised");
        assert!(kept, "lost, having died at call {calls}: {unresolved:?}");
    }
}

/// An open store, and permits of a log that cannot go on: with what new keys are refused then.
fn without_a_next_segment(disk: &Disk, lack: fn(&Disk, bool)) -> (Store, Vec<Permit>, Error) {
    let store = Store::open_on(disk.mount(), options().disk_full_wait_ms(0)).unwrap();
    let first = begin(&store, b"first");
    store.drive();
    let permit = now(first).unwrap().into_fresh().unwrap();
    let done = store.complete(permit, b"outcome", 1_000, NOW);
    store.drive();
    now(done).unwrap();

    lack(disk, true);
    let mut open = Vec::new();
    let refused = loop {
        let key = open.len().to_le_bytes();
        match begin(&store, &key).try_now() {
            Ok(Err(error)) => break error,
            Ok(Ok(other)) => panic!("{other:?}"),
            Err(pending) => {
                store.drive();
                open.push(now(pending).unwrap().into_fresh().unwrap());
            }
        }
        assert!(open.len() < 2_000, "there is no next segment");
    };
    assert!(refused.is_full(), "{refused}");
    (store, open, refused)
}

#[test]
fn too_many_open_files_are_not_called_a_full_disk() {
    let disk = Disk::new(4);
    let (store, mut open, refused) = without_a_next_segment(&disk, Disk::set_too_many_open);
    assert!(refused.to_string().contains("too many files"), "{refused}");
    let stats = store.stats();
    assert!(stats.no_descriptors && !stats.disk_full, "{stats:?}");
    // Also those whose outcome has to wait.
    let done: Vec<_> = open
        .drain(..)
        .map(|permit| store.complete(permit, &[1; 3_000], 1_000, NOW))
        .collect();
    store.drive();
    let errors: Vec<_> = done
        .into_iter()
        .filter_map(|done| now(done).err())
        .collect();
    assert!(!errors.is_empty());
    for error in errors {
        assert!(error.to_string().contains("too many files"), "{error}");
    }
    disk.set_too_many_open(false);
}

#[test]
fn a_full_disk_refuses_new_keys_replays_old_ones_and_recovers() {
    let disk = Disk::new(4);
    let (store, mut open, _) = without_a_next_segment(&disk, Disk::set_full);
    assert!(store.stats().disk_full);
    assert!(matches!(now(begin(&store, b"first")), Ok(Begun::Replay(_))));
    // What is under way can still end.
    let done = store.complete(open.pop().unwrap(), &[1; 3_000], 1_000, NOW);
    store.drive();
    now(done).unwrap();

    disk.set_full(false);
    let mut turns = 0;
    while store.stats().disk_full {
        store.drive();
        std::thread::yield_now();
        turns += 1;
        assert!(turns < 100_000_000, "it never recovers");
    }
    let again = begin(&store, b"again");
    store.drive();
    now(again).unwrap().into_fresh().unwrap();
}

/// Outcomes of `keys` that go over the end of the segment after the next one, for which there is no
/// space when they are written.
fn over_two_segments(disk: &Disk, store: &Store) -> Vec<Completion<()>> {
    let begun: Vec<_> = (0..40u8).map(|key| begin(store, &[key])).collect();
    store.drive();
    let permits = begun.into_iter().map(|begun| now(begun).unwrap());
    let permits: Vec<_> = permits.map(|begun| begun.into_fresh().unwrap()).collect();
    disk.set_full(true);
    let done = permits
        .into_iter()
        .map(|permit| store.complete(permit, &[7; 4_000], 1_000, NOW));
    done.collect()
}

/// How a key ends near the end of a segment, so that the next ones lie in the next segment.
fn completed(store: &Store, key: u8) -> bool {
    let begun = begin(store, &[key]);
    store.drive();
    let Ok(Ok(Begun::Fresh(permit))) = begun.try_now() else {
        return false;
    };
    let done = store.complete(permit, &[key; 4_000], 86_400_000, NOW);
    store.drive();
    matches!(done.try_now(), Ok(Ok(())))
}

#[test]
fn a_crash_at_any_call_of_making_or_taking_the_next_segment_loses_nothing() {
    // 14 of these fill a segment.
    const BEFORE: u8 = 10;
    for seed in 0..6 {
        let mut calls = 0;
        loop {
            let disk = Disk::new(seed);
            let store = Store::open_on(disk.mount(), options()).unwrap();
            assert!((0..BEFORE).all(|key| completed(&store, key)));
            disk.die_in(calls);
            let acknowledged = (BEFORE..40)
                .take_while(|&key| completed(&store, key))
                .count();
            disk.die_in(0);
            drop(store);
            disk.crash();
            let report = verify_on(&*disk.mount()).unwrap();
            assert!(report.ok, "{calls}: {report:?}");
            let store = Store::open_on(disk.mount(), options()).unwrap();
            for key in 0..BEFORE + acknowledged as u8 {
                let got = now(store.get(&[key], NOW));
                let stored =
                    matches!(&got, Ok(Lookup::Stored(stored)) if stored.outcome() == [key; 4_000]);
                assert!(stored, "seed {seed}, call {calls}: {got:?}");
            }
            if acknowledged == 30 {
                assert!(store.stats().segments >= 3);
                break;
            }
            calls += 1;
        }
        assert!(calls > 50, "{calls}");
    }
}

#[test]
fn a_next_segment_that_cannot_be_written_poisons_the_store() {
    let disk = Disk::new(1);
    let store = Store::open_on(disk.mount(), options()).unwrap();
    // Nothing was written since: the next sync is the one of the next segment.
    disk.fail_sync_in(0);
    store.drive();
    assert!(store.stats().poisoned);
    let error = now(begin(&store, b"key")).unwrap_err();
    assert!(error.is_poisoned() && !error.is_full(), "{error}");
}

fn stored_first(store: &Store) {
    let first = begin(store, b"first");
    store.drive();
    let permit = now(first).unwrap().into_fresh().unwrap();
    let done = store.complete(permit, b"outcome", 1_000, NOW);
    store.drive();
    now(done).unwrap();
}

#[test]
fn a_wait_that_was_dropped_leaves_its_place_to_another() {
    let disk = Disk::new(6);
    let store = Store::open_on(disk.mount(), options().waiters_max(1)).unwrap();
    let begun = begin(&store, b"key");
    store.drive();
    let permit = now(begun).unwrap().into_fresh().unwrap();
    let dropped = store.wait(b"key", 60_000);
    assert!(now(store.wait(b"key", 60_000)).unwrap_err().is_busy());
    drop(dropped);
    let waits = store.wait(b"key", 60_000);
    assert_eq!(store.stats().waiters, 1);
    let done = store.complete(permit, b"x", 1_000, NOW);
    store.drive();
    now(done).unwrap();
    now(waits).unwrap();
    assert_eq!(store.stats().waiters, 0);
}

#[test]
fn a_key_is_absent_once_what_made_it_unknown_is_durable() {
    let disk = Disk::new(5);
    let store = Store::open_on(disk.mount(), options()).unwrap();
    stored_first(&store);
    assert_eq!(now(store.get(b"other", NOW)).unwrap(), Lookup::Absent);
    let forgotten = store.forget(b"first");
    let absent = store.get(b"first", NOW).try_now();
    let absent = absent.expect_err("a crash now would bring it back");
    store.drive();
    assert!(now(forgotten).unwrap());
    assert_eq!(now(absent).unwrap(), Lookup::Absent);
}

#[test]
fn a_disk_that_is_full_at_the_next_segment_holds_the_batch_until_there_is_space() {
    for seed in [14, 15] {
        let disk = Disk::new(seed);
        let store = Store::open_on(disk.mount(), options()).unwrap();
        stored_first(&store);
        let mut pending = over_two_segments(&disk, &store);
        for _ in 0..3 {
            store.drive();
            let stats = store.stats();
            assert!(stats.disk_full && !stats.poisoned, "{stats:?}");
            assert!(now(begin(&store, b"new")).unwrap_err().is_full());
            assert!(matches!(now(begin(&store, b"first")), Ok(Begun::Replay(_))));
            let still = pending.into_iter().map(Completion::try_now);
            pending = still.map(|pending| pending.expect_err("held")).collect();
        }
        disk.set_full(false);
        store.drive();
        for done in pending {
            now(done).unwrap();
        }
        let mut turns = 0;
        while store.stats().disk_full {
            store.drive();
            turns += 1;
            assert!(turns < 100_000_000, "it never recovers");
        }
        let new = begin(&store, b"new");
        store.drive();
        now(new).unwrap().into_fresh().unwrap();
        disk.crash();
        drop(store);
        let store = Store::open_on(disk.mount(), options()).unwrap();
        assert_eq!(store.stats().keys_stored, 41);
    }
}

#[test]
fn a_store_that_ends_on_a_full_disk_fails_what_it_holds() {
    let disk = Disk::new(16);
    let store = Store::open_on(disk.mount(), options()).unwrap();
    let pending = over_two_segments(&disk, &store);
    store.drive();
    let error = store.close().unwrap_err();
    assert!(error.is_full(), "{error}");
    for pending in pending {
        assert!(now(pending).unwrap_err().is_poisoned());
    }
    disk.crash();
    let store = Store::open_on(disk.mount(), options()).unwrap();
    // Nobody was told that it is stored; nobody may hear that it never happened.
    let stats = store.stats();
    assert_eq!(stats.keys_stored + stats.keys_in_doubt, 40, "{stats:?}");
}

#[test]
fn opening_on_a_full_disk_says_so() {
    let disk = Disk::new(5);
    disk.set_full(true);
    let error = Store::open_on(disk.mount(), options()).unwrap_err();
    assert!(error.is_full(), "{error}");
}

#[test]
fn a_second_store_is_told_that_the_first_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::new()).unwrap();
    let error = Store::open(dir.path(), Options::new()).unwrap_err();
    assert!(error.is_locked(), "{error}");
    assert!(
        idem_store::repair(dir.path(), false)
            .unwrap_err()
            .is_locked()
    );
    // Looking is allowed.
    let report = idem_store::verify(dir.path()).unwrap();
    assert!(report.ok && report.in_use, "{report:?}");
    // Also when somebody has removed what a process with the store open locks.
    std::fs::remove_file(dir.path().join("lock")).unwrap();
    let error = Store::open(dir.path(), Options::new()).unwrap_err();
    assert!(error.is_locked(), "{error}");
    assert!(idem_store::verify(dir.path()).unwrap().in_use);
    drop(store);
    assert!(!idem_store::verify(dir.path()).unwrap().in_use);
    Store::open(dir.path(), Options::new()).unwrap();
}

#[test]
fn a_crash_of_the_process_loses_nothing_at_any_durability() {
    for durability in [
        Durability::Sync,
        Durability::IntervalMs(10_000),
        Durability::None,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::new().durability(durability)).unwrap();
        let permit = begin(&store, b"k").wait().unwrap().into_fresh().unwrap();
        store.complete(permit, b"out", 1_000, NOW).wait().unwrap();
        // As the next process would see it after a kill, the store still being open.
        let seen = idem_store::Snapshot::read(dir.path())
            .unwrap()
            .get(b"k", NOW)
            .unwrap();
        assert!(
            matches!(seen, idem_store::Lookup::Stored(_)),
            "{durability:?}: {seen:?}"
        );
    }
}

#[test]
fn flush_syncs_what_no_durability_left_unsynced() {
    let disk = Disk::new(6);
    let relaxed = options().durability(Durability::None);
    let store = Store::open_on(disk.mount(), relaxed).unwrap();
    let begun = begin(&store, b"k");
    store.drive();
    now(begun).unwrap();
    let syncs = store.stats().syncs;
    let flushed = store.flush();
    store.drive();
    now(flushed).unwrap();
    assert_eq!(store.stats().syncs, syncs + 1);
    disk.crash();
    drop(store);
    let store = Store::open_on(disk.mount(), options()).unwrap();
    assert_eq!(store.unresolved(0, 100).wait().unwrap().len(), 1);
}

#[test]
fn the_interval_syncs_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().durability(Durability::IntervalMs(1));
    let store = Store::open(dir.path(), options).unwrap();
    let before = store.stats().syncs;
    begin(&store, b"k").wait().unwrap();
    while store.stats().syncs == before {
        std::thread::yield_now();
    }
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for wrong in [
        Options::new().segment_bytes_max(4_096),
        Options::new().segment_bytes_max((1 << 20) + 1),
        Options::new().outcome_bytes_max(8 << 20),
        Options::new().batch_bytes_max(16 << 20),
        Options::new().key_bytes_max(0),
        Options::new().batch_bytes_max(64 + 512 + 255),
    ] {
        assert!(Store::open(dir.path(), wrong).unwrap_err().is_options());
    }
}
