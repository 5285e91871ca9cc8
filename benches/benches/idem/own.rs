//! What only this store's own numbers tell: replays, memory, opening, callers during compaction.

use std::path::Path;
use std::time::{Duration, Instant};

use idem_store::{Begun, Options, Store};

use crate::Error;
use crate::embedded::{NOW, begin, begin_blocking};
use crate::floor::Floor;
use crate::turns::{Key, Times, VALUE, new_key, on_threads};

const DAY: u64 = 86_400_000;

pub(crate) fn table(dir: &Path, quick: bool, full: bool) -> Result<(), Error> {
    let keys: u64 = match (quick, full) {
        (_, true) => 10_000_000,
        (true, _) => 200_000,
        _ => 1_000_000,
    };
    println!("### the store alone\n\n| | |\n|---|---:|");
    let filled = dir.join("filled");
    fill(&filled, keys)?;
    replays(&dir.join("replays"))?;
    open(&filled, keys)?;
    println!();
    Ok(())
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}

fn fill(dir: &Path, keys: u64) -> Result<(), Error> {
    let store = Store::open(dir, Options::new())?;
    let before = resident_bytes();
    let mut ending = Vec::with_capacity(1024);
    let mut done = 0;
    while done < keys {
        let begun: Vec<_> = (0..1024).map(|_| begin(&store, &new_key(), NOW)).collect();
        for begun in begun {
            match begun.wait() {
                Ok(Begun::Fresh(permit)) => {
                    ending.push(store.complete(permit, &VALUE, DAY, NOW));
                    done += 1;
                }
                Err(error) if error.is_busy() => std::thread::sleep(Duration::from_millis(1)),
                other => panic!("a new key: {other:?}"),
            }
        }
        for ended in ending.drain(..) {
            ended.wait()?;
        }
    }
    let bytes = resident_bytes().saturating_sub(before) as f64 / done as f64;
    println!("| memory per key, {done} keys with outcomes, all of the process | {bytes:.0} B |");
    store.close()?;
    Ok(())
}

fn replays(dir: &Path) -> Result<(), Error> {
    let store = Store::open(dir, Options::new())?;
    let keys: Vec<_> = (0..1000).map(|_| new_key()).collect();
    for key in &keys {
        let permit = begin_blocking(&store, key, NOW);
        store.complete(permit, &VALUE, DAY, NOW).wait()?;
    }
    let mut rates = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let mut count = 0_u64;
        while start.elapsed() < Duration::from_millis(200) {
            for key in &keys {
                assert!(matches!(begin(&store, key, NOW).wait()?, Begun::Replay(_)));
            }
            count += 1000;
        }
        rates.push(count as f64 / start.elapsed().as_secs_f64());
    }
    let rate = crate::turns::median(rates) / 1e6;
    println!("| replays of outcomes in the cache, 1 thread | {rate:.2} M/s |");
    Ok(())
}

fn open(dir: &Path, keys: u64) -> Result<(), Error> {
    let start = Instant::now();
    let store = Store::open(dir, Options::new())?;
    let elapsed = start.elapsed().as_secs_f64();
    let known = store.stats().keys_stored;
    assert!(known >= keys, "{known} keys");
    println!("| opening {known} keys | {elapsed:.2} s |");
    Ok(())
}

/// What the callers of [`pressed`] do to the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Press {
    /// Every outcome lives on: the log only grows.
    Grows,
    /// One outcome in eight lives on: old segments are read, carried and dropped all the time.
    Compacts,
}

/// Callers during compaction, and the same callers without one: the difference is compaction's. What
/// a bare write beside them takes is the disk's and the scheduler's.
pub(crate) fn compaction(dir: &Path, quick: bool) -> Result<(), Error> {
    println!("### callers while the log grows and is compacted\n\n| | |\n|---|---:|");
    let slice = Duration::from_secs(if quick { 3 } else { 10 });
    pressed(&dir.join("grows"), Press::Grows, slice)?;
    pressed(&dir.join("compacts"), Press::Compacts, slice)?;
    println!();
    Ok(())
}

/// What a single durable write of 512 bytes took meanwhile, next to the store.
const BESIDE: &str = "a bare durable write of 512 B beside it, a thousand a second";

fn pressed(dir: &Path, press: Press, slice: Duration) -> Result<(), Error> {
    let store = Store::open(dir, Options::new())?;
    let mut probe = Floor::direct(&dir.join("floor"))?;
    // The clock runs a thousand times too fast, so that most outcomes are soon past their retention.
    let start = Instant::now();
    let call = |key: &Key| {
        let now = NOW + start.elapsed().as_millis() as u64 * 1000;
        let permit = begin_blocking(&store, key, now);
        let lives = press == Press::Grows || key[15].is_multiple_of(8);
        let retain = if lives { DAY } else { 60_000 };
        let ended = store.complete(permit, &VALUE, retain, now);
        ended.wait().expect("completes");
    };
    let (times, floor) = std::thread::scope(|scope| {
        let floor = scope.spawn(|| probe.now_and_then(slice));
        let times: Times = on_threads(64, slice, call);
        (times, floor.join().expect("no panic"))
    });
    let stats = store.stats();
    let what = match press {
        Press::Grows => "64 threads, begin and complete, without compaction".to_owned(),
        Press::Compacts => format!(
            "64 threads, begin and complete, during compaction ({} segments dropped, {} records carried)",
            stats.segments_dropped, stats.records_carried
        ),
    };
    for (what, times) in [(what.as_str(), &times), (BESIDE, &floor)] {
        let ms = |q| times.value_at_quantile(q) as f64 / 1e6;
        println!(
            "| {what}: p50 / p99 / p99.9 / p99.99 / max | {:.2} / {:.2} / {:.2} / {:.2} / {:.2} ms |",
            ms(0.5),
            ms(0.99),
            ms(0.999),
            ms(0.9999),
            times.max() as f64 / 1e6,
        );
    }
    Ok(())
}
