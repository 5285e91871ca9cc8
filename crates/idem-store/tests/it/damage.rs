//! Bytes that rot, files that vanish: reported with their place, repaired only when asked.

use std::sync::Arc;

use idem_store::{
    Begin, Begun, Fingerprint, Lookup, Options, Store, repair_on, verify_on, vfs::Vfs,
};

use crate::disk::Disk;

const NOW: u64 = 1_700_000_000_000;
const DAY: u64 = 86_400_000;
/// Enough keys with outcomes of 3 KiB to fill three segments of 64 KiB.
const KEYS: u32 = 50;

fn options() -> Options {
    Options::new()
        .segment_bytes_max(64 << 10)
        .outcome_bytes_max(4 << 10)
        .batch_bytes_max(32 << 10)
}

fn open(disk: &Disk) -> Result<Store, idem_store::Error> {
    Store::open_on(disk.mount(), options())
}

fn name(key: u32) -> Vec<u8> {
    format!("key-{key:03}").into_bytes()
}

fn outcome(key: u32) -> Vec<u8> {
    vec![key as u8; 3_000]
}

/// A store of several segments, closed in order.
fn filled() -> Disk {
    let disk = Disk::new(1);
    let store = open(&disk).unwrap();
    fill(&store, 0..KEYS);
    store.close().unwrap();
    disk
}

fn fill(store: &Store, keys: std::ops::Range<u32>) {
    for key in keys {
        let bytes = name(key);
        let begin = Begin::new(&bytes, Fingerprint([1; 32]), 1_000, NOW).declare(b"memo");
        let mut begun = store.begin(&begin);
        let permit = loop {
            store.drive();
            match begun.try_now() {
                Ok(Ok(Begun::Fresh(permit))) => break permit,
                Ok(other) => panic!("{other:?}"),
                Err(pending) => begun = pending,
            }
        };
        let done = store.complete(permit, &outcome(key), DAY, NOW);
        store.drive();
        done.try_now().unwrap().unwrap();
    }
}

/// The segments of the log, without the next one, which was made ready.
fn segments(disk: &Disk) -> Vec<String> {
    let names = disk.names().into_iter();
    let names = names.filter(|name| name.ends_with(".seg"));
    names.filter(|name| !is_blank(disk, name)).collect()
}

/// The next segment, which the log has not come to.
fn next_segment(disk: &Disk) -> String {
    let blank = |name: &String| name.ends_with(".seg") && is_blank(disk, name);
    disk.names().into_iter().find(blank).unwrap()
}

/// Whether there is no batch in a segment.
fn is_blank(disk: &Disk, name: &str) -> bool {
    disk.read(name)[4_096..].iter().all(|&byte| byte == 0)
}

/// How many keys still have their outcome; every one that has must have the right one.
fn stored(store: &Store) -> u32 {
    let mut count = 0;
    for key in 0..KEYS {
        match store.get(&name(key), NOW).try_now().unwrap().unwrap() {
            Lookup::Stored(stored) => {
                assert_eq!(stored.outcome(), outcome(key));
                count += 1;
            }
            Lookup::Absent | Lookup::InDoubt(_) => {}
            Lookup::InFlight { .. } => panic!("nobody holds key {key}"),
        }
    }
    count
}

fn flip(disk: &Disk, name: &str, at: usize) {
    disk.change(name, |bytes| bytes[at] ^= 0x10);
}

#[test]
fn a_whole_store_verifies() {
    let disk = filled();
    assert!(segments(&disk).len() >= 3, "{:?}", disk.names());
    let report = verify_on(&*disk.mount()).unwrap();
    assert!(report.ok && report.bad.is_empty(), "{report:?}");
    assert_eq!(report.torn_bytes, 0);
    // A claim and an outcome each, opened and closed.
    assert_eq!(report.records, u64::from(KEYS) * 2 + 2);
    assert_eq!(stored(&open(&disk).unwrap()), KEYS);
}

