//! The summary over made-up events: no kernel needed.

use kernel_scope::map_iter::{Event, Summary};

const FIRST: u32 = 1;
const GONE: u32 = 2;
const ENOENT: i32 = -2;

/// A step of process 10 in map 1, as the program would write it.
fn step(tid: u32, flags: u32, ret: i32) -> Event {
    step_of(10, tid, 1, flags, ret)
}

fn step_of(pid: u32, tid: u32, map_id: u32, flags: u32, ret: i32) -> Event {
    begun_at(0, [pid, tid, map_id, flags, ret.cast_unsigned()])
}

fn begun_at(start_ns: u64, [pid, tid, map_id, flags, ret]: [u32; 5]) -> Event {
    let mut bytes = [0; Event::BYTES];
    bytes[8..16].copy_from_slice(&500u64.to_ne_bytes());
    for (at, half) in [
        (32, pid),
        (36, tid),
        (40, map_id),
        (44, 1),
        (48, ret),
        (52, flags),
    ] {
        bytes[at..at + 4].copy_from_slice(&half.to_ne_bytes());
    }
    bytes[96..104].copy_from_slice(&start_ns.to_ne_bytes());
    bytes[56..60].copy_from_slice(b"walk");
    bytes[72..77].copy_from_slice(b"\xffmaps");
    Event::from_bytes(&bytes).expect("a record's length")
}

/// walks, completed, keys, restarts, failures of the only row.
fn sum(events: &[Event]) -> (u64, u64, u64, u64, u64) {
    let mut summary = Summary::default();
    events.iter().for_each(|event| summary.record(event));
    let rows = summary.rows();
    assert_eq!(rows.len(), 1);
    let row = rows[0];
    (
        row.walks,
        row.completed,
        row.keys,
        row.restarts,
        row.failures,
    )
}

#[test]
fn a_walk_begins_without_a_key_and_ends_with_enoent() {
    let walk = [step(1, FIRST, 0), step(1, 0, 0), step(1, 0, ENOENT)];
    assert_eq!(sum(&walk), (1, 1, 2, 0, 0));
    assert_eq!(sum(&[walk, walk].concat()), (2, 2, 4, 0, 0));
    assert_eq!(
        sum(&[step(1, FIRST, ENOENT)]),
        (1, 1, 0, 0, 0),
        "an empty map"
    );
    assert_eq!(
        sum(&[step(1, FIRST, 0), step(1, FIRST, 0)]),
        (2, 0, 2, 0, 0),
        "given up, begun again"
    );
}

#[test]
fn a_key_that_is_gone_restarts_a_walk_or_begins_one() {
    let inside = [step(1, FIRST, 0), step(1, GONE, 0), step(1, GONE, ENOENT)];
    assert_eq!(sum(&inside), (1, 1, 1 + 1, 1, 0));
    let made_up_key = [
        step(1, GONE, 0),
        step(1, 0, 0),
        step(1, 0, ENOENT),
        step(1, GONE, 0),
    ];
    assert_eq!(sum(&made_up_key), (2, 1, 3, 0, 0));
}

#[test]
fn threads_do_not_end_each_others_walks() {
    let events = [
        step(1, FIRST, 0),
        step(2, FIRST, 0),
        step(1, 0, ENOENT),
        step(2, GONE, 0),
    ];
    assert_eq!(sum(&events), (2, 1, 3, 1, 0));
}

/// The kernel gives the number of a process that has ended to another one.
#[test]
fn a_number_that_is_given_again_is_another_process() {
    let mut summary = Summary::default();
    summary.record(&begun_at(1, [10, 10, 1, FIRST, 0]));
    // Its first key is gone, and it is in no walk yet: so one begins.
    summary.record(&begun_at(2, [10, 10, 1, GONE, 0]));
    let rows = summary.rows();
    let rows: Vec<_> = rows.iter().map(|row| (row.walks, row.restarts)).collect();
    assert_eq!(rows, [(1, 0), (1, 0)]);
}

#[test]
fn joining_in_the_middle_of_a_walk_counts_no_walk() {
    assert_eq!(
        sum(&[step(1, 0, 0), step(1, GONE, 0), step(1, 0, ENOENT)]),
        (0, 1, 2, 1, 0)
    );
}

#[test]
fn failed_calls_are_failures_and_nothing_else() {
    assert_eq!(
        sum(&[step(1, FIRST, -22), step(1, 0, -14)]),
        (0, 0, 0, 0, 2)
    );
}

#[test]
fn rows_beyond_the_limit_are_counted_as_ungrouped() {
    let mut summary = Summary::with_groups_max(2);
    for map_id in 1..=5 {
        for _ in 0..map_id {
            summary.record(&step_of(10, 1, map_id, FIRST, 0));
        }
    }
    assert_eq!(
        (summary.rows().len(), summary.ungrouped(), summary.events()),
        (2, 12, 15)
    );
    assert_eq!(summary.rows()[0].map_id, 2, "most keys first");
}

#[test]
fn names_end_at_nul_and_are_made_utf8() {
    let event = step(1, FIRST, 0);
    assert_eq!(
        (event.comm().as_str(), event.map_name().as_str()),
        ("walk", "\u{fffd}maps")
    );
    assert!(
        Event::from_bytes(&[0; Event::BYTES - 1])
            .expect_err("too short")
            .is_corrupt()
    );
}
