//! Interleaved turns under a load: rates, latencies and bytes of each contender.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// How callers come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// So many threads, each blocked until its begin is durable.
    Threads(u64),
    /// One thread with so many begins under way.
    Pending(usize),
}

/// How long a table takes: `rounds` times the contenders times `slice`.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) slice: Duration,
}

pub(crate) type Key = [u8; 16];
pub(crate) const VALUE: [u8; 64] = [7; 64];

/// Nanoseconds of every operation of a turn.
pub(crate) type Times = Histogram<u64>;

pub(crate) fn times() -> Times {
    Histogram::new(3).expect("three digits")
}

/// Keys that were never used in this process, in no order.
pub(crate) fn new_key() -> Key {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

/// What takes part.
pub(crate) trait Contender {
    fn name(&self) -> &'static str;
    /// Begins new keys until the slice is over.
    fn turn(&mut self, load: Load, slice: Duration) -> Times;
    /// Untimed, after each turn.
    fn tidy(&mut self) {}
}

/// How many threads a contender that knows no other load has.
pub(crate) fn threads(load: Load) -> u64 {
    match load {
        Load::Threads(n) => n,
        Load::Pending(_) => unreachable!("it takes part with threads only"),
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics under the lock")
}

/// Bytes that were written to the disk that holds `dir` so far, by whomever.
pub(crate) fn bytes_written(dir: &Path) -> u64 {
    let device = std::fs::metadata(dir).map_or(0, |metadata| metadata.dev());
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"));
    let stat = stat.unwrap_or_default();
    // Documentation/block/stat.rst: the seventh field is write sectors, of 512 bytes.
    let sectors = stat.split_whitespace().nth(6);
    sectors.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 512
}

/// 64 threads and the like: `begin` is called by each until the time is over.
pub(crate) fn on_threads(threads: u64, slice: Duration, begin: impl Fn(&Key) + Sync) -> Times {
    let start = Instant::now();
    let work = || {
        let mut times = times();
        let mut before = Instant::now();
        while start.elapsed() < slice {
            begin(&new_key());
            let now = Instant::now();
            record(&mut times, now - before);
            before = now;
        }
        times
    };
    if threads == 1 {
        return work();
    }
    let mut all = times();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for run in runs {
            all.add(run.join().expect("no panic")).expect("same shape");
        }
    });
    all
}

pub(crate) fn record(times: &mut Times, time: Duration) {
    times
        .record(time.as_nanos() as u64)
        .expect("nanoseconds of a turn fit");
}

/// What one turn showed.
struct Turn {
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    bytes: f64,
}

/// Runs the contenders in turn and prints the medians of the rounds.
pub(crate) fn table(plan: Plan, load: Load, dir: &Path, contenders: &mut [Box<dyn Contender>]) {
    if contenders.is_empty() {
        return;
    }
    let mut turns: Vec<Vec<Turn>> = contenders.iter().map(|_| Vec::new()).collect();
    // The first round warms up.
    for round in 0..=plan.rounds {
        for at in 0..contenders.len() {
            // Each round starts with another one.
            let at = (at + round) % contenders.len();
            let contender = &mut contenders[at];
            let before = bytes_written(dir);
            let start = Instant::now();
            let times = contender.turn(load, plan.slice);
            let elapsed = start.elapsed().as_secs_f64();
            let bytes = bytes_written(dir) - before;
            contender.tidy();
            if round > 0 {
                let us = |q| times.value_at_quantile(q) as f64 / 1e3;
                turns[at].push(Turn {
                    rate: times.len() as f64 / elapsed,
                    p50_us: us(0.5),
                    p99_us: us(0.99),
                    bytes: bytes as f64 / times.len() as f64,
                });
            }
        }
    }
    let what = match load {
        Load::Threads(1) => "1 caller".to_owned(),
        Load::Threads(n) => format!("{n} threads"),
        Load::Pending(n) => format!("1 thread, {n} under way"),
    };
    println!("### durable begins, {what}\n");
    println!("| | begins/s | to the first | p50 µs | p99 µs | bytes to the disk each |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (contender, own) in contenders.iter().zip(&turns) {
        let middle = |of: fn(&Turn) -> f64| median(own.iter().map(of).collect());
        let ratios = own.iter().zip(&turns[0]);
        println!(
            "| {} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} |",
            contender.name(),
            middle(|turn| turn.rate),
            median(ratios.map(|(own, first)| own.rate / first.rate).collect()),
            middle(|turn| turn.p50_us),
            middle(|turn| turn.p99_us),
            middle(|turn| turn.bytes),
        );
    }
    println!();
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
