//! The counters' bytes.

use ebpf_ring::{Counters, DropReason};

fn counters(words: [u64; 8]) -> Counters {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    Counters::from_bytes(bytes.first_chunk().expect("64 bytes"))
}

#[test]
fn every_word_has_its_place() {
    let counters = counters([100, 1, 2, 3, 4, 5, 0, 0]);
    assert_eq!(
        (counters.seen(), counters.discarded(), counters.dropped()),
        (100, 1, 14)
    );
    let by_reason = DropReason::ALL.map(|reason| (reason.as_str(), counters.dropped_for(reason)));
    assert_eq!(
        by_reason,
        [("full", 2), ("busy", 3), ("too_large", 4), ("no_state", 5)]
    );
}

#[test]
fn reasons_of_a_later_header_are_in_the_total() {
    assert_eq!(counters([9, 0, 0, 0, 0, 0, 3, 4]).dropped(), 7);
}

#[test]
fn cpus_add_up_word_by_word() {
    let sum: Counters = [counters([1, 2, 3, 4, 5, 6, 7, 8]), counters([10; 8])]
        .into_iter()
        .sum();
    assert_eq!(sum, counters([11, 12, 13, 14, 15, 16, 17, 18]));
}
