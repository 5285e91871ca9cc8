//! A ring per group of CPUs, written by `bpf/ring_shards.bpf.c`.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ebpf_ring::{CpuGroups, DropReason, GroupBy, ShardedRings, Wait};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType, libbpf_sys};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{FloodRecord, Loaded, SLOT_BYTES};

const OBJECT: &[u8] = include_bytes!("../../bpf/ring_shards.bpf.o");
const RING_BYTES: u32 = 64 * 1024;

struct Flood {
    loaded: Loaded,
}

impl Flood {
    fn load() -> libbpf_rs::Result<Self> {
        let loaded = Loaded::new(OBJECT)?;
        Ok(Self { loaded })
    }

    fn outer(&self, map: &str) -> OwnedFd {
        let map = self.loaded.map(map);
        map.as_fd().try_clone_to_owned().expect("one is left")
    }

    fn rings(&self, map: &str, groups: CpuGroups) -> ShardedRings {
        ShardedRings::create(self.outer(map), groups, RING_BYTES)
            .expect("rings")
            .with_counters(self.loaded.counters())
    }

    /// Writes on this CPU; a test that names one needs a machine that has it.
    fn write(&self, program: &str, count: u32, producer: u32, cpu: Option<usize>) {
        // Syscall programs take no CPU from BPF_PROG_TEST_RUN: the thread goes there instead.
        if let Some(cpu) = cpu {
            let mut cpus = rustix::thread::CpuSet::new();
            cpus.set(cpu);
            rustix::thread::sched_setaffinity(None, &cpus).expect("it runs");
        }
        let words = [count, producer, 0, 0];
        let context = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(self.loaded.run(program, context, None), 0);
    }
}

fn each_cpu() -> CpuGroups {
    CpuGroups::read(GroupBy::Cpu, 1).expect("sysfs")
}

#[test]
fn each_group_writes_to_its_own_ring() {
    let flood = flood_or_skip!();
    for (map, program) in [("in_array", "write_to_array"), ("in_hash", "write_to_hash")] {
        let mut rings = flood.rings(map, each_cpu());
        let cpus = rings.groups().iter().len();
        for cpu in 0..cpus {
            flood.write(program, 10, cpu as u32, Some(cpu));
        }
        let mut met = vec![0; cpus];
        let drained = rings.drain(u64::MAX, |ring, record| {
            assert_eq!(FloodRecord::parse(record.bytes()).producer as usize, ring);
            met[ring] += 1;
        });
        assert_eq!(drained.expect("sound rings").records, 10 * cpus as u64);
        assert!(met.iter().all(|records| *records == 10), "{met:?}");
    }
}

/// The losses are told by ring, the last ones included.
#[test]
fn an_overflow_is_counted_for_its_ring() {
    let flood = flood_or_skip!();
    let rings = flood.rings("in_array", each_cpu());
    flood.write("write_to_array", 10_000, 1, Some(0));
    let room = (u64::from(RING_BYTES) - 1) / SLOT_BYTES;
    let by_ring = rings.stats_by_ring().expect("sound rings");
    assert_eq!(
        by_ring[0].dropped_for(DropReason::Full),
        Some(10_000 - room)
    );
    assert_eq!(
        (by_ring[0].pending, by_ring[0].is_balanced()),
        (room, Some(true))
    );
    for other in &by_ring[1..] {
        assert_eq!((other.seen(), other.is_balanced()), (Some(0), Some(true)));
    }
    let all = rings.stats().expect("sound rings");
    assert_eq!((all.pending, all.dropped()), (room, Some(10_000 - room)));
    assert_eq!(all.is_balanced(), Some(true));
}

#[test]
fn a_cpu_without_a_ring_is_counted() {
    let flood = flood_or_skip!();
    for (map, program, lost) in [
        ("in_hash", "write_to_hash", 7),
        ("in_array", "write_to_array", 14),
    ] {
        // No machine has so many.
        let groups = CpuGroups::new(vec![vec![1023]]).expect("a group");
        let rings = flood.rings(map, groups);
        flood.write(program, 7, 1, None);
        let stats = rings.stats().expect("sound rings");
        assert_eq!(stats.dropped_for(DropReason::NoState), Some(lost));
        assert_eq!(stats.is_balanced(), Some(true));
    }
    let beyond = CpuGroups::new(vec![vec![1024]]).expect("a group");
    let error = ShardedRings::create(flood.outer("in_array"), beyond, RING_BYTES);
    let error = error.expect_err("the map ends before it");
    assert!(error.to_string().contains("CPU 1024"), "{error}");
    let error = ShardedRings::create(flood.outer("flood_counts"), each_cpu(), RING_BYTES);
    assert!(error.expect_err("no map of maps").is_wrong_map());
    let error = ShardedRings::create(owned(&hash_of_rings(8, 4)), each_cpu(), RING_BYTES);
    assert!(error.expect_err("no number of a CPU").is_wrong_map());
    let error = ShardedRings::create(flood.outer("in_array"), each_cpu(), 5000);
    assert!(error.expect_err("no size of a ring").is_wrong_map());
}

fn hash_of_rings(key_bytes: u32, entries: u32) -> MapHandle {
    let mut options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    let none = None::<&str>;
    let ring = MapHandle::create(MapType::RingBuf, none, 0, 0, RING_BYTES, &options);
    let ring = ring.expect("a ring");
    options.inner_map_fd = ring.as_fd().as_raw_fd().cast_unsigned();
    let map = MapHandle::create(MapType::HashOfMaps, none, key_bytes, 4, entries, &options);
    map.expect("a map of maps")
}

