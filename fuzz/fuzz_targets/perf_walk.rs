//! The walker of ebpf-ring's perf buffers over memory that says anything: no step out of it, no walk without end.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u16, &[u8])| {
    let (tail, ahead, data) = input;
    let data = &data[..data.len().min(8192)];
    let head = tail.wrapping_add(u64::from(ahead));
    ebpf_ring::walk_hostile_buffer(tail & !7, head & !7, data);
    // Positions between words, too.
    ebpf_ring::walk_hostile_buffer(tail, head, data);
});
