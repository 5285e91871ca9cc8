//! Floods: `cargo xtask soak ring` runs them with 100 million events each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ebpf_ring::{DropReason, RingReader, RingStats, Wait, WakeUp};
use rustix::event::{Timespec, epoll};

use super::{Flood, FloodRecord, perf};

/// Written by one run of the program in a flood.
const BURST: u32 = 10_000;
/// And where the reader shall catch up and sleep again and again.
const SMALL_BURST: u32 = 20;

/// How many events there are; some hundred thousand without a wish.
fn bursts_of(size: u32) -> u64 {
    let wish = std::env::var("MAINSTAY_EVENTS").ok();
    let events: u64 = wish.map_or(300_000, |wish| wish.parse().expect("a number of events"));
    events.div_ceil(size.into())
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
    let (bursts, started) = (bursts_of(BURST), Instant::now());
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
    let (bursts, started) = (bursts_of(BURST), Instant::now());
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

/// Everything was written, and nothing is left to read. The last record may be one that is lost: then
/// the ring was full, and this is asked later.
fn is_over(ring: &RingReader, events: u64) -> bool {
    let stats = ring.stats().expect("a sound ring");
    (stats.seen(), stats.pending) == (Some(events), 0)
}

fn drain_all(ring: &mut RingReader) {
    let drained = ring.drain(u64::MAX, |record| {
        FloodRecord::parse(record.bytes());
    });
    drained.expect("a sound ring");
}

/// After a lost wake-up nothing would ever wake again: the kernel wakes only a consumer that has
/// caught up. So a sleep that ends by its time is one.
#[test]
fn no_edge_is_lost() {
    const LONG: Timespec = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let flood = flood_or_skip!();
    let (bursts, started) = (bursts_of(SMALL_BURST), Instant::now());
    let (mut ring, events) = (flood.reader(), bursts * u64::from(SMALL_BURST));
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor is left");
    let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&poll, &ring, epoll::EventData::new_u64(1), edges).expect("a ring can be polled");
    let mut sleeps = 0u64;
    beside_writers(
        bursts,
        |writer| flood.run("write_records", SMALL_BURST, writer, 0),
        |_| loop {
            while ring.wait(Wait::Event).expect("a sound ring") {
                drain_all(&mut ring);
            }
            if is_over(&ring, events) {
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
    assert!(sleeps > 0, "it tests nothing");
    let account = account("edges", &stats, events, started);
    println!("{account}; {sleeps} sleeps, no wake-up lost");
}

/// As `no_edge_is_lost`, on tokio.
#[cfg(feature = "tokio")]
#[test]
fn no_await_sleeps_for_ever() {
    const LONG: Duration = Duration::from_secs(20);
    let flood = flood_or_skip!();
    let (bursts, started) = (bursts_of(SMALL_BURST), Instant::now());
    let events = bursts * u64::from(SMALL_BURST);
    let (ring, awaits) = beside_writers(
        bursts,
        |writer| flood.run("write_records", SMALL_BURST, writer, 0),
        |_| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut ring = ebpf_ring::AsyncReader::new(flood.reader()).expect("a runtime");
                let mut awaits = 0u64;
                while !is_over(ring.get_ref(), events) {
                    awaits += 1;
                    let ready = tokio::time::timeout(LONG, ring.ready()).await;
                    ready.expect("no wake-up is lost").expect("a sound ring");
                    drain_all(ring.get_mut());
                }
                (ring.into_inner(), awaits)
            })
        },
    );
    let stats = ring.stats().expect("a sound ring");
    let account = account("tokio", &stats, events, started);
    println!("{account}; {awaits} awaits, no wake-up lost");
}
