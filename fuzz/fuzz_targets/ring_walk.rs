//! The walker of ebpf-ring over memory that says anything: no step out of it, no walk without end.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u64, Vec<u32>)| {
    let (consumer_pos, ahead, mut headers) = input;
    headers.truncate(512);
    let producer_pos = consumer_pos.wrapping_add(ahead & 0x1fff);
    // Positions between words, too.
    ebpf_ring::walk_hostile_memory(consumer_pos & !7, producer_pos & !7, &headers);
    ebpf_ring::walk_hostile_memory(consumer_pos, producer_pos, &headers);
});