#[test]
fn every_flipped_bit_of_the_log_is_reported_where_it_is() {
    let clean = filled();
    let names = segments(&clean);
    for (i, name) in names.iter().enumerate() {
        let used = clean
            .read(name)
            .iter()
            .rposition(|&byte| byte != 0)
            .unwrap();
        // The type of the last record, Closed, is the last byte that is not zero.
        let closed = used - 8 - 32;
        // The header, and a prime step through all batches.
        let places = (0..60).step_by(7).chain((4_096..=used).step_by(397));
        for at in places {
            let original = clean.read(name);
            flip(&clean, name, at);
            let report = verify_on(&*clean.mount()).unwrap();
            let last = i + 1 == names.len();
            if report.ok {
                // Only the very last batch can be taken for a torn one: it is the mark of closing.
                let cut = last && at >= closed && report.torn_bytes > 0;
                assert!(cut, "{name} at {at}: {report:?}");
            } else {
                let bad = &report.bad[0];
                assert_eq!(bad.segment as usize, i + 1, "{name} at {at}: {report:?}");
                assert!(bad.offset <= at as u64, "{name} at {at}: {report:?}");
                assert!(open(&clean).unwrap_err().is_damaged());
            }
            clean.change(name, |bytes| *bytes = original);
        }
    }
}

#[test]
fn the_error_of_opening_tells_the_segment_and_the_offset() {
    let disk = filled();
    let names = segments(&disk);
    flip(&disk, &names[1], 9_000);
    let error = open(&disk).unwrap_err();
    assert!(error.is_damaged());
    assert_eq!(error.segment(), Some(2));
    assert!(
        error
            .offset()
            .is_some_and(|offset| (4_096..=9_000).contains(&offset))
    );
    assert!(error.to_string().contains("segment 2"), "{error}");
}

#[test]
fn repair_keeps_everything_but_the_damaged_record() {
    let disk = filled();
    let name = &segments(&disk)[1];
    flip(&disk, name, 20_000);
    let before = disk.read(name);
    let dry = repair_on(&*disk.mount(), true).unwrap();
    assert!(
        !dry.changed && dry.bad.len() == 1 && dry.bytes_lost > 0,
        "{dry:?}"
    );
    assert_eq!(disk.read(name), before, "a dry run writes nothing");

    let done = repair_on(&*disk.mount(), false).unwrap();
    assert!(done.changed, "{done:?}");
    assert_eq!(disk.read(&done.backups[0]), before);
    assert!(verify_on(&*disk.mount()).unwrap().ok);
    assert_eq!(stored(&open(&disk).unwrap()), KEYS - 1);
}

#[test]
fn a_second_repair_keeps_the_copy_that_the_first_one_made() {
    let disk = filled();
    let name = &segments(&disk)[1];
    let mut copies = Vec::new();
    for at in [20_000, 9_000] {
        flip(&disk, name, at);
        let before = disk.read(name);
        let done = repair_on(&*disk.mount(), false).unwrap();
        copies.push((done.backups[0].clone(), before));
    }
    for (name, bytes) in copies {
        assert_eq!(disk.read(&name), bytes, "{name}");
    }
}

#[test]
fn a_crash_in_a_repair_loses_neither_the_segment_nor_its_copy() {
    for calls in 0..200 {
        let disk = filled();
        let name = segments(&disk)[0].clone();
        flip(&disk, &name, 9_000);
        let damaged = disk.read(&name);
        disk.die_in(calls);
        let repaired = repair_on(&*disk.mount(), false);
        disk.crash();
        let copy = format!("{name}.damaged");
        let has_copy = disk.names().contains(&copy) && disk.read(&copy) == damaged;
        assert!(has_copy || disk.read(&name) == damaged, "at call {calls}");
        if repaired.is_ok() {
            return;
        }
        disk.put("repair.tmp", Vec::new());
        repair_on(&*disk.mount(), false).unwrap();
        drop(open(&disk).unwrap());
        assert!(!disk.names().contains(&"repair.tmp".to_owned()));
    }
    panic!("a repair takes more calls");
}

