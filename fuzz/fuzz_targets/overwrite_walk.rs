//! The walker of ebpf-ring's rings that overwrite, over memory that says anything: no step out of it, no walk without end.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u16, u16, Vec<u64>)| {
    let (consumer_pos, overwrite_ahead, producer_ahead, mut words) = input;
    words.truncate(512);
    let ahead = |distance: u16| {
        consumer_pos
            .wrapping_add(u64::from(distance & 0x1fff))
            .wrapping_sub(64)
    };
    let positions = [consumer_pos, ahead(overwrite_ahead), ahead(producer_ahead)];
    ebpf_ring::walk_hostile_overwriting(positions.map(|position| position & !7), &words);
    // Positions between words, too.
    ebpf_ring::walk_hostile_overwriting(positions, &words);
});
