//! Readers of BPF ring buffers and perf buffers: ours beside libbpf-rs. Needs root.
//!
//! `cargo xtask bench ring [-- --quick] [drain|stream|latency|close|perf|hash...]` prints the tables of docs/BENCHMARKS.md. Each
//! contender has a ring of its own, 16 MiB, written by `bpf/ring_load.bpf.c` inside the kernel.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod close;
mod hash;
mod latency;
mod load;
mod perf;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ebpf_ring::{RingReader, Wait};
use libbpf_rs::{RingBuffer, RingBufferBuilder};
use load::{Load, SIZES, Size, WakeUps};
use rustix::thread::{CpuSet, sched_setaffinity};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let picked: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str| picked.is_empty() || picked.iter().any(|&pick| pick == name);
    if let Err(error) = Load::new() {
        println!(
            "this bench loads BPF programs, which needs root and the kernel's consent: {error}"
        );
        return;
    }
    if wanted("drain") {
        drain_table(if quick { 11 } else { 51 });
    }
    if wanted("stream") {
        // In a thread of its own: the CPU that it stays on is nobody else's matter.
        let table = std::thread::spawn(move || stream_table(if quick { 5 } else { 21 }));
        table.join().expect("no panic");
    }
    if wanted("latency") {
        latency::table(if quick { 1 } else { 5 });
    }
    if wanted("close") {
        close::table(if quick { 500 } else { 5_000 });
    }
    if wanted("perf") {
        perf::table(if quick { 1 } else { 5 });
    }
    if wanted("hash") {
        hash::table(if quick { 1 } else { 11 });
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A reader of one ring. What it reads is added up, so that every record is touched.
trait Reader {
    fn new(load: &Load) -> Self;
    /// Reads what is there; returns how many records that were.
    fn drain(&mut self) -> u64;
    /// Waits, then reads.
    fn poll(&mut self) -> u64;
}

struct Ours(RingReader);

impl Reader for Ours {
    fn new(load: &Load) -> Self {
        Ours(RingReader::from_map(&load.ring()).expect("a ring"))
    }

    fn drain(&mut self) -> u64 {
        let mut sum = 0;
        let drained = self
            .0
            .drain(u64::MAX, |record| sum += first_word(record.bytes()));
        black_box(sum);
        drained.expect("a sound ring").records
    }

    fn poll(&mut self) -> u64 {
        self.0.wait(Wait::forever()).expect("a sound ring");
        self.drain()
    }
}

/// As `Ours`, by iteration.
struct Batches(RingReader);

impl Reader for Batches {
    fn new(load: &Load) -> Self {
        Batches(RingReader::from_map(&load.ring()).expect("a ring"))
    }

    fn drain(&mut self) -> u64 {
        let (mut sum, mut records) = (0, 0);
        for record in &mut self.0.batch().expect("a sound ring") {
            sum += first_word(record.expect("a sound ring").bytes());
            records += 1;
        }
        black_box(sum);
        records
    }

    fn poll(&mut self) -> u64 {
        self.0.wait(Wait::forever()).expect("a sound ring");
        self.drain()
    }
}

struct Libbpf {
    ring: RingBuffer<'static>,
    /// What the callback adds up: the sum and the records.
    read: Arc<[AtomicU64; 2]>,
}

impl Libbpf {
    fn read_by(&mut self, consume: impl FnOnce(&RingBuffer<'static>)) -> u64 {
        let before = self.read[1].load(Ordering::Relaxed);
        consume(&self.ring);
        self.read[1].load(Ordering::Relaxed) - before
    }
}

impl Reader for Libbpf {
    fn new(load: &Load) -> Self {
        let read = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let sums = Arc::clone(&read);
        let mut builder = RingBufferBuilder::new();
        let map = load.ring();
        // One thread: a load and a store, as the plain numbers that the other contenders add to.
        let add =
            |to: &AtomicU64, n: u64| to.store(to.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        let callback = move |bytes: &[u8]| {
            add(&sums[0], first_word(bytes));
            add(&sums[1], 1);
            0
        };
        builder.add(&map, callback).expect("a ring");
        let ring = builder.build().expect("a ring");
        Libbpf { ring, read }
    }

    fn drain(&mut self) -> u64 {
        self.read_by(|ring| ring.consume().expect("a sound ring"))
    }

    fn poll(&mut self) -> u64 {
        self.read_by(|ring| ring.poll(Duration::MAX).expect("a sound ring"))
    }
}

fn first_word(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(*bytes.first_chunk().expect("eight bytes at least"))
}

/// What a contender needs per record.
#[derive(Clone, Copy)]
struct Cost {
    cpu_ns: f64,
    wall_ns: f64,
}

type Run = Box<dyn FnMut() -> Cost>;

/// Draining a ring that was filled before: nothing but the reader is measured.
fn drain_table(rounds: usize) {
    fn run<R: Reader + 'static>(size: &'static Size) -> Run {
        let load = Load::new().expect("it was loaded before");
        let mut reader = R::new(&load);
        Box::new(move || {
            load.write(size, size.fill, WakeUps::None);
            let started = (cpu_time(), Instant::now());
            let records = reader.drain();
            assert_eq!(records, u64::from(size.fill), "all of them, once");
            cost(started, records)
        })
    }
    println!("### draining a full ring\n");
    table(rounds, |size| {
        [
            ("libbpf-rs RingBuffer", run::<Libbpf>(size)),
            ("ebpf-ring drain", run::<Ours>(size)),
            ("ebpf-ring batch", run::<Batches>(size)),
        ]
    });
}

/// Records of one round of [`stream_table`]: some tens of milliseconds.
const STREAMED: u64 = 500_000;

/// Reading while a program writes on another CPU. The program runs for a quarter of a ring at a time and waits for room
/// in between, so that nothing is lost.
fn stream_table(rounds: usize) {
    fn run<R: Reader + 'static>(size: &'static Size) -> Run {
        let load = Load::new().expect("it was loaded before");
        let mut reader = R::new(&load);
        Box::new(move || {
            let read = AtomicU64::new(0);
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| write_stream(&load, size, &read));
                let started = (cpu_time(), Instant::now());
                let mut records = 0;
                while records < STREAMED {
                    records += reader.poll();
                    read.store(records, Ordering::Relaxed);
                }
                let cost = cost(started, records);
                writer.join().expect("no panic");
                cost
            })
        })
    }
    println!("### reading while a program writes\n");
    stay_on(0);
    table(rounds, |size| {
        [
            ("libbpf-rs RingBuffer", run::<Libbpf>(size)),
            ("ebpf-ring drain", run::<Ours>(size)),
            ("ebpf-ring batch", run::<Batches>(size)),
        ]
    });
}

