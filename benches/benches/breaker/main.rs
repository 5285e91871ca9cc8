//! One guarded call of a closed breaker: ask, and report.
//!
//! `cargo xtask bench breaker [-- --quick]` prints the table of docs/BENCHMARKS.md.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::{Duration, Instant};

use circuit::{Breaker, Config, Lookback, Outcome};
use failsafe::{CircuitBreaker as _, backoff, failure_policy};
use mainstay_benches::counting::Counting;
use mainstay_benches::rounds::{Contender, Plan, measure};
use recloser::Recloser;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let plan = Plan {
        rounds: if quick { 61 } else { 301 },
        slice: Duration::from_millis(1),
    };
    let mut contenders = vec![
        alone("circuit, 10 calls", Lookback::Calls(10)),
        alone("circuit, 65,536 calls", Lookback::Calls(1 << 16)),
        alone("circuit, 10 s in 10 parts", seconds(10, 10)),
        alone("circuit, 10 min in 1,024 parts", seconds(600, 1_024)),
        guarded("circuit, adaptive, with a mutex and the clock"),
        recloser("recloser, 10 calls", 10),
        recloser("recloser, 65,536 calls", 1 << 16),
        failsafe("failsafe, rate over 10 s", 10),
        failsafe("failsafe, rate over 600 s", 600),
    ];
    println!("| | median | best | to the first | allocations |\n|---|---:|---:|---:|---:|");
    for row in measure(plan, &mut contenders) {
        println!(
            "| {} | {:.1} ns | {:.1} ns | {:.2} | {:.0} |",
            row.name, row.ns, row.best_ns, row.ratio, row.allocations
        );
    }
}

fn seconds(span_s: u64, buckets: u32) -> Lookback {
    let span_ms = span_s * 1_000;
    Lookback::Time { span_ms, buckets }
}

/// The state machine by itself: its time moves by a millisecond every 1,000 calls.
fn alone(name: &'static str, lookback: Lookback) -> Contender<'static> {
    let mut config = Config::essay();
    config.lookback = lookback;
    let mut breaker = Breaker::new(config);
    let mut calls = 0;
    Contender::new(name, 0, move || {
        calls += 1;
        let now_ms = calls / 1_000;
        let permit = breaker.try_call(now_ms).expect("closed");
        breaker.record(permit, Outcome::from(&failing(calls)), now_ms)
    })
}

/// As the peers: shared by a lock, and the clock is read for each call.
fn guarded(name: &'static str) -> Contender<'static> {
    let breaker = parking_lot::Mutex::new(Breaker::new(Config::adaptive()));
    let since = Instant::now();
    let mut calls = 0;
    Contender::new(name, 0, move || {
        calls += 1;
        let now_ms = since.elapsed().as_millis() as u64;
        let permit = breaker.lock().try_call(now_ms).expect("closed");
        let outcome = Outcome::from(&failing(calls));
        breaker.lock().record(permit, outcome, now_ms)
    })
}

fn recloser(name: &'static str, calls: usize) -> Contender<'static> {
    let breaker = Recloser::custom().error_rate(0.5).closed_len(calls).build();
    let mut calls = 0;
    Contender::new(name, 0, move || {
        calls += 1;
        breaker.call(|| failing(calls)).is_ok()
    })
}

fn failsafe(name: &'static str, span_s: u64) -> Contender<'static> {
    let delays = backoff::constant(Duration::from_secs(60));
    let span = Duration::from_secs(span_s);
    let policy = failure_policy::success_rate_over_time_window(0.5, 10, span, delays);
    let breaker = failsafe::Config::new().failure_policy(policy).build();
    let mut calls = 0;
    Contender::new(name, 0, move || {
        calls += 1;
        breaker.call(|| failing(calls)).is_ok()
    })
}

/// One call in 16 fails.
fn failing(calls: u64) -> Result<(), ()> {
    if calls.is_multiple_of(16) {
        Err(())
    } else {
        Ok(())
    }
}
