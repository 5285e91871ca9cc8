//! What is no ring is refused, and what the documents say of the kernel is so.

use std::fs::File;
use std::mem::size_of;
use std::os::fd::{AsFd as _, OwnedFd};

use ebpf_ring::{MapCounters, RingReader};
use libbpf_rs::{MapHandle, MapType, libbpf_sys};

use super::Flood;

#[test]
fn other_descriptors_are_refused_with_a_reason() {
    let file: OwnedFd = File::open("/dev/null").expect("every Linux has it").into();
    let error = RingReader::from_fd(file).expect_err("not a map");
    assert!(error.is_not_a_ring() && !error.is_corrupt(), "{error}");

    let flood = flood_or_skip!();
    let counts = flood.map("flood_counts");
    let error = RingReader::from_map(&counts).expect_err("not a ring");
    assert!(error.is_not_a_ring(), "{error}");
    assert!(error.to_string().contains("type 6"), "{error}");
    assert!(MapCounters::new(counts, 1).is_err(), "it has one shard");
    assert!(
        MapCounters::new(flood.map("flood"), 0).is_err(),
        "a ring is no counter map"
    );
}

/// docs/KERNELS.md states these; if a kernel changes one, this says so.
#[test]
fn the_kernel_keeps_its_truths_about_rings() {
    let _needs_root = flood_or_skip!();
    let create = |flags: u32, key_size: u32, max_entries: u32| {
        let opts = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            map_flags: flags,
            ..Default::default()
        };
        MapHandle::create(
            MapType::RingBuf,
            Some("truths"),
            key_size,
            0,
            max_entries,
            &opts,
        )
    };
    let ring = create(0, 0, 4096).expect("the smallest ring");
    let mut file = File::from(
        ring.as_fd()
            .try_clone_to_owned()
            .expect("a descriptor is left"),
    );
    let read = std::io::Read::read(&mut file, &mut [0; 8]).expect_err("read(2) on a map");
    assert_eq!(read.kind(), std::io::ErrorKind::InvalidInput, "EINVAL");
    for (flags, key_size, max_entries, why) in [
        (libbpf_sys::BPF_F_NO_PREALLOC, 0, 4096, "BPF_F_NO_PREALLOC"),
        (libbpf_sys::BPF_F_RDONLY, 0, 4096, "BPF_F_RDONLY"),
        (libbpf_sys::BPF_F_MMAPABLE, 0, 4096, "BPF_F_MMAPABLE"),
        (0, 4, 4096, "a key size"),
        (0, 0, 4096 * 3, "not a power of two"),
        (0, 0, 2048, "less than a page"),
    ] {
        let error = create(flags, key_size, max_entries).expect_err(why);
        assert_eq!(
            error.kind(),
            libbpf_rs::ErrorKind::InvalidInput,
            "{why}: {error}"
        );
    }
}
