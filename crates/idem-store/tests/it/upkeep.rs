//! What upkeep does to old segments and to the index on the disk, one slice at a time.

use idem_store::{Begin, Begun, Completion, Error, Fingerprint, Lookup, Options, Store, verify_on};

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

/// A key with its outcome.
fn end(store: &Store, key: &[u8], bytes: usize, retain_ms: u64) {
    let begun = begin(store, key);
    store.drive();
    let permit = now(begun).unwrap().into_fresh().unwrap();
    let done = store.complete(permit, &vec![1; bytes], retain_ms, NOW);
    store.drive();
    now(done).unwrap();
}

/// A caller tells the time and writes nothing.
fn tell(store: &Store, now_ms: u64) {
    let busy = Begin::new(b"held", Fingerprint([1; 32]), u64::MAX, now_ms);
    drop(store.begin(&busy));
}

/// Segments are dropped while the log stays in the last one, so that a Head record alone tells it; then
/// an index is written that begins behind that record.
#[test]
fn an_index_behind_the_dropping_of_segments_is_used() {
    let disk = Disk::new(22);
    let store = Store::open_on(disk.mount(), options().index_log_bytes(1)).unwrap();
    (0..200u8).for_each(|key| end(&store, &[key], 1_000, 1_000));
    let before = store.stats();
    assert_eq!(before.segments_dropped, 0);
    tell(&store, NOW + (1 << 22));
    for _ in 0..100 {
        store.drive();
    }
    let dropped = store.stats();
    assert_eq!(dropped.segments, 2, "{dropped:?}");
    end(&store, b"more", 1_000, 1 << 30);
    for _ in 0..100 {
        store.drive();
    }
    let after = store.stats();
    assert!(after.index_snapshots > dropped.index_snapshots, "{after:?}");
    assert_eq!(after.segments, 2, "{after:?}");

    disk.kill();
    let report = verify_on(&*disk.mount()).unwrap();
    assert!(report.ok && report.index.is_some(), "{report:?}");
    let opened = Store::open_on(disk.mount(), options()).unwrap();
    assert!(opened.stats().opened_from_index);
    assert_eq!(opened.stats().keys_stored, 1);
}

#[test]
fn what_lives_in_a_large_segment_has_room_in_those_of_a_later_opening() {
    let disk = Disk::new(23);
    let large = options()
        .segment_bytes_max(512 << 10)
        .outcome_bytes_max(120 << 10);
    let store = Store::open_on(disk.mount(), large).unwrap();
    end(&store, b"large", 120_000, 1 << 40);
    let fill = |store: &Store, keys: std::ops::Range<u32>| {
        for key in keys {
            end(store, &key.to_le_bytes(), 4_000, 1_000);
            (0..4).for_each(|_| _ = store.drive());
        }
    };
    fill(&store, 0..150);
    assert_eq!(store.stats().segments, 2);
    store.close().unwrap();

    let store = Store::open_on(disk.mount(), options()).unwrap();
    for keys in [150..160, 160..400, 400..640] {
        fill(&store, keys);
        tell(&store, NOW + (1 << 22));
        (0..300).for_each(|_| _ = store.drive());
    }
    let stats = store.stats();
    assert!(
        stats.records_carried > 0 && !stats.upkeep_failed,
        "{stats:?}"
    );
    for name in disk.names().iter().filter(|name| name.ends_with(".seg")) {
        let bytes = disk.read(name);
        let allocated = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
        assert_eq!(bytes.len() as u64, allocated, "{name} has grown");
    }
    let found = now(store.get(b"large", NOW)).unwrap();
    assert!(matches!(found, Lookup::Stored(stored) if stored.outcome() == [1; 120_000]));
    store.close().unwrap();
    assert!(verify_on(&*disk.mount()).unwrap().ok);
}

#[test]
fn outcomes_past_their_retention_go_while_the_log_stands_still() {
    const HOUR: u64 = 3_600_000;
    let disk = Disk::new(17);
    let store = Store::open_on(disk.mount(), options()).unwrap();
    let end = |key: &[u8], retain_ms| {
        let begun = begin(&store, key);
        store.drive();
        let permit = now(begun).unwrap().into_fresh().unwrap();
        let done = store.complete(permit, &[1; 1_000], retain_ms, NOW);
        store.drive();
        now(done).unwrap();
    };
    (0..80u8).for_each(|key| end(&[key], 1_000));
    end(b"long", 9 * HOUR);
    let segments = store.stats().segments;
    assert!(segments > 1);
    // A caller tells the time, and writes nothing.
    let later = Begin::new(b"long", Fingerprint([1; 32]), 1_000, NOW + HOUR);
    let Begun::Replay(_) = now(store.begin(&later)).unwrap() else {
        panic!("it is stored");
    };
    let records = store.stats().records;
    for _ in 0..100 {
        store.drive();
    }
    let stats = store.stats();
    assert_eq!(stats.keys_stored, 1, "{stats:?}");
    // But for the mark that cuts dropped segments off, and what is carried.
    let marks = stats.segments_dropped + stats.records_carried;
    assert_eq!(stats.records - records, marks, "{stats:?}");
    assert!(now(store.get(b"long", NOW + HOUR)).is_ok_and(|known| known != Lookup::Absent));
}

