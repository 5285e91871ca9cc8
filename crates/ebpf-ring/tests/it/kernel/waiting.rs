//! Asleep, awake, in an event loop, and closed.

use std::os::fd::AsFd as _;
use std::time::Duration;

use ebpf_ring::{RingReader, SpinPolicy, Stop, Wait};
use rustix::event::{Timespec, epoll};

use super::{Flood, SLOT_BYTES};

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

fn drain_all(ring: &mut RingReader) -> u64 {
    let drained = ring.drain(u64::MAX, |_| ()).expect("a sound ring");
    assert_eq!(drained.stop, Stop::Empty);
    drained.records
}

#[test]
fn a_waiting_reader_is_woken_by_a_record() {
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    let woken = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let woken = ring
                .wait(Wait::Block { timeout: None })
                .expect("a sound ring");
            (
                woken,
                ring.drain(u64::MAX, |_| ()).expect("a sound ring").records,
            )
        });
        flood.write(1);
        waiting.join().expect("no panic")
    });
    assert_eq!(woken, (true, 1));
}

#[test]
fn a_spinning_reader_finds_a_record_awake_and_asleep() {
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    for spin_max in [Duration::from_secs(60), Duration::ZERO] {
        let policy = SpinPolicy {
            spin_max,
            yield_max: Duration::ZERO,
        };
        let wait = Wait::Spin {
            policy,
            timeout: None,
        };
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| ring.wait(wait).expect("a sound ring"));
            flood.write(1);
            assert!(waiting.join().expect("no panic"));
        });
        assert_eq!(drain_all(&mut ring), 1);
    }
}

/// No wake-up is lost: after each `false` of `Wait::Event`, the next record comes with an edge.
#[test]
fn after_every_no_the_next_record_is_an_edge() {
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor is left");
    let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&poll, &ring, epoll::EventData::new_u64(7), edges).expect("a ring can be polled");
    // Fewer than the ring holds: none is lost, so each must be found.
    const RECORDS: u32 = 2_000;
    for _ in 0..10 {
        std::thread::scope(|scope| {
            scope.spawn(|| (0..RECORDS).for_each(|_| flood.write(1)));
            let mut found = 0;
            while found < u64::from(RECORDS) {
                let mut events = Vec::with_capacity(4);
                let spare = rustix::buffer::spare_capacity(&mut events);
                // For ever: a lost edge is a hang, which the test runner ends.
                epoll::wait(&poll, spare, None).expect("it can be waited for");
                assert_eq!(events[0].data.u64(), 7);
                while ring.wait(Wait::Event).expect("a sound ring") {
                    // It ends at the last record, or at one that is just being written.
                    found += ring.drain(u64::MAX, |_| ()).expect("a sound ring").records;
                }
            }
        });
    }
    assert_eq!(ring.stats().expect("a sound ring").dropped(), Some(0));
}

#[test]
fn a_closed_reader_keeps_what_it_has() {
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    let closer = ring.closer().expect("a descriptor is left");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ring.wait(Wait::forever()).expect("a sound ring"));
        closer.close();
        assert!(!waiting.join().expect("no panic"));
    });
    flood.write(3);
    assert!(!ring.wait(Wait::forever()).expect("a sound ring"));
    assert_eq!(drain_all(&mut ring), 3);
}

/// Whether the number of bytes that a record of `program`'s counts includes its own.
fn wakes_from_ten_records(program: &str, counts_itself: bool) {
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor is left");
    let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&poll, ring.as_fd(), epoll::EventData::new_u64(0), edges).expect("it can be polled");
    let is_woken = || {
        let mut events = Vec::with_capacity(4);
        let spare = rustix::buffer::spare_capacity(&mut events);
        epoll::wait(&poll, spare, Some(&AT_ONCE)).expect("it can be waited for") > 0
    };
    let write = |count| {
        let wake_bytes = u32::try_from(10 * SLOT_BYTES).expect("small");
        flood.run_with(program, [count, 1, 0, wake_bytes]);
    };
    let _ = is_woken();
    let asleep = if counts_itself { 9 } else { 10 };
    write(asleep);
    assert!(!is_woken(), "{asleep} records are below the threshold");
    write(1);
    assert!(is_woken(), "one more is not");
    assert!(ring.wait(Wait::Event).expect("a sound ring"));
    assert_eq!(drain_all(&mut ring), u64::from(asleep) + 1);
}

#[test]
fn wake_ups_can_wait_for_a_number_of_bytes() {
    wakes_from_ten_records("write_records", true);
}

#[test]
fn wake_ups_of_copied_records_can_wait_too() {
    wakes_from_ten_records("output_records", false);
}
