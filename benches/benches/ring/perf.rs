//! Perf buffers: a wake-up for each record against one for each 64 KiB.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ebpf_ring::{PerfOptions, PerfReader, Wait, WakeUp};
use libbpf_rs::{PerfBuffer, PerfBufferBuilder};

use crate::load::Load;
use crate::{cpu_time, first_word, median, stay_on};

/// 4 MiB for each CPU.
const PAGES: u32 = 1024;
const WATERMARK: WakeUp = WakeUp::Bytes(64 * 1024);
/// What a reader sleeps at most: records below the watermark wait for it.
const LONGEST_SLEEP: Duration = Duration::from_millis(1);
/// The program runs so often, for so many records.
const RUNS: u64 = 2;
const RECORDS: u64 = 100_000;

/// The bytes of a record, and the program that writes them.
const SIZES: [(&str, &str); 2] = [("8", "write_perf_8"), ("128", "write_perf_128")];

/// Waits, then reads what is there; returns how many records that were.
trait Reader: Send {
    fn poll(&mut self) -> u64;
}

impl Reader for PerfReader {
    fn poll(&mut self) -> u64 {
        self.wait(Wait::up_to(LONGEST_SLEEP)).expect("sound");
        let mut sum = 0;
        let drained = self.drain(u64::MAX, |_, record| sum += first_word(record.bytes()));
        std::hint::black_box(sum);
        drained.expect("sound").records
    }
}

struct Libbpf {
    buffer: PerfBuffer<'static>,
    /// What the callback adds up: the sum and the records.
    read: Arc<[AtomicU64; 2]>,
}

impl Reader for Libbpf {
    fn poll(&mut self) -> u64 {
        let before = self.read[1].load(Ordering::Relaxed);
        self.buffer.poll(LONGEST_SLEEP).expect("sound");
        self.read[1].load(Ordering::Relaxed) - before
    }
}

fn ours(load: &Load, wake: WakeUp) -> Box<dyn Reader> {
    let options = PerfOptions { pages: PAGES, wake };
    Box::new(PerfReader::from_map(&load.perf(), options).expect("a perf event array"))
}

fn libbpf(load: &Load) -> Box<dyn Reader> {
    let read = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let sums = Arc::clone(&read);
    let add = |to: &AtomicU64, n: u64| to.store(to.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    let map = load.perf();
    let buffer = PerfBufferBuilder::new(&map)
        .pages(PAGES as usize)
        .sample_cb(move |_, bytes: &[u8]| {
            add(&sums[0], first_word(bytes));
            add(&sums[1], 1);
        })
        .build();
    let buffer = buffer.expect("a perf event array");
    Box::new(Libbpf { buffer, read })
}

struct Row {
    /// Read, in a second.
    records: f64,
    /// CPU time of the writing program for a record.
    write_ns: f64,
    lost_percent: f64,
}

/// The writer on one CPU, the reader on another.
fn stream(load: &Load, reader: &mut dyn Reader, program: &str) -> Row {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            stay_on(1);
            let before = cpu_time();
            (0..RUNS).for_each(|_| load.write_perf(program, RECORDS));
            let took = cpu_time() - before;
            is_over.store(true, Ordering::Release);
            took
        });
        let (mut read, started) = (0, Instant::now());
        loop {
            let was_over = is_over.load(Ordering::Acquire);
            let now = reader.poll();
            read += now;
            if was_over && now == 0 {
                break;
            }
        }
        // The last poll slept in vain.
        let elapsed = started.elapsed().saturating_sub(LONGEST_SLEEP);
        let written = (RUNS * RECORDS) as f64;
        Row {
            records: read as f64 / elapsed.as_secs_f64(),
            write_ns: writer.join().expect("no panic").as_nanos() as f64 / written,
            lost_percent: (1.0 - read as f64 / written) * 100.0,
        }
    })
}

pub(crate) fn table(rounds: usize) {
    println!("### perf buffers, reading while a program writes\n");
    println!(
        "| | bytes | M records/s | program's CPU ns a record | lost % | rate to the first |\n\
         |---|---:|---:|---:|---:|---:|"
    );
    stay_on(0);
    for (bytes, program) in SIZES {
        let loads: [Load; 3] = std::array::from_fn(|_| Load::new().expect("it was loaded before"));
        let mut readers = [
            ("libbpf-rs PerfBuffer", libbpf(&loads[0])),
            (
                "ebpf-ring, each record wakes",
                ours(&loads[1], WakeUp::Events(1)),
            ),
            ("ebpf-ring, each 64 KiB wake", ours(&loads[2], WATERMARK)),
        ];
        let mut rows: [Vec<Row>; 3] = std::array::from_fn(|_| Vec::new());
        for round in 0..=rounds {
            for turn in 0..readers.len() {
                let at = (turn + round) % readers.len();
                let row = stream(&loads[at], &mut *readers[at].1, program);
                // The first round faults the buffers' pages in.
                if round > 0 {
                    rows[at].push(row);
                }
            }
        }
        for ((name, _), its) in readers.iter().zip(&rows) {
            let middle = |of: &dyn Fn(&Row) -> f64| median(its.iter().map(of).collect());
            let ratios = its.iter().zip(&rows[0]);
            println!(
                "| {name} | {bytes} | {:.2} | {:.0} | {:.1} | {:.2} |",
                middle(&|row| row.records) / 1e6,
                middle(&|row| row.write_ns),
                middle(&|row| row.lost_percent),
                median(
                    ratios
                        .map(|(row, first)| row.records / first.records)
                        .collect()
                ),
            );
        }
    }
    println!();
}
