//! What `runq` costs those whom it watches: a ping-pong over pipes with and without it. Needs root.
//!
//! `cargo xtask bench runq [-- --quick]` prints the table of docs/BENCHMARKS.md. Two threads on one CPU hand a byte to
//! and fro; each hand-over is a sleep, a wake-up and a switch. Between hand-overs they compute, so that there are about
//! 100,000 switches a second; then they do not, for as many switches as the machine can do.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::hint::black_box;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kernel_scope::ScopeError;
use kernel_scope::runq::{Options, RunQ};
use rustix::thread::{CpuSet, sched_setaffinity};

const SWITCHES_PER_SECOND: f64 = 100_000.0;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    if let Err(error) = RunQ::open(&Options::default()) {
        println!("this bench loads BPF programs: {error}");
        return;
    }
    let (rounds, slice) = if quick { (5, 200) } else { (21, 400) };
    let slice = Duration::from_millis(slice);
    println!("switches/s alone | without stacks | with stacks | programs, ns a switch");
    for work in [calibrate(), 0] {
        row(rounds, slice, work);
    }
}

/// A round is four turns: alone, with the tool, alone, with the tool and stacks. Each turn with the tool is compared
/// to the turn alone before it.
fn row(rounds: usize, slice: Duration, work: u64) {
    let plain = Options::default();
    let stacks = Options::default().stacks();
    let (mut alone, mut plain_cost, mut stacks_cost) = (Vec::new(), Vec::new(), Vec::new());
    let (mut plain_ns, mut stacks_ns) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (options, cost, ns) in [
            (&plain, &mut plain_cost, &mut plain_ns),
            (&stacks, &mut stacks_cost, &mut stacks_ns),
        ] {
            let before = ping_pong(slice, work, None).0;
            let (with, program_ns) = ping_pong(slice, work, Some(options));
            alone.push(before);
            cost.push(100.0 * (1.0 - with / before));
            ns.push(program_ns);
        }
    }
    println!(
        "{:>16.0} | {:>13.1}% | {:>10.1}% | {:.0}, with stacks {:.0}",
        median(alone),
        median(plain_cost),
        median(stacks_cost),
        median(plain_ns),
        median(stacks_ns),
    );
}

/// Switches per second, and the nanoseconds that the tool's programs took for each.
fn ping_pong(slice: Duration, work: u64, options: Option<&Options>) -> (f64, f64) {
    let mut tool = options.map(|options| RunQ::open(options).expect("it could be opened before"));
    let (stop, start) = (AtomicBool::new(false), Instant::now());
    let (ping_in, pong_out) = std::io::pipe().expect("descriptors are left");
    let (pong_in, ping_out) = std::io::pipe().expect("descriptors are left");
    let (handed, elapsed) = thread::scope(|scope| {
        let ping = scope.spawn(|| play(ping_in, ping_out, work, &stop, true));
        let pong = scope.spawn(|| play(pong_in, pong_out, work, &stop, false));
        collect(tool.as_mut(), slice).expect("maps can be read");
        stop.store(true, Ordering::Relaxed);
        let handed = ping.join().expect("no panic") + pong.join().expect("no panic");
        (handed, start.elapsed())
    });
    let program_ns = tool.map_or(0.0, |mut tool| {
        tool.finish().expect("maps can be read");
        let programs = tool.overhead().programs.unwrap_or_default();
        programs.as_nanos() as f64 / handed as f64
    });
    (handed as f64 / elapsed.as_secs_f64(), program_ns)
}

fn collect(tool: Option<&mut RunQ>, slice: Duration) -> Result<(), ScopeError> {
    let Some(tool) = tool else {
        thread::sleep(slice);
        return Ok(());
    };
    let start = Instant::now();
    while start.elapsed() < slice {
        tool.collect(Duration::from_millis(50))?;
    }
    Ok(())
}

/// Hands the byte over until `stop`, or until the other one has gone. Returns how often.
fn play(
    mut from: PipeReader,
    mut to: PipeWriter,
    work: u64,
    stop: &AtomicBool,
    serve: bool,
) -> u64 {
    let mut cpu = CpuSet::new();
    cpu.set(0);
    sched_setaffinity(None, &cpu).expect("there is a first CPU");
    let mut handed = 0;
    if serve && to.write_all(b"x").is_err() {
        return handed;
    }
    while !stop.load(Ordering::Relaxed) {
        if !matches!(from.read(&mut [0]), Ok(1)) {
            break;
        }
        compute(work);
        if to.write_all(b"x").is_err() {
            break;
        }
        handed += 1;
    }
    handed
}

fn compute(work: u64) {
    for n in 0..work {
        black_box(n);
    }
}

/// How much to compute between two hand-overs for the wanted number of switches.
fn calibrate() -> u64 {
    let slice = Duration::from_millis(200);
    let bare = 1.0 / ping_pong(slice, 0, None).0;
    let probe = 10_000;
    let loaded = 1.0 / ping_pong(slice, probe, None).0;
    let unit = ((loaded - bare) / probe as f64).max(1e-12);
    ((1.0 / SWITCHES_PER_SECOND - bare) / unit).max(0.0) as u64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
