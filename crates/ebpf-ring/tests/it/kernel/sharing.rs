//! Several rings for one reader, several readers for one ring, and records that stay for a while.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ebpf_ring::{Commit, RingSet, SharedReader, Stop, Wait};

use super::{Flood, FloodRecord, SLOT_BYTES};

#[test]
fn a_batch_keeps_its_records_until_it_is_dropped() {
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    let room = (ring.size_bytes() - 1) / SLOT_BYTES;
    flood.run("write_records", 10, 1, 5);
    let mut batch = ring.batch().expect("a sound ring");
    let first: Vec<_> = batch
        .iter()
        .take(3)
        .collect::<Result<_, _>>()
        .expect("sound");
    let indexes = first.iter().map(|r| FloodRecord::parse(r.bytes()).index);
    // Two of the ten were discarded.
    assert!(indexes.eq([1, 2, 3]));
    let rest = batch
        .iter()
        .map(|r| FloodRecord::parse(r.expect("sound").bytes()).index);
    assert!(rest.eq([4, 6, 7, 8, 9]));
    flood.write(u32::try_from(room).expect("small"));
    assert_eq!(
        batch.iter().count() as u64,
        room - 10,
        "their space is not free"
    );
    drop(batch);
    let stats = ring.stats().expect("a sound ring");
    assert_eq!((stats.pending, stats.dropped()), (0, Some(10)));
    assert_eq!(stats.is_balanced(), Some(true));
    flood.write(u32::try_from(room).expect("small"));
    assert_eq!(ring.batch().expect("sound").iter().count() as u64, room);
}

#[test]
fn commit_says_when_space_goes_back() {
    let flood = flood_or_skip!();
    for (commit, refused) in [(Commit::Record, 0), (Commit::End, 100)] {
        let mut ring = flood.reader().with_commit(commit);
        let before = ring.stats().expect("a sound ring").dropped();
        flood.write(u32::try_from(ring.size_bytes() / SLOT_BYTES).expect("small"));
        let mut met = 0;
        let drained = ring.drain(101, |_| {
            met += 1;
            if met == 101 {
                // 100 records have been read, and the ring was full.
                flood.write(100);
            }
        });
        assert_eq!(drained.expect("a sound ring").records, 101);
        let after = ring.stats().expect("a sound ring").dropped();
        assert_eq!(after, before.map(|n| n + refused), "{commit:?}");
        ring.drain(u64::MAX, |_| ()).expect("a sound ring");
    }
}

#[test]
fn a_flood_in_one_ring_does_not_starve_the_others() {
    let floods = [flood_or_skip!(), flood_or_skip!(), flood_or_skip!()];
    let readers = floods.iter().map(Flood::reader).collect();
    let mut rings = RingSet::new(readers).expect("a descriptor is left");
    assert!(!rings.wait(Wait::Event).expect("sound rings"));
    for (flood, count) in floods.iter().zip([2_000, 1, 100]) {
        flood.write(count);
    }
    assert!(rings.wait(Wait::forever()).expect("sound rings"));
    let mut order = Vec::new();
    let drained = rings
        .drain(200, |ring, _| order.push(ring))
        .expect("sound rings");
    assert_eq!((drained.records, drained.stop), (200, Stop::Budget));
    assert_eq!(order.iter().filter(|ring| **ring == 1).count(), 1);
    assert!(
        order.iter().filter(|ring| **ring == 2).count() >= 64,
        "{order:?}"
    );
    let drained = rings.drain(u64::MAX, |_, _| ()).expect("sound rings");
    assert_eq!((drained.records, drained.stop), (1_901, Stop::Empty));
    assert!(
        !rings
            .wait(Wait::up_to(Duration::ZERO))
            .expect("sound rings")
    );
    for ring in rings.rings() {
        assert_eq!(
            ring.stats().expect("a sound ring").is_balanced(),
            Some(true)
        );
    }
}

