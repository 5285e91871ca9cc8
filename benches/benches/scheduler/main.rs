//! The next firing of cron expressions beside croner alone, and ten thousand jobs at a time.
//!
//! `cargo xtask bench scheduler [-- --quick]` prints the tables of docs/BENCHMARKS.md.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use mainstay_benches::counting::Counting;
use mainstay_benches::rounds::{Contender, Plan, measure};
use scheduler::{Config, Cron, JobSpec, Outcome, Schedule, Scheduler, Zone};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ZONE: &str = "Europe/Berlin";
/// 2026-01-01, and steps of an hour and a bit through the year and its changes of clocks.
const FROM_MS: u64 = 1_767_225_600_000;
const STEP_MS: u64 = 3_723_000;
const STEPS: u64 = 8_000;

const JOBS: usize = 10_000;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let plan = Plan {
        rounds: if quick { 31 } else { 151 },
        slice: Duration::from_millis(1),
    };
    println!(
        "| next firing | median | best | to the first | allocations |\n|---|---:|---:|---:|---:|"
    );
    for text in [
        "*/5 * * * *",
        "30 2 * * MON-FRI",
        "0 12 LW * *",
        "0 0 29 2 *",
    ] {
        let mut contenders = vec![ours(text), cursor(text), croner(text)];
        for row in measure(plan, &mut contenders) {
            println!(
                "| `{text}` {} | {:.0} ns | {:.0} ns | {:.2} | {:.0} |",
                row.name, row.ns, row.best_ns, row.ratio, row.allocations
            );
        }
    }
    burst(Duration::from_secs(if quick { 2 } else { 8 }));
}

fn times() -> impl FnMut() -> u64 {
    let mut step = 0;
    move || {
        step = (step + 1) % STEPS;
        FROM_MS + step * STEP_MS
    }
}

fn ours(text: &str) -> Contender<'static> {
    let cron: Cron = text.parse().expect("an expression");
    let zone = Zone::named(ZONE).expect("the zone is known");
    let mut time = times();
    Contender::new("scheduler", 0, move || cron.next_after_ms(time(), &zone))
}

fn cursor(text: &str) -> Contender<'static> {
    let cron: Cron = text.parse().expect("an expression");
    let zone = Zone::named(ZONE).expect("the zone is known");
    let (cron, zone): (&'static Cron, &'static Zone) =
        (Box::leak(Box::new(cron)), Box::leak(Box::new(zone)));
    let mut cursor = cron.cursor(zone);
    let mut time = times();
    Contender::new("scheduler, cursor", 0, move || cursor.next_after_ms(time()))
}

fn croner(text: &str) -> Contender<'static> {
    let cron: croner::Cron = text.parse().expect("an expression");
    let zone = TimeZone::get(ZONE).expect("the zone is known");
    let mut time = times();
    Contender::new("croner, jiff", 0, move || {
        let at = Timestamp::from_millisecond(time().cast_signed()).expect("in range");
        let at = Zoned::new(at, zone.clone());
        cron.find_next_occurrence(&at, false).ok()
    })
}

/// Ten thousand jobs, each every 10 ms: more than can be done, so what is done is the capacity.
fn burst(time: Duration) {
    let before_kib = resident_kib();
    let mut config = Config::default();
    config.workers = 2;
    let scheduler = Scheduler::start(config).expect("threads start");
    let ran = Arc::new(AtomicU64::new(0));
    for number in 0..JOBS {
        let ran = Arc::clone(&ran);
        let every = Schedule::every(Duration::from_millis(10)).expect("a period");
        let spec = JobSpec::new(format!("job-{number}"), every, move |_| {
            ran.fetch_add(1, Relaxed);
            Ok(())
        });
        scheduler.add(spec).expect("there is room");
    }
    // What is allocated once is there, and histories are full.
    std::thread::sleep(Duration::from_secs(1));
    let (from, since) = (ran.load(Relaxed), Instant::now());
    std::thread::sleep(time);
    let rate = (ran.load(Relaxed) - from) as f64 / since.elapsed().as_secs_f64();
    let resident_kib = resident_kib() - before_kib;
    let of = |outcome| -> u64 {
        let jobs = scheduler.jobs();
        jobs.iter()
            .filter_map(|job| Some(job.status()?.counts.of(outcome)))
            .sum()
    };
    let (overlapped, misfired) = (of(Outcome::Overlapped), of(Outcome::Misfired));
    println!("\n| {JOBS} jobs, every 10 ms, 2 workers | |\n|---|---:|");
    println!("| runs a second | {rate:.0} |");
    println!("| resident memory, KiB | {resident_kib} |");
    println!("| of 1,000,000 a second, not run: overlapped, misfired | {overlapped}, {misfired} |");
    black_box(scheduler.shutdown(Duration::from_secs(10)));
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.expect("the kernel tells it")
}
