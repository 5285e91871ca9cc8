//! From a reader's close to the end of the wait that it ends, beside a bare eventfd's wake-up.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use ebpf_ring::{PerfOptions, PerfReader, RingReader, Wait};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::load::Load;

/// Long enough to fall asleep.
const ASLEEP_AFTER: Duration = Duration::from_micros(300);

/// A contender's times.
type Row = (&'static str, fn(&Load) -> Duration, Vec<Duration>);

pub(crate) fn table(rounds: usize) {
    let load = Load::new().expect("it was loaded before");
    let mut rows: [Row; 3] = [
        ("eventfd and poll", |_| bare(), Vec::new()),
        ("RingReader", ring, Vec::new()),
        ("PerfReader", |_| perf(), Vec::new()),
    ];
    for _ in 0..rounds {
        for (_, round, times) in &mut rows {
            times.push(round(&load));
        }
    }
    println!("### from a close to the end of the wait, {rounds} rounds\n");
    println!("| | p50 µs | p99 µs | p99.9 µs | most µs | over 1 ms |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (name, _, times) in &mut rows {
        times.sort_unstable();
        let at = |part: f64| times[((rounds as f64 * part) as usize).min(rounds - 1)];
        let [p50, p99, p999, most] = [0.5, 0.99, 0.999, 1.0].map(|p| at(p).as_secs_f64() * 1e6);
        let late = times.iter().filter(|t| **t > Duration::from_millis(1));
        println!(
            "| {name} | {p50:.1} | {p99:.1} | {p999:.1} | {most:.1} | {} |",
            late.count()
        );
    }
    println!();
}

/// How long after `wake` began a sleeping `wait` is over.
fn round(wait: impl FnOnce() + Send, wake: impl FnOnce()) -> Duration {
    let about_to_wait = Barrier::new(2);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            about_to_wait.wait();
            wait();
            Instant::now()
        });
        about_to_wait.wait();
        std::thread::sleep(ASLEEP_AFTER);
        let started = Instant::now();
        wake();
        let awake = waiting.join().expect("no panic");
        awake.saturating_duration_since(started)
    })
}

fn bare() -> Duration {
    let event = eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor is left");
    let wait = || {
        let mut polled = [PollFd::new(&event, PollFlags::IN)];
        poll(&mut polled, None).expect("it can be waited for");
    };
    let wake = || {
        rustix::io::write(&event, &1u64.to_ne_bytes()).expect("it has room");
    };
    round(wait, wake)
}

fn ring(load: &Load) -> Duration {
    let mut reader = RingReader::from_map(&load.ring()).expect("a ring");
    let closer = reader.closer().expect("a descriptor is left");
    let wait = || assert!(!reader.wait(Wait::forever()).expect("a sound ring"));
    round(wait, || closer.close())
}

fn perf() -> Duration {
    let options = PerfOptions {
        pages: 1,
        ..PerfOptions::default()
    };
    let mut reader = PerfReader::open(options).expect("perf buffers");
    let closer = reader.closer().expect("a descriptor is left");
    let wait = || assert!(!reader.wait(Wait::forever()).expect("sound buffers"));
    round(wait, || closer.close())
}