#[test]
fn a_walk_that_began_under_a_wrong_clock_forgets_nothing_more_once_it_is_right() {
    let disk = Disk::new(20);
    let store = Store::open_on(disk.mount(), options()).unwrap();
    for key in 0..80u8 {
        let begun = begin(&store, &[key]);
        store.drive();
        let permit = now(begun).unwrap().into_fresh().unwrap();
        let done = store.complete(permit, &[1; 100], 1_000_000, NOW);
        store.drive();
        now(done).unwrap();
    }
    let tell = |now_ms| {
        let busy = Begin::new(b"held", Fingerprint([1; 32]), u64::MAX, now_ms);
        drop(store.begin(&busy));
    };
    tell(NOW + (1 << 30));
    let mut turns = 0;
    while store.stats().keys_stored == 80 {
        store.drive();
        turns += 1;
        assert!(turns < 100, "it never looks");
    }
    tell(NOW);
    let left = store.stats().keys_stored;
    assert!(left > 0);
    for _ in 0..100 {
        store.drive();
    }
    assert_eq!(store.stats().keys_stored, left);
}

#[test]
fn a_full_disk_gets_room_from_what_ends_its_retention() {
    let disk = Disk::new(19);
    let store = Store::open_on(disk.mount(), options().disk_full_wait_ms(0)).unwrap();
    let mut keys = 0u32;
    let mut try_end = |stop: bool| {
        let begun = begin(&store, &keys.to_le_bytes());
        store.drive();
        let permit = match now(begun) {
            Ok(begun) => begun.into_fresh().unwrap(),
            Err(error) if stop && error.is_full() => return false,
            Err(error) => panic!("{error}"),
        };
        let done = store.complete(permit, &[1; 1_000], 1_000, NOW);
        store.drive();
        now(done).unwrap();
        keys += 1;
        true
    };
    while store.stats().segments < 6 {
        try_end(false);
    }
    let begun: Vec<_> = (0..40u8).map(|key| begin(&store, &[key])).collect();
    store.drive();
    disk.set_full(true);
    while try_end(true) {}
    // They take more than half of the segment that the log came to last.
    for begun in begun {
        let permit = now(begun).unwrap().into_fresh().unwrap();
        let done = store.complete(permit, &[1; 1_000], 1_000, NOW);
        store.drive();
        now(done).unwrap();
    }
    let full = store.stats();
    assert!(full.disk_full && full.segments_dropped == 0, "{full:?}");

    let later = NOW + (1 << 22);
    assert!(now(store.begin(&Begin::new(b"new", Fingerprint([1; 32]), 1_000, later))).is_err());
    let mut turns = 0;
    while store.stats().disk_full {
        store.drive();
        std::thread::yield_now();
        turns += 1;
        assert!(turns < 100_000_000, "nothing goes: {:?}", store.stats());
    }
    let begun = now(store.begin(&Begin::new(b"new", Fingerprint([1; 32]), 1_000, later)));
    assert!(begun.unwrap().into_fresh().is_some());
}

#[test]
fn a_segment_where_nothing_lives_is_dropped_unread() {
    let disk = Disk::new(18);
    let store = Store::open_on(disk.mount(), options()).unwrap();
    let fill = |keys: std::ops::Range<u8>| {
        for key in keys {
            let begun = begin(&store, &[key]);
            store.drive();
            let permit = now(begun).unwrap().into_fresh().unwrap();
            let done = store.complete(permit, &[key; 4_000], 1_000_000, NOW);
            store.drive();
            now(done).unwrap();
            let forgotten = store.forget(&[key]);
            store.drive();
            assert!(now(forgotten).unwrap());
        }
    };
    fill(0..16);
    assert_eq!(store.stats().segments_dropped, 0);
    // What nobody needs may rot.
    disk.change("0000000001.seg", |bytes| bytes[5_000..50_000].fill(0xa5));
    fill(16..60);
    let stats = store.stats();
    assert!(
        stats.segments_dropped > 0 && stats.segments <= 3,
        "{stats:?}"
    );
    // Its file is a segment again.
    let spares = disk
        .names()
        .into_iter()
        .filter(|name| name.starts_with("spare-"));
    assert!(spares.count() <= 3);
}
