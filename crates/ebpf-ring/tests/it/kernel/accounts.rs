//! Every record is delivered or counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ebpf_ring::{DropReason, Stop, Wait};

use super::{Flood, FloodRecord, RECORD_BYTES, SLOT_BYTES};

#[test]
fn records_arrive_in_order_and_whole() {
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    assert!(
        !ring
            .wait(Wait::up_to(Duration::ZERO))
            .expect("a sound ring")
    );
    // More than the ring holds in all, so that records wrap around its end.
    for round in 0..10 {
        flood.run("write_records", 1000, round, 0);
        assert!(
            ring.wait(Wait::up_to(Duration::ZERO))
                .expect("a sound ring")
        );
        let mut next = 0;
        let drained = ring.drain(u64::MAX, |record| {
            let record = FloodRecord::parse(record.bytes());
            assert_eq!((record.producer, record.index), (round, next));
            next += 1;
        });
        let drained = drained.expect("a sound ring");
        assert_eq!(
            (drained.records, drained.bytes),
            (1000, 1000 * RECORD_BYTES)
        );
        assert_eq!(drained.stop, Stop::Empty);
    }
    let stats = ring.stats().expect("a sound ring");
    assert_eq!(
        (stats.delivered, stats.pending, stats.dropped()),
        (10_000, 0, Some(0))
    );
    assert_eq!(stats.is_balanced(), Some(true));
}

#[test]
fn an_overflow_is_counted_to_the_record() {
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    flood.write(100_000);
    let stats = ring.stats().expect("a sound ring");
    // The kernel never fills a ring to its last byte.
    let room = (ring.size_bytes() - 1) / SLOT_BYTES;
    assert_eq!(
        (stats.seen(), stats.delivered, stats.pending),
        (Some(100_000), 0, room)
    );
    assert_eq!(stats.pending_bytes, room * SLOT_BYTES);
    assert_eq!(stats.dropped_for(DropReason::Full), Some(100_000 - room));
    assert_eq!(stats.dropped(), Some(100_000 - room));
    assert_eq!(stats.is_balanced(), Some(true));

    // The losses at the end, after which no record comes, are in the account too.
    assert_eq!(
        ring.drain(u64::MAX, |_| ()).expect("a sound ring").records,
        room
    );
    let stats = ring.stats().expect("a sound ring");
    assert_eq!(
        (stats.delivered, stats.pending, stats.pending_bytes),
        (room, 0, 0)
    );
    assert_eq!(stats.is_balanced(), Some(true));
}

#[test]
fn discarded_and_oversized_records_are_told_apart() {
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    flood.run("write_records", 1000, 1, 10);
    flood.run("write_too_large", 0, 0, 0);
    flood.run("write_as_large", 0, 0, 0);
    let before = ring.stats().expect("a sound ring");
    assert_eq!((before.pending, before.discarded), (900, 100));
    let drained = ring.drain(u64::MAX, |record| {
        assert_ne!(FloodRecord::parse(record.bytes()).index % 10, 0);
    });
    assert_eq!(drained.expect("a sound ring").discarded, 100);
    let stats = ring.stats().expect("a sound ring");
    assert_eq!(
        (stats.delivered, stats.discarded, stats.seen()),
        (900, 100, Some(1002))
    );
    assert_eq!(stats.counters().expect("they were given").discarded(), 100);
    assert_eq!(stats.dropped_for(DropReason::TooLarge), Some(2));
    assert_eq!(stats.is_balanced(), Some(true));
}

/// Writers on every CPU against a reader that runs beside them, with losses.
#[test]
fn a_flood_beside_the_reader_balances_exactly() {
    const WRITERS: u32 = 3;
    const RUNS: u32 = 20;
    const RECORDS: u32 = 20_000;
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    let done = AtomicBool::new(false);
    // A producer for each run: of one run only the first record may find room, and of the next again.
    let mut last = [None; (WRITERS * RUNS) as usize];
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let _ = ring
                    .wait(Wait::up_to(Duration::from_millis(5)))
                    .expect("a sound ring");
                let drained = ring.drain(1000, |record| {
                    let record = FloodRecord::parse(record.bytes());
                    let previous = &mut last[record.producer as usize];
                    assert!(
                        *previous < Some(record.index),
                        "a record came twice or late"
                    );
                    *previous = Some(record.index);
                });
                drained.expect("a sound ring");
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let flood = &flood;
                scope.spawn(move || {
                    for run in 0..RUNS {
                        flood.run("write_records", RECORDS, writer * RUNS + run, 0);
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("no panic");
        }
        done.store(true, Ordering::Release);
        reading.join().expect("no panic");
    });
    let stats = ring.stats().expect("a sound ring");
    assert_eq!(stats.seen(), Some(u64::from(WRITERS * RUNS * RECORDS)));
    assert_eq!(stats.is_balanced(), Some(true), "{stats:?}");
    assert!(
        stats.delivered > 0 && stats.dropped() > Some(0),
        "the test tests nothing: {stats:?}"
    );
    println!(
        "delivered {}, dropped {:?}",
        stats.delivered,
        stats.dropped()
    );
}

#[test]
fn a_second_reader_goes_on_where_the_first_stopped() {
    let flood = flood_or_skip!();
    flood.write(10);
    assert_eq!(
        flood.reader().drain(4, |_| ()).expect("a sound ring").stop,
        Stop::Budget
    );
    let mut rest = Vec::new();
    let mut second = flood.reader();
    second
        .drain(u64::MAX, |r| rest.push(FloodRecord::parse(r.bytes()).index))
        .expect("sound");
    assert_eq!(rest, [4, 5, 6, 7, 8, 9]);
}
