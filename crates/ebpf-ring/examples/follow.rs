//! Follows a ring buffer map by its id (`bpftool map show`): a line a second with what came.
//!
//! It becomes the ring's consumer: records that it takes, no other reader will see.
//!
//! `cargo run -p ebpf-ring --features libbpf --example follow -- 42`, as root.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::time::Duration;

use ebpf_ring::{RingReader, Wait};
use libbpf_rs::MapHandle;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let id = std::env::args()
        .nth(1)
        .ok_or("usage: follow MAP_ID")?
        .parse()?;
    let mut ring = RingReader::from_map(&MapHandle::from_map_id(id)?)?;
    println!("ring of {} bytes", ring.size_bytes());
    loop {
        if ring.wait(Wait::up_to(Duration::from_secs(1)))? {
            let mut largest = 0;
            let drained = ring.drain(100_000, |record| {
                largest = largest.max(record.bytes().len())
            })?;
            println!(
                "{} records, {} bytes, the largest {largest}",
                drained.records, drained.bytes
            );
        }
    }
}
