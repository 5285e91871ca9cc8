//! Perf buffers, written by `bpf/perf_flood.bpf.c`.

use std::io::ErrorKind;
use std::mem::{offset_of, size_of};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ebpf_ring::{DropReason, PerfOptions, PerfReader, PerfRecord, RingStats, Stop, Wait, WakeUp};
use libbpf_rs::MapHandle;
use rustix::event::{Timespec, epoll};

use super::{CHECK, Loaded};

const OBJECT: &[u8] = include_bytes!("../../bpf/perf_flood.bpf.o");
/// A record with header, `raw_size` and padding.
const SLOT_BYTES: u64 = 40;

/// Twin of `struct perf_flood_record`.
#[repr(C)]
struct FloodRecord {
    producer: u32,
    index: u32,
    check: u64,
    at_the_end: u64,
}

const _: () = assert!(size_of::<FloodRecord>() == 24);
const _: () = assert!(offset_of!(FloodRecord, producer) == 0);
const _: () = assert!(offset_of!(FloodRecord, index) == 4);
const _: () = assert!(offset_of!(FloodRecord, check) == 8);
const _: () = assert!(offset_of!(FloodRecord, at_the_end) == 16);

/// The producer and the index of a record that must be whole.
pub(super) fn parse(record: PerfRecord<'_>) -> (u32, u32) {
    let bytes = record.bytes();
    assert_eq!(bytes.len(), 28, "24 and the padding");
    let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let half = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let (producer, index) = (half(0), half(4));
    let check = (u64::from(producer) << 32 | u64::from(index)).wrapping_mul(CHECK);
    assert_eq!((word(8), word(16)), (check, check), "torn");
    (producer, index)
}

pub(super) struct Flood {
    loaded: Loaded,
}

impl Flood {
    pub(super) fn load() -> libbpf_rs::Result<Self> {
        let loaded = Loaded::new(OBJECT)?;
        Ok(Self { loaded })
    }

    fn map(&self, name: &str) -> MapHandle {
        self.loaded.map(name)
    }

    pub(super) fn reader(&self, pages: u32, wake: WakeUp) -> PerfReader {
        PerfReader::from_map(&self.map("perf_flood"), PerfOptions { pages, wake })
            .expect("a perf event array")
            .with_counters(self.loaded.counters())
    }

    /// Runs the program on `cpu`, or on any.
    fn run(&self, program: &str, args: [u64; 2], cpu: Option<u32>) {
        let context = args.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(self.loaded.run(program, context, cpu), 0);
    }

    /// Writes wherever this runs.
    pub(super) fn write_by(&self, count: u64, producer: u64) {
        self.run("write_records", [count, producer], None);
    }

    /// Writes on the first CPU.
    fn write(&self, count: u64) {
        self.run("write_records", [count, 1], Some(0));
    }
}

fn drain_all(perf: &mut PerfReader) -> u64 {
    let each = |_, record: PerfRecord<'_>| {
        parse(record);
    };
    let drained = perf.drain(u64::MAX, each).expect("sound buffers");
    assert_eq!(drained.stop, Stop::Empty);
    drained.records
}

fn stats(perf: &PerfReader) -> RingStats {
    perf.stats().expect("sound buffers")
}

#[test]
fn records_arrive_in_order_and_whole() {
    let flood = flood_or_skip!();
    let mut perf = flood.reader(8, WakeUp::Events(1));
    let at_once = Wait::up_to(Duration::ZERO);
    assert!(!perf.wait(at_once).expect("sound buffers"));
    // More than the buffer holds in all, so that records wrap around its end.
    for round in 0..10 {
        flood.run("write_records", [700, round], Some(0));
        assert!(perf.wait(at_once).expect("sound buffers"));
        let mut next = 0;
        let drained = perf.drain(u64::MAX, |cpu, record| {
            assert_eq!((cpu, parse(record)), (0, (round as u32, next)));
            next += 1;
        });
        let drained = drained.expect("sound buffers");
        assert_eq!((drained.records, drained.bytes), (700, 700 * 28));
        assert_eq!((drained.discarded, drained.stop), (0, Stop::Empty));
    }
    assert_eq!(stats(&perf).seen(), Some(7_000));
    assert_eq!(stats(&perf).is_balanced(), Some(true));
    assert_eq!(perf.lost_told(), 0);
}

