//! Measures durable begins on this machine: `cargo run --release -p idem-store --example throughput
//! -- [DIR]`. The floor is one fdatasync of a 128-byte append to preallocated blocks.

#![expect(clippy::print_stdout, reason = "this program exists to print")]

use std::fs::OpenOptions;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use idem_store::{Begin, Begun, Completion, Fingerprint, Options, Permit, Store};

const RUN: Duration = Duration::from_secs(3);
const VALUE: [u8; 64] = [7; 64];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(dir)?;
    floor(&dir.path().join("floor"))?;
    for threads in [1, 8, 64] {
        blocking(&dir.path().join(format!("threads-{threads}")), threads)?;
    }
    for in_flight in [64, 1024] {
        asynchronous(&dir.path().join(format!("async-{in_flight}")), in_flight)?;
    }
    replays(&dir.path().join("replays"))?;
    Ok(())
}

fn floor(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    file.write_all_at(&vec![0; 16 << 20], 0)?;
    file.sync_all()?;
    let mut times = Histogram::new(3)?;
    let start = Instant::now();
    let mut at = 0;
    while start.elapsed() < RUN {
        let begin = Instant::now();
        file.write_all_at(&[1; 128], at)?;
        file.sync_data()?;
        at = (at + 128) % (16 << 20);
        times.record(begin.elapsed().as_nanos() as u64)?;
    }
    report("floor: 128 B + fdatasync", &times, start.elapsed(), None);
    Ok(())
}

fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&n.to_le_bytes());
    key
}

fn begin(store: &Store, key: &[u8]) -> Completion<Begun> {
    let fingerprint = Fingerprint([3; 32]);
    store.begin(&Begin::new(key, fingerprint, 60_000, 1).declare(&VALUE))
}

fn fresh(begun: Begun) -> Permit {
    match begun {
        Begun::Fresh(permit) => permit,
        other => panic!("a new key: {other:?}"),
    }
}

fn blocking(dir: &Path, threads: u64) -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open(dir, Options::new())?;
    let start = Instant::now();
    let mut all = Histogram::<u64>::new(3)?;
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..threads)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || {
                    let mut times = Histogram::<u64>::new(3).expect("three digits");
                    let mut n = 0;
                    while start.elapsed() < RUN {
                        let began = Instant::now();
                        let key = key(thread << 40 | n);
                        let begun = begin(store, &key).wait().expect("begins");
                        times
                            .record(began.elapsed().as_nanos() as u64)
                            .expect("fits");
                        // Kept as it is: ending it is not what is measured.
                        std::mem::forget(fresh(begun));
                        n += 1;
                    }
                    times
                })
            })
            .collect();
        for run in runs {
            all.add(run.join().expect("no panic")).expect("same shape");
        }
    });
    report(
        &format!("{threads} threads"),
        &all,
        start.elapsed(),
        Some(&store),
    );
    Ok(())
}

struct Count {
    woken: AtomicU64,
    thread: std::thread::Thread,
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::Release);
        self.thread.unpark();
    }
}

/// One thread that keeps `in_flight` begins going, without any runtime.
fn asynchronous(dir: &Path, in_flight: u64) -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open(dir, Options::new())?;
    let count = Arc::new(Count {
        woken: AtomicU64::new(0),
        thread: std::thread::current(),
    });
    let waker = Waker::from(Arc::clone(&count));
    let mut times = Histogram::<u64>::new(3)?;
    let mut n = 0;
    let mut slots = Vec::new();
    let start = Instant::now();
    while start.elapsed() < RUN {
        while slots.len() < in_flight as usize {
            slots.push((Instant::now(), begin(&store, &key(n))));
            n += 1;
        }
        let seen = count.woken.load(Ordering::Acquire);
        let mut cx = Context::from_waker(&waker);
        slots.retain_mut(|(began, completion)| match pin!(completion).poll(&mut cx) {
            Poll::Ready(begun) => {
                times
                    .record(began.elapsed().as_nanos() as u64)
                    .expect("fits");
                std::mem::forget(fresh(begun.expect("begins")));
                false
            }
            Poll::Pending => true,
        });
        while slots.len() == in_flight as usize && count.woken.load(Ordering::Acquire) == seen {
            std::thread::park();
        }
    }
    report(
        &format!("{in_flight} async, 1 thread"),
        &times,
        start.elapsed(),
        Some(&store),
    );
    Ok(())
}

fn replays(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open(dir, Options::new())?;
    let mut last = None;
    for n in 0..1000 {
        let permit = fresh(begin(&store, &key(n)).wait()?);
        last = Some(store.complete(permit, &VALUE, 60_000, 1));
        if n % 100 == 99 {
            last.take().expect("just set").wait()?;
        }
    }
    drop(last);
    let mut times = Histogram::<u64>::new(3)?;
    let start = Instant::now();
    let mut n = 0;
    while start.elapsed() < RUN {
        let began = Instant::now();
        assert!(matches!(
            begin(&store, &key(n % 1000)).wait()?,
            Begun::Replay(_)
        ));
        times.record(began.elapsed().as_nanos() as u64)?;
        n += 1;
    }
    report("replays, 1 thread", &times, start.elapsed(), None);
    Ok(())
}

fn report(what: &str, times: &Histogram<u64>, elapsed: Duration, store: Option<&Store>) {
    let us = |q| times.value_at_quantile(q) as f64 / 1e3;
    let rate = times.len() as f64 / elapsed.as_secs_f64();
    print!(
        "{what:28} {rate:>11.0}/s  p50 {:>8.1} us  p99 {:>8.1} us  p99.9 {:>8.1} us",
        us(0.5),
        us(0.99),
        us(0.999)
    );
    if let Some(store) = store {
        let stats = store.stats();
        let batch = stats.batch_records.sum() as f64 / stats.batches as f64;
        let bytes = stats.bytes_written as f64 / times.len() as f64;
        print!(
            "  batch {batch:>6.1} (max {})  {bytes:.0} B/op",
            stats.batch_records.max()
        );
    }
    println!();
}