fn write_stream(load: &Load, size: &Size, read: &AtomicU64) {
    stay_on(1);
    let mut written = 0;
    while written < STREAMED {
        let count = (STREAMED - written).min(u64::from(size.fill) / 4);
        while written + count - read.load(Ordering::Relaxed) > u64::from(size.fill) {
            std::hint::spin_loop();
        }
        load.write(size, count as u32, WakeUps::AsNeeded);
        written += count;
    }
}

/// Both on one CPU would take turns, and a wake-up be no interrupt of another.
pub(crate) fn stay_on(cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).expect("two CPUs");
}

fn cost(started: (Duration, Instant), records: u64) -> Cost {
    let per_record = |time: Duration| time.as_nanos() as f64 / records as f64;
    Cost {
        cpu_ns: per_record(cpu_time() - started.0),
        wall_ns: per_record(started.1.elapsed()),
    }
}

/// Interleaved rounds, medians, and the medians of the ratios to the first within each round.
fn table<const N: usize>(
    rounds: usize,
    contenders: impl Fn(&'static Size) -> [(&'static str, Run); N],
) {
    println!(
        "| | bytes | CPU ns a record | M records/s | by CPU time | by records/s |\n|---|---:|---:|---:|---:|---:|"
    );
    for size in &SIZES {
        let mut contenders = contenders(size);
        let mut costs: Vec<[Cost; N]> = Vec::new();
        for round in 0..=rounds {
            let mut now = [Cost {
                cpu_ns: 0.0,
                wall_ns: 0.0,
            }; N];
            for turn in 0..N {
                let at = (turn + round) % N;
                now[at] = contenders[at].1();
            }
            // The first round faults the rings' pages in.
            if round > 0 {
                costs.push(now);
            }
        }
        for (at, (name, _)) in contenders.iter().enumerate() {
            let middle = |of: &dyn Fn(&[Cost; N]) -> f64| median(costs.iter().map(of).collect());
            println!(
                "| {name} | {} | {:.1} | {:.1} | {:.2} | {:.2} |",
                size.bytes,
                middle(&|costs| costs[at].cpu_ns),
                1e3 / middle(&|costs| costs[at].wall_ns),
                middle(&|costs| costs[0].cpu_ns / costs[at].cpu_ns),
                middle(&|costs| costs[0].wall_ns / costs[at].wall_ns),
            );
        }
    }
    println!();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