#[test]
fn repair_restores_a_segment_header_without_losing_a_record() {
    for segment in 0..3 {
        let disk = filled();
        flip(&disk, &segments(&disk)[segment], 33);
        assert!(open(&disk).unwrap_err().is_damaged());
        let done = repair_on(&*disk.mount(), false).unwrap();
        assert_eq!(done.bytes_lost, 0, "{done:?}");
        assert_eq!(stored(&open(&disk).unwrap()), KEYS);
    }
}

#[test]
fn a_missing_segment_is_reported_and_can_be_given_up() {
    let disk = filled();
    disk.remove(&segments(&disk)[1]);
    let report = verify_on(&*disk.mount()).unwrap();
    assert!(!report.ok && report.bad[0].segment == 2, "{report:?}");
    assert!(open(&disk).unwrap_err().is_damaged());
    repair_on(&*disk.mount(), false).unwrap();
    let left = stored(&open(&disk).unwrap());
    assert!(left > 0 && left < KEYS, "{left}");
}

/// Wherever it is cut, also between two batches, where what is left reads well.
#[test]
fn a_log_whose_end_was_cut_off_is_not_whole() {
    let disk = filled();
    let name = segments(&disk).pop().unwrap();
    let whole = disk.read(&name);
    for len in (4_096..whole.len()).step_by(1_003) {
        disk.change(&name, |bytes| bytes.truncate(len));
        let report = verify_on(&*disk.mount()).unwrap();
        assert!(!report.ok && report.torn_bytes == 0, "{len}: {report:?}");
        assert!(open(&disk).unwrap_err().is_damaged());
        let done = repair_on(&*disk.mount(), false).unwrap();
        assert!(done.bytes_lost > 0, "{len}: {done:?}");
        assert!(verify_on(&*disk.mount()).unwrap().ok, "{len}");
        let left = stored(&open(&disk).unwrap());
        assert!(left > 0 && left <= KEYS, "{len}: {left}");
        disk.change(&name, |bytes| bytes.clone_from(&whole));
    }
}

#[test]
fn no_token_is_given_again_after_openings_were_cut_off() {
    let disk = filled();
    let name = segments(&disk).pop().unwrap();
    let token = |disk: &Disk, key: &[u8]| {
        let store = open(disk).unwrap();
        let begun = store.begin(&Begin::new(key, Fingerprint([1; 32]), 1_000, NOW));
        let permit = begun.try_now().unwrap().unwrap().into_fresh().unwrap();
        let token = permit.token();
        drop(permit);
        store.close().unwrap();
        token
    };
    let before = disk.read(&name);
    let given: Vec<_> = (0..3u8).map(|key| token(&disk, &[key])).collect();
    let same = before.iter().zip(disk.read(&name));
    let end = same.take_while(|(a, b)| *a == b).count();
    disk.change(&name, |bytes| bytes.truncate(end));
    repair_on(&*disk.mount(), false).unwrap();
    let next = token(&disk, b"next");
    assert!(next > given[2], "{next} after {given:?}");
}

#[test]
fn the_oldest_segment_is_missed_too() {
    let disk = filled();
    disk.remove(&segments(&disk)[0]);
    let report = verify_on(&*disk.mount()).unwrap();
    assert!(!report.ok && report.bad[0].segment == 1, "{report:?}");
}

#[test]
fn a_segment_that_was_made_ready_is_not_part_of_the_log() {
    let disk = filled();
    let (log, next) = (segments(&disk), next_segment(&disk));
    assert!(next > log[log.len() - 1]);
    let report = verify_on(&*disk.mount()).unwrap();
    assert_eq!(report.segments, log.len() as u64);
    // A copy of a store need not have it.
    disk.remove(&next);
    assert!(verify_on(&*disk.mount()).unwrap().ok);
    assert_eq!(stored(&open(&disk).unwrap()), KEYS);
}