fn owned(map: &MapHandle) -> OwnedFd {
    let fd = map.as_fd().try_clone_to_owned();
    fd.expect("a descriptor is left")
}

/// Wherever the process runs out of descriptors: the rings that are there stay, all of them.
#[test]
fn rings_that_cannot_all_be_made_replace_none() {
    const FEW: &str = "MAINSTAY_FEW_DESCRIPTORS";
    let flood = flood_or_skip!();
    if std::env::var_os(FEW).is_none() {
        // The limit is the whole process's, and other tests run in this one.
        let name = "kernel::shards::rings_that_cannot_all_be_made_replace_none";
        let mut alone = Command::new(std::env::current_exe().expect("it runs"));
        alone.args(["--exact", name, "--nocapture"]).env(FEW, "1");
        assert!(alone.status().expect("it runs").success());
        return;
    }
    let groups = || CpuGroups::new(vec![vec![0], vec![1], vec![2]]).expect("groups");
    let _first = flood.rings("in_hash", groups());
    let map = flood.loaded.map("in_hash");
    let rings = || [0u32, 1, 2].map(|cpu| map.lookup(&cpu.to_ne_bytes(), MapFlags::ANY).ok());
    let before = rings();
    let mut failed = 0;
    for more in 1..16 {
        let outer = flood.outer("in_hash");
        let limit = getrlimit(Resource::Nofile);
        let next = outer.as_raw_fd().cast_unsigned() + 1;
        let few = Rlimit {
            current: Some(u64::from(next + more)),
            ..limit
        };
        setrlimit(Resource::Nofile, few).expect("it is lowered");
        let made = ShardedRings::create(outer, groups(), RING_BYTES);
        setrlimit(Resource::Nofile, limit).expect("it was so before");
        if made.is_ok() {
            break;
        }
        failed += 1;
        assert_eq!(rings(), before, "with {more} descriptors more");
    }
    assert!(failed > 1, "the test tests nothing: {failed}");
    assert!(failed < 15, "it fails for another reason");
}

/// The rings that somebody reads stay, and none is left that nobody reads.
#[test]
fn a_map_without_room_stays_as_it_was() {
    let _needs_root = flood_or_skip!();
    let map = hash_of_rings(4, 2);
    let only = CpuGroups::new(vec![vec![1]]).expect("a group");
    let _first = ShardedRings::create(owned(&map), only, RING_BYTES).expect("there is room for it");
    let rings = || {
        [0u32, 1, 2].map(|cpu| {
            let ring = map.lookup(&cpu.to_ne_bytes(), MapFlags::ANY);
            ring.expect("it can be asked")
        })
    };
    let before = rings();
    assert!(before[0].is_none() && before[1].is_some());
    let three = CpuGroups::new(vec![vec![0], vec![1], vec![2]]).expect("groups");
    let error = ShardedRings::create(owned(&map), three, RING_BYTES).expect_err("two fit");
    assert!(error.to_string().contains("CPU 2"), "{error}");
    assert_eq!(rings(), before);
}

#[test]
fn another_reader_takes_the_rings_over() {
    let flood = flood_or_skip!();
    let empty = ShardedRings::open(flood.outer("in_hash"));
    assert!(empty.expect_err("no ring yet").is_wrong_map());
    let packages = CpuGroups::read(GroupBy::Package, 64).expect("sysfs");
    drop(flood.rings("in_hash", packages.clone()));
    flood.write("write_to_hash", 5, 1, None);
    let mut rings = ShardedRings::open(flood.outer("in_hash"))
        .expect("rings")
        .with_counters(flood.loaded.counters());
    let taken_over: BTreeSet<&[u32]> = rings.groups().iter().collect();
    assert_eq!(taken_over, packages.iter().collect());
    assert_eq!(rings.drain(9, |_, _| ()).expect("sound rings").records, 5);
    assert_eq!(rings.stats().expect("sound").is_balanced(), Some(true));
}

/// Writers on every CPU against one reader of all rings, with losses.
#[test]
fn a_flood_over_all_rings_balances_exactly() {
    const WRITERS: u32 = 3;
    const RUNS: u32 = 10;
    const RECORDS: u32 = 20_000;
    let flood = flood_or_skip!();
    let mut rings = flood.rings("in_array", each_cpu());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let wait = Wait::up_to(Duration::from_millis(5));
                let _ = rings.wait(wait).expect("sound rings");
                let drained = rings.drain(1000, |_, record| {
                    FloodRecord::parse(record.bytes());
                });
                drained.expect("sound rings");
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let flood = &flood;
                scope.spawn(move || {
                    for _ in 0..RUNS {
                        flood.write("write_to_array", RECORDS, writer, None);
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("no panic");
        }
        done.store(true, Ordering::Release);
        reading.join().expect("no panic");
    });
    let stats = rings.stats().expect("sound rings");
    assert_eq!(stats.seen(), Some(u64::from(WRITERS * RUNS * RECORDS)));
    assert_eq!(stats.is_balanced(), Some(true), "{stats:?}");
    let lost = stats.dropped() > Some(0);
    assert!(stats.delivered > 0 && lost, "it tests nothing: {stats:?}");
    for ring in rings.stats_by_ring().expect("sound rings") {
        assert_eq!(ring.is_balanced(), Some(true), "{ring:?}");
    }
}