#[test]
fn an_overflow_is_counted_to_the_record() {
    let flood = flood_or_skip!();
    let mut perf = flood.reader(8, WakeUp::Events(1));
    flood.write(10_000);
    // The kernel leaves less than a record free, and one byte at least.
    let room = (8 * 4096 - 1) / SLOT_BYTES;
    let full = stats(&perf);
    assert_eq!((full.seen(), full.pending), (Some(10_000), room));
    assert_eq!(full.pending_bytes, room * SLOT_BYTES);
    assert_eq!(full.dropped_for(DropReason::Full), Some(10_000 - room));
    assert_eq!(full.is_balanced(), Some(true));

    // The losses at the end, after which no record comes, are in the account; the kernel tells
    // nothing of them.
    assert_eq!(drain_all(&mut perf), room);
    assert_eq!(stats(&perf).is_balanced(), Some(true));
    assert_eq!(perf.lost_told(), 0);

    flood.write(1);
    assert_eq!(drain_all(&mut perf), 1);
    assert_eq!(perf.lost_told(), 10_000 - room, "with the next record");
    let after = stats(&perf);
    assert_eq!((after.delivered, after.pending), (room + 1, 0));
    assert_eq!(after.is_balanced(), Some(true));
}

#[test]
fn each_reason_is_told_apart() {
    let flood = flood_or_skip!();
    // Nothing is in the map yet.
    flood.write(3);
    let mut perf = flood.reader(32, WakeUp::Events(1));
    for bytes in [0, 1, 65_516, 65_517, 65_536] {
        flood.run("write_sized", [bytes, 0], Some(0));
    }
    let mut sizes = Vec::new();
    let each = |_, record: PerfRecord<'_>| sizes.push(record.bytes().len());
    perf.drain(u64::MAX, each).expect("sound buffers");
    assert_eq!(sizes, [4, 4, 65_516]);
    let after = stats(&perf);
    let reasons = [DropReason::NoState, DropReason::TooLarge, DropReason::Full];
    let counts = reasons.map(|reason| after.dropped_for(reason));
    assert_eq!(counts, [Some(3), Some(2), Some(0)]);
    assert_eq!((after.seen(), after.is_balanced()), (Some(8), Some(true)));
}

#[test]
fn a_flood_beside_the_reader_balances_exactly() {
    const WRITERS: u64 = 3;
    const RUNS: u64 = 20;
    const RECORDS: u64 = 20_000;
    let flood = flood_or_skip!();
    let mut perf = flood.reader(16, WakeUp::Bytes(16 * 1024));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let wait = Wait::up_to(Duration::from_millis(5));
                let _ = perf.wait(wait).expect("sound buffers");
                let drained = perf.drain(1000, |_, record| {
                    let (producer, index) = parse(record);
                    assert!(u64::from(producer) < WRITERS && u64::from(index) < RECORDS);
                });
                drained.expect("sound buffers");
            }
        });
        let write = |writer| {
            (0..RUNS).for_each(|_| flood.run("write_records", [RECORDS, writer], None));
        };
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write(writer)))
            .collect();
        for writer in writers {
            writer.join().expect("no panic");
        }
        done.store(true, Ordering::Release);
        reading.join().expect("no panic");
    });
    let after = stats(&perf);
    assert_eq!(after.seen(), Some(WRITERS * RUNS * RECORDS));
    assert_eq!(after.is_balanced(), Some(true), "{after:?}");
    assert!(
        after.delivered > 0 && after.dropped_for(DropReason::Full) > Some(0),
        "the test tests nothing: {after:?}"
    );
    drain_all(&mut perf);
    assert!(Some(perf.lost_told()) <= after.dropped());
    assert_eq!(stats(&perf).is_balanced(), Some(true));
}

#[test]
fn a_flood_on_one_cpu_does_not_starve_the_others() {
    let flood = flood_or_skip!();
    let mut perf = flood.reader(64, WakeUp::Events(1));
    let cpus: Vec<u32> = perf.buffers().map(|(cpu, _)| cpu).collect();
    let [first, .., last] = cpus[..] else {
        crate::skip::skip("this machine has one CPU");
        return;
    };
    flood.run("write_records", [2_000, 0], Some(first));
    flood.run("write_records", [10, 1], Some(last));
    let mut order = Vec::new();
    let each = |cpu, record: PerfRecord<'_>| order.push((cpu, parse(record).0));
    let drained = perf.drain(100, each).expect("sound buffers");
    assert_eq!((drained.records, drained.stop), (100, Stop::Budget));
    assert_eq!(order.iter().filter(|one| **one == (last, 1)).count(), 10);
    assert_eq!(drain_all(&mut perf), 1_910);
}

/// How often the reader's descriptor has an edge.
struct Edges {
    poll: std::os::fd::OwnedFd,
}