#[test]
fn a_segment_that_was_made_ready_is_damaged_like_others_and_repaired_without_loss() {
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(5_000);
    let rot = |bytes: &mut Vec<u8>| bytes[20] ^= 1;
    for change in [cut as fn(&mut Vec<u8>), rot] {
        let disk = filled();
        let next = next_segment(&disk);
        disk.change(&next, change);
        let report = verify_on(&*disk.mount()).unwrap();
        assert_eq!(report.bad.len(), 1, "{report:?}");
        assert!(next.contains(&report.bad[0].segment.to_string()));
        assert!(open(&disk).unwrap_err().is_damaged());
        repair_on(&*disk.mount(), false).unwrap();
        let store = open(&disk).unwrap();
        assert_eq!(stored(&store), KEYS);
        fill(&store, 100..140);
        drop(store);
        assert!(verify_on(&*disk.mount()).unwrap().ok);
    }
}

/// The first write to a segment never came to the disk, all later ones did.
#[test]
fn a_segment_that_lost_its_beginning_is_damaged() {
    let disk = filled();
    let name = &segments(&disk)[1];
    let whole = disk.read(name);
    let first = u32::from_le_bytes(whole[4_100..4_104].try_into().unwrap()) as usize;
    disk.change(name, |bytes| bytes[4_096..4_096 + first].fill(0));
    let report = verify_on(&*disk.mount()).unwrap();
    let bad = &report.bad[0];
    assert_eq!((bad.segment, bad.offset), (2, 4_096), "{report:?}");
    assert!(open(&disk).unwrap_err().is_damaged());
    repair_on(&*disk.mount(), false).unwrap();
    let left = stored(&open(&disk).unwrap());
    assert_eq!(left, KEYS - 1, "the outcome that lay there");
}

#[test]
fn a_stray_file_with_a_number_beyond_all_is_reported_and_left_alone() {
    for stray in [vec![7; 9_000], filled().read("0000000002.seg")] {
        let disk = filled();
        let name = "4294967295.seg";
        disk.put(name, stray);
        let report = verify_on(&*disk.mount()).unwrap();
        let far = report.bad.iter().filter(|bad| bad.segment == u32::MAX);
        assert!(far.count() > 0 && report.bad.len() < 10, "{report:?}");
        assert!(open(&disk).unwrap_err().is_damaged());
        assert!(repair_on(&*disk.mount(), false).unwrap_err().is_damaged());
        disk.remove(name);
        assert_eq!(stored(&open(&disk).unwrap()), KEYS);
    }
}

#[test]
fn the_last_segment_is_missed_when_the_next_one_was_ready() {
    let disk = filled();
    let log = segments(&disk);
    disk.remove(&log[log.len() - 1]);
    let report = verify_on(&*disk.mount()).unwrap();
    assert!(!report.ok && report.bad[0].segment as usize == log.len());
    assert!(open(&disk).unwrap_err().is_damaged());
    repair_on(&*disk.mount(), false).unwrap();
    let left = stored(&open(&disk).unwrap());
    assert!(left > 0 && left < KEYS, "{left}");
}

/// Completes keys of one hour each until the log has let go of its oldest segments.
fn outlive(store: &Store, drops: u64) {
    let later = NOW + 2 * DAY;
    for key in 0..120u32 {
        let bytes = key.to_le_bytes();
        let later = later + u64::from(key) * 3_600_000;
        let permit = store
            .begin(&Begin::new(&bytes, Fingerprint([1; 32]), 1_000, later))
            .try_now();
        let permit = permit.unwrap().unwrap().into_fresh().unwrap();
        let done = store.complete(permit, &[7; 3_000], 0, later);
        store.drive();
        done.try_now().unwrap().unwrap();
        for _ in 0..4 {
            store.drive();
            if store.stats().segments_dropped == drops {
                return;
            }
        }
    }
    panic!("too few segments are dropped: {:?}", store.stats());
}

