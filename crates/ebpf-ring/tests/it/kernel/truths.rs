//! What is no ring is refused, and what the documents say of the kernel is so.

use std::fs::File;
use std::mem::size_of;
use std::os::fd::{AsFd as _, OwnedFd};

use ebpf_ring::{BpfMap, MapCounters, MapFlags, MapKind, MapSpec, RingReader};
use libbpf_rs::{MapHandle, MapType, libbpf_sys};

use super::Flood;

#[test]
fn other_descriptors_are_refused_with_a_reason() {
    let file: OwnedFd = File::open("/dev/null").expect("every Linux has it").into();
    let error = RingReader::from_fd(file).expect_err("not a map");
    assert!(error.is_wrong_map() && !error.is_corrupt(), "{error}");
    let file = File::open("/dev/null").expect("every Linux has it");
    assert!(BpfMap::from_fd(file).expect_err("not a map").is_wrong_map());

    let flood = flood_or_skip!();
    let counts = flood.map("flood_counts");
    let error = RingReader::from_map(&counts).expect_err("not a ring");
    assert!(error.is_wrong_map(), "{error}");
    assert!(error.to_string().contains("type 6"), "{error}");
    assert!(MapCounters::new(counts, 1).is_err(), "it has one shard");
    let smaller = create(&MapSpec {
        kind: MapKind::PercpuArray,
        key_size: 4,
        value_size: 8,
        max_entries: 1,
        flags: MapFlags::NONE,
    });
    let error = MapCounters::new(smaller.expect("a map"), 0);
    assert!(error.expect_err("no struct mr_counters").is_wrong_map());
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

/// Makes the map, by the kernel's numbers.
fn create(spec: &MapSpec) -> libbpf_rs::Result<MapHandle> {
    let opts = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: spec.flags.0,
        ..Default::default()
    };
    let kind = MapType::from(spec.kind.number());
    let (key_size, value_size) = (spec.key_size, spec.value_size);
    MapHandle::create(
        kind,
        Some("spec"),
        key_size,
        value_size,
        spec.max_entries,
        &opts,
    )
}

/// `MapSpec::check` and the kernel agree on thousands of maps.
#[test]
fn a_spec_is_refused_if_and_only_if_the_kernel_refuses_it() {
    let _needs_root = flood_or_skip!();
    let mut flags: Vec<MapFlags> = (0..13).map(|bit| MapFlags(1 << bit)).collect();
    flags.push(MapFlags::NONE);
    flags.push(MapFlags::RDONLY | MapFlags::WRONLY);
    flags.push(MapFlags::RDONLY_PROG | MapFlags::WRONLY_PROG);
    flags.push(MapFlags::NO_COMMON_LRU | MapFlags::NUMA_NODE);
    let (mut made, mut refused) = (0, 0);
    for kind in MapKind::ALL {
        for key_size in [0, 4, 8] {
            for value_size in [0, 4, 8, 32 * 1024 + 1] {
                for max_entries in [0, 1, 3, 4096, 4096 * 3] {
                    for flags in flags.iter().copied() {
                        let spec = MapSpec {
                            kind,
                            key_size,
                            value_size,
                            max_entries,
                            flags,
                        };
                        let is_large = u64::from(value_size) * u64::from(max_entries) > 1 << 20;
                        if is_large && spec.check().is_ok() {
                            // Right, and more memory than a test should ask for.
                            continue;
                        }
                        let kernel = create(&spec);
                        assert_eq!(
                            spec.check().is_ok(),
                            kernel.is_ok(),
                            "{spec:?}: {:?}, the kernel: {:?}",
                            spec.check(),
                            kernel.err()
                        );
                        match spec.check().is_ok() {
                            true => made += 1,
                            false => refused += 1,
                        }
                    }
                }
            }
        }
    }
    assert!(
        made > 400 && refused > 5_000,
        "{made} made, {refused} refused"
    );
}

/// Sizes that no kernel takes, however much memory there is.
#[test]
fn a_spec_that_is_too_large_is_refused_as_by_the_kernel() {
    let _needs_root = flood_or_skip!();
    let hashes = [
        MapKind::Hash,
        MapKind::PercpuHash,
        MapKind::LruHash,
        MapKind::LruPercpuHash,
    ];
    let hashes = hashes.map(|kind| (kind, 8, (1 << 27) + 1));
    let arrays = [
        (MapKind::Array, 1 << 31, 1),
        (MapKind::PercpuArray, 32 * 1024 + 1, 1),
    ];
    for (kind, value_size, max_entries) in hashes.into_iter().chain(arrays) {
        let spec = MapSpec {
            kind,
            key_size: 4,
            value_size,
            max_entries,
            flags: MapFlags::NONE,
        };
        let error = spec.check().expect_err("it is too large");
        assert!(error.to_string().contains("at most"), "{error}");
        assert!(create(&spec).is_err(), "{spec:?}");
        let fits = MapSpec {
            value_size: value_size.min(32 * 1024),
            max_entries: max_entries.min(1 << 27),
            ..spec
        };
        assert_eq!(fits.check(), Ok(()));
    }
}

#[test]
fn the_differences_of_a_map_are_told_one_by_one() {
    let flood = flood_or_skip!();
    let ring = MapSpec {
        kind: MapKind::RingBuf,
        key_size: 0,
        value_size: 0,
        max_entries: 64 * 1024,
        flags: MapFlags::NONE,
    };
    let differences = |spec: MapSpec| spec.differences(flood.map("flood").as_fd()).expect("a map");
    assert_eq!(differences(ring), [""; 0]);
    let other = MapSpec {
        kind: MapKind::Array,
        key_size: 4,
        flags: MapFlags::MMAPABLE,
        ..ring
    };
    assert_eq!(
        differences(other),
        [
            "its type is 27, not 2",
            "its key size is 0, not 4",
            "its flags are none, not MMAPABLE"
        ]
    );
    let file = File::open("/dev/null").expect("every Linux has it");
    assert!(
        ring.differences(&file)
            .expect_err("not a map")
            .is_wrong_map()
    );
}
