//! The timer wheel beside its peers: a millisecond a tick, deadlines uniform over one hour.
//!
//! `cargo xtask bench timers [-- --quick] [--only=CONTENDER] [1k|100k|1m|10m|step|shards|late100k|late1m...]` prints the tables of
//! docs/BENCHMARKS.md. In every round each contender lives through the same hours. The first: filled with N timers,
//! then time passes, a second at a time, until all have fired. The next ones: between, ten times a tenth of the
//! timers, picked at random, is cancelled and as many new ones are inserted. All times are CPU time.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod contenders;
mod lateness;

use std::time::Duration;

use contenders::{CancelWheel, Delay, LazyHeap, Ours, QuadWheel, SortedMap, Timers, bounded_step};
use mainstay_benches::counting::{Counting, bytes_live};
use mainstay_benches::random::Random;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HOUR_MS: u64 = 3_600_000;
const STEP_MS: u64 = 1_000;
const BATCHES: usize = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let only = arguments
        .iter()
        .find_map(|argument| argument.strip_prefix("--only="))
        .unwrap_or("");
    let picked: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let wanted = |name: &str, unless_quick: bool| match picked.is_empty() {
        true => !(quick && unless_quick),
        false => picked.iter().any(|&pick| pick == name),
    };
    // (name, pending, rounds, hours a round, too long for a quick look)
    let sizes = [
        ("1k", 1_000, 15, 20, false),
        ("100k", 100_000, 7, 3, false),
        ("1m", 1_000_000, 5, 1, false),
        ("10m", 10_000_000, 1, 1, true),
    ];
    for (name, pending, rounds, hours, unless_quick) in sizes {
        if wanted(name, unless_quick) {
            let rounds = if quick { 1 } else { rounds };
            table(name, pending, rounds, hours, only);
        }
    }
    if wanted("step", false) {
        steps(only);
    }
    if wanted("shards", false) {
        shards(if quick { 1 } else { 5 });
    }
    for (name, timers) in [("late100k", 100_000), ("late1m", 1_000_000)] {
        if wanted(name, true) {
            // The same rate either way.
            let (timers, seconds) = if quick { (timers / 5, 2) } else { (timers, 10) };
            lateness::table(timers, seconds, only);
        }
    }
    if picked.iter().any(|&pick| pick == "count") {
        count();
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Nanoseconds per operation, and bytes per timer.
#[derive(Clone, Copy, Default)]
struct Cells {
    first: f64,
    insert: f64,
    cancel: f64,
    /// Nothing was cancelled before.
    expire: f64,
    /// As many timers were cancelled before as fire.
    expire_after: f64,
    bytes: f64,
}

struct Contender {
    name: &'static str,
    cancels: bool,
    round: fn(usize, u64, usize) -> Cells,
}

fn contenders(only: &str) -> Vec<Contender> {
    fn one<Q: Timers>(name: &'static str) -> Contender {
        Contender {
            name,
            cancels: Q::CANCELS,
            round: |pending, seed, hours| round::<Q>(pending, seed, hours),
        }
    }
    let mut all = vec![
        one::<Ours>("timerwheel::Wheel"),
        one::<Delay>("tokio_util DelayQueue"),
        one::<QuadWheel>("hierarchical_hash_wheel_timer"),
        one::<CancelWheel>("hierarchical_hash_wheel_timer, cancellable"),
        one::<LazyHeap>("BinaryHeap, lazy cancel"),
        one::<SortedMap>("BTreeMap"),
    ];
    all.retain(|contender| contender.name.contains(only));
    all
}

fn table(name: &str, pending: usize, rounds: usize, hours: usize, only: &str) {
    let contenders = contenders(only);
    let mut cells: Vec<Vec<Cells>> = vec![Vec::new(); contenders.len()];
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let at = (turn + round) % contenders.len();
            cells[at].push((contenders[at].round)(pending, round as u64, hours));
        }
    }
    println!("### {name} pending\n");
    println!(
        "| | first insert | warm insert | cancel | expire | expire after cancels | to the first | bytes a timer |"
    );
    println!("|---|---:|---:|---:|---:|---:|---|---:|");
    for (contender, own) in contenders.iter().zip(&cells) {
        let middle = |of: fn(&Cells) -> f64| median(own.iter().map(of).collect());
        let ratio = |of: fn(&Cells) -> f64| {
            let ratios = own.iter().zip(&cells[0]).map(|(a, b)| of(a) / of(b));
            format!("{:.1}", median(ratios.collect()))
        };
        let cancel = |text: String| if contender.cancels { text } else { "-".into() };
        println!(
            "| {} | {:.1} | {:.1} | {} | {:.1} | {} | {} / {} / {} | {:.1} |",
            contender.name,
            middle(|cells| cells.first),
            middle(|cells| cells.insert),
            cancel(format!("{:.1}", middle(|cells| cells.cancel))),
            middle(|cells| cells.expire),
            cancel(format!("{:.1}", middle(|cells| cells.expire_after))),
            ratio(|cells| cells.insert),
            cancel(ratio(|cells| cells.cancel)),
            ratio(|cells| cells.expire),
            middle(|cells| cells.bytes),
        );
    }
    println!();
}

/// One contender's round: an hour to warm up, then the measured ones.
fn round<Q: Timers>(pending: usize, seed: u64, hours: usize) -> Cells {
    let mut random = Random(seed);
    let mut now = 0;
    let before = bytes_live();
    let mut timers = Q::new();
    let fresh = hour(&mut timers, &mut now, pending, &mut random, before, false);
    let mut sum = Cells::default();
    for _ in 0..hours {
        let cells = hour(
            &mut timers,
            &mut now,
            pending,
            &mut random,
            before,
            Q::CANCELS,
        );
        sum.insert += cells.insert / hours as f64;
        sum.cancel += cells.cancel / hours as f64;
        sum.expire_after += cells.expire / hours as f64;
        sum.bytes += cells.bytes / hours as f64;
    }
    Cells {
        first: fresh.first,
        expire: if Q::CANCELS {
            fresh.expire
        } else {
            sum.expire_after
        },
        ..sum
    }
}

