//! The reader on the kernel's own rings, written by `bpf/ring_flood.bpf.c`. Needs root.

use std::fs::File;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ebpf_ring::{DropReason, MapCounters, RingReader, Stop, Wait};
use libbpf_rs::{MapCore, MapHandle, MapType, Object, ObjectBuilder, ProgramInput, libbpf_sys};

const OBJECT: &[u8] = include_bytes!("../bpf/ring_flood.bpf.o");
const CHECK: u64 = 0x9e37_79b9_7f4a_7c15;
const RECORD_BYTES: u64 = 16;
/// A record with its header.
const SLOT_BYTES: u64 = 24;

/// Twin of `struct ring_flood_args`.
#[repr(C)]
struct Args {
    count: u32,
    producer: u32,
    discard_every: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<Args>() == 16);
const _: () = assert!(offset_of!(Args, count) == 0);
const _: () = assert!(offset_of!(Args, producer) == 4);
const _: () = assert!(offset_of!(Args, discard_every) == 8);
const _: () = assert!(offset_of!(Args, reserved) == 12);

/// Twin of `struct ring_flood_record`.
#[repr(C)]
#[derive(Debug, PartialEq)]
struct FloodRecord {
    producer: u32,
    index: u32,
    check: u64,
}

const _: () = assert!(size_of::<FloodRecord>() == 16);
const _: () = assert!(offset_of!(FloodRecord, producer) == 0);
const _: () = assert!(offset_of!(FloodRecord, index) == 4);
const _: () = assert!(offset_of!(FloodRecord, check) == 8);

impl FloodRecord {
    /// Panics on any record that the program did not write.
    fn parse(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), 16);
        let half = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let check = u64::from_ne_bytes(bytes[8..].try_into().expect("8 bytes"));
        let record = Self {
            producer: half(0),
            index: half(4),
            check,
        };
        let id = u64::from(record.producer) << 32 | u64::from(record.index);
        assert_eq!(record.check, id.wrapping_mul(CHECK), "torn: {record:?}");
        record
    }
}

/// Loads the flood program, or says why this machine cannot and ends the test.
macro_rules! flood_or_skip {
    () => {
        match Flood::load() {
            Ok(flood) => flood,
            // EACCES, the verifier's no, is of the same kind and must fail the test.
            Err(error) if format!("{error:#}").ends_with("(os error 1)") => {
                println!("SKIP: loading BPF programs needs root (CAP_BPF, CAP_PERFMON): {error}");
                return;
            }
            Err(error) => panic!("{error:#}"),
        }
    };
}

struct Flood {
    object: Object,
}

impl Flood {
    fn load() -> libbpf_rs::Result<Self> {
        let object = ObjectBuilder::default().open_memory(OBJECT)?.load()?;
        Ok(Self { object })
    }

    fn map(&self, name: &str) -> MapHandle {
        let map = self
            .object
            .maps()
            .find(|map| map.name() == name)
            .expect("the object has it");
        MapHandle::try_from(&map).expect("a descriptor is left")
    }

    fn reader(&self) -> RingReader {
        let counters = MapCounters::new(self.map("flood_counts"), 0).expect("a counter map");
        RingReader::from_map(&self.map("flood"))
            .expect("a ring")
            .with_counters(counters)
    }

    fn run(&self, program: &str, count: u32, producer: u32, discard_every: u32) {
        let words = [count, producer, discard_every, 0];
        let mut context: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let found = self.object.progs_mut().find(|prog| prog.name() == program);
        let input = ProgramInput {
            context_in: Some(&mut context),
            ..ProgramInput::default()
        };
        let output = found
            .expect("the object has it")
            .test_run(input)
            .expect("it runs");
        assert_eq!(output.return_value, u32::from(program == "write_too_large"));
    }

    fn write(&self, count: u32) {
        self.run("write_records", count, 1, 0);
    }
}

#[test]
fn records_arrive_in_order_and_whole() {
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    assert!(
        !ring
            .wait(Wait::up_to(Duration::ZERO))
            .expect("a sound ring")
    );
    // More than the ring holds in all, so that records wrap around its end.
    for round in 0..10 {
        flood.run("write_records", 1000, round, 0);
        assert!(
            ring.wait(Wait::up_to(Duration::ZERO))
                .expect("a sound ring")
        );
        let mut next = 0;
        let drained = ring.drain(u64::MAX, |record| {
            let record = FloodRecord::parse(record.bytes());
            assert_eq!((record.producer, record.index), (round, next));
            next += 1;
        });
        let drained = drained.expect("a sound ring");
        assert_eq!(
            (drained.records, drained.bytes),
            (1000, 1000 * RECORD_BYTES)
        );
        assert_eq!(drained.stop, Stop::Empty);
    }
    let stats = ring.stats().expect("a sound ring");
    assert_eq!(
        (stats.delivered, stats.pending, stats.dropped()),
        (10_000, 0, Some(0))
    );
    assert_eq!(stats.is_balanced(), Some(true));
}

