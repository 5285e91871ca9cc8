//! The index gets its name only when the log that it tells of is durable: else a power cut would
//! leave an index of a log that is not there, and opening would read the whole log.

use std::sync::Arc;
use std::time::Instant;

use crate::embedded::index_snapshot::{NAME, load_header};
use crate::embedded::memory::Memory;
use crate::embedded::replay::{replay, replay_from_index};
use crate::{Begin, Durability, Fingerprint, Options, Store};

/// Callers go on while an index is written, slice by slice, and nothing writes what they append
/// but what the index asks for. Returns how many indexes were named.
fn run(durability: Durability) -> usize {
    let disk = Memory::default();
    let options = Options::new()
        .segment_bytes_max(64 << 10)
        .outcome_bytes_max(4 << 10)
        .batch_bytes_max(16 << 10)
        .index_log_bytes(2 << 10)
        .durability(durability);
    let store = Store::open_on(Arc::new(disk.clone()), options).expect("opens");
    let handle = store.of_this_machine();
    let mut named = 0;
    for round in 0..400_u32 {
        let key = round.to_le_bytes();
        // Not awaited: it lies in the open batch, or is written and not synced.
        let begun = store.begin(&Begin::new(&key, Fingerprint([1; 32]), 1_000, 5).declare(b"memo"));
        std::mem::forget(begun);
        if written_now(round) {
            handle.shared.flush_once();
        }
        let appended = store.begin(&Begin::new(b"again", Fingerprint([1; 32]), 1_000, 5));
        drop(appended);
        handle.shared.upkeep_slice(Instant::now());
        if let Some(left) = disk.take_rename_to(NAME) {
            check(&left);
            named += 1;
        }
    }
    named
}

/// Rarely enough that an index is finished while a batch is open, often enough that batches fit.
fn written_now(round: u32) -> bool {
    round % 7 == 6
}

/// What a power cut left is an index and at least the log that it tells of.
fn check(left: &Memory) {
    let (header, _) = load_header(left).expect("synced").expect("it was named");
    let log = replay(left).expect("readable");
    assert!(
        log.next_sequence >= header.end_sequence,
        "the index tells of records below {}, the durable log ends before {}",
        header.end_sequence,
        log.next_sequence
    );
    let opened = replay_from_index(left).expect("readable");
    assert!(!opened.bad_index && opened.view.index().is_some());
}

#[test]
fn an_index_is_named_after_the_open_batch_is_durable() {
    assert!(run(Durability::Sync) > 3);
}

#[test]
fn an_index_is_named_after_what_was_written_is_synced() {
    assert!(run(Durability::None) > 3);
}