#[test]
fn waiting_for_several_rings_loses_no_wake_up() {
    let floods = [flood_or_skip!(), flood_or_skip!()];
    let readers = floods.iter().map(Flood::reader).collect();
    let mut rings = RingSet::new(readers).expect("a descriptor is left");
    let closer = rings.closer().expect("a descriptor is left");
    std::thread::scope(|scope| {
        for flood in &floods {
            scope.spawn(|| (0..800).for_each(|_| flood.write(3)));
        }
        let mut found = 0;
        for wait in [Wait::forever(), Wait::spin()].into_iter().cycle() {
            assert!(rings.wait(wait).expect("sound rings"));
            found += rings
                .drain(u64::MAX, |_, _| ())
                .expect("sound rings")
                .records;
            if found == 4_800 {
                break;
            }
        }
    });
    closer.close();
    assert!(!rings.wait(Wait::forever()).expect("sound rings"));
}

#[test]
fn many_threads_read_each_record_once() {
    const RECORDS: u32 = 60_000;
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    let closer = ring.closer().expect("a descriptor is left");
    let ring = SharedReader::from(ring);
    let seen: Vec<AtomicU32> = (0..RECORDS).map(|_| AtomicU32::new(0)).collect();
    let held = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (ring, seen, held) = (&ring, &seen, &held);
            scope.spawn(move || {
                while ring.wait(None).expect("a sound ring") {
                    while let Some(claim) = ring.claim(100).expect("a sound ring") {
                        for record in &claim {
                            let record = FloodRecord::parse(record.expect("sound").bytes());
                            seen[record.index as usize].fetch_add(1, Ordering::Relaxed);
                        }
                        // Some claims are given back later, in another order.
                        let mut held = held.lock().expect("no panic");
                        if reader == 0 {
                            held.push(claim);
                        }
                        if held.len() > 2 {
                            held.swap_remove(0);
                        }
                    }
                    held.lock().expect("no panic").clear();
                }
            });
        }
        flood.write(RECORDS);
        // The last ones lie in the ring: whoever reads them ends the others.
        scope.spawn(|| {
            loop {
                let stats = ring.stats().expect("a sound ring");
                if stats.pending == 0 && held.lock().expect("no panic").is_empty() {
                    return closer.close();
                }
                std::thread::yield_now();
            }
        });
    });
    let stats = ring.stats().expect("a sound ring");
    assert_eq!(stats.is_balanced(), Some(true), "{stats:?}");
    let sum: u64 = seen
        .iter()
        .map(|n| u64::from(n.load(Ordering::Relaxed)))
        .sum();
    assert_eq!(sum, stats.delivered);
    assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) <= 1), "twice");
}

/// By a second consumer, which the kernel believes: what the first has not read is overwritten.
#[test]
fn a_damaged_ring_keeps_nobody_from_waiting_for_the_others() {
    let (damaged, sound) = (flood_or_skip!(), flood_or_skip!());
    let rings = vec![damaged.reader(), sound.reader()];
    let mut set = RingSet::new(rings).expect("descriptors are left");
    let mut thief = damaged.reader();
    let room = u32::try_from(thief.size_bytes() / SLOT_BYTES).expect("small");
    for _ in 0..3 {
        damaged.write(room - 1);
        thief.drain(u64::MAX, |_| {}).expect("a sound ring");
    }
    let now = Wait::up_to(Duration::ZERO);
    assert!(set.wait(now).expect("the drain tells"), "nobody was told");
    let error = set.drain(u64::MAX, |_, _| {}).expect_err("it is damaged");
    assert!(error.is_corrupt(), "{error}");
    assert!(!set.wait(now).expect("it has been told"));

    sound.write(3);
    for wait in [now, Wait::forever(), Wait::spin(), Wait::Event] {
        assert!(set.wait(wait).expect("the other is sound"), "{wait:?}");
    }
    let mut from_sound = 0;
    drop(set.drain(u64::MAX, |ring, _| from_sound += usize::from(ring == 1)));
    assert_eq!(from_sound, 3);
}