#[test]
fn an_overflow_is_counted_to_the_record() {
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    flood.write(100_000);
    let stats = ring.stats().expect("a sound ring");
    // The kernel never fills a ring to its last byte.
    let room = (ring.size_bytes() - 1) / SLOT_BYTES;
    assert_eq!(
        (stats.seen(), stats.delivered, stats.pending),
        (Some(100_000), 0, room)
    );
    assert_eq!(stats.pending_bytes, room * SLOT_BYTES);
    assert_eq!(stats.dropped_for(DropReason::Full), Some(100_000 - room));
    assert_eq!(stats.dropped(), Some(100_000 - room));
    assert_eq!(stats.is_balanced(), Some(true));

    // The losses at the end, after which no record comes, are in the account too.
    assert_eq!(
        ring.drain(u64::MAX, |_| ()).expect("a sound ring").records,
        room
    );
    let stats = ring.stats().expect("a sound ring");
    assert_eq!(
        (stats.delivered, stats.pending, stats.pending_bytes),
        (room, 0, 0)
    );
    assert_eq!(stats.is_balanced(), Some(true));
}

#[test]
fn discarded_and_oversized_records_are_told_apart() {
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    flood.run("write_records", 1000, 1, 10);
    flood.run("write_too_large", 0, 0, 0);
    let before = ring.stats().expect("a sound ring");
    assert_eq!((before.pending, before.discarded), (900, 100));
    let drained = ring.drain(u64::MAX, |record| {
        assert_ne!(FloodRecord::parse(record.bytes()).index % 10, 0);
    });
    assert_eq!(drained.expect("a sound ring").discarded, 100);
    let stats = ring.stats().expect("a sound ring");
    assert_eq!(
        (stats.delivered, stats.discarded, stats.seen()),
        (900, 100, Some(1001))
    );
    assert_eq!(stats.counters().expect("they were given").discarded(), 100);
    assert_eq!(stats.dropped_for(DropReason::TooLarge), Some(1));
    assert_eq!(stats.is_balanced(), Some(true));
}

/// Writers on every CPU against a reader that runs beside them, with losses.
#[test]
fn a_flood_beside_the_reader_balances_exactly() {
    const WRITERS: u32 = 3;
    const RUNS: u32 = 20;
    const RECORDS: u32 = 20_000;
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    let done = AtomicBool::new(false);
    let mut last = [None; WRITERS as usize];
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let _ = ring
                    .wait(Wait::up_to(Duration::from_millis(5)))
                    .expect("a sound ring");
                let drained = ring.drain(1000, |record| {
                    let record = FloodRecord::parse(record.bytes());
                    let previous = &mut last[record.producer as usize];
                    // Increasing within a run; a run starts again at zero.
                    assert_ne!(*previous, Some(record.index), "a record came twice");
                    *previous = Some(record.index);
                });
                drained.expect("a sound ring");
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let flood = &flood;
                scope.spawn(move || {
                    for _ in 0..RUNS {
                        flood.run("write_records", RECORDS, writer, 0);
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
    let stats = ring.stats().expect("a sound ring");
    assert_eq!(stats.seen(), Some(u64::from(WRITERS * RUNS * RECORDS)));
    assert_eq!(stats.is_balanced(), Some(true), "{stats:?}");
    assert!(
        stats.delivered > 0 && stats.dropped() > Some(0),
        "the test tests nothing: {stats:?}"
    );
    println!(
        "delivered {}, dropped {:?}",
        stats.delivered,
        stats.dropped()
    );
}

#[test]
fn a_second_reader_goes_on_where_the_first_stopped() {
    let flood = flood_or_skip!();
    flood.write(10);
    assert_eq!(
        flood.reader().drain(4, |_| ()).expect("a sound ring").stop,
        Stop::Budget
    );
    let mut rest = Vec::new();
    let mut second = flood.reader();
    second
        .drain(u64::MAX, |r| rest.push(FloodRecord::parse(r.bytes()).index))
        .expect("sound");
    assert_eq!(rest, [4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_waiting_reader_is_woken_by_a_record() {
    let flood = flood_or_skip!();
    let mut ring = flood.reader();
    let woken = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let woken = ring
                .wait(Wait::Block { timeout: None })
                .expect("a sound ring");
            (
                woken,
                ring.drain(u64::MAX, |_| ()).expect("a sound ring").records,
            )
        });
        flood.write(1);
        waiting.join().expect("no panic")
    });
    assert_eq!(woken, (true, 1));
}

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
