//! Upkeep at times and in states of the log that the tests of the whole store cannot set.

use std::sync::Arc;
use std::time::Instant;

use crate::embedded::format::segment_name;
use crate::embedded::memory::Memory;
use crate::embedded::spare::Lack;
use crate::embedded::tail::Spare;
use crate::embedded::upkeep::{Due, PAUSE, RETRY, RETRY_CARRYING, RETRY_READING};
use crate::embedded::vfs::Vfs;
use crate::{Begin, Fingerprint, Options, Store};

/// A store of a few segments; of every four keys one is retained.
fn filled(disk: &Arc<Memory>) -> Store {
    let options = Options::new()
        .segment_bytes_max(64 << 10)
        .outcome_bytes_max(4 << 10)
        .batch_bytes_max(16 << 10);
    let store = Store::open_on(Arc::clone(disk) as Arc<dyn Vfs>, options).expect("opens");
    for key in 0..225_u32 {
        let bytes = key.to_le_bytes();
        let begin = Begin::new(&bytes, Fingerprint([1; 32]), 1_000, 5);
        let begun = store.begin(&begin).wait().expect("begins");
        let permit = begun.into_fresh().expect("is new");
        let retain_ms = if key % 4 == 0 { 1 << 40 } else { 1_000 };
        let done = store.complete(permit, &[7; 1_000], retain_ms, 5);
        store.drive();
        done.wait().expect("completes");
    }
    let shared = &store.of_this_machine().shared;
    assert_eq!(shared.lock().stats.segments_dropped, 0);
    assert!(shared.lock().segments.len() > 3);
    store
}

#[test]
fn an_old_segment_that_cannot_be_read_is_told_and_tried_again_later() {
    let disk = Arc::new(Memory::default());
    let store = filled(&disk);
    let shared = &store.of_this_machine().shared;
    let first = disk.open(&segment_name(1)).expect("opens");
    let mut record = [0; 64];
    first.read_at(&mut record, 8_192).expect("reads");
    first.write_all_at(&[0xa5; 64], 8_192).expect("writes");
    shared.lock().now_ms = 1 << 30;
    let now = Instant::now();
    let slices = || (0..1_000).map(|_| (shared.flush_once(), shared.upkeep_slice(now)).1);
    let due = slices().find(|due| *due > Due::Now && shared.stats().upkeep_failed);
    assert_eq!(due, Some(Due::At(now + RETRY_READING)));
    assert_eq!(shared.stats().segments_dropped, 0);

    first.write_all_at(&record, 8_192).expect("writes");
    let later = now + RETRY_READING;
    for _ in 0..1_000 {
        shared.upkeep_slice(later);
        shared.flush_once();
    }
    let stats = shared.stats();
    assert!(
        stats.segments_dropped > 0 && !stats.upkeep_failed,
        "{stats:?}"
    );
}

#[test]
fn a_segment_without_room_to_go_to_stops_no_sweep_and_is_not_asked_after_all_the_time() {
    let disk = Arc::new(Memory::default());
    let store = filled(&disk);
    let shared = &store.of_this_machine().shared;
    let now = Instant::now();
    {
        let mut state = shared.lock();
        let half = state.tail.segment_bytes() / 2;
        assert!(state.tail.room() < half, "{} bytes", state.tail.room());
        state.tail.spare = Spare::Lacks(Lack::Space);
        state.spare_retry_at = Some(now + 9 * RETRY_CARRYING);
        state.now_ms = 1 << 30;
    }
    let mut slices = 0;
    let due = loop {
        match shared.upkeep_slice(now) {
            Due::Now => slices += 1,
            due => break due,
        }
        assert!(slices < 1_000, "it goes on without room");
    };
    assert_eq!(due, Due::At(now + RETRY_CARRYING));
    let stats = shared.stats();
    assert_eq!((stats.keys_stored, stats.segments_dropped), (57, 0));
}

#[test]
fn what_waits_for_a_batch_that_is_held_rests_until_there_may_be_space() {
    let disk = Arc::new(Memory::default());
    let store = filled(&disk);
    let shared = &store.of_this_machine().shared;
    let now = Instant::now();
    shared.lock().now_ms = 1 << 30;
    // The record that cuts the first segment off waits to be written.
    let mut slices = (0..1_000).map(|_| shared.upkeep_slice(now));
    let due = slices.find(|due| *due > Due::Now);
    assert_eq!(due, Some(Due::At(now + PAUSE)));
    {
        let mut state = shared.lock();
        state.tail.hold(None, Lack::Space);
        state.spare_retry_at = Some(now + RETRY);
    }
    assert_eq!(shared.upkeep_slice(now), Due::At(now + RETRY));
    shared.lock().tail.rolled(1);
}
