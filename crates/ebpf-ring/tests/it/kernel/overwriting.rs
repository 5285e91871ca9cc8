//! Rings whose new records replace the oldest, where the kernel has them.

use std::os::fd::AsFd as _;

use ebpf_ring::{KernelFeature, OverwriteReader, RingReader};
use libbpf_rs::ObjectBuilder;
use libbpf_rs::libbpf_sys;

use super::{Flood, FloodRecord, Loaded, OBJECT, SLOT_BYTES};

/// `flood`, made to overwrite before it is loaded.
fn load() -> Loaded {
    let mut open = ObjectBuilder::default()
        .open_memory(OBJECT)
        .expect("an object");
    let mut maps = open.maps_mut();
    let mut ring = maps.find(|map| map.name() == "flood").expect("it has it");
    ring.set_map_flags(libbpf_sys::BPF_F_RB_OVERWRITE)
        .expect("not loaded yet");
    drop(maps);
    let object = open.load().expect("the kernel has such rings");
    Loaded { object }
}

#[test]
fn the_newest_records_are_there() {
    let _needs_root = flood_or_skip!();
    if let Err(missing) = KernelFeature::all_of(&[KernelFeature::OverwriteRing]) {
        crate::skip::skip(missing);
        return;
    }
    let flood = Flood { loaded: load() };
    let map = flood.map("flood").as_fd().try_clone_to_owned();
    let map = map.expect("a descriptor is left");
    let mut ring = OverwriteReader::from_fd(map)
        .expect("a ring that overwrites")
        .with_counters(flood.loaded.counters());
    flood.write(100_000);
    let room = (64 * 1024 - 1) / SLOT_BYTES;
    let mut next = 100_000 - room as u32;
    let drained = ring.drain(u64::MAX, |record| {
        assert_eq!(FloodRecord::parse(record.bytes()).index, next);
        next += 1;
    });
    assert_eq!(drained.expect("a sound ring").records, room);
    let stats = ring.stats().expect("a sound ring");
    assert_eq!(stats.overwritten(), Some(100_000 - room));
    assert_eq!(stats.overwritten_bytes, (100_000 - room) * SLOT_BYTES);
    assert_eq!(stats.is_balanced(), Some(true), "{stats:?}");
    let error = RingReader::from_map(&flood.map("flood")).expect_err("not for this reader");
    assert!(error.is_wrong_map(), "{error}");
}

#[test]
fn an_ordinary_ring_is_refused() {
    let flood = flood_or_skip!();
    let map = flood.map("flood").as_fd().try_clone_to_owned();
    let error = OverwriteReader::from_fd(map.expect("one is left"));
    assert!(error.expect_err("it does not overwrite").is_wrong_map());
}