impl Edges {
    fn of(perf: &PerfReader) -> Self {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor is left");
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&poll, perf.as_fd(), data, edges).expect("it can be polled");
        Self { poll }
    }

    fn wait(&self, timeout: Option<&Timespec>) -> bool {
        let mut events = Vec::with_capacity(4);
        let spare = rustix::buffer::spare_capacity(&mut events);
        epoll::wait(&self.poll, spare, timeout).expect("it can be waited for") > 0
    }

    fn is_woken(&self) -> bool {
        self.wait(Some(&Timespec::default()))
    }
}

#[test]
fn a_wake_up_comes_as_the_options_say() {
    let flood = flood_or_skip!();
    for (wake, without, with) in [
        (WakeUp::Events(1), 0, 1),
        (WakeUp::Events(0), 0, 1),
        (WakeUp::Events(5), 4, 1),
        (WakeUp::Bytes((10 * SLOT_BYTES) as u32), 10, 1),
        // Half of the 4096 bytes.
        (WakeUp::Bytes(u32::MAX), 2048 / SLOT_BYTES, 1),
        (WakeUp::Events(u32::MAX), 2048 / SLOT_BYTES, 1),
    ] {
        let mut perf = flood.reader(1, wake);
        let edges = Edges::of(&perf);
        assert!(!perf.wait(Wait::Event).expect("sound buffers"));
        flood.write(without);
        assert!(!edges.is_woken(), "{without} records, {wake:?}");
        flood.write(with);
        // For ever: the interrupt of another CPU may take its time. Without it this is a hang.
        edges.wait(None);
        assert!(perf.wait(Wait::Event).expect("sound buffers"));
        assert_eq!(drain_all(&mut perf), without + with);
    }
}

#[test]
fn a_waiting_reader_is_woken_by_a_record() {
    let flood = flood_or_skip!();
    let mut perf = flood.reader(1, WakeUp::Events(1));
    for wait in [Wait::forever(), Wait::spin()] {
        for _ in 0..100 {
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| perf.wait(wait).expect("sound buffers"));
                flood.run("write_records", [1, 1], None);
                assert!(waiting.join().expect("no panic"));
            });
            assert_eq!(drain_all(&mut perf), 1);
        }
    }
}

/// No wake-up is lost: after each `false` of `Wait::Event`, the next record comes with an edge.
#[test]
fn after_every_no_the_next_record_is_an_edge() {
    const RECORDS: u64 = 2_000;
    let flood = flood_or_skip!();
    let mut perf = flood.reader(32, WakeUp::Events(1));
    let edges = Edges::of(&perf);
    for _ in 0..10 {
        std::thread::scope(|scope| {
            let write = || flood.run("write_records", [1, 1], None);
            scope.spawn(move || (0..RECORDS).for_each(|_| write()));
            let mut found = 0;
            while found < RECORDS {
                // For ever: a lost edge is a hang, which the test runner ends.
                edges.wait(None);
                while perf.wait(Wait::Event).expect("sound buffers") {
                    found += drain_all(&mut perf);
                }
            }
        });
    }
    assert_eq!(stats(&perf).dropped(), Some(0));
}

#[test]
fn a_closed_reader_keeps_what_it_has() {
    let flood = flood_or_skip!();
    let mut perf = flood.reader(1, WakeUp::Events(1));
    let closer = perf.closer().expect("a descriptor is left");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| perf.wait(Wait::forever()).expect("sound buffers"));
        closer.close();
        assert!(!waiting.join().expect("no panic"));
    });
    flood.write(3);
    assert!(!perf.wait(Wait::forever()).expect("sound buffers"));
    assert_eq!(drain_all(&mut perf), 3);
}

/// What a program writes after the reader is gone is lost, and counted.
#[test]
fn what_no_reader_takes_is_counted() {
    let flood = flood_or_skip!();
    let perf = flood.reader(1, WakeUp::Events(1));
    flood.write(2);
    drop(perf);
    flood.write(5);
    let perf = flood.reader(1, WakeUp::Events(1));
    flood.write(1);
    let after = stats(&perf);
    assert_eq!((after.seen(), after.pending), (Some(8), 1));
    assert_eq!(after.dropped(), Some(5), "{after:?}");
}

#[test]
fn what_cannot_be_opened_is_refused_with_a_reason() {
    let flood = flood_or_skip!();
    let error = PerfReader::from_map(&flood.map("flood_counts"), PerfOptions::default());
    let error = error.expect_err("not a perf event array");
    assert!(error.is_wrong_map(), "{error}");
    for pages in [0, 3] {
        let wake = WakeUp::Events(1);
        let error = PerfReader::open(PerfOptions { pages, wake }).expect_err("no power of two");
        let source = std::error::Error::source(&error).expect("an I/O error");
        let source = source.downcast_ref::<std::io::Error>().expect("one");
        assert_eq!(source.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("power of two"), "{error}");
    }
}