#[test]
fn a_dropped_segment_that_comes_back_is_ignored() {
    let disk = filled();
    let name = &segments(&disk)[0];
    let old = disk.read(name);
    let store = open(&disk).unwrap();
    // Stops at the first drop: the newest segment's header still counts the old one in, only the
    // Head record behind it does not.
    outlive(&store, 1);
    store.close().unwrap();
    assert!(!segments(&disk).contains(name));
    disk.put(name, old);
    assert!(verify_on(&*disk.mount()).unwrap().ok);
    let store = open(&disk).unwrap();
    // The keys of that segment, asked for at a time when they were retained.
    for key in 0..10 {
        let got = store.get(&self::name(key), NOW).try_now().unwrap();
        assert_eq!(
            got.unwrap(),
            Lookup::Absent,
            "it was dropped with its segment"
        );
    }
    assert!(!segments(&disk).contains(name));
}

#[test]
fn a_repaired_store_lives_on_and_its_marks_survive_compaction() {
    let disk = filled();
    flip(&disk, &segments(&disk)[0], 20_000);
    flip(&disk, &segments(&disk)[1], 40_000);
    repair_on(&*disk.mount(), false).unwrap();
    let store = open(&disk).unwrap();
    // Past the retention: new keys make the old segments superfluous.
    outlive(&store, 3);
    assert!(verify_on(&*disk.mount()).unwrap().ok);
}

#[test]
fn random_damage_never_panics_and_never_passes_for_whole() {
    let clean = filled();
    let names = segments(&clean);
    let mut rng = crate::disk::Rng(7);
    for _ in 0..60 {
        let name = &names[rng.below(names.len() as u64) as usize];
        let original = clean.read(name);
        let at = rng.below(60_000) as usize;
        let len = (1 + rng.below(5_000) as usize).min(original.len() - at);
        clean.change(name, |bytes| {
            bytes[at..at + len]
                .iter_mut()
                .for_each(|byte| *byte = rng.next() as u8);
        });
        let vfs: Arc<dyn Vfs> = clean.mount();
        let report = verify_on(&*vfs).unwrap();
        let used = original.iter().rposition(|&byte| byte != 0).unwrap();
        let last = name == names.last().unwrap();
        assert!(!report.ok || at > used || last, "{name} at {at}+{len}");
        clean.change(name, |bytes| *bytes = original);
    }
}

/// Keys and outcomes as [`filled`], with an index that was written halfway.
fn indexed() -> Disk {
    let disk = Disk::new(1);
    let options = options().index_log_bytes(100_000);
    let store = Store::open_on(disk.mount(), options).unwrap();
    fill(&store, 0..40);
    // In slices, while the store goes on.
    assert_eq!(store.stats().index_snapshots, 1);
    fill(&store, 40..KEYS);
    store.close().unwrap();
    disk
}

const INDEX: &str = "index.snap";

#[test]
fn an_index_saves_reading_the_log_and_tells_the_same() {
    let disk = indexed();
    let report = verify_on(&*disk.mount()).unwrap();
    assert!(report.ok, "{report:?}");
    let index = report.index.expect("it is there");
    assert!((20..=40).contains(&index.keys), "{index:?}");
    // What is before it is not even looked at when the store is opened.
    flip(&disk, &segments(&disk)[0], 20_000);
    let store = open(&disk).unwrap();
    assert!(store.stats().opened_from_index);
    let mut rotten = 0;
    for key in 0..KEYS {
        match store.get(&name(key), NOW).try_now().unwrap() {
            Ok(Lookup::Stored(stored)) => assert_eq!(stored.outcome(), outcome(key)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(error.is_damaged(), "{error}");
                rotten += 1;
            }
        }
    }
    assert_eq!(rotten, 1, "told when it is read, never skipped");
    drop(store);
    assert!(!verify_on(&*disk.mount()).unwrap().ok);
}

