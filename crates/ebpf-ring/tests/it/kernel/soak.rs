//! Floods: `cargo xtask soak ring` runs them with 100 million events each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ebpf_ring::{DropReason, RingReader, RingStats, Wait, WakeUp};
use rustix::event::{Timespec, epoll};

use super::{Flood, FloodRecord, perf};

/// Written by one run of the program.
const BURST: u32 = 10_000;

/// How many events a flood has; some hundred thousand without a wish.
fn bursts() -> u64 {
    let wish = std::env::var("MAINSTAY_EVENTS").ok();
    let events: u64 = wish.map_or(300_000, |wish| wish.parse().expect("a number of events"));
    events.div_ceil(BURST.into())
}

/// Two writers at once, `bursts` together, beside what reads until both are done.
fn beside_writers<T: Send>(
    bursts: u64,
    write: impl Fn(u32) + Sync,
    read: impl FnOnce(&AtomicBool) -> T + Send,
) -> T {
    let (left, done) = (
        std::sync::atomic::AtomicU64::new(bursts),
        AtomicBool::new(false),
    );
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| read(&done));
        let writers = [1, 2].map(|writer| {
            let (left, write) = (&left, &write);
            scope.spawn(move || {
                let take = |left: u64| left.checked_sub(1);
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                    .is_ok()
                {
                    write(writer);
                }
            })
        });
        for writer in writers {
            writer.join().expect("no panic");
        }
        done.store(true, Ordering::Release);
        reading.join().expect("no panic")
    })
}

/// The account, which has to be exact, in words.
fn account(name: &str, stats: &RingStats, events: u64, started: Instant) -> String {
    assert_eq!(stats.seen(), Some(events));
    assert_eq!(stats.is_balanced(), Some(true), "{stats:?}");
    assert!(stats.delivered > 0, "it tests nothing: {stats:?}");
    let reasons = DropReason::ALL.map(|reason| {
        let lost = stats.dropped_for(reason).unwrap_or(0);
        format!("{} {lost}", reason.as_str())
    });
    format!(
        "{name}: {events} seen = {} delivered + {} pending + {} dropped ({}), in {:.1} s",
        stats.delivered,
        stats.pending,
        stats.dropped().unwrap_or(0),
        reasons.join(", "),
        started.elapsed().as_secs_f64()
    )
}

/// The reader stops before the writers do, so that the last losses come when nobody reads.
#[test]
fn a_flood_of_a_ring_balances() {
    let flood = flood_or_skip!();
    let (bursts, started) = (bursts(), Instant::now());
    let mut ring = flood.reader();
    beside_writers(
        bursts,
        |writer| flood.run("write_records", BURST, writer, 0),
        |done| {
            while !done.load(Ordering::Acquire) {
                let wait = Wait::up_to(Duration::from_millis(5));
                ring.wait(wait).expect("a sound ring");
                let drained = ring.drain(100_000, |record| {
                    FloodRecord::parse(record.bytes());
                });
                drained.expect("a sound ring");
            }
        },
    );
    // The trailing losses: more than the ring holds, and nobody reads.
    flood.write(BURST);
    let stats = ring.stats().expect("a sound ring");
    assert!(stats.pending > 0 && stats.dropped() > Some(0), "{stats:?}");
    let events = (bursts + 1) * u64::from(BURST);
    println!("{}", account("ring", &stats, events, started));
}

#[test]
fn a_flood_of_perf_buffers_balances() {
    use perf::Flood;
    let flood = flood_or_skip!();
    let (bursts, started) = (bursts(), Instant::now());
    let mut buffers = flood.reader(64, WakeUp::Bytes(64 * 1024));
    let write = |writer: u32| flood.write_by(BURST.into(), writer.into());
    beside_writers(bursts, write, |done| {
        while !done.load(Ordering::Acquire) {
            let wait = Wait::up_to(Duration::from_millis(5));
            buffers.wait(wait).expect("sound buffers");
            let drained = buffers.drain(100_000, |_, record| {
                perf::parse(record);
            });
            drained.expect("sound buffers");
        }
    });
    // As above; the buffer of one CPU holds 6,553 records.
    write(1);
    let stats = buffers.stats().expect("sound buffers");
    assert!(stats.pending > 0 && stats.dropped() > Some(0), "{stats:?}");
    let events = (bursts + 1) * u64::from(BURST);
    println!("{}", account("perf", &stats, events, started));
}

/// After a lost wake-up nothing would ever wake again: the kernel wakes only a consumer that has
/// caught up. So a sleep that ends by its time with records in the ring is one.
#[test]
fn no_edge_is_lost_in_a_flood() {
    const LONG: Timespec = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let flood = flood_or_skip!();
    let (bursts, started) = (bursts(), Instant::now());
    let mut ring: RingReader = flood.reader();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor is left");
    let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&poll, &ring, epoll::EventData::new_u64(1), edges).expect("a ring can be polled");
    let (mut sleeps, events) = (0u64, bursts * u64::from(BURST));
    // The last record may be one that is lost: then the ring was full, and this looks later.
    let is_all = |ring: &RingReader| {
        let stats = ring.stats().expect("a sound ring");
        (stats.seen(), stats.pending) == (Some(events), 0)
    };
    beside_writers(
        bursts,
        |writer| flood.run("write_records", BURST, writer, 0),
        |_| loop {
            while ring.wait(Wait::Event).expect("a sound ring") {
                let drained = ring.drain(u64::MAX, |record| {
                    FloodRecord::parse(record.bytes());
                });
                drained.expect("a sound ring");
            }
            if is_all(&ring) {
                return;
            }
            sleeps += 1;
            let mut found = Vec::with_capacity(4);
            let spare = rustix::buffer::spare_capacity(&mut found);
            let woken = epoll::wait(&poll, spare, Some(&LONG)).expect("it can be waited for");
            assert!(woken > 0, "a wake-up was lost after {sleeps} sleeps");
        },
    );
    let stats = ring.stats().expect("a sound ring");
    assert_eq!(stats.pending, 0);
    assert!(sleeps > 0, "it tests nothing");
    let account = account("edges", &stats, events, started);
    println!("{account}; {sleeps} sleeps, no wake-up lost");
}