fn hour<Q: Timers>(
    timers: &mut Q,
    now: &mut u64,
    pending: usize,
    random: &mut Random,
    before: i64,
    churn: bool,
) -> Cells {
    let mut cells = Cells::default();
    let deadlines = |random: &mut Random, count: usize, now: u64| -> Vec<u64> {
        (0..count)
            .map(|_| now + 1 + random.below(HOUR_MS))
            .collect()
    };
    // What the bench itself holds must not count as the contender's memory.
    let mut keys: Vec<Q::Key> = Vec::with_capacity(pending);
    let mut own = (keys.capacity() * size_of::<Q::Key>()) as i64;
    let input = deadlines(random, pending, *now);
    let started = cpu_time();
    keys.extend(
        input
            .iter()
            .map(|deadline| timers.insert(*deadline, *deadline)),
    );
    cells.first = per(started, pending);
    drop(input);
    if churn {
        let mut order: Vec<u32> = (0..pending as u32).collect();
        random.shuffle(&mut order);
        let (mut cancel, mut insert) = (Duration::ZERO, Duration::ZERO);
        for picks in order.chunks(pending.div_ceil(BATCHES)) {
            let victims: Vec<Q::Key> = picks.iter().map(|at| keys[*at as usize]).collect();
            let input = deadlines(random, picks.len(), *now);
            let started = cpu_time();
            victims.iter().for_each(|key| timers.cancel(*key));
            let between = cpu_time();
            let fresh: Vec<Q::Key> = input
                .iter()
                .map(|deadline| timers.insert(*deadline, *deadline))
                .collect();
            insert += cpu_time() - between;
            cancel += between - started;
            for (at, key) in picks.iter().zip(fresh) {
                keys[*at as usize] = key;
            }
        }
        cells.cancel = cancel.as_nanos() as f64 / pending as f64;
        cells.insert = insert.as_nanos() as f64 / pending as f64;
        own += (order.capacity() * size_of::<u32>()) as i64;
        cells.bytes = (bytes_live() - before - own) as f64 / pending as f64;
    } else {
        cells.insert = cells.first;
        cells.bytes = (bytes_live() - before - own) as f64 / pending as f64;
    }
    let end = *now + HOUR_MS;
    let started = cpu_time();
    let mut fired = 0;
    while *now < end {
        *now += STEP_MS;
        fired += timers.advance(*now);
    }
    cells.expire = per(started, pending);
    assert_eq!(fired, pending, "every timer fires in its hour");
    cells
}

fn per(started: Duration, count: usize) -> f64 {
    (cpu_time() - started).as_nanos() as f64 / count as f64
}

/// The longest time that one call holds the caller while a million timers fall due.
fn steps(only: &str) {
    fn one<Q: Timers>() -> Duration {
        let mut random = Random(7);
        let mut timers = Q::new();
        for _ in 0..1_000_000 {
            timers.insert(1 + random.below(HOUR_MS), 0);
        }
        timers.longest_step(0, HOUR_MS)
    }
    type Run = fn() -> Duration;
    let all: [(&str, Run); 4] = [
        ("timerwheel::Wheel, budget 1,000", one::<Ours>),
        ("tokio_util DelayQueue, one tick", one::<Delay>),
        ("hierarchical_hash_wheel_timer, one tick", one::<QuadWheel>),
        (
            "hierarchical_hash_wheel_timer, cancellable, one tick",
            one::<CancelWheel>,
        ),
    ];
    println!("### the longest step at 1m pending, best of 3\n\n| | µs |\n|---|---:|");
    for (name, run) in all.into_iter().filter(|(name, _)| name.contains(only)) {
        let best = (0..3).map(|_| run()).min().expect("three");
        println!("| {name} | {:.0} |", best.as_nanos() as f64 / 1e3);
    }
    println!();
}

/// Two threads with a shard each beside one thread: how many timers live and die per second of each thread's CPU
/// time. What the two take from each other (memory, caches) counts; what other processes take does not.
fn shards(rounds: usize) {
    let live = || {
        let mut random = Random(1);
        let (mut timers, mut now) = (Ours::new(), 0);
        let started = cpu_time();
        for _ in 0..2 {
            hour(&mut timers, &mut now, 1_000_000, &mut random, 0, true);
        }
        cpu_time() - started
    };
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let one = live();
        let two = std::thread::scope(|scope| {
            let others = [scope.spawn(live), scope.spawn(live)];
            let times = others.map(|other| other.join().expect("no panic"));
            times.into_iter().max().expect("two")
        });
        ratios.push(2.0 * one.as_secs_f64() / two.as_secs_f64());
    }
    println!(
        "two threads on two shards of 1m: {:.2} times one\n",
        median(ratios)
    );
}

/// For callgrind: `--toggle-collect='*bounded_step*' --dump-after='*bounded_step*'` shows each step's instructions.
fn count() {
    let mut random = Random(7);
    let mut wheel = timerwheel::Wheel::new(0);
    for _ in 0..1_000_000 {
        wheel.insert(1 + random.below(HOUR_MS), 0);
    }
    let mut steps = 1;
    while bounded_step(&mut wheel, HOUR_MS) {
        steps += 1;
    }
    println!("{steps} steps");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
