//! From a record's writing to its reading: asleep, awake and in an event loop, at three rates.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ebpf_ring::{RingReader, Wait};
use hdrhistogram::Histogram;
use rustix::event::epoll;

use crate::load::{Load, SIZES, WakeUps};
use crate::{cpu_time, first_word, median};

const STAY: Duration = Duration::from_secs(1);

/// How the reader waits.
#[derive(Clone, Copy)]
enum Way {
    Block,
    Spin,
    /// Edge-triggered epoll of the bench's own.
    Event,
}

const WAYS: [(&str, Way); 3] = [
    ("Block", Way::Block),
    ("Spin", Way::Spin),
    ("Event, epoll", Way::Event),
];

/// From one event to the next.
const RATES: [(&str, Duration); 3] = [
    ("1,000/s", Duration::from_millis(1)),
    ("100,000/s", Duration::from_micros(10)),
    ("as fast as it goes", Duration::ZERO),
];

struct Row {
    /// p50, p99, p99.9 in microseconds.
    latency: [f64; 3],
    cpu: f64,
    records: f64,
}

pub(crate) fn table(rounds: usize) {
    println!("### from writing to reading\n");
    println!(
        "| | rate | records/s | p50 µs | p99 µs | p99.9 µs | reader's CPU % |\n|---|---|---:|---:|---:|---:|---:|"
    );
    for (rate, distance) in RATES {
        let mut rows: [Vec<Row>; WAYS.len()] = std::array::from_fn(|_| Vec::new());
        for round in 0..rounds {
            for turn in 0..WAYS.len() {
                let at = (turn + round) % WAYS.len();
                rows[at].push(stay(WAYS[at].1, distance));
            }
        }
        for ((name, _), rows) in WAYS.iter().zip(&rows) {
            let middle = |of: &dyn Fn(&Row) -> f64| median(rows.iter().map(of).collect());
            println!(
                "| {name} | {rate} | {:.0} | {:.1} | {:.1} | {:.1} | {:.0} |",
                middle(&|row| row.records),
                middle(&|row| row.latency[0]),
                middle(&|row| row.latency[1]),
                middle(&|row| row.latency[2]),
                middle(&|row| row.cpu),
            );
        }
    }
    println!();
}

/// A writer and a reader for a second.
fn stay(way: Way, distance: Duration) -> Row {
    let load = Load::new().expect("it was loaded before");
    let mut ring = RingReader::from_map(&load.ring()).expect("a ring");
    let closer = ring.closer().expect("a descriptor is left");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&mut ring, way, &is_over));
        write(&load, distance);
        is_over.store(true, Ordering::Release);
        closer.close();
        // The event loop knows no closer: a last record wakes it.
        load.write(&SIZES[0], 1, WakeUps::AsNeeded);
        reader.join().expect("no panic")
    })
}

/// One record a system call, at equal distances.
fn write(load: &Load, distance: Duration) {
    let started = Instant::now();
    let mut next = started;
    while started.elapsed() < STAY {
        load.write(&SIZES[0], 1, WakeUps::AsNeeded);
        next += distance;
        let left = next.saturating_duration_since(Instant::now());
        // A sleep is as long as a timer's slack at least.
        if left > Duration::from_micros(200) {
            std::thread::sleep(left - Duration::from_micros(100));
        }
        while Instant::now() < next {
            std::hint::spin_loop();
        }
    }
}

fn read(ring: &mut RingReader, way: Way, is_over: &AtomicBool) -> Row {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor is left");
    let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&poll, &*ring, epoll::EventData::new_u64(0), edges).expect("a ring can be polled");
    let mut histogram = Histogram::<u64>::new(3).expect("three digits");
    let (cpu, started) = (cpu_time(), Instant::now());
    let mut events = Vec::with_capacity(4);
    while !is_over.load(Ordering::Acquire) {
        match way {
            Way::Block => drop(ring.wait(Wait::forever())),
            Way::Spin => drop(ring.wait(Wait::spin())),
            Way::Event if !ring.wait(Wait::Event).expect("a sound ring") => {
                events.clear();
                let spare = rustix::buffer::spare_capacity(&mut events);
                let _ = epoll::wait(&poll, spare, None);
            }
            Way::Event => {}
        }
        let drained = ring.drain(1_000, |record| {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let now = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
            let late = now.saturating_sub(first_word(record.bytes()));
            histogram.record(late).expect("it grows");
        });
        drained.expect("a sound ring");
    }
    let elapsed = started.elapsed().as_secs_f64();
    Row {
        latency: [0.5, 0.99, 0.999].map(|q| histogram.value_at_quantile(q) as f64 / 1e3),
        cpu: (cpu_time() - cpu).as_secs_f64() / elapsed * 100.0,
        records: histogram.len() as f64 / elapsed,
    }
}