#[test]
fn every_flipped_bit_of_the_index_is_noticed_and_the_log_is_read_instead() {
    let disk = indexed();
    let original = disk.read(INDEX);
    let used = original.iter().rposition(|&byte| byte != 0).unwrap();
    for at in (0..128).chain((4_096..=used).step_by(61)) {
        if (128..4_096).contains(&at) {
            continue;
        }
        flip(&disk, INDEX, at);
        let report = verify_on(&*disk.mount()).unwrap();
        let bad = report.index.and_then(|index| index.bad);
        assert!(!report.ok && bad.is_some(), "byte {at}");
        disk.change(INDEX, |bytes| bytes.clone_from(&original));
    }
    flip(&disk, INDEX, 5_000);
    let store = open(&disk).unwrap();
    assert!(!store.stats().opened_from_index);
    assert_eq!(stored(&store), KEYS);
    assert!(!disk.names().contains(&INDEX.to_owned()), "it is removed");
}

/// The log is cut back, as by an old copy, and grows over the place that the index tells of.
#[test]
fn an_index_of_another_end_of_the_log_is_not_believed() {
    let disk = indexed();
    let newest = segments(&disk).pop().unwrap();
    disk.remove(&next_segment(&disk));
    let index = disk.read(INDEX);
    let (cut, last) = (segments(&disk)[1].clone(), segments(&disk).len());
    assert!(last > 2);
    disk.remove(&newest);
    disk.change(&cut, |bytes| bytes[30_000..].fill(0));
    for name in &segments(&disk)[2..] {
        disk.remove(name);
    }
    let store = open(&disk).unwrap();
    assert!(!store.stats().opened_from_index);
    let before = stored(&store);
    fill(&store, 100..140);
    store.close().unwrap();
    disk.put(INDEX, index);
    let store = open(&disk).unwrap();
    assert!(!store.stats().opened_from_index);
    assert_eq!(stored(&store), before);
}

#[test]
fn an_index_that_lies_is_told_by_verify_and_removed_by_repair() {
    let disk = indexed();
    disk.change(INDEX, |bytes| {
        // The first section with an outcome loses it, and all checksums fit.
        let mut at = 4_096;
        loop {
            let count = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap());
            if count > 0 {
                break;
            }
            at += 32;
        }
        let place = at + 32 + 8 + 4;
        bytes[place] ^= 8;
        let count = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap());
        let claims = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap());
        let end = at + 32 + 16 * (count + claims) as usize;
        let crc = crc32c::crc32c(&bytes[at + 4..end]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    });
    let report = verify_on(&*disk.mount()).unwrap();
    let bad = report.index.clone().and_then(|index| index.bad);
    assert!(!report.ok && report.bad.is_empty(), "{report:?}");
    assert!(bad.is_some_and(|bad| bad.contains("segment")), "{report:?}");
    let dry = repair_on(&*disk.mount(), true).unwrap();
    assert!(dry.index_removed && !dry.changed);
    let done = repair_on(&*disk.mount(), false).unwrap();
    assert!(done.index_removed && done.changed && done.backups.is_empty());
    assert!(verify_on(&*disk.mount()).unwrap().ok);
    assert_eq!(stored(&open(&disk).unwrap()), KEYS);
}

#[test]
fn repairing_the_log_removes_the_index_first() {
    let disk = indexed();
    flip(&disk, &segments(&disk)[0], 20_000);
    let done = repair_on(&*disk.mount(), false).unwrap();
    assert!(done.index_removed && done.bytes_lost > 0, "{done:?}");
    let store = open(&disk).unwrap();
    assert!(!store.stats().opened_from_index);
    assert_eq!(stored(&store), KEYS - 1);
}
